"""`python -m common.tools check`: all parts of the preflight on one screen."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import monai.bundle
import torch

from ...weights import load_segmenter
from .data import check_data
from .memory import check_memory
from .outputs import check_outputs
from .overrides import check_overrides
from .run_config import RunConfig
from .sections import REFUSALS, Section, quiet, root_cause
from .weights import check_weights

logger = logging.getLogger(__name__)

# Options of `monai.bundle run` that are no part of the configuration.
RUN_OPTIONS = {
    name
    for name, parameter in inspect.signature(monai.bundle.run).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
}


def check(config_file: str | Sequence[str], check_cases: int = 3, **overrides: Any) -> None:
    """Say before a run what it reads, needs and writes, and everything that it would fail of.

    Takes what `python -m monai.bundle run` takes; nothing is trained, segmented or written. All files are looked for,
    all headers read, and a few cases in full; weights are loaded; memory is estimated from the sizes of all tensors of
    one iteration, without computing it. Labels out of range in cases that were not read are found by the run itself,
    which reads all before its first iteration.

    A configuration is code: checking it evaluates a part of it. Check only what you would run.

    Args:
        config_file: Configuration, or several, later ones over earlier ones: "['train.json', 'small.json']".
        check_cases: Cases of each list that are read in full, evenly spread.
        **overrides: As for `monai.bundle run`: --max_epochs 2, --train#trainer#max_epochs 2.

    Raises:
        FileNotFoundError: If a configuration does not exist.
        ValueError: If the run would fail; each problem is a line.
    """
    start = time.perf_counter()
    if not isinstance(check_cases, int) or check_cases < 1:
        raise ValueError(f"check_cases must be a number of cases, at least 1; found {check_cases!r}.")
    options = {name: overrides.pop(name) for name in list(overrides) if name in RUN_OPTIONS}
    if options.get("args_file"):
        given = monai.bundle.ConfigParser.load_config_file(str(options["args_file"]))
        overrides = {**{key: value for key, value in given.items() if key not in RUN_OPTIONS}, **overrides}
    with quiet():
        sections = list(_examine(RunConfig(config_file, overrides), options.get("tracking"), check_cases))
    for line in (line for section in sections for line in section.printed()):
        logger.info(line)
    problems = [problem for section in sections for problem in section.problems]
    seconds = time.perf_counter() - start
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}, the run would fail:\n  {listed}")
    num_warnings = sum(len(section.warnings) for section in sections)
    logger.info("no problem found, %d warnings, in %.1f s", num_warnings, seconds)


def _examine(config: RunConfig, tracking: object, check_cases: int) -> Iterator[Section]:
    """Yield the parts of the screen; behind keys that mean nothing, the rest is still worth to be known."""
    yield check_overrides(config, tracking)
    device = _device(config)
    if isinstance(device, Section):
        yield device
        return
    try:
        data, scans = check_data(config, check_cases)
        yield data
        weights = check_weights(config)
        yield weights
        # a network that is made from weights does not exist without them
        if not (weights.problems and any(config.components(load_segmenter))):
            yield check_memory(config, scans, device)
        yield check_outputs(config, scans)
        for key in config.components(monai.bundle.run):
            for section in _examine(_nested(config, key), None, check_cases):
                section.title = f"> {section.title}"
                yield section
    except REFUSALS as error:
        yield Section("config", problems=[f"{type(error).__name__}: {root_cause(error)}"])


def _device(config: RunConfig) -> torch.device | Section:
    """Return the device of the run, or what is wrong with it."""
    try:
        device = torch.device(config.value("device", "cpu"))
    except REFUSALS as error:
        return Section("device", problems=[f"device: {root_cause(error)}. Give cpu, cuda or cuda:0."])
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        return Section(
            "device",
            problems=[f"device is {device}, but PyTorch finds {count} CUDA devices. Leave --device out, or give cpu."],
        )
    return device


def _nested(config: RunConfig, key: str) -> RunConfig:
    """Return the configuration that a configuration runs."""
    arguments = config.arguments(key)
    overrides = {name: value for name, value in arguments.items() if name not in RUN_OPTIONS}
    return RunConfig(arguments["config_file"], overrides)
