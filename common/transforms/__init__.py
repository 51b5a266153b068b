"""Transforms of the methods, in MONAI's form."""

from .body_crop import CropBodyd
from .case_names import NameByCased
from .volume_fusion import VolumeFusion

__all__ = ["CropBodyd", "NameByCased", "VolumeFusion"]
