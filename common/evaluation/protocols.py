"""What is measured, and the named rules for masks that are empty or missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..metrics.surfaces import MaskScore, compare_masks
from .masks import CroppedMask, Grid, common_window


@dataclass(frozen=True)
class Metric:
    """One column of the scores.

    Attributes:
        name: Name, with its unit where it has one.
        title: Heading for people.
        best: Value of a perfect prediction. Dice and NSD are better the higher, everything else the closer to 0.
    """

    name: str
    title: str
    best: float

    def loss(self, value: float) -> float:
        """Return how far a value is from the best one, at least 0."""
        return abs(value - self.best)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", 1.0),
        Metric("nsd", "NSD", 1.0),
        Metric("hd95_mm", "HD95 (mm)", 0.0),
        Metric("asd_mm", "ASD (mm)", 0.0),
        Metric("volume_difference_ml", "Volume difference (mL)", 0.0),
        Metric("relative_volume_difference", "Relative volume difference", 0.0),
    )
}

SCORED = "scored"
BOTH_EMPTY = "both empty"
ONLY_PREDICTION = "only in prediction"
ONLY_REFERENCE = "only in reference"
MISSING = "missing prediction"
OUTCOMES = (SCORED, ONLY_REFERENCE, ONLY_PREDICTION, BOTH_EMPTY, MISSING)


@dataclass(frozen=True)
class Protocol:
    """Rule for empty masks.

    A prediction that misses a structure of the reference always gets the worst values, and so does a file that is not
    there: Dice and NSD 0, distances the diagonal of the image.

    Attributes:
        name: Name on the command line.
        rule: The rule in a sentence, for reports.
        both_empty_is_perfect: Whether a structure in neither mask scores the best values; else it is not scored.
        absent_is_missing: Whether a structure that is not in the reference is not scored, whatever was predicted.
    """

    name: str
    rule: str
    both_empty_is_perfect: bool
    absent_is_missing: bool


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "segrap2023",
            "In the manner of SegRap2023 (arXiv:2312.09576): a structure in neither mask scores 1 (distance 0), in "
            "only one of them 0 (distance: the image's diagonal).",
            both_empty_is_perfect=True,
            absent_is_missing=False,
        ),
        Protocol(
            "touchstone",
            "In the manner of Touchstone (arXiv:2411.03670): a structure that is not in the reference is a missing "
            "value, whatever was predicted; one that is only in the reference scores 0 (distance: the diagonal).",
            both_empty_is_perfect=False,
            absent_is_missing=True,
        ),
        Protocol(
            "plain",
            "A structure in neither mask is not scored; in only one of them it scores 0 (distance: the image's "
            "diagonal). Each kind is counted apart.",
            both_empty_is_perfect=False,
            absent_is_missing=False,
        ),
    )
}


@dataclass(frozen=True)
class StructureResult:
    """Result of one structure in one case.

    Attributes:
        outcome: One of `OUTCOMES`.
        values: Value by metric; NaN where it is not defined or the structure is not scored.
    """

    outcome: str
    values: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return the result with None for NaN, which JSON does not know."""
        return {"outcome": self.outcome, "values": {k: None if math.isnan(v) else v for k, v in self.values.items()}}


def score_masks(
    prediction: CroppedMask | None,
    reference: CroppedMask | None,
    grid: Grid,
    nsd_tolerance_mm: float,
    protocol: Protocol,
    is_missing: bool = False,
) -> StructureResult:
    """Score one structure of one case by a protocol.

    Args:
        prediction: Predicted mask in `grid`; None where it is empty.
        reference: Reference in `grid`; None where it is empty.
        grid: Grid of both.
        nsd_tolerance_mm: Tolerance of the NSD in mm.
        protocol: Rule for empty masks.
        is_missing: Whether there is no prediction at all, which is not the same as an empty one.

    Returns:
        Outcome and values. Volume differences are prediction minus reference; the relative one is a share of the
        reference's volume. In 2D the volume in mL is not defined.
    """
    outcome = _outcome(prediction, reference, is_missing)
    if (reference is None and protocol.absent_is_missing) or (
        outcome == BOTH_EMPTY and not protocol.both_empty_is_perfect
    ):
        return StructureResult(outcome, dict.fromkeys(METRICS, math.nan))
    if prediction is not None and reference is not None:
        window = common_window(prediction, reference)
        pair = prediction.within(window), reference.within(window)
        score = compare_masks(*pair, grid.spacing_mm, nsd_tolerance_mm)
    elif outcome == BOTH_EMPTY:
        score = MaskScore(1.0, 1.0, 0.0, 0.0)
    else:
        diagonal_mm = math.hypot(*(n * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)))
        score = MaskScore(0.0, 0.0, diagonal_mm, diagonal_mm)
    num_voxels = [0 if mask is None else mask.num_voxels for mask in (prediction, reference)]
    difference = num_voxels[0] - num_voxels[1]
    voxel_ml = math.prod(grid.spacing_mm) / 1000 if len(grid.shape) == 3 else math.nan
    relative = difference / num_voxels[1] if num_voxels[1] else math.nan
    return StructureResult(
        outcome,
        {**score._asdict(), "volume_difference_ml": difference * voxel_ml, "relative_volume_difference": relative},
    )


def _outcome(prediction: CroppedMask | None, reference: CroppedMask | None, is_missing: bool) -> str:
    if is_missing:
        return MISSING
    if prediction is None:
        return BOTH_EMPTY if reference is None else ONLY_REFERENCE
    return ONLY_PREDICTION if reference is None else SCORED
