"""A training that stops where its loss is no number any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

_CASE = "case"
_PARTS = "losses"


class FiniteLoss:
    """Stop a training at the first loss that is NaN or infinite, and name the cases it came from.

    Ignite's `TerminateOnNan` ends the run as if it was over, with exit status 0; here an error ends it, so the files of
    the last epoch stay what they are and the shell learns of it.

    Raises:
        FloatingPointError: Behind the iteration whose loss is not finite.

    Note:
        The loss is looked at when the iteration is over, where the mean of the epoch, the progress bar and TensorBoard
        read it anyway, so a GPU waits no more often. With mixed precision it is the loss before `GradScaler` scales it:
        an overflow of scaled gradients, which the scaler deals with, does not stop a run.
    """

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer whose output is a dictionary with `loss`, and perhaps its parts as `losses`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check)

    def _check(self, engine: Engine) -> None:
        loss = engine.state.output[CommonKeys.LOSS]
        if torch.isfinite(loss.detach().cpu()).all():
            return
        state = engine.state
        parts = {name: value.item() for name, value in state.output.get(_PARTS, {}).items()}
        raise FloatingPointError(
            f"The loss must be finite, but is {loss.mean().item()} in epoch {state.epoch}, iteration "
            f"{(state.iteration - 1) % state.epoch_length + 1} of {state.epoch_length}{_listed(parts)}, of the cases "
            f"{_cases(state.batch)}. The files of the last finished epoch are kept. Look at the intensities of these "
            f"cases; if nothing is wrong with them, go on with --resume True and a smaller --learning_rate."
        )


def _listed(parts: Mapping[str, float]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in parts.items())})" if parts else ""


def _cases(batch: Any) -> str:
    names = batch.get(_CASE) if isinstance(batch, Mapping) else None
    return ", ".join(dict.fromkeys(map(str, names))) if names else "(the batch does not name them)"
