"""Slices of volumes as the cases of a 2D training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import Dataset, MetaTensor
from monai.utils import convert_to_tensor, ensure_tuple
from torch.utils.data import Dataset as TorchDataset

from ..data.problems import DatasetError, Problem
from ..data.scribbles import UNLABELLED

logger = logging.getLogger(__name__)


class SliceDataset(Dataset):
    """Take volumes apart into slices, then transform each slice on its own.

    Slices without a stroke teach nothing about the classes and are left out by default. All volumes are read once, at
    the start, to find out which have strokes: use a `CacheDataset` below.

    Args:
        dataset: Volumes; items with `keys` of shape (channels, *spatial) of three axes, the annotation as `MetaTensor`,
            and `case`.
        transform: Applied to each slice: items with `keys` as `MetaTensor` of shape (channels, *spatial) of two axes,
            whose affine has the pixel size in mm, and `case`.
        keys: What to slice.
        annotation_key: Which of `keys` holds the strokes, 255 or, shifted, 0 where there are none, and the pixel size.
        unlabeled: The value that stands for no stroke.
        slice_axis: Spatial axis across the slices.
        annotated_only: Leave out slices without strokes. Kept, they still take part in the consistency of MaCo.

    Raises:
        DatasetError: If a volume has no stroke at all.
        ValueError: If a volume has not three axes.
    """

    def __init__(
        self,
        dataset: TorchDataset,
        transform: Callable[[Mapping[Hashable, Any]], Any] | None,
        keys: str | Sequence[str] = ("image", "scribble"),
        annotation_key: str = "scribble",
        unlabeled: int = UNLABELLED,
        slice_axis: int = -1,
        annotated_only: bool = True,
    ) -> None:
        self.volumes = dataset
        self.keys = ensure_tuple(keys)
        self.annotation_key = annotation_key
        self.slice_axis = slice_axis
        slices: list[dict[str, Any]] = []
        num_all = 0
        problems: list[Problem] = []
        for volume in range(len(dataset)):  # type: ignore[arg-type]
            item = dataset[volume]
            annotation = torch.as_tensor(item[annotation_key])
            if annotation.ndim != 4:
                raise ValueError(
                    f"{item['case']}: slices are taken from volumes of shape (1, X, Y, Z), found "
                    f"{tuple(annotation.shape)}. Use 3D images, or train on 2D images without SliceDataset."
                )
            drawn = (annotation[0] != unlabeled).movedim(slice_axis, 0).flatten(1).any(dim=1)
            if not drawn.any():
                remedy = "draw some, remove the case, or use images with larger pixels if thin strokes vanished"
                problems.append(Problem(item["case"], f"must have strokes in {annotation_key!r}", "none", remedy))
            num_all += len(drawn)
            chosen = drawn if annotated_only else torch.ones_like(drawn)
            slices += [{"volume": volume, "slice": int(index), "case": item["case"]} for index in torch.nonzero(chosen)]
        if problems:
            raise DatasetError(problems)
        logger.info("%d of %d slices are used (annotated_only %s)", len(slices), num_all, annotated_only)
        super().__init__(slices, transform)

    def _transform(self, index: int) -> Any:
        place = self.data[index]
        volume = self.volumes[place["volume"]]
        axis = self.slice_axis % 3
        spacing_mm = [float(step) for a, step in enumerate(volume[self.annotation_key].pixdim) if a != axis]
        affine = torch.diag(torch.tensor([*spacing_mm, 1.0], dtype=torch.float64))
        item: dict[str, Any] = {
            key: MetaTensor(convert_to_tensor(volume[key]).select(axis + 1, place["slice"]), affine=affine)
            for key in self.keys
        }
        item["case"] = place["case"]
        return item if self.transform is None else self.transform(item)
