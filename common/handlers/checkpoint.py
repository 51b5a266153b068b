"""Checkpoints of training: best weights, last weights, and all that a resumed run needs."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch.nn.parallel import DistributedDataParallel

from ..files import write_atomically

STATE_FILE = "training_state.pt"

_logger = logging.getLogger(__name__)


class TrainingCheckpoint:
    """Write three files after every epoch, and take up a run where it stopped.

    - `model.pt`: weights with the best key metric so far, a bare state dict (the last weights without an evaluator);
    - `model_last.pt`: weights of the last epoch, a bare state dict;
    - `training_state.pt`: weights, optimizer, scheduler, epoch, best metric, random states.

    Attach it behind the `ValidationHandler`, so that it sees the metric of the epoch.

    Args:
        save_dir: Folder of the three files.
        network: Its weights are saved without the prefix of `DistributedDataParallel`.
        objects: Further objects with `state_dict` and `load_state_dict`, by name, such as optimizer and scheduler.
        generators: Objects of the same kind whose state is what they draw next, such as `VolumeFusion`.
        evaluator: Engine whose key metric decides what is best; None keeps the last weights as the best.
        resume: Whether to continue from `training_state.pt`.

    Raises:
        FileNotFoundError: At the start of training, if `resume` is set and there is nothing to resume.

    Note:
        In a distributed run every process resumes and process 0 alone writes; its random states are its own, the other
        processes keep theirs, so that no two draw the same. What loader processes draw (crops, flips) is seeded anew at
        every start, so a resumed run does not repeat an uninterrupted one number by number.
    """

    def __init__(
        self,
        save_dir: str | Path,
        network: torch.nn.Module,
        objects: Mapping[str, Any],
        generators: Mapping[str, Any] | None = None,
        evaluator: Engine | None = None,
        resume: bool = False,
    ) -> None:
        self.save_dir = Path(save_dir)
        self.network = network.module if isinstance(network, DistributedDataParallel) else network
        self.objects = dict(objects)
        self.generators = dict(generators or {})
        self.evaluator = evaluator
        self.resume = resume
        self.best_metric: float | None = None
        self.validated_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self._ensure_model)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._mark_validated, engine)

    def _mark_validated(self, _evaluator: Engine, trainer: Engine) -> None:
        self.validated_epoch = trainer.state.epoch

    def _is_best(self, engine: Engine) -> bool:
        if self.evaluator is None:
            return True
        if self.validated_epoch != engine.state.epoch:
            return False
        name = self.evaluator.state.key_metric_name
        metric = float(self.evaluator.state.metrics[name])
        if math.isnan(metric):
            _logger.warning("Epoch %d: %s is NaN and cannot be the best.", engine.state.epoch, name)
            return False
        if self.best_metric is not None and metric <= self.best_metric:
            return False
        self.best_metric = metric
        _logger.info("Epoch %d: best %s so far, %.4f.", engine.state.epoch, name, metric)
        return True

    def _ensure_model(self, _engine: Engine) -> None:
        if self.evaluator is not None and self.best_metric is None and _rank() == 0:
            _logger.warning("No validation gave a score: model.pt holds the last weights, not the best.")
            write_atomically(self.network.state_dict(), self.save_dir / "model.pt")

    def save(self, engine: Engine) -> None:
        """Write the files for the epoch that has just ended."""
        is_best = self._is_best(engine)
        if _rank() > 0:
            return
        weights = self.network.state_dict()
        if is_best:
            write_atomically(weights, self.save_dir / "model.pt")
        write_atomically(weights, self.save_dir / "model_last.pt")
        state = {
            "network": weights,
            "objects": {name: obj.state_dict() for name, obj in self.objects.items()},
            "generators": {name: obj.state_dict() for name, obj in self.generators.items()},
            "epoch": engine.state.epoch,
            "best_metric": self.best_metric,
            "scaler": None if (scaler := _scaler(engine)) is None else scaler.state_dict(),
            "random": _random_states(),
        }
        write_atomically(state, self.save_dir / STATE_FILE)

    def load(self, engine: Engine) -> None:
        """Continue from `training_state.pt` where `resume` is set."""
        if not self.resume:
            return
        path = self.save_dir / STATE_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"resume is set, but {path} does not exist; start without --resume, or give the folder of the "
                f"interrupted run with --ckpt_dir."
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
        stored, own = ({*s["objects"], *s["generators"]} for s in (state, vars(self)))
        if stored != own:
            raise ValueError(
                f"{path} holds the states of {sorted(stored)}, this run has {sorted(own)}; resume with the "
                f"configuration of the interrupted run."
            )
        self.network.load_state_dict(state["network"])
        for name, obj in self.objects.items():
            obj.load_state_dict(state["objects"][name])
        engine.state.epoch = state["epoch"]
        engine.state.iteration = engine.state.epoch * engine.state.epoch_length
        self.best_metric = state["best_metric"]
        if (scaler := _scaler(engine)) is not None and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        if _rank() == 0:
            _set_random_states(state["random"])
            for name, generator in self.generators.items():
                generator.load_state_dict(state["generators"][name])
        _logger.info("Resumed from %s after epoch %d.", path, engine.state.epoch)


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _scaler(engine: Engine) -> torch.amp.GradScaler | None:
    """The gradient scaler of a MONAI trainer with mixed precision."""
    return getattr(engine, "scaler", None)


def _random_states() -> dict[str, Any]:
    """States of the global generators, in types that load with `weights_only=True`."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - MONAI draws from it
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "python": (version, list(internal), gauss_next),
    }


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
