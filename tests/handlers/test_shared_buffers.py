"""Two processes with different running statistics validate with those of the first."""

from __future__ import annotations

import multiprocessing

import torch
import torch.distributed as dist
from ignite.engine import Engine

from common.handlers import SharedBuffers


def validate(rank, store, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    torch.nn.init.constant_(network[0].weight, float(rank))
    network[1].running_mean.fill_(3.0 + rank)
    network[1].num_batches_tracked.fill_(10 + rank)
    engine = Engine(lambda engine, batch: network[1].running_mean.tolist())
    SharedBuffers(network).attach(engine)
    engine.run([0])
    results.put((rank, engine.state.output, int(network[1].num_batches_tracked), network[0].weight.mean().item()))
    dist.destroy_process_group()


def test_buffers_are_those_of_process_0_and_weights_stay(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=validate, args=(rank, tmp_path / "store", results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found == [(0, [3.0, 3.0], 10, 0.0), (1, [3.0, 3.0], 10, 1.0)]
