"""What pretraining by Volume Fusion sees."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ...evaluation.html import legend, panels
from ..pictures import colored, encode, gray
from .records import Run
from .replay import Replay

NUM_SAMPLES = 4  # even: the variant `patches` pairs the volumes of a batch
COLORMAP = "viridis"


def draw_fusion(_run: Run, replay: Replay) -> Iterator[str]:
    """Draw fused volumes, made from the training's own scans by its own fusion, and the classes to be found.

    Args:
        replay: The training, built again.

    Yields:
        HTML.
    """
    if not hasattr(replay["train#prepare_batch"], "fusion"):
        return  # fine-tuning keeps the fusion's settings and does not fuse
    replay.transform_with_seed("train#preprocessing")
    dataset = replay["train#dataset"]
    batch = replay["train#dataloader"].collate_fn([dataset[i % len(dataset)] for i in range(NUM_SAMPLES)])
    volumes, classes = replay["train#prepare_batch"](batch, torch.device("cpu"))
    num_classes = replay["fusion"].num_classes
    pictures = []
    for source, volume, label in zip(batch["image"], volumes, classes, strict=True):
        middle = volume.shape[1] // 2
        slices = (source[0, source.shape[1] // 2], volume[0, middle], label[0, middle])
        image, fused, found = (np.asarray(plane, dtype=np.float32) for plane in slices)
        pictures += [
            (encode(gray(image, 0, 1)), "crop of a scan, middle slice"),
            (encode(gray(fused, 0, 1)), "fused volume"),
            (encode(colored(found, 0, num_classes - 1, COLORMAP), smooth=False), "classes to be found"),
        ]
    yield (
        "<p>Volumes as pretraining sees them: sub-volumes of one scan are mixed into another, and the network has to "
        "tell for every voxel how much of it comes from the other scan.</p>"
    )
    yield legend({f"class {k}": _color(k, num_classes) for k in range(num_classes)})
    yield panels(pictures, 3)


def _color(value: int, count: int) -> str:
    red, green, blue = colored(np.array([[value]]), 0, count - 1, COLORMAP)[0, 0].tolist()
    return f"rgb({red},{green},{blue})"
