"""What a training leaves and says when something fails: disk, data, numbers, or a kill between two writes."""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import run

from common import files
from common.handlers import EpochSeeds, TrainingCheckpoint
from tests.faults import training_runs
from tests.faults.training_runs import (
    EPOCHS,
    ITERATIONS,
    STATE_FILE,
    TRAININGS,
    WEIGHT_FILES,
    Processes,
    assert_same_training,
    messages_of,
    options_of,
    phantoms_in,
    uninterrupted_in,
    with_handler,
)

HANDLERS = training_runs.__name__
THREE_FILES = (*WEIGHT_FILES, STATE_FILE)
# A file is opened, half written, synchronized, renamed (before and behind), and its folder is synchronized.
STEPS_PER_FILE = 6
KILLED = 9


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return phantoms_in(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def processes() -> Processes:
    return Processes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """Folder of the training of `vptta`."""
    return uninterrupted_in(tmp_path_factory.getbasetemp(), "vptta")


def epoch_of(folder):
    return torch.load(folder / STATE_FILE, weights_only=True)["epoch"]


def assert_files_are_of_epoch(folder, epoch):
    """All three load, no half is left, and the weights are those of the state."""
    state = torch.load(folder / STATE_FILE, weights_only=True)
    assert state["epoch"] == epoch
    last = torch.load(folder / "model_last.pt", weights_only=True)
    assert all(torch.equal(value, last[key]) for key, value in state["network"].items())
    torch.load(folder / "model.pt", weights_only=True)
    assert not list(folder.rglob(".*.tmp"))


def train_one_weight(folder, epochs=2, resume=False, before=None):
    """Train the smallest network that there is; each epoch is better than the last, so each writes three files."""
    network = torch.nn.Linear(2, 1)
    torch.nn.init.ones_(network.weight)
    torch.nn.init.zeros_(network.bias)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    def step(_engine, _batch):
        optimizer.zero_grad()
        network(torch.randn(4, 2)).square().mean().backward()
        optimizer.step()

    trainer, evaluator = Engine(step), Engine(lambda _engine, _batch: None)

    @evaluator.on(Events.COMPLETED)
    def _score(engine):
        engine.state.metrics, engine.state.key_metric_name = {"dice": float(trainer.state.epoch)}, "dice"

    EpochSeeds(0, {}).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run([0], max_epochs=1))
    if before is not None:
        before(trainer)
    TrainingCheckpoint(folder, network, {"optimizer": optimizer}, evaluator, resume).attach(trainer)
    trainer.run([0, 1], max_epochs=epochs)
    return network


def train_until_step(folder, last_step, resume):
    """In a forked process, train and die at a step of writing, without a chance to clean up."""
    step = 0

    def tick():
        nonlocal step
        step += 1
        if step == last_step:
            os._exit(KILLED)

    def save_by_halves(content, stream, real=torch.save):
        whole = io.BytesIO()
        real(content, whole)
        half = len(whole.getvalue()) // 2
        stream.write(whole.getvalue()[:half])
        stream.flush()
        tick()
        stream.write(whole.getvalue()[half:])

    def stepping(real, behind=False):
        def call(*args, **kwargs):
            tick()
            result = real(*args, **kwargs)
            if behind:
                tick()
            return result

        return call

    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            torch.save = save_by_halves
            os.fsync = stepping(os.fsync)
            Path.replace = stepping(Path.replace, behind=True)
            real_open = Path.open
            Path.open = lambda self, mode="r": (tick() if mode == "wb" else None, real_open(self, mode))[1]
            files.require_writable = lambda _folder: None
            train_one_weight(folder, resume=resume)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class TestKilledWhileWriting:
    def test_at_every_step_of_every_file(self, tmp_path):
        """Whatever a kill leaves loads whole, and going on from it ends like a training that was never killed."""
        train_one_weight(tmp_path / "whole")
        num_steps = 2 * 3 * STEPS_PER_FILE
        for step in range(1, num_steps + 1):
            folder = tmp_path / f"step {step}"
            folder.mkdir()
            assert train_until_step(folder, step, resume=False) == KILLED, step
            for name in THREE_FILES:
                if (folder / name).exists():
                    torch.load(folder / name, weights_only=True)
            finished = (step - 1 - STEPS_PER_FILE // 2 + 1) // (3 * STEPS_PER_FILE)
            if (folder / STATE_FILE).exists():
                assert finished <= epoch_of(folder) <= finished + 1
            train_one_weight(folder, resume=(folder / STATE_FILE).exists())
            assert_same_training(folder, tmp_path / "whole")
            assert sorted(path.name for path in folder.iterdir()) == sorted(THREE_FILES)
        assert train_until_step(tmp_path / "whole", num_steps + 1, resume=False) == 0


class TestDisk:
    def test_a_quota_that_is_used_up(self, processes, data, uninterrupted, tmp_path):
        """A process of its own: the file is refused by the kernel, the shell learns of it, and it can go on."""
        options = options_of(TRAININGS["vptta"], data, tmp_path, output_dir=str(tmp_path / "logs"))
        handler = {"_target_": f"{HANDLERS}.LimitFilesAfterEpoch", "epoch": 2, "num_bytes": 60_000}
        assert processes.run(with_handler(options, tmp_path, **handler), tmp_path / "log.txt") == 1
        log = (tmp_path / "log.txt").read_text()
        assert "cannot be written: File too large. Nothing half written is left" in log
        assert f"OSError: [Errno {errno.EFBIG}] {tmp_path}/" in log
        assert epoch_of(tmp_path) == 2
        for name in WEIGHT_FILES:  # they are smaller and may have been written for the third epoch
            torch.load(tmp_path / name, weights_only=True)
        assert not list(tmp_path.glob(".*.tmp"))
        run(**{**options, "resume": True})
        assert_same_training(tmp_path, uninterrupted)

    def test_a_folder_that_cannot_be_written_is_refused_before_the_first_iteration(self, data, tmp_path):
        (tmp_path / "file").touch()
        seen = []
        with pytest.raises(OSError, match=r"file/models cannot be written: Not a directory"):
            train_one_weight(
                tmp_path / "file" / "models",
                before=lambda trainer: trainer.add_event_handler(Events.ITERATION_STARTED, seen.append),
            )
        assert not seen


class TestData:
    @pytest.mark.parametrize(
        ("name", "pattern"),
        [
            ("vptta", "imagesTr/*"),
            pytest.param("maco", "scribblesTr/*", marks=pytest.mark.slow),
            pytest.param("medlsam", "imagesTr/*", marks=pytest.mark.slow),
            pytest.param("volume_fusion", "imagesTr/*", marks=pytest.mark.slow),
            pytest.param("fusion_finetuned", "labelsTr/*", marks=pytest.mark.slow),
            pytest.param("sam", "labelsTr/*", marks=pytest.mark.slow),
        ],
    )
    def test_files_that_disappear_while_a_training_reads_them(self, name, pattern, data, processes, tmp_path):
        training = TRAININGS[name]
        shutil.copytree(data / training.data, tmp_path / training.data)
        shutil.copy(data / "sam.pt", tmp_path)
        options = options_of(training, tmp_path, tmp_path / "run", num_workers=2, cache_rate=0.0)
        handler = {"_target_": f"{HANDLERS}.DeleteAfterEpoch", "epoch": 2}
        handler["pattern"] = str(tmp_path / training.data / pattern)
        assert processes.run(with_handler(options, tmp_path / "run", **handler), tmp_path / "log.txt") == 1
        message = (tmp_path / "log.txt").read_text()
        assert f"{tmp_path / training.data / Path(pattern).parent}" in message
        assert "Training case training_0" in message
        assert "its files have changed since. Restore them" in message
        assert_files_are_of_epoch(tmp_path / "run", 2)


class TestNumbers:
    @pytest.mark.parametrize(
        "name", [n if n in ("vptta", "maco") else pytest.param(n, marks=pytest.mark.slow) for n in TRAININGS]
    )
    def test_a_loss_that_is_no_number_ends_the_training(self, name, data, tmp_path):
        handler = {"_target_": f"{HANDLERS}.SpoilAt", "iteration": 2 * ITERATIONS + 2}
        options = options_of(TRAININGS[name], data, tmp_path)
        with pytest.raises(RuntimeError) as caught:
            run(**with_handler(options, tmp_path, **handler))
        message = messages_of(caught.value)
        assert (
            f"FloatingPointError: The loss must be finite, but is nan in epoch 3, iteration 2 of {ITERATIONS}"
            in message
        )
        assert re.search(r"of the cases (training|unlabeled)_0", message)
        assert_files_are_of_epoch(tmp_path, 2)

    def test_the_shell_learns_of_it(self, data, processes, tmp_path):
        handler = {"_target_": f"{HANDLERS}.SpoilAt", "iteration": ITERATIONS + 1}
        options = options_of(TRAININGS["vptta"], data, tmp_path, num_workers=2)
        assert processes.run(with_handler(options, tmp_path, **handler), tmp_path / "log.txt") == 1
        assert "FloatingPointError: The loss must be finite" in (tmp_path / "log.txt").read_text()
        assert_files_are_of_epoch(tmp_path, 1)

    def test_a_last_step_that_breaks_the_weights_leaves_the_files_of_the_epoch_before(self, tmp_path):
        def break_weights(trainer):
            def spoil(engine):
                if engine.state.epoch == 2:
                    checkpoint.network.weight.data.fill_(torch.inf)

            trainer.add_event_handler(Events.ITERATION_COMPLETED, spoil)

        network = torch.nn.Linear(1, 1)
        trainer = Engine(lambda _engine, _batch: None)
        checkpoint = TrainingCheckpoint(tmp_path, network, {})
        break_weights(trainer)
        checkpoint.attach(trainer)
        with pytest.raises(FloatingPointError, match="1 tensors hold NaN or infinity after epoch 2, weight among them"):
            trainer.run([0], max_epochs=3)
        assert_files_are_of_epoch(tmp_path, 1)
        assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].isfinite().all()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip_a_bit(path):
    """In the weights, where it changes a number and nothing else."""
    with zipfile.ZipFile(path) as archive:
        part = next(entry for entry in archive.infolist() if "/data/" in entry.filename)
    content = bytearray(path.read_bytes())
    content[part.header_offset + 30 + 64 + part.file_size // 2 + len(part.filename)] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": (truncate, "must be a whole training state, but cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "(0 bytes) must be a whole training state"),
    "a text": (lambda path: path.write_text("epoch: 3"), "File is not a zip file"),
    "a flipped bit": (flip_a_bit, "the checksum of its part"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps(Path)), "File is not a zip file"),
    "weights": (lambda path: shutil.copy(path.with_name("model.pt"), path), "has no best_metric, epoch, network"),
    "a list": (lambda path: torch.save([1, 2], path), "must be a training state, but has no"),
}


class TestDamagedState:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_it_is_refused_with_the_file_and_what_to_do(self, tmp_path, damage):
        train_one_weight(tmp_path, epochs=1)
        change, message = DAMAGES[damage]
        change(tmp_path / STATE_FILE)
        weights = (tmp_path / "model.pt").read_bytes()
        with pytest.raises(ValueError, match=r"training_state\.pt .*Start without --resume; the weights of") as caught:
            train_one_weight(tmp_path, resume=True)
        assert message in str(caught.value)
        assert (tmp_path / "model.pt").read_bytes() == weights

    def test_a_state_of_another_network_is_refused(self, tmp_path):
        train_one_weight(tmp_path, epochs=1)
        other = Engine(lambda _engine, _batch: None)
        network = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        TrainingCheckpoint(tmp_path, network, {"optimizer": optimizer}, resume=True).attach(other)
        with pytest.raises(
            ValueError, match=r"(?s)does not fit this run: .*size mismatch.*; resume with the configuration"
        ):
            other.run([0], max_epochs=EPOCHS)
