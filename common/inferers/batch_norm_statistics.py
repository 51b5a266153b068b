"""The baseline that replaces BatchNorm statistics by those of the image."""

from __future__ import annotations

import torch
from torch import nn

from .adaptation import AdaptationInferer
from .batch_norm import ImageBatchNorm2d, replace_batch_norms


class BatchNormStatisticsInferer(AdaptationInferer):
    """Normalize by the statistics of the image at hand instead of those of the source; nothing is trained.

    Nado et al., "Evaluating Prediction-Time Batch Normalization for Robustness under Covariate Shift",
    arXiv:2006.10963; with `source_weight` N / (N + 1), Schneider et al., arXiv:2006.16971, section 2, with N samples of
    source statistics. There is no state: every image is by itself.

    Args:
        source_weight: Weight of the source's statistics in [0, 1]; 0 takes the image's alone.
        channels_last: If True, network and images are laid out channels-last.

    Raises:
        ValueError: If `source_weight` is not in [0, 1].
    """

    def __init__(self, source_weight: float = 0.0, channels_last: bool = True) -> None:
        super().__init__(channels_last)
        if not 0.0 <= source_weight <= 1.0:
            raise ValueError(f"source_weight must be in [0, 1], got {source_weight}.")
        self.source_weight = source_weight

    def _prepare(self, network: nn.Module) -> None:
        for layer in replace_batch_norms(network, ImageBatchNorm2d):
            layer.source_weight = self.source_weight
        self._network = network

    def _adapt_and_predict(self, image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self._network(image)
