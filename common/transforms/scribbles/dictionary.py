"""Drawing and cutting scribbles in a chain of transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from ...data.scribbles import coarsest_axis
from .generation import check_fraction, check_scribble_options, cut_scribble, generate_scribble

__all__ = ["CutScribbled", "GenerateScribbled"]

Array = np.ndarray


class GenerateScribbled(MapTransform):
    """Draw scribbles into label maps; see `generate_scribble`.

    Scribbles of a person do not change from epoch to epoch, and a new set for every epoch would give away the whole
    mask. Here they are the same each time, as they depend on the name of the case and `seed` alone: put this before
    random transforms, where `CacheDataset` keeps it, or write the files once with
    `python -m common.transforms.scribbles generate`.

    Args:
        keys: Label maps, channel first, one channel: (1, H, W) or (1, I, J, K).
        output_key: Key of the scribbles (internal convention, with the metadata of the label map). With several
            `keys`, as many.
        num_classes: See `generate_scribble`.
        width: See `generate_scribble`.
        slice_fraction: See `generate_scribble`.
        pixel_fraction: See `generate_scribble`.
        border_stroke: See `generate_scribble`.
        label_noise_px: See `generate_scribble`.
        slice_axis: Axis of the slices among the spatial ones; None takes that of the largest spacing.
        seed: See `generate_scribble`.
        case_key: Key of the name of the case.
        allow_missing_keys: Do not raise if a key of `keys` is missing.

    Raises:
        KeyError: On call, if the data has no name under `case_key`.
        ValueError: On call; see `generate_scribble`.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        output_key: KeysCollection = "scribble",
        num_classes: int = 2,
        width: int = 3,
        slice_fraction: float = 1.0,
        pixel_fraction: float = 1.0,
        border_stroke: bool = False,
        label_noise_px: int = 0,
        slice_axis: int | None = None,
        seed: int = 0,
        case_key: str = "case",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_scribble_options(width, slice_fraction, pixel_fraction, label_noise_px)
        self.output_keys = (output_key,) if isinstance(output_key, str) else tuple(output_key)
        if len(self.output_keys) != len(self.keys):
            raise ValueError(f"output_key must name as many keys as keys; found {self.output_keys} for {self.keys}.")
        self.options: dict[str, Any] = {
            "num_classes": num_classes,
            "width": width,
            "slice_fraction": slice_fraction,
            "pixel_fraction": pixel_fraction,
            "border_stroke": border_stroke,
            "label_noise_px": label_noise_px,
            "seed": seed,
        }
        self.slice_axis = slice_axis
        self.case_key = case_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the scribbles added."""
        drawn = dict(data)
        for key, output_key in self.key_iterator(drawn, self.output_keys):
            label = drawn[key]
            scribble = generate_scribble(
                _single_channel(label, str(key)),
                case=_case_of(drawn, self.case_key),
                slice_axis=_slice_axis_of(label, self.slice_axis),
                **self.options,
            )
            drawn[output_key], *_ = convert_to_dst_type(scribble[None], dst=label, dtype=torch.uint8)
        return drawn


class CutScribbled(MapTransform):
    """Keep a share of every stroke; see `cut_scribble`. The same pixels each time, so put it before random transforms.

    Args:
        keys: Scribbles in the internal convention, channel first, one channel.
        pixel_fraction: Share of the pixels of each stroke, in (0, 1].
        slice_axis: Axis of the slices among the spatial ones; None takes that of the largest spacing.
        seed: Seed.
        case_key: Key of the name of the case.
        allow_missing_keys: Do not raise if a key of `keys` is missing.
    """

    def __init__(
        self,
        keys: KeysCollection = "scribble",
        pixel_fraction: float = 1.0,
        slice_axis: int | None = None,
        seed: int = 0,
        case_key: str = "case",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_fraction("pixel_fraction", pixel_fraction)
        self.pixel_fraction = pixel_fraction
        self.slice_axis = slice_axis
        self.seed = seed
        self.case_key = case_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with shorter strokes."""
        cut = dict(data)
        for key in self.key_iterator(cut):
            scribble = cut[key]
            axis = _slice_axis_of(scribble, self.slice_axis)
            array = _single_channel(scribble, str(key))
            kept = cut_scribble(array, self.pixel_fraction, _case_of(cut, self.case_key), axis, self.seed)
            cut[key], *_ = convert_to_dst_type(kept[None], dst=scribble)
        return cut


def _single_channel(image: Any, key: str) -> Array:
    """Return the one channel of an image as a NumPy array."""
    array = np.asarray(image.cpu()) if isinstance(image, torch.Tensor) else np.asarray(image)
    if array.ndim not in (3, 4) or array.shape[0] != 1:
        raise ValueError(
            f"{key!r} must be one channel first, (1, H, W) or (1, I, J, K); found shape {tuple(array.shape)}. "
            "Use EnsureChannelFirstd before."
        )
    return array[0]


def _slice_axis_of(image: Any, slice_axis: int | None) -> int:
    if slice_axis is not None:
        return slice_axis
    return coarsest_axis(image.affine.cpu().numpy()) if isinstance(image, MetaTensor) and image.ndim == 4 else -1


def _case_of(data: Mapping[Hashable, Any], case_key: str) -> str:
    if case_key not in data:
        raise KeyError(
            f"the data must have a name under {case_key!r}, by which every case is drawn differently; found "
            f"{', '.join(map(repr, data))}: list it with load_datalist, or set case_key."
        )
    return str(data[case_key])
