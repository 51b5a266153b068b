"""Transforms of the methods, in MONAI's form."""

from .body_crop import CropBodyd
from .case_names import NameByCased
from .distance_maps import RestoreInfiniteDistancesd, ScribbleDistancesd
from .paired_patches import PairedPatches
from .photographs import LoadMaskd, LoadPhotographd, ResizePhotographd, SavePredictionsd
from .piecewise_intensity import PiecewiseIntensityd
from .scribbles import CutScribbled, GenerateScribbled, ScribbleConvertd, ShiftScribbled, UnshiftScribbled
from .slice_prompts import RandSlicePromptsd
from .volume_fusion import VolumeFusion
from .whole_images import SaveImaged

__all__ = [
    "CropBodyd",
    "CutScribbled",
    "GenerateScribbled",
    "LoadMaskd",
    "LoadPhotographd",
    "NameByCased",
    "PairedPatches",
    "PiecewiseIntensityd",
    "RandSlicePromptsd",
    "ResizePhotographd",
    "RestoreInfiniteDistancesd",
    "SaveImaged",
    "SavePredictionsd",
    "ScribbleConvertd",
    "ScribbleDistancesd",
    "ShiftScribbled",
    "UnshiftScribbled",
    "VolumeFusion",
]
