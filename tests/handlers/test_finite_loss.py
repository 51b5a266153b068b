"""A loss that is no number stops a training and names its cases."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine

from common.handlers import FiniteLoss


def run(losses, batches, parts=None):
    outputs = iter(losses)

    def step(_engine, _batch):
        output = {"loss": torch.tensor(next(outputs))}
        return output | ({"losses": {name: torch.tensor(value) for name, value in parts.items()}} if parts else {})

    engine = Engine(step)
    FiniteLoss().attach(engine)
    engine.run(batches, max_epochs=2)


def test_finite_losses_pass():
    run([0.0, 1e38, -3.0, 1.0], [{"case": ["a"]}] * 2)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_the_cases_the_epoch_and_the_iteration_are_named(loss):
    message = rf"but is {loss} in epoch 2, iteration 1 of 2, of the cases b, c\. The files of the last finished epoch"
    with pytest.raises(FloatingPointError, match=message):
        run([1.0, 1.0, loss], [{"case": ["b", "c", "b"]}, {"case": ["d"]}])


def test_the_part_of_the_loss_is_named():
    with pytest.raises(
        FloatingPointError, match=r"iteration 1 of 1 \(supervised 0\.5, consistency nan\), of the cases a"
    ):
        run([float("nan")], [{"case": ["a"]}], {"supervised": 0.5, "consistency": float("nan")})


@pytest.mark.parametrize("batch", [{"image": 0}, [1, 2], {"case": []}])
def test_a_batch_without_names(batch):
    with pytest.raises(FloatingPointError, match="the batch does not name them"):
        run([float("nan")], [batch])
