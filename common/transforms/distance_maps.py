"""Distance of every pixel to the strokes of each class."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple, ensure_tuple_rep, optional_import
from nibabel.affines import voxel_sizes
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from skimage.restoration import denoise_tv_chambolle

__all__ = [
    "RestoreInfiniteDistancesd",
    "ScribbleDistancesd",
    "euclidean_distance_mm",
    "geodesic_distance_mm",
    "pixel_graph",
]

# Of the bundle `maco` alone; the others do without it.
cv2, _ = optional_import("cv2")

# Share by which the sides of a square pixel may differ.
_EVEN = 1e-6
# Up to here, the error of OpenCV's distance squared stays below half a unit.
_MAX_SQUARED = 2**20
METHODS = ("euclidean", "geodesic")


def euclidean_distance_mm(
    strokes: np.ndarray, spacing_mm: Sequence[float], out: np.ndarray | None = None
) -> np.ndarray:
    """Exact Euclidean distance of every pixel to the nearest stroke.

    Slices of square pixels by OpenCV, large ones and everything else by SciPy, which takes half as long again.

    Args:
        strokes: Where the strokes are. Shape (H, W) or (D, H, W), bool.
        spacing_mm: Pixel size per axis in mm.
        out: Array to write to, contiguous. The shape of `strokes`, float32.

    Returns:
        Distances in mm, infinite where there are no strokes. The shape of `strokes`, float32.
    """
    out = np.empty(strokes.shape, dtype=np.float32) if out is None else out
    if not strokes.any():
        # both libraries give plausible finite distances
        out.fill(np.inf)
    elif strokes.ndim == 2 and _are_square(spacing_mm) and strokes.shape[0] ** 2 + strokes.shape[1] ** 2 < _MAX_SQUARED:
        _measure_in_pixels(strokes, out)
        out *= np.float32(spacing_mm[0])
    else:
        out[...] = ndimage.distance_transform_edt(~strokes, sampling=spacing_mm)
    return out


def _are_square(spacing_mm: Sequence[float]) -> bool:
    """Whether the sides of a pixel are equal but for rounding."""
    return max(spacing_mm) - min(spacing_mm) <= _EVEN * max(spacing_mm)


def _measure_in_pixels(strokes: np.ndarray, out: np.ndarray) -> None:
    """Write the distance to the nearest stroke of a slice. Shapes (H, W), bool and float32."""
    # the threads of OpenCV do not outlive the fork of a loader's process
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        cv2.distanceTransform((~strokes).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE, dst=out)
    finally:
        cv2.setNumThreads(num_threads)
    # its last bit depends on where the result lies in memory, and its square is a whole number
    out *= out
    np.sqrt(np.rint(out, out=out), out=out)


def pixel_graph(
    image: np.ndarray,
    spacing_mm: Sequence[float],
    intensity_mm: float,
    denoise_weight: float = 0.0,
    slice_axis: int | None = None,
    slice_step_mm: float = 0.0,
) -> csr_array:
    """Link every pixel with its neighbors, diagonal ones among them.

    A link is `step + intensity_mm * |difference of the two intensities|` long, with the step in mm. So the length of a
    path is how far the intensity goes up and down along it, and an edge of the image is far across, however steep.

    Args:
        image: Intensities. Shape (H, W) or (D, H, W).
        spacing_mm: Pixel size per axis in mm.
        intensity_mm: How many mm a difference of 1 counts; 0 leaves lengths in mm.
        denoise_weight: Weight of the total variation that takes noise away before (scikit-image's
            `denoise_tv_chambolle`), in units of intensity; 0 for none. Noise makes every path long.
        slice_axis: Axis across slices, which are thick and may not fit together: noise is taken from each by itself,
            and a pixel is linked with the one straight above it, not with those around that. None for no such axis.
        slice_step_mm: What a link from slice to slice is longer; infinite leaves slices without links.

    Returns:
        Lengths of the links, each in one direction. Shape (pixels, pixels), pixels in C order, float64.
    """
    image = image.astype(np.float64)
    if denoise_weight > 0:
        image = _denoise(image, denoise_weight, slice_axis)
    pixels = np.arange(image.size, dtype=np.int32).reshape(image.shape)
    links: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for step in product((-1, 0, 1), repeat=image.ndim):
        if step <= (0,) * image.ndim:
            continue  # the opposite step makes the same links
        more_mm = 0.0
        if slice_axis is not None and step[slice_axis]:
            if np.count_nonzero(step) > 1 or math.isinf(slice_step_mm):
                continue
            more_mm = slice_step_mm
        here = tuple(slice(max(0, -s), size - max(0, s)) for s, size in zip(step, image.shape, strict=True))
        there = tuple(slice(max(0, s), size - max(0, -s)) for s, size in zip(step, image.shape, strict=True))
        step_mm = math.hypot(*(s * side for s, side in zip(step, spacing_mm, strict=True)))
        lengths = step_mm + more_mm + intensity_mm * np.abs(image[there] - image[here])
        links.append((lengths.ravel(), pixels[here].ravel(), pixels[there].ravel()))
    lengths, starts, ends = (np.concatenate(parts) for parts in zip(*links, strict=True))
    return csr_array((lengths, (starts, ends)), shape=(image.size, image.size))


def _denoise(image: np.ndarray, weight: float, slice_axis: int | None) -> np.ndarray:
    """Take the noise from an image, or from each slice by itself."""
    if slice_axis is None:
        return denoise_tv_chambolle(image, weight=weight)
    planes = [denoise_tv_chambolle(plane, weight=weight) for plane in np.moveaxis(image, slice_axis, 0)]
    return np.stack(planes, slice_axis)


def geodesic_distance_mm(strokes: np.ndarray, graph: csr_array) -> np.ndarray:
    """Length of the shortest path to a stroke.

    Paths go from neighbor to neighbor (SciPy's `dijkstra`), so in an even image distances are up to 8 % (in 2D) longer
    than Euclidean ones.

    Args:
        strokes: Where the strokes are. Shape (H, W) or (D, H, W), bool.
        graph: What `pixel_graph` gives for the image.

    Returns:
        Distances, infinite where there are no strokes. The shape of `strokes`, float32.
    """
    if not strokes.any():
        return np.full(strokes.shape, np.inf, dtype=np.float32)
    distances = dijkstra(graph, directed=False, indices=np.flatnonzero(strokes), min_only=True)
    return distances.reshape(strokes.shape).astype(np.float32)


class ScribbleDistancesd(MapTransform):
    """Add the distances to the strokes of each class, in mm, to the data.

    Euclidean distances belong behind all spatial transforms: a rotated or resized map is not the map of the rotated
    strokes. Geodesic ones take twenty times as long and hardly depend on where the pixels lie: measure them once, of
    volumes, and transform them like images, with `RestoreInfiniteDistancesd` behind.

    Args:
        keys: Key of the scribbles: classes in [0, num_classes), any other value is unlabelled. Shape (1, *spatial),
            a `MetaTensor`, whose affine tells the pixel size, in 2D or 3D.
        num_classes: Number of classes, background included.
        output_key: Key of the distances. Shape (num_classes, *spatial), float32; infinite where a class has no stroke.
        method: `euclidean`, or `geodesic`, whose unit is mm in even regions.
        image_key: Image whose intensities, in [0, 1], lengthen geodesic distances. Shape (1, *spatial).
        intensity_mm: See `pixel_graph`.
        denoise_weight: See `pixel_graph`.
        slice_axis: See `pixel_graph`; for geodesic distances of volumes alone.
        slice_step_mm: See `pixel_graph`.

    Raises:
        ValueError: If there is no such method, or a length or weight is below 0.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_classes: int,
        output_key: str = "distance",
        method: str = "euclidean",
        image_key: str = "image",
        intensity_mm: float = 1000.0,
        denoise_weight: float = 0.03,
        slice_axis: int | None = None,
        slice_step_mm: float = 100.0,
    ) -> None:
        super().__init__(keys)
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
        if not min(intensity_mm, denoise_weight, slice_step_mm) >= 0:
            raise ValueError(
                f"intensity_mm, denoise_weight and slice_step_mm must be at least 0, got {intensity_mm}, "
                f"{denoise_weight} and {slice_step_mm}."
            )
        self.num_classes = num_classes
        self.output_keys = ensure_tuple_rep(output_key, len(ensure_tuple(keys)))
        self.method = method
        self.image_key = image_key
        self.intensity_mm = intensity_mm
        self.denoise_weight = denoise_weight
        self.slice_axis = slice_axis
        self.slice_step_mm = slice_step_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the distances added.

        Raises:
            TypeError: If the scribbles carry no affine.
        """
        result = dict(data)
        for key, output_key in self.key_iterator(result, self.output_keys):
            scribble = result[key]
            if not isinstance(scribble, MetaTensor):
                raise TypeError(
                    f"{key!r} must be a MetaTensor, whose affine tells the pixel size; found "
                    f"{type(scribble).__name__}. Load it with LoadImaged."
                )
            spacing_mm = voxel_sizes(np.asarray(scribble.affine)).tolist()
            labels = scribble.as_tensor()[0].cpu().numpy()
            distances = np.empty((self.num_classes, *labels.shape), dtype=np.float32)
            if self.method == "geodesic":
                image = torch.as_tensor(result[self.image_key])[0].cpu().numpy()
                graph = pixel_graph(
                    image, spacing_mm, self.intensity_mm, self.denoise_weight, self.slice_axis, self.slice_step_mm
                )
                for c in range(self.num_classes):
                    distances[c] = geodesic_distance_mm(labels == c, graph)
            else:
                for c in range(self.num_classes):
                    euclidean_distance_mm(labels == c, spacing_mm, distances[c])
            result[output_key] = torch.from_numpy(distances)
        return result


class RestoreInfiniteDistancesd(MapTransform):
    """Make distances infinite again where interpolation between infinite ones left no number.

    Args:
        keys: Distances, of each class either all finite or all infinite before. Shape (num_classes, *spatial).
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the distances mended."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = torch.nan_to_num(result[key], nan=math.inf, posinf=math.inf)
        return result
