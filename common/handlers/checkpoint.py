"""Checkpoints of training: best weights, last weights, and all that a resumed run needs."""

from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch.nn.parallel import DistributedDataParallel

from ..files import remove_leftovers, require_writable, write_atomically
from ..weights.checkpoint import READ_ERRORS, complaint_of

STATE_FILE = "training_state.pt"
BEST_FILE = "model.pt"
LAST_FILE = "model_last.pt"
STATE_KEYS = ("network", "objects", "epoch", "best_metric", "scaler")

_logger = logging.getLogger(__name__)


class TrainingCheckpoint:
    """Write three files after every epoch, and take up a run where it stopped.

    - `model.pt`: weights with the best key metric so far, a bare state dict (the last weights without an evaluator);
    - `model_last.pt`: weights of the last epoch, a bare state dict;
    - `training_state.pt`: weights, optimizer, scheduler, epoch, best metric.

    Attach it behind the `ValidationHandler`, so that it sees the metric of the epoch, and give the trainer
    `EpochSeeds`: then a run that was interrupted anywhere, by any means, ends with the weights of one that was not, bit
    for bit on a CPU. Each file replaces its predecessor in one step, and `training_state.pt` is the last of the three:
    an epoch that is killed before has not happened, and the resumed run does it again, with the same result.

    Args:
        save_dir: Folder of the three files.
        network: Its weights are saved without the prefix of `DistributedDataParallel`.
        objects: Further objects with `state_dict` and `load_state_dict`, by name, such as optimizer and scheduler.
        evaluator: Engine whose key metric decides what is best; None keeps the last weights as the best.
        resume: Whether to continue from `training_state.pt`.

    Raises:
        FileNotFoundError: At the start of training, if `resume` is set and there is nothing to resume.
        ValueError: At the start of training, if `training_state.pt` is damaged or of another configuration.
        FloatingPointError: After an epoch that left NaN or infinity in the weights; the files stay as they are.
        OSError: If the folder cannot be written, at the start, or a file later on; the files of the epoch before are
            whole.

    Note:
        In a distributed run every process resumes and process 0 alone writes.
    """

    def __init__(
        self,
        save_dir: str | Path,
        network: torch.nn.Module,
        objects: Mapping[str, Any],
        evaluator: Engine | None = None,
        resume: bool = False,
    ) -> None:
        self.save_dir = Path(save_dir)
        self.network = network.module if isinstance(network, DistributedDataParallel) else network
        self.objects = dict(objects)
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
            write_atomically(self.network.state_dict(), self.save_dir / BEST_FILE)

    def save(self, engine: Engine) -> None:
        """Write the files for the epoch that has just ended."""
        self._refuse_broken_weights(engine.state.epoch)
        is_best = self._is_best(engine)
        if _rank() > 0:
            return
        weights = self.network.state_dict()
        if is_best:
            write_atomically(weights, self.save_dir / BEST_FILE)
        write_atomically(weights, self.save_dir / LAST_FILE)
        state = {
            "network": weights,
            "objects": {name: obj.state_dict() for name, obj in self.objects.items()},
            "epoch": engine.state.epoch,
            "best_metric": self.best_metric,
            "scaler": None if (scaler := _scaler(engine)) is None else scaler.state_dict(),
        }
        # last: until it is there, the epoch has not happened
        write_atomically(state, self.save_dir / STATE_FILE)

    def _refuse_broken_weights(self, epoch: int) -> None:
        """Keep the last step of an epoch from replacing good weights: its loss was still computed by these."""
        broken = [name for name, value in self.network.named_parameters() if not value.isfinite().all()]
        if broken:
            raise FloatingPointError(
                f"Weights must be finite, but {len(broken)} tensors hold NaN or infinity after epoch {epoch}, "
                f"{broken[0]} among them: the last step was too long. The files of the epoch before are kept in "
                f"{self.save_dir}; go on with --resume True and a smaller --learning_rate."
            )

    def load(self, engine: Engine) -> None:
        """See that the folder can be written, clear away what a killed run left, and continue if `resume` is set."""
        if _rank() == 0:
            require_writable(self.save_dir)
            for leftover in remove_leftovers(*(self.save_dir / name for name in (BEST_FILE, LAST_FILE, STATE_FILE))):
                _logger.info("Removed %s, half written by a run that was killed.", leftover)
        if not self.resume:
            return
        path = self.save_dir / STATE_FILE
        state = self._read_state(path)
        self._take_over(state, path)
        engine.state.epoch = state["epoch"]
        engine.state.iteration = engine.state.epoch * engine.state.epoch_length
        self.best_metric = state["best_metric"]
        if (scaler := _scaler(engine)) is not None and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        _logger.info("Resumed from %s after epoch %d.", path, engine.state.epoch)
        if engine.state.epoch >= engine.state.max_epochs:
            _logger.info("All %d epochs were done already; nothing is changed.", engine.state.max_epochs)

    def _read_state(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise FileNotFoundError(
                f"resume is set, but {path} does not exist; start without --resume, or give the folder of the "
                f"interrupted run with --ckpt_dir."
            )
        remedy = f"Start without --resume; the weights of the last epoch, if any, are in {path.with_name(LAST_FILE)}."
        try:
            _check_sums(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
        except READ_ERRORS as error:
            raise ValueError(
                f"{path} ({path.stat().st_size} bytes) must be a whole training state, but cannot be read: "
                f"{complaint_of(error)}. {remedy}"
            ) from error
        missing = set(STATE_KEYS) - set(state if isinstance(state, dict) else ())
        if missing:
            raise ValueError(f"{path} must be a training state, but has no {', '.join(sorted(missing))}. {remedy}")
        return state

    def _take_over(self, state: Mapping[str, Any], path: Path) -> None:
        stored, own = set(state["objects"]), set(self.objects)
        if stored != own:
            raise ValueError(
                f"{path} holds the states of {sorted(stored)}, this run has {sorted(own)}; resume with the "
                f"configuration of the interrupted run."
            )
        try:
            self.network.load_state_dict(state["network"])
            for name, obj in self.objects.items():
                obj.load_state_dict(state["objects"][name])
        except (RuntimeError, ValueError) as error:  # what modules and optimizers raise on a state of another network
            raise ValueError(
                f"{path} does not fit this run: {error}; resume with the configuration of the interrupted run."
            ) from error


def _check_sums(path: Path) -> None:
    """Compare the checksums in a file of torch.save, which torch.load does not look at."""
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error
    if part is not None:
        raise ValueError(f"the checksum of its part {part} is wrong")


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _scaler(engine: Engine) -> torch.amp.GradScaler | None:
    """The gradient scaler of a MONAI trainer with mixed precision."""
    return getattr(engine, "scaler", None)
