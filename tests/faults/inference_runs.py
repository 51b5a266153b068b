"""Small runs of the inference of every bundle, whose right answers are known."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import run
from PIL import Image
from torch import nn

from common.networks.promptable import PromptSegmenter
from common.tools.runs import find_bundles

BUNDLES = {path.name: path for path in find_bundles()}
STREAMS = ("vptta", "grata")
# An intensity at which `ThresholdNetwork` raises what a real one might.
POISON_HU = 977
TINY_UNET = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 3, "out_channels": 2}
TINY_UNET |= {"channels": [4, 8], "strides": [2], "norm": "batch"}


class ThresholdNetwork(nn.Module):
    """Class 1 where the intensity is above a threshold, else class 0; any number of spatial axes."""

    def __init__(self, out_channels: int = 2, threshold: float = 0.5, poison: float | None = None) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.threshold = nn.Parameter(torch.tensor(threshold))
        self.poison = poison

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.poison is not None and bool((x.max() - self.poison).abs() < 1e-4):
            raise RuntimeError("the network met what it cannot segment")
        logits = torch.full((len(x), self.out_channels, *x.shape[2:]), -100.0)
        logits[:, 0] = self.threshold
        logits[:, 1] = x[:, 0]
        return logits


def scaled(hu: float) -> float:
    """An intensity as the preprocessing of `volume_fusion` gives it."""
    return (hu + 1000) / 2000


def write_volumes(folder: Path, num_cases: int, shape=(9, 12, 7), seed: int = 0) -> Path:
    """Scans of a bright block in a dark room, with labels, as a test section."""
    generator = np.random.default_rng(seed)
    for index in range(num_cases):
        affine = np.diag([-2.0, -1.5, 3.0, 1.0])
        affine[:3, 3] = generator.uniform(-50, 50, 3).round(2)
        mask = np.zeros(shape, np.uint8)
        low = generator.integers(1, 4, 3)
        mask[low[0] : low[0] + 4, low[1] : low[1] + 5, low[2] : low[2] + 3] = 1
        values = np.where(mask, 300, -300) + generator.integers(-50, 50, shape)
        for name, array, dtype in (("imagesTs", values, np.int16), ("labelsTs", mask, np.uint8)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array.astype(dtype), affine), folder / name / f"case_{index:03d}.nii.gz")
    return folder


def write_photographs(folder: Path, num_cases: int, seed: int = 0, size=(72, 80), domains=("b", "c")) -> Path:
    """Photographs of two domains, with masks of disc and cup, as a test section."""
    generator = np.random.default_rng(seed)
    for number, domain in enumerate(domains):
        for name in ("imagesTs", "labelsTs"):
            (folder / domain / name).mkdir(parents=True, exist_ok=True)
        for index in range(num_cases // len(domains)):
            pixels = generator.integers(0, 200, (*size, 3)).astype(np.uint8)
            pixels[20:50, 20:50] = np.clip(pixels[20:50, 20:50].astype(int) + 60 - 40 * number, 0, 255)
            Image.fromarray(pixels).save(folder / domain / "imagesTs" / f"p{index:03d}.png")
            mask = np.full(size, 255, np.uint8)
            mask[20:50, 20:50] = 128
            mask[30:40, 30:40] = 0
            Image.fromarray(mask).save(folder / domain / "labelsTs" / f"p{index:03d}.png")
    return folder


def volume_overrides(data: Path, work: Path, **overrides: Any) -> dict[str, Any]:
    """Overrides that make `volume_fusion` a threshold at 0 HU."""
    network = ThresholdNetwork(poison=scaled(POISON_HU))
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "model.pt").is_file():
        torch.save(network.state_dict(), work / "model.pt")
    stub = {"_target_": f"{__name__}.ThresholdNetwork", "poison": scaled(POISON_HU)}
    return {
        "dataset_dir": str(data),
        "ckpt_path": str(work / "model.pt"),
        "network_def": stub,
        "num_classes": 2,
        "roi_size": [8, 8, 8],
        "num_workers": 0,
        **overrides,
    }


def heart_overrides(data: Path, work: Path, **overrides: Any) -> dict[str, Any]:
    """Overrides that make `maco` a threshold, at the size of the scans."""
    own = volume_overrides(data, work, roi_size=[16, 16], **overrides)
    return {**own, "network_def": {"_target_": f"{__name__}.ThresholdNetwork"}}


def stream_overrides(data: Path, work: Path, **overrides: Any) -> dict[str, Any]:
    """Overrides that make `vptta` and `grata` small: a network of two levels, images of 32 pixels, 4 memories."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "model.pt").is_file():
        torch.manual_seed(0)
        network = {key: value for key, value in TINY_UNET.items() if key != "_target_"}
        from monai.networks.nets import UNet

        torch.save(UNet(**network).state_dict(), work / "model.pt")
    return {
        "dataset_dir": str(data),
        "domains": sorted(path.name for path in data.iterdir()),
        "section": ["test"],
        "ckpt_path": str(work / "model.pt"),
        "network_def": TINY_UNET,
        "image_size": 32,
        "num_workers": 0,
        **overrides,
    }


class PixelNetwork(nn.Module):
    """Disc and cup where red is above a threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, :1] - self.threshold).repeat(1, 2, 1, 1) * 50


class StubSegmenter(PromptSegmenter):
    """What is brighter than a threshold within its box."""

    def __init__(self, threshold: float = 0.5, image_size: int = 32) -> None:
        super().__init__()
        self.image_size = image_size
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def encode(self, slices: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(slices.float(), (self.image_size,) * 2)

    def decode(self, embedding, boxes, slice_index=None):
        columns = torch.arange(self.image_size) + 0.5
        inside = (columns > boxes[:, :1]) & (columns < boxes[:, 2:3])
        upright = (columns > boxes[:, 1:2]) & (columns < boxes[:, 3:])
        window = upright[:, None, :, None] & inside[:, None, None, :]
        return torch.where(window, embedding[slice_index] - self.threshold, -1.0)

    @property
    def logits_size(self) -> int:
        return self.image_size

    @property
    def encoder(self) -> nn.Module:
        return self

    def trainable_parameters(self, train_encoder: bool) -> list[nn.Parameter]:
        return [self.threshold]


def segmenter_overrides(sources: dict[str, Path], work: Path, **overrides: Any) -> dict[str, Any]:
    """Overrides for `medlsam`: an untrained localization that finds every organ, then a threshold in each box."""
    tiny = {"spacing_mm": [16.0] * 3, "patch_size": [16, 16, 32], "base_channels": 2, "min_similarity": 0.0}
    tiny |= {"min_inside": 0.0, "cache_dir": str(work / "templates"), "num_workers": 0, "search": "none"}
    work.mkdir(parents=True, exist_ok=True)
    (work / "tiny.json").write_text(json.dumps(tiny))
    configs = BUNDLES["medlsam"] / "configs"
    return {
        "dataset_dir": str(sources["torso"]),
        "medlam_path": str(sources["medlam.pt"]),
        "localize_files": [str(configs / "localize.json"), str(work / "tiny.json")],
        "sam_path": "none",
        "network_def": {"_target_": f"{__name__}.StubSegmenter"},
        "num_supports": 1,
        "num_workers": 0,
        **overrides,
    }


MEMORY = {"memory_size": 4, "num_neighbors": 2, "prompt_fraction": 0.1}


def run_inference(bundle: str, overrides: dict[str, Any], configs=("inference.json",)) -> None:
    """Run configurations of a bundle in this process."""
    if bundle == "vptta":
        overrides = {**MEMORY, **overrides}
    run(config_file=[str(BUNDLES[bundle] / "configs" / name) for name in configs], **overrides)


def rows_of(folder: Path, name: str = "cases.csv") -> list[dict[str, str]]:
    with (folder / name).open() as stream:
        return list(csv.DictReader(stream))


def outcomes_of(folder: Path) -> dict[str, str]:
    return {row["case"]: row["outcome"] for row in rows_of(folder)}


def contents_of(folder: Path) -> dict[str, str]:
    """Every file by its content; of those with times, what is no time. Cached scores and logs are left out."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name == "cases.csv":
            found[name] = [[value for key, value in row.items() if key != "seconds"] for row in rows_of(path.parent)]
        elif path.name == "cases.jsonl":
            entries = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = {row["case"]: (row["outcome"], sorted(row["files"]), row["notes"]) for row in entries}
        elif path.name == "run.json" or name.startswith("cases/") or path.suffix == ".html":
            found[name] = ""
        elif path.name == "stream_state.pt":
            found[name] = comparable(torch.load(path, weights_only=True))
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def comparable(state: Any) -> Any:
    """A state with its tensors as bytes, so that equal means bit for bit."""
    if isinstance(state, torch.Tensor):
        return (str(state.dtype), tuple(state.shape), state.cpu().contiguous().numpy().tobytes())
    if isinstance(state, dict):
        return {key: comparable(value) for key, value in state.items() if key != "chain"}
    if isinstance(state, (list, tuple)):
        return [comparable(value) for value in state]
    return state


def error_text(error: BaseException | None) -> str:
    """The messages of an error and of what caused it: MONAI wraps what a configuration raises."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)
