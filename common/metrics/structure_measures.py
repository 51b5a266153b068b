"""E-measure and S-measure of binary masks, as the evaluations of polyp segmentation use them."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-8
# Weight between the object and the region part of the S-measure.
S_ALPHA = 0.5


def e_measure(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Return the enhanced-alignment measure of two binary masks (Fan et al., IJCAI 2018, arXiv:1805.10421).

    The mean over pixels of (phi + 1)^2 / 4, where phi = 2 a b / (a^2 + b^2 + 1e-8) of the two masks less their means;
    with an empty reference the share of pixels predicted as background, with a full one that predicted as foreground.
    As in the published code the sum is divided by the number of pixels less one, so equal masks score slightly more
    than 1 (256 / 255 at 16x16).

    Differs from the published code (VPTTA, arXiv:2311.18363), which thresholds the binary prediction at twice its mean:
    an empty prediction then counts as full, and empty against empty scores 0. Here it scores as equal masks do; an
    empty prediction of an object scores 0.25 in both.

    Args:
        prediction: Shape (H, W), bool.
        reference: The same shape.

    Returns:
        The measure, 0 for opposite masks to (H W) / (H W - 1) for equal ones.

    Raises:
        ValueError: If shapes differ or are not 2-D.
    """
    _check(prediction, reference)
    predicted, true = prediction.astype(np.float64), reference.astype(np.float64)
    if not reference.any():
        alignment = 1 - predicted
    elif reference.all():
        alignment = predicted
    else:
        a, b = predicted - predicted.mean(), true - true.mean()
        alignment = (2 * a * b / (a * a + b * b + EPSILON) + 1) ** 2 / 4
    return float(alignment.sum() / (reference.size - 1 + EPSILON))


def s_measure(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Return the structure measure of two masks (Fan et al., ICCV 2017, arXiv:1708.00786).

    Half of it compares the values inside and outside of the object, half the four quadrants around the center of
    the reference. With an empty reference it is the share of background, with a full one that of foreground. As in
    the published code the covariance of a quadrant is divided by its pixels less one and the variances by its pixels,
    so equal masks may score more than 1 (1.00794 for a centered square at 16x16), and nothing is clipped at 0.

    Differs from the published code in a quadrant of one pixel, where that divides by zero: its covariance is 0 here.

    Args:
        prediction: Shape (H, W), bool, or probabilities.
        reference: Shape (H, W), bool.

    Returns:
        The measure, about 0 to 1.

    Raises:
        ValueError: If shapes differ or are not 2-D.
    """
    _check(prediction, reference)
    predicted, true = prediction.astype(np.float64), reference.astype(bool)
    if not true.any():
        return float(1 - predicted.mean())
    if true.all():
        return float(predicted.mean())
    share = true.mean()
    objects = share * _object_part(predicted[true]) + (1 - share) * _object_part(1 - predicted[~true])
    return float(S_ALPHA * objects + (1 - S_ALPHA) * _region_part(predicted, true.astype(np.float64)))


def _check(prediction: np.ndarray, reference: np.ndarray) -> None:
    if prediction.shape != reference.shape or reference.ndim != 2 or reference.size < 2:
        raise ValueError(
            f"prediction and reference must have one shape (H, W), got {prediction.shape} and {reference.shape}."
        )


def _object_part(values: np.ndarray) -> float:
    mean = values.mean()
    return float(2 * mean / (mean * mean + 1 + values.std() + EPSILON))


def _region_part(predicted: np.ndarray, true: np.ndarray) -> float:
    """Mean of the four quadrants around the center of the reference, weighted by their area."""
    # round() to even, and one pixel further, as published
    row, column = (round(float(axis.mean())) + 1 for axis in np.nonzero(true))
    total = 0.0
    for rows in (slice(None, row), slice(row, None)):
        for columns in (slice(None, column), slice(column, None)):
            size = true[rows, columns].size
            if size:
                total += size * _similarity(predicted[rows, columns], true[rows, columns])
    return total / true.size


def _similarity(x: np.ndarray, y: np.ndarray) -> float:
    """Structural similarity of a quadrant; 1 where both terms vanish, as for two constant quadrants."""
    mean_x, mean_y = x.mean(), y.mean()
    covariance = ((x - mean_x) * (y - mean_y)).sum() / (x.size - 1) if x.size > 1 else 0.0
    alpha = 4 * mean_x * mean_y * covariance
    beta = (mean_x**2 + mean_y**2) * (x.var() + y.var())
    if alpha == 0:
        return 1.0 if beta == 0 else 0.0
    return float(alpha / (beta + EPSILON))
