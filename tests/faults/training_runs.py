"""Trainings small enough to be killed thirty times, and the means to kill them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import run

from common.data.phantoms import write_fundus_phantoms, write_heart_phantoms, write_torso_phantoms
from common.networks import SamSegmenter
from common.networks.promptable import VARIANTS
from common.tools.runs import find_bundles
from tests.faults.killing import end_group

BUNDLES = {path.name: path for path in find_bundles()}
WEIGHT_FILES = ("model.pt", "model_last.pt")
STATE_FILE = "training_state.pt"
EPOCHS, ITERATIONS = 5, 3
# What costs seconds to import is imported once, by the process that the others are forked from.
PRELOADED = ("tests.faults.training_runs", "monai.data.image_reader", "nibabel", "PIL.Image", "torch.utils.tensorboard")
SMALL_SAM = vars(
    replace(
        VARIANTS["tiny"], image_size=64, width=48, depth=2, global_blocks=(1,), window_size=4, embedding_channels=32
    )
)


@dataclass(frozen=True)
class Training:
    """A bundle's training, with everything random in use.

    Attributes:
        bundle: Name of the bundle.
        configs: Its configurations, in order.
        data: Folder of the phantoms, below that of all phantoms.
        overrides: What makes it small.
    """

    bundle: str
    configs: Sequence[str]
    data: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


_U_NET = {"spatial_dims": 2, "in_channels": 3, "out_channels": 2, "channels": [8, 16, 32], "strides": [2, 2]}
_FUNDUS = {
    "network_def": {"_target_": "monai.networks.nets.UNet", **_U_NET, "norm": "batch", "dropout": 0.1},
    "image_size": 32,
    "batch_size": 2,
    "spatial_prob": 0.5,
    "intensity_prob": 0.5,
    "val_interval": 1,
}
_HEART = {"roi_size": [32, 32], "features": [4, 4, 8, 8, 8, 4], "batch_size": 2, "patch_size": 8, "crf_radius": 2}
_FUSION = {
    "roi_size": [16, 16, 16],
    "feature_channels": [4, 4, 8, 8, 8],
    "dropout": [0.1] * 5,
    "block_size_min": [2, 2, 2],
    "block_size_max": [5, 8, 8],
    "val_fraction": 0.3,
    "num_val_samples": 2,
}
_TUNE = {key: _FUSION[key] for key in ("roi_size", "feature_channels", "dropout")}
_PATCHES = {
    "spacing_mm": [12.0] * 3,
    "patch_size": [16, 16, 32],
    "base_channels": 2,
    "dropout": 0.1,
    "num_val_samples": 2,
    "val_fraction": 0.3,
    "num_position_patches": 1,
}
_SAM = {"num_slices": 2, "max_boxes": 2, "batch_size": 1, "val_interval": 2, "box_probs": [0.3, 0.3, 0.4]}
_SMALL = ["train.json", "small.json"]

TRAININGS = {
    "vptta": Training("vptta", _SMALL, "fundus/domain_a", _FUNDUS),
    "grata": Training("grata", _SMALL, "fundus/domain_b", _FUNDUS),
    "maco": Training("maco", _SMALL, "hearts", _HEART),
    "medlsam": Training("medlsam", _SMALL, "torso", _PATCHES),
    "volume_fusion": Training("volume_fusion", _SMALL, "torso", _FUSION),
    "maco_dmpls": Training("maco", _SMALL, "hearts", {**_HEART, "method": "@methods#dmpls"}),
    "maco_uncertainty": Training("maco", _SMALL, "hearts", {**_HEART, "attention": "uncertainty"}),
    "maco_volumes": Training(
        "maco",
        [*_SMALL, "volumes.json"],
        "hearts",
        {**_HEART, "roi_size": [16, 16, 16], "resize_to": [32, 32, -1], "patch_size": [8, 8, 4]},
    ),
    "fusion_finetuned": Training(
        "volume_fusion",
        [*_SMALL, "finetune.json"],
        "torso",
        {**_TUNE, "use_pretrained": False, "batch_size": 1, "val_interval": 2},
    ),
    "sam": Training("medlsam", ["finetune_sam.json", "tiny_sam.json"], "torso", {**_SAM, "architecture": SMALL_SAM}),
    "sam_frozen": Training("medlsam", ["finetune_sam.json"], "torso", {**_SAM, "jitter_px": [0.0, 20.0]}),
}


def phantoms_in(folder: Path) -> Path:
    """Give the folder with the data of all trainings and the weights of a small SAM, written by the first test."""
    data = folder / "training_phantoms"
    if not data.exists():
        write_torso_phantoms(
            data / "torso", 4, seed=1, num_unlabeled=1, num_validation=1, spacing_mm=12.0, field_of_view="abdomen"
        )
        write_heart_phantoms(data / "hearts", 3, seed=1, num_validation=1, num_test=0, image_size=48, spacing_mm=4.0)
        write_fundus_phantoms(data / "fundus", 6, seed=1, num_validation=2, num_test=0, image_size=64)
        torch.manual_seed(0)
        torch.save(SamSegmenter(SMALL_SAM).state_dict(), data / "sam.pt")
    return data


def uninterrupted_in(folder: Path, name: str) -> Path:
    """Give the folder of a training that nothing interrupts, run by the first test that asks for it."""
    trained = folder / f"uninterrupted_{name}"
    if not trained.exists():
        trained.mkdir()
        run(**options_of(TRAININGS[name], phantoms_in(folder), trained))
    return trained


def options_of(training: Training, data: Path, folder: Path, **overrides: Any) -> dict[str, Any]:
    """All arguments of `monai.bundle.run` for a training whose files go to `folder`."""
    options = {"dataset_dir": str(data / training.data), "ckpt_dir": str(folder), "output_dir": str(folder / "logs")}
    options |= {"max_epochs": EPOCHS, "epoch_length": ITERATIONS, "num_workers": 0, "device": "$torch.device('cpu')"}
    if "finetune_sam.json" in training.configs:
        options |= {"sam_path": str(data / "sam.pt"), "cache_dir": str(folder / "slices")}
    configs = [str(BUNDLES[training.bundle] / "configs" / name) for name in training.configs]
    return {"config_file": configs, **options, **training.overrides, **overrides}


def with_handler(options: dict[str, Any], folder: Path, **handler: Any) -> dict[str, Any]:
    """Add a handler to the trainer, behind all others, by a configuration laid over the bundle's."""
    folder.mkdir(parents=True, exist_ok=True)
    overlay = folder / "handler.json"
    overlay.write_text(json.dumps({"+train#handlers": [handler]}))
    return {**options, "config_file": [*options["config_file"], str(overlay)]}


class KillAfter:
    """Kill the process a while after its training has begun, wherever it is then."""

    def __init__(self, delay_s: float, number: int) -> None:
        self.delay_s, self.number = delay_s, number

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._arm)

    def _arm(self, _engine: Engine) -> None:
        timer = threading.Timer(self.delay_s, os.kill, (os.getpid(), self.number))
        timer.daemon = True
        timer.start()


class RaiseAt:
    """Stop a training in this process at an iteration, before its optimizer has made its step."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED(once=self.iteration), self._raise)

    def _raise(self, _engine: Engine) -> None:
        raise KeyboardInterrupt


class Processes:
    """Run configurations in processes of their own, forked from one that has imported everything.

    A start takes a tenth of a second instead of ten. The server computes nothing, so no thread pool is forked.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))

    def run(self, options: dict[str, Any], log: Path) -> int:
        """Return the exit status, negative for a signal; what the process prints is added to `log`."""
        process = self._context.Process(target=_run_quietly, args=(options, str(log)))
        process.start()
        process.join()
        assert process.exitcode is not None
        assert process.pid is not None
        end_group(process.pid)
        return process.exitcode

    def run_and_kill(self, options: dict[str, Any], folder: Path, delay_s: float, number: signal.Signals) -> int:
        """Run with a `KillAfter`; 0 where the training was faster."""
        target = f"{KillAfter.__module__}.KillAfter"
        armed = with_handler(options, folder, _target_=target, delay_s=delay_s, number=int(number))
        return self.run(armed, folder / "log.txt")


def _run_quietly(options: dict[str, Any], log: str) -> None:
    os.setpgid(0, 0)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    # the processes of the loader, which would otherwise come from a server of their own
    multiprocessing.set_start_method("fork", force=True)
    run(**options)


def messages_of(error: BaseException | None) -> str:
    """The messages of an error and of all that caused it: MONAI wraps what a configuration raises."""
    texts = []
    while error is not None:
        texts.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def assert_same_training(folder: Path, expected: Path) -> None:
    """Assert that two trainings have ended alike, bit for bit."""
    for name in (*WEIGHT_FILES, STATE_FILE):
        content, wanted = (torch.load(path / name, weights_only=True) for path in (folder, expected))
        differences = list(_differences(content, wanted))
        assert not differences, f"{name}: {differences[:5]}"


def _differences(value: Any, wanted: Any, place: str = "") -> Any:
    if isinstance(wanted, torch.Tensor):
        if not (value.dtype == wanted.dtype and torch.equal(value, wanted)):
            yield place
    elif isinstance(wanted, Mapping):
        if value.keys() != wanted.keys():
            yield f"{place}: {sorted(map(str, value))} instead of {sorted(map(str, wanted))}"
            return
        for key in wanted:
            yield from _differences(value[key], wanted[key], f"{place}/{key}")
    elif isinstance(wanted, (list, tuple)):
        if len(value) != len(wanted):
            yield place
        for index, pair in enumerate(zip(value, wanted, strict=False)):
            yield from _differences(*pair, f"{place}/{index}")
    elif value != wanted:
        yield f"{place}: {value} instead of {wanted}"


class SpoilAt:
    """Make the images of an iteration NaN, as a file might that changed after the check."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED(once=self.iteration), self._spoil)

    def _spoil(self, engine: Engine) -> None:
        images = engine.state.batch["image"]
        for image in images if isinstance(images, list) else [images]:
            image.fill_(torch.nan)


class DeleteAfterEpoch:
    """Delete files when an epoch is over."""

    def __init__(self, epoch: int, pattern: str) -> None:
        self.epoch, self.pattern = epoch, Path(pattern)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=self.epoch), self._delete)

    def _delete(self, _engine: Engine) -> None:
        for path in sorted(self.pattern.parent.glob(self.pattern.name)):
            path.unlink()


class LimitFilesAfterEpoch:
    """Let no file grow above a size from the end of an epoch on, as a quota does."""

    def __init__(self, epoch: int, num_bytes: int) -> None:
        self.epoch, self.num_bytes = epoch, num_bytes

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=self.epoch), self._limit)

    def _limit(self, _engine: Engine) -> None:
        import resource  # Windows has none

        resource.setrlimit(resource.RLIMIT_FSIZE, (self.num_bytes, resource.RLIM_INFINITY))
