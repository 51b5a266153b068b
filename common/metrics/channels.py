"""Scores of 2D masks, channel by channel, with distances in pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .structure_measures import e_measure, s_measure
from .surfaces import border_distances_mm

DICE_EPSILON = 1e-6
PERCENTILE = 95


class ChannelScore(NamedTuple):
    """Scores of one channel of one image.

    Attributes:
        dice: (2 |P & R| + 1e-6) / (|P| + |R| + 1e-6), in [0, 1].
        hd95_px: The larger of the 95th percentiles of the border distances in both directions, in pixels.
        asd_px: Mean distance of the predicted border to the reference's, this direction only, in pixels.
        e_measure: See `e_measure`; equal masks score slightly more than 1.
        s_measure: See `s_measure`; the same.
    """

    dice: float
    hd95_px: float
    asd_px: float
    e_measure: float
    s_measure: float


def score_channels(prediction: np.ndarray, reference: np.ndarray) -> list[ChannelScore]:
    """Score every channel of one image, as the evaluation of VPTTA (arXiv:2311.18363) and GraTa (arXiv:2408.07343).

    Border pixels are those of a mask with a neighbor (of four) outside of it or of the image; distances run between
    pixel centers.

    Empty masks: an empty prediction of an empty reference is right and scores Dice 1, distances 0, E- and S-measure as
    equal masks. Where one of the two is empty, Dice is 0 (1e-6 over the pixels, to be exact) and the distances are the
    diagonal of the image; E- and S-measure follow from their formulas. The published code gives distances of 100 pixels
    in both cases, and an E-measure of 0 for two empty masks.

    Args:
        prediction: Shape (K, H, W), bool.
        reference: The same shape.

    Returns:
        The scores of each channel.

    Raises:
        ValueError: If shapes differ or are not 3-D.
    """
    if prediction.shape != reference.shape or reference.ndim != 3:
        raise ValueError(
            f"prediction and reference must have one shape (K, H, W), got {prediction.shape} and {reference.shape}."
        )
    return [_score(p.astype(bool), r.astype(bool)) for p, r in zip(prediction, reference, strict=True)]


def _score(predicted: np.ndarray, true: np.ndarray) -> ChannelScore:
    overlap, total = int((predicted & true).sum()), int(predicted.sum()) + int(true.sum())
    return ChannelScore(
        (2 * overlap + DICE_EPSILON) / (total + DICE_EPSILON),
        *_distances_px(predicted, true),
        e_measure(predicted, true),
        s_measure(predicted, true),
    )


def _distances_px(predicted: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """HD95 and one-directional mean distance of two masks."""
    if not predicted.any() and not true.any():
        return 0.0, 0.0
    if not predicted.any() or not true.any():
        diagonal_px = math.hypot(*true.shape)
        return diagonal_px, diagonal_px
    forward_px, backward_px = border_distances_mm(predicted, true, (1.0, 1.0))
    hd95_px = max(float(np.percentile(distances, PERCENTILE)) for distances in (forward_px, backward_px))
    return hd95_px, float(forward_px.mean())
