"""MedLAM between the loader and the trainer: scans go to the device whole, and pairs of patches are drawn there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from monai.data import Dataset
from monai.engines import PrepareBatch
from monai.inferers import Inferer
from monai.utils import CommonKeys
from torch import nn
from torch.utils.data import Dataset as TorchDataset

from ..losses.relative_distance import DISTANCE_RANGE_MM, offset_mm
from ..transforms.paired_patches import PairedPatches


class PairPrepareBatch(PrepareBatch):
    """Draw pairs of patches from a batch of unlabelled scans, on the training device.

    Args:
        pairs: Draws them.

    Note:
        Every call draws anew from the generator of `pairs`.
    """

    def __init__(self, pairs: PairedPatches) -> None:
        self.pairs = pairs

    def __call__(
        self,
        batchdata: Mapping[str, Sequence[torch.Tensor]],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return patches and what the loss compares with, as `PairedPatches` does.

        Args:
            batchdata: `image`: scans of shape (1, D, H, W), as `collate_volumes` gives them.
            device: Where to draw.
            non_blocking: Whether the transfer from pinned memory may overlap with other work.
            **kwargs: Further arguments of `Tensor.to`.
        """
        volumes = [
            volume.to(device=device, non_blocking=non_blocking, **kwargs) for volume in batchdata[CommonKeys.IMAGE]
        ]
        return self.pairs(volumes)


class OffsetInferer(Inferer):
    """Predict the offset between the two patches of each pair.

    Args:
        distance_range_mm: Range per axis in mm, that of training.
    """

    def __init__(self, distance_range_mm: Sequence[float] = DISTANCE_RANGE_MM) -> None:
        self.distance_range_mm = tuple(distance_range_mm)

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *_args: Any, **_kwargs: Any) -> torch.Tensor:
        """Return center of the first patch minus center of the second in mm. Shape (B, 3).

        Args:
            inputs: Pairs. Shape (B, 2, C, *patch_size).
            network: MedLAM.
            *_args: Not used.
            **_kwargs: Not used.
        """
        position = network(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2]).float()
        return offset_mm(position[:, 0], position[:, 1], self.distance_range_mm)


def freeze_pairs(dataset: TorchDataset, pairs: PairedPatches, num_samples: int, seed: int = 0) -> Dataset:
    """Draw once the pairs that every validation then sees, so that its errors can be compared.

    Args:
        dataset: Items with `image` of shape (1, D, H, W); taken in order, from the start again where it is shorter.
        pairs: How to draw; a copy with its own generator is used, so training draws as if there was no validation.
        num_samples: Number of pairs.
        seed: Seed of the copy.

    Returns:
        Items with `image`, two original patches, (2, 1, *patch_size), and `label`, their offset in mm, (3,).

    Raises:
        ValueError: If `dataset` is empty or `num_samples` below 1.
    """
    length = len(dataset)  # type: ignore[arg-type]
    if length < 1 or num_samples < 1:
        raise ValueError(
            f"A frozen validation set needs at least one scan and one pair, got {length} and {num_samples}."
        )
    frozen = deepcopy(pairs)
    frozen.generator = torch.Generator().manual_seed(seed)
    items = []
    for index in range(num_samples):
        image = torch.as_tensor(dataset[index % length][CommonKeys.IMAGE])
        patches, target = frozen([image.as_tensor() if hasattr(image, "as_tensor") else image])
        items.append(
            {CommonKeys.IMAGE: patches[:2, 0], CommonKeys.LABEL: (target["center_mm"][0] - target["center_mm"][1])[0]}
        )
    return Dataset(items)
