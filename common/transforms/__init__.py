"""Transforms of the methods, in MONAI's form."""

from .case_names import NameByCased
from .volume_fusion import VolumeFusion

__all__ = ["NameByCased", "VolumeFusion"]
