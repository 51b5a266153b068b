#!/usr/bin/env bash
# Start the training of a bundle with one process per GPU, alone, under Slurm or in a PyTorchJob; see several_gpus.md.
# Usage: launch_training.sh CONFIG_FILES [OPTIONS OF THE BUNDLE]
set -euo pipefail

if (($# == 0)); then
    echo "error: give the configurations, such as \"['train.json','multi_gpu_train.json']\"" >&2
    exit 2
fi
configs=$1
shift
if [[ $configs != *multi_gpu_train.json* ]]; then
    echo "error: $configs lacks multi_gpu_train.json, without which every process would train alone" >&2
    exit 2
fi

# A PyTorchJob counts pods in WORLD_SIZE and RANK; torchrun sets these anew for its processes.
nodes=${NNODES:-${SLURM_NNODES:-${WORLD_SIZE:-1}}}
node=${NODE_RANK:-${SLURM_NODEID:-${RANK:-0}}}
unset RANK WORLD_SIZE

count_gpus() {
    local count=0
    if command -v nvidia-smi >/dev/null; then
        count=$(nvidia-smi --list-gpus | wc -l)
    fi
    echo $((count > 0 ? count : 1))
}
processes=${GPUS_PER_NODE:-${SLURM_GPUS_ON_NODE:-$(count_gpus)}}

address=${MASTER_ADDR:-}
if [[ -z $address && -n ${SLURM_JOB_NODELIST:-} ]]; then
    address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
fi
if [[ -z $address ]]; then
    if ((nodes > 1)); then
        echo "error: $nodes machines need MASTER_ADDR, the name of machine 0" >&2
        exit 2
    fi
    address=127.0.0.1
fi

echo "machine $node of $nodes, $processes processes, meeting at $address:${MASTER_PORT:-29500}"
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$nodes" --node_rank "$node" --nproc_per_node "$processes" \
    --master_addr "$address" --master_port "${MASTER_PORT:-29500}" \
    -m monai.bundle run --config_file "$configs" "$@"
