"""Volume Fusion between the loader and the trainer: volumes go to the device as they are and are fused there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from monai.data import Dataset
from monai.engines import PrepareBatch
from monai.utils import CommonKeys
from torch.utils.data import Dataset as TorchDataset

from ..transforms.volume_fusion import VolumeFusion


def collate_volumes(batch: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Collate volumes of different sizes: as a list, without padding.

    Args:
        batch: Items with `image` of shape (1, D, H, W); D, H, W may differ from item to item.

    Returns:
        `image`: the volumes, as plain tensors so that memory pinning and transfer work on them; `case`: their names,
        where the items have one.
    """
    volumes = [torch.as_tensor(_plain(item[CommonKeys.IMAGE])) for item in batch]
    return {CommonKeys.IMAGE: volumes, "case": [item["case"] for item in batch if "case" in item]}


class FusionPrepareBatch(PrepareBatch):
    """Make fused volumes and their labels out of a batch of unlabelled volumes, on the training device.

    Args:
        fusion: Draws and carries out the fusion.

    Note:
        Every call draws anew from the generator of `fusion`.
    """

    def __init__(self, fusion: VolumeFusion) -> None:
        self.fusion = fusion

    def __call__(
        self,
        batchdata: Mapping[str, Sequence[torch.Tensor]],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return fused volumes, (B, 1, D, H, W) float32, and fusion classes, (B, 1, D, H, W) uint8.

        Args:
            batchdata: `image`: volumes of shape (1, D, H, W), as `collate_volumes` gives them.
            device: Where to fuse.
            non_blocking: Whether the transfer from pinned memory may overlap with other work.
            **kwargs: Further arguments of `Tensor.to`.
        """
        volumes = [
            volume.to(device=device, non_blocking=non_blocking, **kwargs) for volume in batchdata[CommonKeys.IMAGE]
        ]
        return self.fusion(volumes)


def freeze_fused_samples(dataset: TorchDataset, fusion: VolumeFusion, num_samples: int, seed: int = 0) -> Dataset:
    """Fuse once what every validation then sees, so that its scores can be compared.

    Args:
        dataset: Items with `image` of shape (1, D, H, W); taken in order, from the start again where it is shorter.
        fusion: How to fuse; a copy with its own generator is used, so training draws as if there was no validation.
        num_samples: Number of fused samples.
        seed: Seed of the copy.

    Returns:
        Items with `image`, float32, and `label`, uint8, both of shape (1, *roi_size), kept in memory.

    Raises:
        ValueError: If `dataset` is empty or `num_samples` below 1.
    """
    length = len(dataset)  # type: ignore[arg-type]
    if length < 1 or num_samples < 1:
        raise ValueError(
            f"A frozen validation set needs at least one volume and one sample, got {length} and {num_samples}."
        )
    frozen = deepcopy(fusion).set_random_state(seed=seed)
    items: list[dict[str, torch.Tensor]] = []
    while len(items) < num_samples:
        # two at a time, since the variant `patches` pairs the volumes of a batch
        volumes = [_plain(dataset[i % length][CommonKeys.IMAGE]) for i in (len(items), len(items) + 1)]
        items += [
            {CommonKeys.IMAGE: image, CommonKeys.LABEL: label} for image, label in zip(*frozen(volumes), strict=True)
        ]
    return Dataset(items[:num_samples])


def _plain(image: torch.Tensor) -> torch.Tensor:
    """The tensor without MONAI's metadata, whose bookkeeping would run along with every operation."""
    return image.as_tensor() if hasattr(image, "as_tensor") else image
