"""Distance of every pixel to the strokes of each class."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple, ensure_tuple_rep
from scipy import ndimage
from skimage.graph import MCP_Geometric

__all__ = ["ScribbleDistancesd", "edge_costs", "euclidean_distance_mm", "geodesic_distance_mm"]

METHODS = ("euclidean", "geodesic")


def euclidean_distance_mm(strokes: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Exact Euclidean distance of every pixel to the nearest stroke.

    From SciPy's feature transform, in single precision. `scipy.ndimage.distance_transform_edt` itself returns double,
    and plausible finite distances where there is no stroke at all.

    Args:
        strokes: Where the strokes are. Shape (H, W) or (D, H, W), bool.
        spacing_mm: Pixel size per axis in mm.

    Returns:
        Distances in mm, infinite where there are no strokes. The shape of `strokes`, float32.
    """
    if not strokes.any():
        return np.full(strokes.shape, np.inf, dtype=np.float32)
    # the transform takes less time the fewer lines along its first axis have strokes
    num_lines = [np.count_nonzero(strokes.any(axis=axis)) for axis in (0, -1)]
    if num_lines[0] > num_lines[1]:
        return euclidean_distance_mm(strokes.T, spacing_mm[::-1]).T
    even = bool(np.allclose(spacing_mm, spacing_mm[0], rtol=1e-6, atol=0))
    shift = ndimage.distance_transform_edt(
        ~strokes, sampling=None if even else spacing_mm, return_distances=False, return_indices=True
    )
    for axis, size in enumerate(strokes.shape):
        shift[axis] -= np.arange(size, dtype=np.int32).reshape([-1 if a == axis else 1 for a in range(strokes.ndim)])
    squared = shift.astype(np.float32)
    squared *= squared
    if not even:
        squared *= np.square(spacing_mm, dtype=np.float32).reshape(-1, *[1] * strokes.ndim)
    distance = squared[0]
    for other in squared[1:]:
        distance += other
    np.sqrt(distance, out=distance)
    if even:
        distance *= np.float32(spacing_mm[0])
    return distance


def edge_costs(image: np.ndarray, spacing_mm: Sequence[float], gradient_weight: float) -> np.ndarray:
    """Return how long a millimeter at each pixel counts on a path: longer where the image has an edge.

    `1 + gradient_weight * g`, with g the magnitude of the image's gradient divided by its 99th percentile.

    Args:
        image: Shape (H, W) or (D, H, W).
        spacing_mm: Pixel size per axis in mm.
        gradient_weight: How many times longer a step over a strong edge is; 0 leaves the length in mm.

    Returns:
        The shape of `image`, float32, at least 1.
    """
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

    Raises:
        ValueError: If there is no such method.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_classes: int,
        output_key: str = "distance",
        method: str = "euclidean",
        image_key: str = "image",
        gradient_weight: float = 20.0,
    ) -> None:
        super().__init__(keys)
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
        self.num_classes = num_classes
        self.output_keys = ensure_tuple_rep(output_key, len(ensure_tuple(keys)))
        self.method = method
        self.image_key = image_key
        self.gradient_weight = gradient_weight

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
            spacing_mm = [float(step) for step in scribble.pixdim]
            labels = scribble[0].cpu().numpy()
            if self.method == "geodesic":
                image = torch.as_tensor(result[self.image_key])[0].cpu().numpy()
                costs = edge_costs(image, spacing_mm, self.gradient_weight)
                maps = [geodesic_distance_mm(labels == c, costs, spacing_mm) for c in range(self.num_classes)]
            else:
                maps = [euclidean_distance_mm(labels == c, spacing_mm) for c in range(self.num_classes)]
            result[output_key] = torch.from_numpy(np.stack(maps))
        return result
