"""What an image and its label are, as far as it tells whether something went wrong before."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..readers import Volume, is_dicom_folder, load_itk, read_volume
from ..readers.dicom import is_dicom_file
from .pictures import draw_planes
from .sources import Source

__all__ = ["CaseFacts", "examine"]

# CT is air outside of the patient; no other modality is stored with values as low.
MAX_AIR_HU = -200
# A single value that interpolation leaves behind is rarer than this share of the most frequent structure.
MAX_RARE = 0.25
# Share of its voxels that lie between a smaller and a larger value.
MIN_BETWEEN = 0.9
MAX_LABEL_VALUES = 300
MODALITY_TAG = "0008|0060"
ORDINALS = ("first", "second", "third")


@dataclass
class CaseFacts:
    """What a case is.

    Attributes:
        name: Name of the case.
        modality: "CT", "MR" and so on where DICOM says it; "CT", "color" or "not CT" as its values look.
        digest: Hash of the values of the image; equal for copies under other names.
        shape: Size per spatial axis.
        slice_axis: Axis along which voxels are longest, "" where they are about as long along all.
        label_values: Values in the label.
        border_values: Values of the label that lie on nothing but borders between others.
        picture: Small picture of the case. Shape (height, width, 3), uint8.
    """

    name: str
    modality: str
    digest: str
    shape: tuple[int, ...]
    slice_axis: str
    label_values: list[int] = field(default_factory=list)
    border_values: list[int] = field(default_factory=list)
    picture: np.ndarray | None = None


def examine(source: Source) -> CaseFacts:
    """Read a case, and note what is compared with other cases.

    Args:
        source: The case.

    Raises:
        DatasetError: If a file cannot be read.
    """
    volume = read_volume(source.image)
    label = None if source.label is None else read_volume(source.label)
    facts = CaseFacts(
        source.name,
        _modality(source.image, volume),
        hashlib.sha256(str(volume.array.shape).encode() + np.ascontiguousarray(volume.array).tobytes()).hexdigest(),
        volume.spatial_shape,
        _slice_axis(volume),
    )
    fits = label is not None and label.array.shape == volume.array.shape[: label.array.ndim]
    facts.picture = draw_planes(volume, label if fits else None)
    if label is not None:
        values = np.unique(label.array)
        if np.array_equal(values, np.rint(values)) and len(values) <= MAX_LABEL_VALUES:
            facts.label_values = [int(value) for value in values]
            facts.border_values = find_border_values(label.array)
    return facts


def find_border_values(label: np.ndarray) -> list[int]:
    """Return the label values that look as if interpolation had made them and rounding had hidden it.

    Linear interpolation between 0 and 4 leaves 1, 2 and 3 at the border: values whose voxels nearly all touch a smaller
    and a larger one. Of a single such value it is believed only where it is rare.

    Args:
        label: Label map of whole numbers, any number of axes.
    """
    values, counts = np.unique(label, return_counts=True)
    if len(values) < 3:
        return []
    box = ndimage.find_objects((label != values[np.argmax(counts)]).astype(np.uint8))[0]
    around = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
    inner = np.asarray(label)[around]
    larger = ndimage.maximum_filter(inner, size=3) > inner
    between = larger & (ndimage.minimum_filter(inner, size=3) < inner)
    suspects = [value for value in values if between[inner == value].mean() > MIN_BETWEEN]
    if len(suspects) == 1:  # a wall one or two voxels thin between two organs does so, too, and is not rare
        rest = counts[np.argsort(counts)[-2]]  # the most frequent value is what lies around
        suspects = [value for value in suspects if counts[values == value][0] < MAX_RARE * rest]
    return [int(value) for value in suspects]


def _modality(path: Path, volume: Volume) -> str:
    if is_dicom_folder(path):
        itk = load_itk()
        reader = itk.GDCMImageIO.New()
        reader.SetFileName(str(next(file for file in sorted(path.iterdir()) if is_dicom_file(file))))
        reader.ReadImageInformation()
        dictionary = reader.GetMetaDataDictionary()
        if dictionary.HasKey(MODALITY_TAG):
            return str(dictionary[MODALITY_TAG]).strip()
    if volume.affine is None:
        return "color" if volume.num_channels > 1 else "gray picture"
    return "CT" if float(volume.array.min()) <= MAX_AIR_HU else "not CT"


def _slice_axis(volume: Volume) -> str:
    spacing = volume.spacing_mm
    if volume.affine is None or spacing is None or max(spacing) < 1.5 * sorted(spacing)[-2]:
        return ""
    return f"the {ORDINALS[int(np.argmax(spacing))]} axis"
