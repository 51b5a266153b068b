"""Label maps as image files: whole or absent, in the very grid of their scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import monai.transforms
from monai.config import DtypeLike, KeysCollection
from monai.data import MetaTensor

from ..files import whole_file

# Key under which transforms that write list their files.
SAVED = "saved"


class SaveImaged(monai.transforms.SaveImaged):
    """MONAI's `SaveImaged` for what is to be relied on; its name is that by which servers leave it out.

    A file appears when it is whole, also after a power cut; the error of a full disk arrives as `OSError`, not as text
    in another one; an axis of one voxel at the end stays an axis. Its path is added to the list under `saved`.

    Args:
        keys: Keys of images with one channel, `MetaTensor`, shape (1, *spatial).
        output_dir: Folder to write to.
        output_postfix: What follows the name of the file in `meta`, behind an underscore.
        output_ext: Ending; tells the format.
        output_dtype: Type of the values.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        output_postfix: str = "seg",
        output_ext: str = ".nii.gz",
        output_dtype: DtypeLike = None,
    ) -> None:
        super().__init__(
            keys,
            output_dir=output_dir,
            output_postfix=output_postfix,
            output_ext=output_ext,
            output_dtype=output_dtype,
            resample=False,
            separate_folder=False,
            print_log=False,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the images and return the data with their paths.

        Raises:
            TypeError: If an image carries no metadata.
            OSError: If a file cannot be written.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            path = self._write(result[key], str(key))
            result[SAVED] = [*result.get(SAVED, ()), str(path)]
        return result

    def _write(self, image: Any, key: str) -> Path:
        if not isinstance(image, MetaTensor):
            raise TypeError(f"{key!r} must be a MetaTensor, which knows its affine; got {type(image).__name__}.")
        saver = self.saver
        path = Path(saver.folder_layout.filename(**saver.fname_formatter(image.meta, saver)))
        writer = saver.writers[0](**saver.init_kwargs)
        writer.set_data_array(image, channel_dim=0, squeeze_end_dims=False, spatial_ndim=None)
        writer.data_obj = writer.data_obj[..., 0]
        writer.set_metadata(image.meta, resample=False)
        with whole_file(path, saver.output_ext) as temporary:
            writer.write(temporary)
        return path
