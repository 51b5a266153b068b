"""Strokes as a person draws them: paths of pixels inside one 2D region."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse
from skimage.measure import find_contours
from skimage.morphology import skeletonize

__all__ = ["background_paths", "border_path", "brush", "geodesic_order", "interior_path", "longest_path"]

Array = np.ndarray

_EIGHT = np.ones((3, 3), dtype=bool)
# Each pixel is linked to four of its eight neighbors; the links have no direction.
_LINKS = (((0, 1), 1.0), ((1, 0), 1.0), ((1, 1), 2**0.5), ((1, -1), 2**0.5))
# Share of the depth of a region to which it is shrunk before its middle line is taken.
_SHRINK_RANGE = (0.15, 0.5)
# A middle line shorter than this many equivalent diameters says nothing: a disk has a dot.
_MIN_LENGTH = 0.5
_BEZIER_DEPTH = 0.3
_BEND = 0.25
# How near to the border, and how much of it, a second stroke goes (as ScribbleBench, arXiv:2403.12834).
_BORDER_PX = (1.0, 4.0)
_BORDER_SHARE = (0.07, 0.15)
# How far from the structures a person draws the stroke around them.
_BACKGROUND_PX = (6.0, 14.0)


def interior_path(region: Array, rng: np.random.Generator, keep_range: tuple[float, float] = (0.5, 1.0)) -> Array:
    """Draw a stroke along the middle of a region: its longest middle line, or a curve across where it has none.

    Args:
        region: Where to draw, connected. Shape (H, W), bool.
        rng: Source of randomness.
        keep_range: Share of the path that is kept, one piece of it.

    Returns:
        Pixels of the path in order, all inside the region. Shape (n, 2), n >= 1.
    """
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    core = _largest(depth > rng.uniform(*_SHRINK_RANGE) * depth.max())
    path = longest_path(skeletonize(core))
    diameter = 2 * np.sqrt(np.count_nonzero(region) / np.pi)
    if len(path) < _MIN_LENGTH * diameter:
        path = _bezier_path(depth, diameter, rng)
    return _piece(path, rng.uniform(*keep_range), rng)


def border_path(region: Array, rng: np.random.Generator) -> Array:
    """Draw a short stroke along the border of a region, 1 to 4 pixels inside of it.

    Args:
        region: Where to draw. Shape (H, W), bool.
        rng: Source of randomness.

    Returns:
        Pixels of the path in order, all inside the region. Shape (n, 2); n = 0 where the region has no inside.
    """
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    level = rng.uniform(_BORDER_PX[0], max(_BORDER_PX[0], min(_BORDER_PX[1], 0.6 * depth.max())))
    paths = _contour_paths(depth, level)
    if not paths:
        return np.zeros((0, 2), dtype=int)
    path = _piece(paths[0], rng.uniform(*_BORDER_SHARE), rng)
    return path[region[tuple(path.T)]]


def background_paths(background: Array, rng: np.random.Generator) -> list[Array]:
    """Draw an arc around the structures of a slice, or a stroke through it where it has none, or no room for an arc.

    Args:
        background: Shape (H, W), bool.
        rng: Source of randomness.

    Returns:
        Paths of shape (n, 2), all inside the background; none where it is empty.
    """
    if not background.any():
        return []
    if not background.all():
        distance = ndimage.distance_transform_edt(background)
        paths = _contour_paths(distance, min(rng.uniform(*_BACKGROUND_PX), 0.7 * distance.max()))
        arcs = [_piece(path, rng.uniform(0.5, 1.0), rng) for path in paths]
        if arcs:
            return arcs
    return [interior_path(_largest(background), rng)]


def longest_path(skeleton: Array) -> Array:
    """Find the longest of all shortest paths in a skeleton by two breadth-first searches; exact in a tree.

    Spurs and one side of each loop are left out.

    Args:
        skeleton: One connected line of pixels. Shape (H, W), bool.

    Returns:
        Pixels of the path in order. Shape (n, 2), n >= 1.
    """
    pixels = np.argwhere(skeleton)
    graph = _pixel_graph(skeleton, len(pixels))
    start = int(np.argmax(_distances(graph, 0)[0]))
    distance, previous = _distances(graph, start)
    node = int(np.argmax(distance))
    order = []
    while node >= 0:
        order.append(node)
        node = int(previous[node])
    return pixels[order]


def geodesic_order(region: Array, start: int) -> Array:
    """Order the pixels of a connected region by their distance from one of them, along the region.

    Args:
        region: Shape (H, W), bool.
        start: Which of the pixels, in the order of `numpy.argwhere`.

    Returns:
        Indices into `numpy.argwhere(region)`, the nearest first.
    """
    distance, _ = _distances(_pixel_graph(region, int(np.count_nonzero(region))), start)
    return np.argsort(distance, kind="stable")


def brush(path: Array, width: int, shape: tuple[int, int]) -> Array:
    """Return the pixels that a round brush covers along a path.

    Args:
        path: Centers of the brush. Shape (n, 2).
        width: Diameter in pixels, odd.
        shape: Size of the image; what lies outside is cut off.

    Returns:
        Mask. Shape `shape`, bool.
    """
    reach = width // 2
    offsets = np.argwhere(np.ones((width, width), dtype=bool)) - reach
    offsets = offsets[(offsets**2).sum(axis=1) <= (width / 2) ** 2]
    pixels = (path[:, None] + offsets).reshape(-1, 2)
    pixels = pixels[((pixels >= 0) & (pixels < shape)).all(axis=1)]
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(pixels.T)] = True
    return mask


def _contour_paths(distance: Array, level: float) -> list[Array]:
    """Return the iso-contours of a distance map as paths of pixels, longest first, without short ones."""
    contours = sorted(find_contours(distance, level), key=len, reverse=True)
    return [np.rint(contour).astype(int) for contour in contours if 3 * len(contour) >= len(contours[0])]


def _piece(path: Array, share: float, rng: np.random.Generator) -> Array:
    """Return one random piece of a path; a closed one is cut anywhere."""
    count = max(1, round(share * len(path)))
    if len(path) > 2 and np.abs(path[0] - path[-1]).max() <= 1:
        return np.roll(path, -int(rng.integers(len(path))), axis=0)[:count]
    start = int(rng.integers(len(path) - count + 1))
    return path[start : start + count]


def _bezier_path(depth: Array, diameter: float, rng: np.random.Generator) -> Array:
    """Draw a cubic Bezier curve across a round region, between two far ends of its inner part."""
    inner = np.argwhere(depth > _BEZIER_DEPTH * depth.max())
    angle = rng.uniform(0, np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    along = inner @ direction
    first, last = inner[np.argmin(along)].astype(float), inner[np.argmax(along)].astype(float)
    normal = np.array([-direction[1], direction[0]])
    bend = rng.uniform(-_BEND, _BEND, 2) * diameter
    control = [first, first + (last - first) / 3 + bend[0] * normal, last - (last - first) / 3 + bend[1] * normal, last]
    t = np.linspace(0, 1, max(2, int(3 * diameter)))[:, None]
    curve = sum(
        weight * point
        for weight, point in zip(((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3), control, strict=True)
    )
    path = np.rint(curve).astype(int)
    path = path[np.r_[True, (np.diff(path, axis=0) != 0).any(axis=1)]]
    inside = ((path >= 0) & (path < depth.shape)).all(axis=1)
    path = path[inside]
    return path[depth[tuple(path.T)] > 0]


def _largest(mask: Array) -> Array:
    labels, count = ndimage.label(mask, structure=_EIGHT)
    if count < 2:
        return mask
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def _pixel_graph(mask: Array, count: int) -> sparse.csr_array:
    """Link every pixel of a mask to those of its eight neighbors that are in it, too, weighted by their distance."""
    number = np.full((mask.shape[0] + 1, mask.shape[1] + 2), -1)
    number[:-1, 1:-1][mask] = np.arange(count)
    here = number[:-1, 1:-1]
    rows, columns, weights = [], [], []
    for (down, right), weight in _LINKS:
        there = number[down : down + mask.shape[0], 1 + right : 1 + right + mask.shape[1]]
        linked = (here >= 0) & (there >= 0)
        rows.append(here[linked])
        columns.append(there[linked])
        weights.append(np.full(np.count_nonzero(linked), weight))
    links = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(links, shape=(count, count))


def _distances(graph: sparse.csr_array, start: int) -> tuple[Array, Array]:
    """Length of the shortest way from one pixel to each other one, and the pixel before it on the way (or < 0)."""
    distance, previous = sparse.csgraph.dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    return distance, previous
