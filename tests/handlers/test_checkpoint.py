"""Checkpoints: best, last, resume, and what a crash leaves."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events

from common.files import write_atomically
from common.handlers import EpochSeeds, TrainingCheckpoint
from common.handlers.checkpoint import STATE_FILE
from common.transforms import VolumeFusion


def make_training(folder, metrics, resume=False, fail_at=None):
    """Train one weight by SGD; `metrics` are what the validations of the epochs say."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    fusion = VolumeFusion((4, 8, 8), block_size_min=(2, 2, 2), block_size_max=(4, 4, 4), seed=0)

    def step(engine, batch):
        if engine.state.epoch == fail_at:
            raise KeyboardInterrupt
        optimizer.zero_grad()
        network(torch.randn(1, 1)).sum().backward()
        optimizer.step()
        fusion.R.uniform()

    trainer = Engine(step)
    evaluator = Engine(lambda engine, batch: None)

    @evaluator.on(Events.COMPLETED)
    def _score(engine):
        engine.state.metrics = {"dice": metrics[trainer.state.epoch - 1]}
        engine.state.key_metric_name = "dice"

    EpochSeeds(0, {"fusion": fusion}).attach(trainer)
    checkpoint = TrainingCheckpoint(folder, network, {"optimizer": optimizer}, evaluator, resume)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run([0], max_epochs=1))
    checkpoint.attach(trainer)
    return trainer, network, fusion


def weight_in(path):
    return torch.load(path, weights_only=True)["weight"].item()


def test_best_and_last_weights(tmp_path):
    seen = []
    trainer, network, _ = make_training(tmp_path, [0.2, 0.7, 0.5])
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: seen.append(network.weight.item()))
    trainer.run([0] * 3, max_epochs=3)
    assert weight_in(tmp_path / "model.pt") == pytest.approx(seen[1])
    assert weight_in(tmp_path / "model_last.pt") == pytest.approx(seen[2])
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["best_metric"] == 0.7


def test_resume_continues_as_if_nothing_happened(tmp_path):
    torch.manual_seed(0)
    trainer, network, fusion = make_training(tmp_path / "whole", [0.1] * 4)
    trainer.run([0] * 3, max_epochs=4)
    torch.manual_seed(0)
    make_training(tmp_path / "cut", [0.1] * 4)[0].run([0] * 3, max_epochs=2)
    torch.manual_seed(12345)
    resumed, again, fusion_again = make_training(tmp_path / "cut", [0.1] * 4, resume=True)
    resumed.run([0] * 3, max_epochs=4)
    assert resumed.state.iteration == 12
    assert again.weight.item() == network.weight.item()
    assert fusion_again.R.uniform() == fusion.R.uniform()


def test_a_worse_epoch_after_resume_keeps_the_best(tmp_path):
    make_training(tmp_path, [0.9])[0].run([0] * 3, max_epochs=1)
    best = weight_in(tmp_path / "model.pt")
    make_training(tmp_path, [0.9, 0.3], resume=True)[0].run([0] * 3, max_epochs=2)
    assert weight_in(tmp_path / "model.pt") == best
    assert weight_in(tmp_path / "model_last.pt") != best


def test_resume_without_a_state_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"resume is set, but .*training_state.pt does not exist; start without"
    ):
        make_training(tmp_path, [0.1], resume=True)[0].run([0], max_epochs=1)


def test_resume_with_other_objects_is_refused(tmp_path):
    trainer, network, _ = make_training(tmp_path, [0.1])
    trainer.run([0], max_epochs=1)
    other = Engine(lambda engine, batch: None)
    TrainingCheckpoint(tmp_path, network, {}, resume=True).attach(other)
    with pytest.raises(ValueError, match=r"holds the states of \['optimizer'\], this run has \[\]"):
        other.run([0], max_epochs=1)


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "model.pt"
    write_atomically({"weight": torch.ones(1)}, path)
    with pytest.raises((AttributeError, TypeError)):
        write_atomically({"weight": (value for value in ())}, path)  # a generator cannot be saved
    assert weight_in(path) == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
