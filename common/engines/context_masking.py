"""Hide parts of an image, so that a network has to infer them from their surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.utils import ensure_tuple_rep

from ..data.scribbles import UNLABELLED
from ..seeding import derive_seed

ATTENTIONS = ("scribble", "uniform", "uncertainty", "cpl")
FILLS = ("mean", "zero")


class ContextMasking:
    """Choose patches by weight and hide them.

    Masked context modelling of MaCo (arXiv:2408.12814) hides part of the input by an attention-based strategy, in which
    patches with annotation weigh more. The rest is ours: of a grid of N patches exactly `round(ratio * N)` are drawn
    without replacement, with weights `1 + kappa * h`, by keys log(u) / weight (Efraimidis and Spirakis, 2006).
    `attention` says what h is:

    - `scribble`: 1 where the patch holds a stroke of `label_scope`, else 0;
    - `uniform`: 0;
    - `uncertainty`: mean entropy of the prediction, divided by its maximum;
    - `cpl`: 1 minus the mean confidence of the background's continuous pseudo label.

    Args:
        patch_size: Size of a patch in pixels, one for all axes or one each; at the far border patches are cut off.
        ratio: Share of the patches that is hidden, in (0, 1).
        attention: One of the four.
        kappa: How much more a patch with h = 1 weighs; above -1. Below 0 such patches are spared.
        label_scope: `foreground` counts strokes of classes from 1 on, `any` those of the background too.
        fill: `mean` of the image over the sample, or `zero`, for images that are centered there.
        seed: Seed of the generator.

    Raises:
        ValueError: If an argument is out of its range.

    Note:
        Every call draws anew from a generator on the CPU, the same on every device; `set_epoch`
        sets it by `seed` and the epoch alone.
    """

    def __init__(
        self,
        patch_size: int | Sequence[int] = 16,
        ratio: float = 0.5,
        attention: str = "scribble",
        kappa: float = 3.0,
        label_scope: str = "foreground",
        fill: str = "mean",
        seed: int = 0,
    ) -> None:
        for name, value, known in (
            ("attention", attention, ATTENTIONS),
            ("fill", fill, FILLS),
            ("label_scope", label_scope, ("foreground", "any")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
        if not 0 < ratio < 1 or not kappa > -1:
            raise ValueError(f"ratio must be in (0, 1) and kappa above -1, got {ratio} and {kappa}.")
        self.patch_size = patch_size
        self.ratio = ratio
        self.attention = attention
        self.kappa = kappa
        self.label_scope = label_scope
        self.fill = fill
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    def set_epoch(self, epoch: int) -> None:
        """Draw from now on what belongs to this epoch."""
        self.generator.manual_seed(derive_seed("context masking", self.seed, epoch))

    def stroke_map(self, scribble: torch.Tensor) -> torch.Tensor:
        """Return h per pixel for `attention` `scribble`.

        Args:
            scribble: Classes, or 255 where nothing is labelled. Shape (B, 1, *spatial).

        Returns:
            Shape (B, 1, *spatial), float32, 0 or 1.
        """
        lowest = 1 if self.label_scope == "foreground" else 0
        return ((scribble >= lowest) & (scribble != UNLABELLED)).float()

    def draw(self, importance: torch.Tensor) -> torch.Tensor:
        """Draw the patches to hide.

        Args:
            importance: h per pixel, in [0, 1]; a patch takes its maximum for `scribble`, its mean otherwise. Shape
                (B, 1, *spatial).

        Returns:
            Where to hide. Shape (B, 1, *spatial), bool; the same number of patches in each sample.
        """
        spatial = importance.shape[2:]
        patch = ensure_tuple_rep(self.patch_size, len(spatial))
        scores = self._pool(importance, patch)
        weights = (1.0 + self.kappa * scores.flatten(1)).cpu()
        num_hidden = round(self.ratio * weights.shape[1])
        uniform = torch.rand(weights.shape, generator=self.generator).clamp_(min=torch.finfo(torch.float32).tiny)
        chosen = torch.topk(uniform.log() / weights, num_hidden, dim=1).indices
        hidden = torch.zeros(weights.shape, dtype=torch.bool).scatter_(1, chosen, True)
        mask = hidden.to(importance.device, non_blocking=True).view(scores.shape)
        for axis, (size, extent) in enumerate(zip(patch, spatial, strict=True), start=2):
            mask = mask.repeat_interleave(size, dim=axis).narrow(axis, 0, extent)
        return mask

    def hide(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Fill what is to be hidden.

        Args:
            image: Shape (B, channels, *spatial).
            mask: As `draw` gives it.

        Returns:
            Shape of `image`.
        """
        if self.fill == "zero":
            return image.masked_fill(mask, 0.0)
        mean = image.flatten(2).mean(dim=2).view(*image.shape[:2], *[1] * (image.ndim - 2))
        return torch.where(mask, mean, image)

    def _pool(self, importance: torch.Tensor, patch: Sequence[int]) -> torch.Tensor:
        """Score of each patch; at the border only what lies in the image counts. Shape (B, 1, *grid)."""
        spatial_dims = len(patch)
        if self.attention == "scribble":
            pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[spatial_dims - 1]
            return pool(importance, tuple(patch), ceil_mode=True)
        average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[spatial_dims - 1]
        return average(importance, tuple(patch), ceil_mode=True)
