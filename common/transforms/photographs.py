"""Photographs and masks from the file to the size of the network, and predictions back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep
from PIL import Image

from ..data.mask_values import MaskConvention
from ..data.photographs import read_mask, read_photograph
from ..files import whole_file
from .whole_images import SAVED

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
MAX_VALUE = {np.dtype(np.uint8): 255.0, np.dtype(np.float32): 1.0}
# Probabilities are written with 16 bits.
MAX_UINT16 = 65535


class LoadPhotographd(MapTransform):
    """Read color photographs, axes in the order of the network's (H, W); the file is refused as `read_photograph` says.

    Beside each image its size is noted under `<key>_size` as (height, width), for the way back.

    Args:
        keys: Keys of paths.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with each path replaced by an image of shape (3, H, W), uint8 or float32.

        Raises:
            DatasetError: See `read_photograph`.
        """
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            pixels = read_photograph(loaded[key])
            loaded[key] = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
            loaded[f"{key}_size"] = torch.tensor(pixels.shape[:2])
        return loaded


class LoadMaskd(MapTransform):
    """Read masks as one channel for each structure.

    Args:
        keys: Keys of paths.
        convention: What the gray values mean.
    """

    def __init__(self, keys: KeysCollection, convention: MaskConvention) -> None:
        super().__init__(keys)
        self.convention = convention

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with each path replaced by channels of 0 and 1, shape (K, H, W), uint8.

        Raises:
            DatasetError: See `read_mask`.
        """
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            loaded[key] = torch.from_numpy(self.convention.decode(read_mask(loaded[key])))
        return loaded


class ResizePhotographd(MapTransform):
    """Resize to a square as Pillow does, which smooths before it makes smaller; 8-bit values become [0, 1].

    The published code resizes with Pillow. `monai.transforms.Resized` differs: by default it does not smooth, so a
    photograph of 4288x2848 would keep one pixel of 47 and alias.

    Args:
        keys: Keys of images and channels of masks, shape (C, H, W), uint8 or float32.
        image_size: Height and width afterwards.
        mode: "bicubic", "bilinear" or "nearest", one for all keys or one each. With "nearest" values and type are
            kept, otherwise the result is float32.

    Raises:
        ValueError: If `image_size` is below 1 or a mode is unknown.
    """

    def __init__(self, keys: KeysCollection, image_size: int, mode: str | tuple[str, ...] = "bicubic") -> None:
        super().__init__(keys)
        if image_size < 1:
            raise ValueError(f"image_size must be 1 or more; got {image_size}.")
        self.image_size = int(image_size)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        unknown = [m for m in self.mode if m not in RESAMPLING]
        if unknown:
            raise ValueError(f"mode must be one of {', '.join(RESAMPLING)}; got {unknown[0]!r}.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with images of shape (C, image_size, image_size).

        Raises:
            TypeError: If an image is neither uint8 nor float32.
        """
        resized = dict(data)
        for key, mode in self.key_iterator(resized, self.mode):
            array = np.asarray(resized[key])
            if array.dtype not in MAX_VALUE:
                raise TypeError(f"{key!r} must be uint8 or float32 to be resized; got {array.dtype}.")
            if array.dtype == np.uint8 and len(array) == 3 and mode != "nearest":
                channels = np.asarray(self._resize(array.transpose(1, 2, 0), mode)).transpose(2, 0, 1)
            else:
                channels = np.stack([np.asarray(self._resize(channel, mode)) for channel in array])
            if mode != "nearest":
                channels = channels.astype(np.float32) / np.float32(MAX_VALUE[array.dtype])
            resized[key] = torch.from_numpy(np.ascontiguousarray(channels))
        return resized

    def _resize(self, pixels: np.ndarray, mode: str) -> Image.Image:
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        return picture.resize((self.image_size, self.image_size), RESAMPLING[mode])


class SavePredictionsd(MapTransform):
    """Write predictions in the size of their photographs: a mask, and on request the probabilities.

    Probabilities are brought to the original size (bilinear; smoothed first where that is smaller) and then compared
    with the threshold, so borders are smooth at any size. Files go to `<output_dir>/<case>_mask.png`, gray values as
    in the data set's own masks, and `<case>_<channel>.png`, 16 bits, 65535 for probability 1. A case named
    "<domain>/<name>" goes to a folder of its domain. A file appears when it is whole; its path is added to the list
    under `saved`.

    Args:
        keys: Keys of probabilities, shape (K, H, W), in [0, 1].
        output_dir: Folder to write to.
        convention: Gray values of the mask.
        channel_names: Names of the channels, for the files of the probabilities.
        threshold: A pixel belongs to a channel from this probability on.
        save_probabilities: Whether to write the probabilities too.
        size_key: Key of the size of the photograph, (height, width).
        case_key: Key of the case name.

    Raises:
        ValueError: If the names do not match the channels of the convention, or the threshold is not in (0, 1).
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        convention: MaskConvention,
        channel_names: list[str],
        threshold: float = 0.5,
        save_probabilities: bool = True,
        size_key: str = "image_size",
        case_key: str = "case",
    ) -> None:
        super().__init__(keys)
        if len(channel_names) != convention.num_channels:
            raise ValueError(
                f"channel_names must name the {convention.num_channels} channels of the masks; got {channel_names}."
            )
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1); got {threshold}.")
        self.output_dir = Path(output_dir)
        self.convention = convention
        self.channel_names = list(channel_names)
        self.threshold = threshold
        self.save_probabilities = save_probabilities
        self.size_key = size_key
        self.case_key = case_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files and return the data with their paths.

        Raises:
            OSError: If a file cannot be written.
            ValueError: If a probability is not finite, which would be written as background.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            height, width = (int(n) for n in data[self.size_key])
            probability = torch.as_tensor(np.asarray(data[key].detach().cpu()), dtype=torch.float32)
            if not torch.isfinite(probability).all():
                raise ValueError(
                    f"{key!r} of case {data[self.case_key]} must be finite; found NaN or infinity. Check the weights "
                    f"(ckpt_path), and the learning rate of the adaptation."
                )
            smaller = height < probability.shape[1] or width < probability.shape[2]
            full = F.interpolate(probability[None], (height, width), mode="bilinear", antialias=smaller)[0]
            stem = self.output_dir / str(data[self.case_key])
            mask = self.convention.encode((full >= self.threshold).numpy())
            files = {stem.with_name(f"{stem.name}_mask.png"): Image.fromarray(mask)}
            if self.save_probabilities:
                for name, channel in zip(self.channel_names, full, strict=True):
                    gray = (channel.clamp(0, 1) * MAX_UINT16).round().numpy().astype(np.uint16)
                    files[stem.with_name(f"{stem.name}_{name}.png")] = Image.fromarray(gray)
            for path, picture in files.items():
                # little compression: the lowest bits of a probability do not compress, and level 6 takes seconds
                level = {"compress_level": 1} if picture.mode.startswith("I") else {}
                with whole_file(path, ".png") as temporary:
                    picture.save(temporary, **level)
            result[SAVED] = [*result.get(SAVED, ()), *map(str, files)]
        return result
