"""Distance of every pixel to the strokes of each class."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple, ensure_tuple_rep, optional_import
from nibabel.affines import voxel_sizes
from scipy import ndimage
from skimage.graph import MCP_Geometric

__all__ = ["ScribbleDistancesd", "edge_costs", "euclidean_distance_mm", "geodesic_distance_mm"]

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


def edge_costs(
    image: np.ndarray, spacing_mm: Sequence[float], gradient_weight: float, edge_sigma: float = 0.0
) -> np.ndarray:
    """Return how long a millimeter at each pixel counts on a path: longer where the image has an edge.

    `1 + gradient_weight * g`, with g the magnitude of the image's gradient divided by its 99th percentile.

    Args:
        image: Shape (H, W) or (D, H, W).
        spacing_mm: Pixel size per axis in mm.
        gradient_weight: How many times longer a step over a strong edge is; 0 leaves the length in mm.
        edge_sigma: Standard deviation of the Gaussian that smooths the image before, against its noise, in pixels.

    Returns:
        The shape of `image`, float32, at least 1.
    """
    image = ndimage.gaussian_filter(image.astype(np.float32), edge_sigma) if edge_sigma > 0 else image
    squared = np.zeros(image.shape, dtype=np.float32)
    for axis, step in enumerate(spacing_mm):
        if image.shape[axis] > 1:
            squared += np.gradient(image.astype(np.float32), step, axis=axis) ** 2
    gradient = np.sqrt(squared)
    strong = float(np.percentile(gradient, 99))
    return 1.0 + gradient_weight * (gradient / strong if strong > 0 else gradient)


def geodesic_distance_mm(strokes: np.ndarray, costs: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Length of the shortest path to a stroke, where edges make it longer.

    scikit-image's `MCP_Geometric` finds the paths over diagonal neighbors, so in an even image distances are up to 8 %
    (in 2D) longer than Euclidean ones.

    Args:
        strokes: Where the strokes are. Shape (H, W) or (D, H, W), bool.
        costs: What `edge_costs` gives, same shape.
        spacing_mm: Pixel size per axis in mm.

    Returns:
        Distances, infinite where there are no strokes. The shape of `strokes`, float32.
    """
    if not strokes.any():
        return np.full(strokes.shape, np.inf, dtype=np.float32)
    paths = MCP_Geometric(costs, sampling=tuple(float(step) for step in spacing_mm))
    distances, _ = paths.find_costs(np.argwhere(strokes))
    return distances.astype(np.float32)


class ScribbleDistancesd(MapTransform):
    """Add the distances to the strokes of each class, in mm, to the data.

    Use it behind all spatial transforms: a rotated or resized distance map is not the map of the rotated strokes.

    Args:
        keys: Key of the scribbles: classes in [0, num_classes), any other value is unlabelled. Shape (1, *spatial),
            a `MetaTensor`, whose affine tells the pixel size, in 2D or 3D.
        num_classes: Number of classes, background included.
        output_key: Key of the distances. Shape (num_classes, *spatial), float32; infinite where a class has no stroke.
        method: `euclidean`, or `geodesic`, whose unit is mm in even regions.
        image_key: Image whose edges lengthen geodesic distances. Shape (1, *spatial).
        gradient_weight: See `edge_costs`.
        edge_sigma: See `edge_costs`.

    Raises:
        ValueError: If there is no such method, or `gradient_weight` or `edge_sigma` is below 0.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_classes: int,
        output_key: str = "distance",
        method: str = "euclidean",
        image_key: str = "image",
        gradient_weight: float = 200.0,
        edge_sigma: float = 0.7,
    ) -> None:
        super().__init__(keys)
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
        if not (gradient_weight >= 0 and edge_sigma >= 0):
            raise ValueError(
                f"gradient_weight and edge_sigma must be at least 0, got {gradient_weight} and {edge_sigma}."
            )
        self.num_classes = num_classes
        self.output_keys = ensure_tuple_rep(output_key, len(ensure_tuple(keys)))
        self.method = method
        self.image_key = image_key
        self.gradient_weight = gradient_weight
        self.edge_sigma = edge_sigma

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
                costs = edge_costs(image, spacing_mm, self.gradient_weight, self.edge_sigma)
                for c in range(self.num_classes):
                    distances[c] = geodesic_distance_mm(labels == c, costs, spacing_mm)
            else:
                for c in range(self.num_classes):
                    euclidean_distance_mm(labels == c, spacing_mm, distances[c])
            result[output_key] = torch.from_numpy(distances)
        return result
