"""Does an iteration fit into the memory of the device, and the kept scans into that of the machine?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from ignite.engine import Engine
from monai.data import CacheDataset
from monai.engines import Trainer
from monai.inferers import SlidingWindowInferer
from torch import nn

from ...engines import ContextMasking, PairPrepareBatch, PromptPrepareBatch
from ...inferers.adaptation import AdaptationInferer
from ...networks.promptable import PromptSegmenter
from .case_headers import Scans
from .device import Capacity, device_capacity, host_capacity
from .live_memory import inference_bytes, training_bytes
from .run_config import RunConfig
from .sections import REFUSALS, Section, root_cause

__all__ = ["check_memory"]

GIB = 1 << 30
# The estimate leaves scratch memory and the caching of the allocator out; above this share a run is in danger.
TIGHT = 0.8
# Keys that say how large a sample is, in the order in which they count, and how many of them are taken at once.
SIZE_KEYS = ("roi_size", "patch_size", "image_size")
COUNT_KEYS = ("batch_size", "num_crops", "num_slices", "sw_batch_size", "slice_batch_size")


class _Step(NamedTuple):
    """One iteration: what runs, what goes in, and which keys make it smaller."""

    words: str
    network: nn.Module
    inputs: list[torch.Tensor]
    num_passes: int
    keys: list[str]


def check_memory(config: RunConfig, scans: Sequence[Scans], device: torch.device) -> Section:
    """Estimate the memory of one iteration and of the scans that are kept, and compare with what there is.

    Args:
        config: The run.
        scans: What the run reads.
        device: Where it runs.
    """
    section = Section("memory")
    is_training = any(True for _ in config.components(Trainer))
    adapts = any(True for _ in config.components(AdaptationInferer))
    try:
        step = _training_step(config) if is_training else _window(config)
        if is_training:
            peak, fixed = training_bytes(step.network, step.inputs, step.num_passes, _optimizer_states(config))
        else:
            peak, fixed = inference_bytes(step.network, step.inputs, adapts)
    except REFUSALS as error:
        section.problems.append(f"The network cannot take one iteration of this size: {_first_line(error)}")
        return section
    capacity = device_capacity(device)
    shape = " x ".join(str(n) for n in step.inputs[0].shape)
    times = f", {step.num_passes} times" if step.num_passes > 1 else ""
    section.lines += [
        f"{step.words} of {shape}{times}: about {_gib(peak)}, of which {_gib(fixed)} whatever the size; "
        f"{_gib(capacity.free)} of {_gib(capacity.total)} are free on {capacity.name}",
        "estimate: sizes of all tensors of this iteration in float32, nothing computed; without scratch memory",
    ]
    _judge(section, step, peak, fixed, capacity)
    if not is_training:
        _add_volume(section, config, scans)
    _add_cache(section, config, scans)
    return section


def _judge(section: Section, step: _Step, peak: int, fixed: int, capacity: Capacity) -> None:
    """Refuse what cannot fit, warn of what hardly does, and say what to lower."""
    if peak <= TIGHT * capacity.free:
        return
    batch = step.inputs[0].shape[-step.inputs[0].dim() + (1 if step.inputs[0].dim() == 6 else 0)]
    fitting = int((TIGHT * capacity.free - fixed) / max((peak - fixed) / batch, 1))
    advice = f"Lower {' or '.join(step.keys)}"
    advice += f"; about {fitting} of the {batch} samples would fit" if 0 < fitting < batch else ""
    text = f"{step.words} needs about {_gib(peak)}, and {_gib(capacity.free)} are free on {capacity.name}. {advice}."
    # mixed precision on a GPU halves most of it; on the CPU the estimate is what is taken
    allowed = capacity.total * (2 if capacity.name != "CPU" else 1)
    (section.problems if peak > allowed else section.warnings).append(text)


def _training_step(config: RunConfig) -> _Step:
    trainer = next(config.components(Trainer))
    network = config.value(f"{trainer}#network")
    config.value("trainable")  # freezes what is not trained, where a configuration does so
    batch = int(config.value("batch_size", 1))
    keys = _keys(config, ("batch_size", "num_crops", "num_slices"))
    if any(True for _ in config.components(PromptPrepareBatch)):
        count = batch * int(config.value("num_slices", 1))
        return _Step("a training step", network, _prompts(network, count, int(config.value("max_boxes", 1))), 1, keys)
    size = _size(config)
    count = batch * int(config.value("num_crops", 1))
    if any(True for _ in config.components(PairPrepareBatch)):
        patches = 4 + int(config.value("num_position_patches", 0))
        inputs = torch.empty(patches, count, _channels(config), *size, device="meta")
        return _Step("a training step", network, [inputs], 1, keys)
    num_passes = 2 if any(True for _ in config.components(ContextMasking)) else 1
    inputs = torch.empty(count, _channels(config), *size, device="meta")
    return _Step("a training step", network, [inputs], num_passes, keys)


def _window(config: RunConfig) -> _Step:
    evaluator = next(key for key in config.components(Engine))
    network = config.value(f"{evaluator}#network")
    keys = _keys(config, ("sw_batch_size", "slice_batch_size"))
    if isinstance(network, PromptSegmenter):
        count = int(config.value("slice_batch_size", 1))
        return _Step("a batch of slices", network, _prompts(network, count, 1), 1, keys)
    words = "an image" if "image_size" in config.parser else "a batch of windows"
    count = int(config.value("sw_batch_size", 1))
    return _Step(words, network, [torch.empty(count, _channels(config), *_size(config), device="meta")], 1, keys)


def _prompts(network: PromptSegmenter, num_slices: int, num_boxes: int) -> list[torch.Tensor]:
    """Slices, boxes, and which slice each box lies on."""
    side = network.image_size
    slices = torch.empty(num_slices, 1, side, side, device="meta")
    boxes = torch.empty(num_slices * num_boxes, 4, device="meta")
    return [slices, boxes, torch.empty(len(boxes), dtype=torch.int64, device="meta")]


def _size(config: RunConfig) -> tuple[int, ...]:
    for key in SIZE_KEYS:
        if key in config.parser:
            size = config.value(key)
            return (int(size), int(size)) if isinstance(size, (int, float)) else tuple(int(n) for n in size)
    raise ValueError(f"the configuration has none of {', '.join(SIZE_KEYS)}, so the size of a sample is unknown.")


def _keys(config: RunConfig, counts: Sequence[str]) -> list[str]:
    """Keys that make an iteration smaller, with their values."""
    names = [name for name in (*counts, *SIZE_KEYS[:1]) if name in config.parser]
    return [f"{name} (now {config.value(name)})" for name in names] or ["the size of the network"]


def _channels(config: RunConfig) -> int:
    return int(config.value("network_def#in_channels", 1))


def _optimizer_states(config: RunConfig) -> int:
    for key in config.components(torch.optim.Optimizer):
        is_adam = issubclass(config.targets[key], (torch.optim.Adam, torch.optim.AdamW))
        return 2 if is_adam else int(bool(config.value(f"{key}#momentum", 0)))
    return 2


def _add_volume(section: Section, config: RunConfig, scans: Sequence[Scans]) -> None:
    """Say what the logits of the largest scan take, which a sliding window puts together at full size."""
    sizes = [size for group in scans for size in group.voxels(config.value("spacing_mm"))]
    if not sizes or not any(True for _ in config.components(SlidingWindowInferer)):
        return
    classes = int(config.value("num_classes", 1))
    need = 3 * 4 * classes * max(sizes)  # sum over the windows, its weights spread over classes, probabilities
    section.lines.append(f"the largest scan: about {_gib(need)} for the {classes} classes of its {max(sizes):,} voxels")
    host = host_capacity()
    if need > host.free:
        section.warnings.append(
            f"the probabilities of the largest scan need about {_gib(need)}, and {_gib(host.free)} are free: give "
            f"spacing_mm, so that scans are segmented on a coarser grid."
        )


def _add_cache(section: Section, config: RunConfig, scans: Sequence[Scans]) -> None:
    """Say what is kept in the memory of the machine between epochs."""
    rate = float(config.value("cache_rate", 0.0))
    if not rate or not any(True for _ in config.components(CacheDataset)):
        return
    side = config.value("image_size")
    need = 0
    for group in scans:
        counts = group.voxels(config.value("spacing_mm"))
        if isinstance(side, int):
            counts = [3 * side * side] * len(group.cases)
        elif counts:  # of those without a readable header, take the mean
            counts += [math.ceil(sum(counts) / len(counts))] * (len(group.cases) - len(counts))
        need += int(rate * 4 * sum(counts) * len(group.keys))
    host = host_capacity()
    section.lines.append(f"scans kept in memory (cache_rate {rate:g}): at most {_gib(need)} of {_gib(host.free)} free")
    if need > TIGHT * host.free:
        fitting = math.floor(100 * rate * TIGHT * host.free / need) / 100
        text = f"the scans that are kept need up to {_gib(need)}, and {_gib(host.free)} are free"
        texts = section.problems if need > host.total else section.warnings
        texts.append(f"{text}. --cache_rate {fitting} would fit.")


def _gib(count: float) -> str:
    if count >= 100 * GIB:
        return f"{count / GIB:,.0f} GiB"
    return f"{count / GIB:.3g} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.3g} MiB"


def _first_line(error: BaseException) -> str:
    return root_cause(error).partition("\n")[0]
