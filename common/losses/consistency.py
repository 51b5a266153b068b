"""Agreement of the prediction on a disturbed image with the prediction on the image itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

KINDS = ("cross_entropy", "mse")
REGIONS = ("all", "masked")


class ConsistencyLoss(nn.Module):
    """Pull the prediction on a masked view towards the prediction on the clean view, which is held fixed.

    The consistency of masked context modelling (MaCo, arXiv:2408.12814, abstract); its form there is unknown to us.
    `cross_entropy` is that of the masked view against the clean view's probabilities, a Kullback-Leibler divergence but
    for a constant, and sharpens the prediction; `mse` is the mean squared difference of probabilities, which does not.

    Args:
        kind: `cross_entropy` or `mse`.
        region: `all` pixels, or those that are `masked` only.

    Raises:
        ValueError: If `kind` or `region` is unknown.
    """

    def __init__(self, kind: str = "cross_entropy", region: str = "all") -> None:
        super().__init__()
        if kind not in KINDS or region not in REGIONS:
            raise ValueError(
                f"kind must be one of {', '.join(KINDS)} and region one of {', '.join(REGIONS)}, got {kind!r} and "
                f"{region!r}."
            )
        self.kind = kind
        self.region = region

    def forward(self, masked_logits: torch.Tensor, clean_logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the loss; its gradient with respect to `clean_logits` is zero.

        Args:
            masked_logits: Logits of the masked view. Shape (B, C, *spatial).
            clean_logits: Logits of the clean view; same shape.
            mask: Where the view is masked. Shape (B, 1, *spatial), bool.

        Returns:
            Loss. Shape (), float32; zero where `region` is `masked` and nothing is.
        """
        target = torch.softmax(clean_logits.detach().float(), dim=1)
        if self.kind == "cross_entropy":
            distance = -(target * F.log_softmax(masked_logits.float(), dim=1)).sum(dim=1)
        else:
            distance = (target - torch.softmax(masked_logits.float(), dim=1)).square().mean(dim=1)
        if self.region == "all":
            return distance.mean()
        return (distance * mask[:, 0]).sum() / mask.sum().clamp(min=1)
