"""Names of output files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey


class NameByCased(MapTransform):
    """Let `SaveImaged` name a file after its case, not after the image, whose name need not be unique.

    Args:
        keys: Keys of the images to be saved, `MetaTensor`.
        case_key: Key of the case name. Where it is absent, since a program that serves the bundle passes the image
            alone, the name stays.
    """

    def __init__(self, keys: KeysCollection, case_key: str = "case") -> None:
        super().__init__(keys)
        self.case_key = case_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with `filename_or_obj` of each image set to the case name.

        Raises:
            TypeError: If an image carries no metadata.
        """
        named = dict(data)
        if self.case_key not in named:
            return named
        for key in self.key_iterator(named):
            image = named[key]
            if not isinstance(image, MetaTensor):
                raise TypeError(f"{key!r} must be a MetaTensor to be named, got {type(image).__name__}.")
            # the ending keeps a dot in the case name from being taken for one
            image.meta[ImageMetaKey.FILENAME_OR_OBJ] = f"{named[self.case_key]}.nii.gz"
        return named
