"""What a training from scribbles works with: strokes, pseudo labels, the masked view and what the network says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

from ...data.label_names import load_label_names
from ...data.scribbles import UNLABELLED
from ...engines.objectives import DISTANCE, MASK, MASKED
from ...evaluation.html import legend, panels
from ...losses.continuous_pseudo_label import continuous_pseudo_labels
from ..pictures import encode, gray, structure_colors
from .records import Run
from .replay import Replay

NUM_CASES = 3
BACKGROUND = "#ffffff"


def draw_scribbles(run: Run, replay: Replay) -> Iterator[str]:
    """Draw slices of the training as its method sees them, with the best weights of the run.

    Args:
        run: The run.
        replay: The training, built again.

    Yields:
        HTML.
    """
    objective, extended = replay["method"], replay["extended_network"]
    if not hasattr(objective, "masking"):
        return  # another method than MaCo and its parts
    replay.load_weights(Path(run.settings["ckpt_dir"]) / "model.pt", replay["network_def"])
    extended.eval()
    replay.transform_with_seed("train#preprocessing")
    dataset = replay["train#dataset"]
    chosen = np.linspace(0, len(dataset) - 1, min(NUM_CASES, len(dataset))).astype(int)
    items = [dataset[int(k)] for k in chosen]
    keys = [key for key, value in items[0].items() if isinstance(value, torch.Tensor)]
    batch = {key: torch.stack([torch.as_tensor(item[key]) for item in items]) for key in keys}
    with torch.no_grad():
        predictions = objective.predict(extended, batch)
    num_classes = int(run.settings["num_classes"])
    names = list(load_label_names(run.settings["dataset_dir"], num_classes).values())
    palette = [mpl.colors.to_rgb(color) for color in (BACKGROUND, *structure_colors(names).values())]
    yield f"<p>{' '.join(_sentences(objective))}</p>"
    yield legend({"background (strokes only)": BACKGROUND, **structure_colors(names)})
    for k in range(len(items)):
        inputs, outputs = ({name: x[k : k + 1] for name, x in part.items()} for part in (batch, predictions))
        pictures = list(_of_case(objective, inputs, outputs, palette))
        yield panels(pictures, len(pictures), 3)


def _sentences(objective: Any) -> Iterator[str]:
    yield "Slices of the training, turned and scaled at random as in it."
    if objective.pseudo_label_loss is not None:
        yield "A pseudo label fades with the distance to the strokes; where it says background, nothing is painted."
    if objective.masking is not None:
        yield "The masked view hides patches, and the network has to say the same of both views."


def _of_case(
    objective: Any,
    batch: dict[str, torch.Tensor],
    predictions: dict[str, torch.Tensor],
    palette: list[tuple[float, float, float]],
) -> Iterator[tuple[bytes, str]]:
    image = _plane(batch["image"])
    strokes = _plane(batch[objective.annotation]).astype(int)
    pixels = gray(image, 0, 1)
    # a stroke of background is something; in a whole label map background is the rest
    is_drawn = (strokes != UNLABELLED) & ((strokes > 0) | (objective.annotation == "scribble"))
    drawn = np.where(is_drawn, strokes + 1, 0)
    yield encode(_painted(pixels, drawn, np.ones(drawn.shape), palette), smooth=False), "image with its annotation"
    loss = objective.pseudo_label_loss
    if loss is not None and DISTANCE in batch:
        soft = continuous_pseudo_labels(batch[DISTANCE], loss.tau_mm, normalized=loss.form == "normalized")[0]
        confidence, classes = (_plane(part[None, None]) for part in soft.max(dim=0))
        yield encode(_painted(pixels, classes.astype(int), 0.8 * confidence, palette[1:])), "continuous pseudo label"
    yield encode(pixels, 1.0, _classes(predictions["pred"]), palette[1:]), "segmented"
    if MASK in predictions:
        hidden = objective.masking.hide(batch["image"], predictions[MASK])
        masked = gray(_plane(hidden), 0, 1)
        yield encode(masked, smooth=False), "masked view"
        yield encode(masked, 1.0, _classes(predictions[MASKED]), palette[1:]), "segmented from it"


def _plane(tensor: torch.Tensor) -> np.ndarray:
    """One sample with one channel as rows and columns, the middle slice of a volume. Shape (Y, X)."""
    array = tensor[0, 0].float().numpy()
    return (array if array.ndim == 2 else array[..., array.shape[2] // 2]).T


def _classes(logits: torch.Tensor) -> np.ndarray:
    return _plane(logits.argmax(dim=1, keepdim=True)).astype(np.uint8)


def _painted(
    pixels: np.ndarray, numbers: np.ndarray, opacity: np.ndarray, palette: list[tuple[float, float, float]]
) -> np.ndarray:
    """Pixels with a color over them where the number is above 0. Shape (H, W, 3), uint8."""
    table = np.array([(0.0, 0.0, 0.0), *palette]) * 255
    weight = (opacity * (numbers > 0))[..., None]
    return (pixels * (1 - weight) + table[numbers] * weight).round().astype(np.uint8)
