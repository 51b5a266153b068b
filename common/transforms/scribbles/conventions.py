"""Scribbles in a chain of transforms: from the convention of the file, and safely through spatial transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, convert_to_dst_type

from ...data.scribbles import UNLABELLED, ScribbleMode, conversion_table, convert_scribble

__all__ = ["ScribbleConvertd", "ShiftScribbled", "UnshiftScribbled"]


class ScribbleConvertd(MapTransform):
    """Convert scribbles from the convention of their file to classes in [0, num_classes) and 255 for unlabelled.

    Args:
        keys: Scribbles as `LoadImaged` gives them.
        mode: `user`, `wsl4mis`, `scribblebench`, `monailabel`, `internal`, or a mapping from values to classes;
            see `common.data.scribbles.conversion_table`.
        num_classes: Number of classes, background included.
        allow_missing_keys: Do not raise if a key of `keys` is missing.

    Raises:
        TypeError: See `conversion_table`.
        ValueError: See `conversion_table`; on call, if a value has no meaning in this convention.
    """

    def __init__(
        self,
        keys: KeysCollection = "scribble",
        mode: ScribbleMode = "user",
        num_classes: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        conversion_table(mode, num_classes)  # refuse options before the first case
        self.mode = mode
        self.num_classes = num_classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the scribbles as uint8, their metadata kept."""
        converted = dict(data)
        for key in self.key_iterator(converted):
            scribble = converted[key]
            array = np.asarray(scribble.cpu()) if isinstance(scribble, torch.Tensor) else np.asarray(scribble)
            classes = convert_scribble(array, self.mode, self.num_classes, _name(scribble, key))
            converted[key], *_ = convert_to_dst_type(classes, dst=scribble, dtype=torch.uint8)
        return converted


class ShiftScribbled(MapTransform):
    """Add 1 to classes and turn unlabelled into 0, for what fills with 0: rotation, zoom, padding, affine transforms.

    Filled with 0 in the internal convention, what comes in from outside of the image would be taken for background.
    Use `mode="nearest"` in the spatial transforms, and `UnshiftScribbled` after the last of them.

    Args:
        keys: Scribbles in the internal convention.
        allow_missing_keys: Do not raise if a key of `keys` is missing.
    """

    def __init__(self, keys: KeysCollection = "scribble", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the scribbles shifted, as uint8."""
        shifted = dict(data)
        for key in self.key_iterator(shifted):
            values = torch.as_tensor(shifted[key]).to(torch.int64)
            values = torch.where(values == UNLABELLED, 0, values + 1)
            shifted[key], *_ = convert_to_dst_type(values, dst=shifted[key], dtype=torch.uint8)
        return shifted


class UnshiftScribbled(MapTransform):
    """Undo `ShiftScribbled` after the spatial transforms.

    Args:
        keys: Shifted scribbles.
        allow_missing_keys: Do not raise if a key of `keys` is missing.

    Raises:
        ValueError: On call, if a scribble was interpolated.
    """

    def __init__(self, keys: KeysCollection = "scribble", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with scribbles of classes and 255, as int64, which losses take."""
        unshifted = dict(data)
        for key in self.key_iterator(unshifted):
            scribble = torch.as_tensor(unshifted[key])
            values = scribble.to(torch.int64)
            fractions = scribble[scribble != values]
            if fractions.numel():
                raise ValueError(
                    f"{_name(unshifted[key], key)}: must hold whole numbers; found {float(fractions[0]):g} after "
                    f"spatial transforms. Remedy: give {key!r} mode 'nearest' in each of them."
                )
            values = torch.where(values == 0, UNLABELLED, values - 1)
            unshifted[key], *_ = convert_to_dst_type(values, dst=unshifted[key], dtype=torch.int64)
        return unshifted


def _name(scribble: Any, key: Hashable) -> str:
    """Return the file of a scribble for messages, or its key."""
    meta = scribble.meta if isinstance(scribble, MetaTensor) else {}
    return str(meta.get(ImageMetaKey.FILENAME_OR_OBJ, key))
