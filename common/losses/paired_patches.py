"""The training loss of MedLAM on pairs of patches."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import nn

from .multi_scale_similarity import MultiScaleSimilarityLoss
from .relative_distance import RelativeDistanceLoss


class PairedPatchLoss(nn.Module):
    """Relative distance between the original patches plus similarity between them and their deformed copies.

    As published, the distance is regressed between the two original patches alone. With `all_pairs`, it is between all
    patches of a scan, six pairs for four patches, which costs nothing as all of them are encoded, and needs fewer
    iterations.

    Args:
        relative_distance: Loss of the offset.
        similarity: Loss of the features.
        distance_weight: Weight of the first; 1 as published.
        similarity_weight: Weight of the second; 1 as published.
        all_pairs: Whether deformed copies, and further patches, take part in the regression.
    """

    def __init__(
        self,
        relative_distance: RelativeDistanceLoss,
        similarity: MultiScaleSimilarityLoss,
        distance_weight: float = 1.0,
        similarity_weight: float = 1.0,
        all_pairs: bool = False,
    ) -> None:
        super().__init__()
        self.relative_distance = relative_distance
        self.similarity = similarity
        self.distance_weight = distance_weight
        self.similarity_weight = similarity_weight
        self.all_pairs = all_pairs

    def forward(self, prediction: Mapping[str, Any], target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss. Shape ().

        Args:
            prediction: What `PairedMedLAM` returns.
            target: What `PairedPatches` returns beside the patches.
        """
        position, center_mm = prediction["position"].float(), target["center_mm"]
        pairs = list(combinations(range(len(position)), 2)) if self.all_pairs else [(0, 1)]
        first, second = ([pair[side] for pair in pairs] for side in range(2))
        distance = self.relative_distance(position[first], position[second], center_mm[first] - center_mm[second])
        similarity = distance.new_zeros(())
        for patch in range(2):
            similarity = similarity + self.similarity(
                [maps[patch] for maps in prediction["original_maps"]],
                [maps[patch] for maps in prediction["deformed_maps"]],
                target["points"][patch],
                target["points_mm"][patch],
                target["coordinates_mm"][patch],
            )
        return self.distance_weight * distance + self.similarity_weight * similarity
