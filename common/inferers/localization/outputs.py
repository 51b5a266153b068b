"""From points in the network's grid to boxes of the scan, and to files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys

from ...data.boxes import ScanBoxes, boxes_file, write_boxes
from ...data.extreme_points import write_box_markups, write_point_markups
from ...files import whole_file
from ...transforms.whole_images import SAVED
from .boxes import boxes_of_points, points_mm
from .localizer import unpack_points
from .templates import OrganTemplate

POINTS = "points"


class PointsToBoxesd(MapTransform):
    """Turn what `LocalizationInferer` found into `ScanBoxes` in the grid of the scan as stored.

    The extreme points of the organs that are taken for present go to the key `points`: organ to RAS mm, shape (6, 3).

    Args:
        keys: Keys of the packed points.
        templates: The templates of the inferer.
        image_key: Key of the preprocessed scan.
        case_key: Key of the case name.
        min_similarity: See `boxes_of_points`.
        min_inside: See `boxes_of_points`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        templates: Sequence[OrganTemplate],
        image_key: str = "image",
        case_key: str = "case",
        min_similarity: float = 0.5,
        min_inside: float = 0.5,
    ) -> None:
        super().__init__(keys)
        self.templates = templates
        self.image_key = image_key
        self.case_key = case_key
        self.min_similarity = min_similarity
        self.min_inside = min_inside

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with boxes and points.

        Raises:
            TypeError: If the scan carries no metadata.
        """
        result = dict(data)
        image = result[self.image_key]
        if not isinstance(image, MetaTensor):
            raise TypeError(f"{self.image_key!r} must be a MetaTensor, got {type(image).__name__}.")
        grid_affine = np.asarray(image.affine, dtype=float)
        scan_affine = np.asarray(image.meta[MetaKeys.ORIGINAL_AFFINE], dtype=float)
        scan_shape = [int(n) for n in np.asarray(image.meta[MetaKeys.SPATIAL_SHAPE]).ravel()[:3]]
        for key in self.key_iterator(result):
            found = unpack_points(result[key].cpu(), self.templates)
            boxes = boxes_of_points(
                str(result[self.case_key]),
                found,
                self.templates,
                grid_affine,
                image.shape[1:],
                scan_affine,
                scan_shape,
                self.min_similarity,
                self.min_inside,
            )
            result[key] = boxes
            result[POINTS] = {
                organ.organ: points_mm(points, grid_affine)
                for organ, points in zip(boxes.organs, found, strict=True)
                if organ.present
            }
        return result


class SaveBoxesd(MapTransform):
    """Write the boxes of each case: `<case>_boxes.json`, and what 3D Slicer opens.

    That is `<case>_boxes.nii.gz`, a label map of the boxes, where small ones cover large ones;
    `<case>_points.mrk.json`, the extreme points; and `<case>_<organ>.mrk.json`, the box of an organ. A file appears
    when it is whole; its path is added to the list under `saved`.

    Args:
        keys: Keys of `ScanBoxes`.
        output_dir: Folder to write to.
        for_slicer: Whether to write more than the JSON file of boxes.
    """

    def __init__(self, keys: KeysCollection, output_dir: str | Path, for_slicer: bool = True) -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir)
        self.for_slicer = for_slicer

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write, and return the data with the paths of the files; the boxes come last, so that they mean all is there.

        Raises:
            OSError: If a file cannot be written.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            boxes, files = result[key], []
            if self.for_slicer:
                files = [*write_box_markups(boxes, self.output_dir), self.output_dir / f"{boxes.case}_points.mrk.json"]
                write_point_markups(result[POINTS], files[-1])
                files.append(self.output_dir / f"{boxes.case}_boxes.nii.gz")
                with whole_file(files[-1], ".nii.gz") as temporary:
                    nib.save(nib.Nifti1Image(draw_boxes(boxes), boxes.affine), temporary)
            files.append(boxes_file(self.output_dir, boxes.case))
            write_boxes(boxes, files[-1])
            result[SAVED] = [*result.get(SAVED, ()), *map(str, files)]
        return result


def draw_boxes(boxes: ScanBoxes) -> np.ndarray:
    """Return a label map of boxes, large ones first, so that small ones stay visible.

    Args:
        boxes: Boxes in the grid of the scan.

    Returns:
        Shape `boxes.spatial_shape`, uint8, or uint16 where a label is above 255.
    """
    parts = [(part, organ.label) for organ in boxes.organs if organ.present for part in organ.parts]
    largest = max((label for _, label in parts), default=0)
    label_map = np.zeros(boxes.spatial_shape, np.uint8 if largest < 256 else np.uint16)
    for part, label in sorted(parts, key=lambda entry: -float(np.prod(np.subtract(entry[0].upper, entry[0].lower)))):
        label_map[part.window] = label
    return label_map
