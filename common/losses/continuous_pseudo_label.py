"""Continuous pseudo labels: how surely a pixel belongs to a class, from its distance to the strokes of that class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from monai.utils import ensure_tuple
from torch import nn

FORMS = ("normalized", "weighted", "confidence")


def continuous_pseudo_labels(
    distances_mm: torch.Tensor, tau_mm: float | Sequence[float], normalized: bool = False
) -> torch.Tensor:
    """Turn distances to strokes into continuous pseudo labels.

    The exponential decay of MaCo (arXiv:2408.12814, abstract): `y_c = exp(-d_c / tau_c)`, which is 1 on the strokes of
    class c and 0 everywhere where the class has none. Normalized, `q = softmax_c(-d_c / tau_c)`: a distribution at
    every pixel, which far away from all strokes belongs to the nearest one. The normalization is ours.

    Args:
        distances_mm: Distance to the nearest stroke of each class, infinite where a class has none. Shape
            (B, C, *spatial).
        tau_mm: Distance at which the confidence falls to 1/e; one for all classes, or one each. Distances of another
            unit (geodesic) ask for a tau of that unit.
        normalized: Whether to return q instead of y.

    Returns:
        Shape (B, C, *spatial), float32 in [0, 1]; zero everywhere in a sample without any stroke.

    Raises:
        ValueError: If `tau_mm` is not positive or has another length than there are classes.
    """
    decay = distances_mm.float() / _per_class(tau_mm, distances_mm)
    if not normalized:
        return torch.exp(-decay)
    # with no stroke at all every distance is infinite, and the softmax would be 0/0
    return torch.nan_to_num(torch.softmax(-decay, dim=1), nan=0.0)


class ContinuousPseudoLabelLoss(nn.Module):
    """Pull a prediction towards continuous pseudo labels.

    The paper's abstract (arXiv:2408.12814) names the labels, not the loss. Three forms:

    - `normalized` (default): cross entropy against `q`, averaged over all pixels of the samples that have strokes.
    - `weighted`: cross entropy against `y`, divided by the sum of y: pixels far from every stroke have no say.
    - `confidence`: binary cross entropy of each foreground class's probability against `y`, averaged likewise over all
      pixels and foreground classes.

    With `dice_weight`, the soft Dice loss against `q` is added, whatever the form: over all pixels of all samples that
    have strokes, with squares in the denominator, so that it is least where the prediction is `q`.

    Args:
        tau_mm: See `continuous_pseudo_labels`.
        form: One of the three.
        dice_weight: Weight of the soft Dice loss, 0 for none.

    Raises:
        ValueError: If there is no such form, `tau_mm` is not positive or `dice_weight` is below 0.
    """

    def __init__(
        self, tau_mm: float | Sequence[float] = 4.5, form: str = "normalized", dice_weight: float = 0.0
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
        if not dice_weight >= 0:
            raise ValueError(f"dice_weight must be at least 0, got {dice_weight}.")
        _refuse_bad_tau(ensure_tuple(tau_mm))
        self.tau_mm = tau_mm
        self.form = form
        self.dice_weight = dice_weight
        self.dice_loss = DiceLoss(softmax=True, squared_pred=True, batch=True)

    def forward(self, input: torch.Tensor, distances_mm: torch.Tensor) -> torch.Tensor:  # noqa: A002 - MONAI's name
        """Return the loss; zero, with zero gradients, where no sample has a stroke.

        Args:
            input: Logits. Shape (B, C, *spatial).
            distances_mm: Distance to the strokes of each class, infinite where a class has none; same shape.

        Returns:
            Loss. Shape (), float32.

        Raises:
            ValueError: If shapes differ.
        """
        if input.shape != distances_mm.shape:
            raise ValueError(
                f"distances_mm must have the shape of the logits, {tuple(input.shape)}, got "
                f"{tuple(distances_mm.shape)}. Compute them with the num_classes of the network."
            )
        annotated = torch.isfinite(distances_mm).flatten(1).any(dim=1)
        loss = self._cross_entropy(input, distances_mm, annotated)
        if self.dice_weight > 0:
            labels = continuous_pseudo_labels(distances_mm[annotated], self.tau_mm, normalized=True)
            loss = loss + self.dice_weight * self.dice_loss(input[annotated].float(), labels)
        return loss

    def _cross_entropy(self, logits: torch.Tensor, distances_mm: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
        """The loss of the form."""
        target = continuous_pseudo_labels(distances_mm, self.tau_mm, normalized=self.form == "normalized")
        num_pixels = math.prod(logits.shape[2:])
        if self.form == "weighted":
            return -_inner(target, logits) / target.sum().clamp(min=torch.finfo(torch.float32).tiny)
        num_annotated = (annotated.sum() * num_pixels).clamp(min=1)
        if self.form == "normalized":
            return -_inner(target, logits) / num_annotated
        margins = _one_against_rest(logits.float())
        entropy = F.binary_cross_entropy_with_logits(margins, target[:, 1:], reduction="none").flatten(1).sum(dim=1)
        return (entropy * annotated).sum() / (num_annotated * margins.shape[1])


def _inner(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Sum of target times log-probability."""
    return (target * F.log_softmax(logits.float(), dim=1)).sum()


def _one_against_rest(logits: torch.Tensor) -> torch.Tensor:
    """Logit of each foreground class's softmax probability. Shape (B, C - 1, *spatial)."""
    classes = range(logits.shape[1])
    rest = [torch.logsumexp(logits[:, [j for j in classes if j != c]], dim=1) for c in classes[1:]]
    return logits[:, 1:] - torch.stack(rest, dim=1)


def _per_class(tau_mm: float | Sequence[float], distances: torch.Tensor) -> torch.Tensor:
    taus = ensure_tuple(tau_mm)
    _refuse_bad_tau(taus)
    if len(taus) not in (1, distances.shape[1]):
        raise ValueError(
            f"tau_mm must be one number or one for each of the {distances.shape[1]} classes, background first, got "
            f"{list(taus)}."
        )
    return torch.tensor(taus, dtype=torch.float32, device=distances.device).view(1, -1, *[1] * (distances.ndim - 2))


def _refuse_bad_tau(taus: Sequence[float]) -> None:
    if not all(0 < tau < math.inf for tau in taus):
        raise ValueError(
            f"tau_mm must be positive, got {list(taus)}; on short-axis MR 4.5 suits Euclidean, 50 geodesic distances."
        )
