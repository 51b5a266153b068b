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
        meaning: What it is, in a sentence for people.
        best: Value of a perfect prediction. Dice and NSD are better the higher, everything else the closer to 0.
    """

    name: str
    title: str
    meaning: str
    best: float


_HD95 = "Distance between the surfaces that 95 % of their points stay below"
_ASD = "Mean distance between the surfaces, both directions"

METRICS = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", "Overlap: twice the common volume over the sum of both volumes; 1 is best.", 1.0),
        Metric(
            "nsd",
            "NSD",
            "Normalized surface Dice: share of both surfaces within the tolerance of the other; 1 is best.",
            1.0,
        ),
        Metric("hd95_mm", "HD95 (mm)", f"{_HD95}, in mm; 0 is best.", 0.0),
        Metric("hd95_px", "HD95 (pixels)", f"{_HD95}, in pixels; 0 is best.", 0.0),
        Metric("asd_mm", "ASD (mm)", f"{_ASD}, in mm; 0 is best.", 0.0),
        Metric("asd_px", "ASD (pixels)", f"{_ASD}, in pixels; 0 is best.", 0.0),
        Metric(
            "volume_difference_ml",
            "Volume difference (mL)",
            "Predicted less true volume in mL; below 0 is too small. Opposite signs cancel out in a mean.",
            0.0,
        ),
        Metric(
            "relative_volume_difference",
            "Relative volume difference",
            "The same as a share of the true volume (in 2D: area): 0.1 is 10 % too large.",
            0.0,
        ),
    )
}

SCORED = "scored"
BOTH_EMPTY = "both empty"
ONLY_PREDICTION = "only in prediction"
ONLY_REFERENCE = "only in reference"
MISSING = "missing prediction"
# What became of a structure in a case, and what that means in a sentence for people.
OUTCOMES = {
    SCORED: "the structure is in both masks",
    ONLY_REFERENCE: "it was not found at all",
    ONLY_PREDICTION: "it was found where there is none",
    BOTH_EMPTY: "there is none, and none was found",
    MISSING: "there is no prediction to score",
}


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
        values: Value by metric; NaN where it is not defined or the structure is not scored. Distances are named in
            pixels where images have no geometry; volumes in mL are 3D with geometry only.
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
        reference's volume.
    """
    names = metric_names(grid)
    outcome = _outcome(prediction, reference, is_missing)
    if (reference is None and protocol.absent_is_missing) or (
        outcome == BOTH_EMPTY and not protocol.both_empty_is_perfect
    ):
        return StructureResult(outcome, dict.fromkeys(names, math.nan))
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
    relative = difference / num_voxels[1] if num_voxels[1] else math.nan
    volume_ml = difference * math.prod(grid.spacing_mm) / 1000
    values = [*score, *([volume_ml] if "volume_difference_ml" in names else []), relative]
    return StructureResult(outcome, dict(zip(names, values, strict=True)))


def metric_names(grid: Grid) -> tuple[str, ...]:
    """Return the metrics that masks of a grid are scored by; distances are in pixels where it has no geometry."""
    unit = "px" if grid.affine is None else "mm"
    volume = () if grid.affine is None or len(grid.shape) < 3 else ("volume_difference_ml",)
    return ("dice", "nsd", f"hd95_{unit}", f"asd_{unit}", *volume, "relative_volume_difference")


def _outcome(prediction: CroppedMask | None, reference: CroppedMask | None, is_missing: bool) -> str:
    if is_missing:
        return MISSING
    if prediction is None:
        return BOTH_EMPTY if reference is None else ONLY_REFERENCE
    return ONLY_PREDICTION if reference is None else SCORED
