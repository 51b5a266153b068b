"""A training step whose prediction and losses come from an objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from .objectives import Objective

LOSSES = "losses"


class ObjectiveUpdate:
    """MONAI's `iteration_update` for losses that need more than a prediction and a label.

    For methods that look at several views of an image, at several outputs of a network, or at the progress of the
    training. It fires the `IterationEvents` of MONAI's own trainer, in the same order, and leaves `image`, `label`,
    `pred`, `loss` and the parts of the loss, `losses`, in the engine's output. With `amp`, the prediction alone is
    computed in mixed precision; the losses work in float32.

    Args:
        objective: Predicts and gives the losses.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def __call__(self, engine: SupervisedTrainer, batchdata: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one step.

        Args:
            engine: The trainer.
            batchdata: Tensors by key, as the loader gives them; everything else is left aside.

        Returns:
            The engine's output.
        """
        batch = {
            key: value.to(engine.state.device, non_blocking=engine.non_blocking)
            for key, value in batchdata.items()
            if isinstance(value, torch.Tensor)
        }
        engine.state.output = {
            CommonKeys.IMAGE: batch[CommonKeys.IMAGE],
            CommonKeys.LABEL: batch[self.objective.annotation],
        }
        progress = (engine.state.iteration - 1) / (engine.state.max_epochs * engine.state.epoch_length)
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with torch.autocast("cuda", enabled=engine.amp, **engine.amp_kwargs):
            predictions = self.objective.predict(engine.network, batch)
        engine.state.output[CommonKeys.PRED] = predictions[CommonKeys.PRED]
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        losses = self.objective.losses(predictions, batch, progress)
        loss = torch.stack(list(losses.values())).sum()
        engine.state.output[CommonKeys.LOSS] = loss
        engine.state.output[LOSSES] = {name: value.detach() for name, value in losses.items()}
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        if engine.scaler is None:
            loss.backward()
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
            engine.optimizer.step()
        else:
            engine.scaler.scale(loss).backward()
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
            engine.scaler.step(engine.optimizer)
            engine.scaler.update()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output
