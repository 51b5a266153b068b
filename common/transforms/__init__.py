"""Transforms of the methods, in MONAI's form."""

from .body_crop import CropBodyd
from .case_names import NameByCased
from .photographs import LoadMaskd, LoadPhotographd, ResizePhotographd, SavePredictionsd
from .scribbles import CutScribbled, GenerateScribbled, ScribbleConvertd, ShiftScribbled, UnshiftScribbled
from .volume_fusion import VolumeFusion

__all__ = [
    "CropBodyd",
    "CutScribbled",
    "GenerateScribbled",
    "LoadMaskd",
    "LoadPhotographd",
    "NameByCased",
    "ResizePhotographd",
    "SavePredictionsd",
    "ScribbleConvertd",
    "ShiftScribbled",
    "UnshiftScribbled",
    "VolumeFusion",
]
