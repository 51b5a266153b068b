"""Retinal vessels of a fundus phantom: a tree of arteries and veins that leaves the optic disc."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .shapes import spline_path

Array = np.ndarray

_STEP_MM = 0.02
_REACH_MM = 4.6
# Angles from temporal toward superior, in degrees, at the disc's border and 1.5, 2.7 and 4.6 mm from its center.
_ARCADES = {
    "temporal": (90.0, 76.0, 62.0, 46.0),
    "nasal": (112.0, 126.0, 137.0, 146.0),
}


@dataclass(frozen=True)
class VesselTree:
    """Samples along all vessels, in the order temporal, superior, radius in mm, and the vessel's number.

    Attributes:
        arteries: Shape (n, 4), float64.
        veins: Shape (m, 4), float64.
        sunk_mm: By how much vessels at the cup's floor seem shifted to the nasal side.
        reflex: Strength of the arteries' central reflex; that of veins is a third.
    """

    arteries: Array
    veins: Array
    sunk_mm: float
    reflex: float


@dataclass(frozen=True)
class Crossing:
    """The wall of the cup, which bends the vessels that climb it.

    Attributes:
        distance_mm: Signed distance of the cup at coordinates (temporal, superior) in mm.
        width_mm: Width of the wall.
    """

    distance_mm: Callable[[Array, Array], Array]
    width_mm: float


def draw_vessels(
    rng: np.random.Generator, disc_mm: float, cup_mm: tuple[float, float], cup_center_mm: tuple[float, float]
) -> VesselTree:
    """Grow arteries and veins: four main branches each, their daughters, and small vessels across the rim.

    Args:
        rng: Source of randomness.
        disc_mm: Radius of the disc.
        cup_mm: Half-axes of the cup.
        cup_center_mm: Its center.

    Returns:
        The vessels.
    """
    # The trunk leaves the cup at its nasal side.
    nasal, up = cup_mm[0] * rng.uniform(0.35, 0.75), cup_mm[1] * rng.uniform(-0.15, 0.15)
    hub = np.array((cup_center_mm[0] - nasal, cup_center_mm[1] + up))
    caliber = rng.uniform(0.85, 1.15)
    tortuosity = rng.uniform(0.5, 1.6)
    trees = []
    for radius_mm, offset_deg in ((0.042, rng.uniform(-11, 11)), (0.058, rng.uniform(-11, 11))):
        paths: list[Array] = []
        for side in (1.0, -1.0):
            for name, angles in _ARCADES.items():
                strength = rng.uniform(0.85, 1.1) if name == "temporal" else rng.uniform(0.55, 0.85)
                turned = np.array(angles) + offset_deg + rng.normal(0, 6) + np.cumsum(rng.normal(0, 4, len(angles)))
                start = hub + rng.normal(0, 0.035, 2)
                main = _main_branch(rng, start, disc_mm, side, turned, radius_mm * caliber * strength, tortuosity)
                paths += [main, *_daughters(rng, main, generations=2)]
        for angle in np.deg2rad(rng.uniform(0, 360, int(rng.integers(2, 6)))):
            start = hub + rng.uniform(0.3, 1.0) * (disc_mm * np.array([np.cos(angle), np.sin(angle)]) - hub)
            length = rng.uniform(0.7, 2.2)
            paths.append(_wander(rng, start, angle, length, rng.uniform(0.009, 0.02), tortuosity))
        trees.append(np.concatenate([np.column_stack([path, np.full(len(path), i)]) for i, path in enumerate(paths)]))
    deep = min(1.0, 1.3 * min(cup_mm))
    return VesselTree(trees[0], trees[1], float(deep * rng.uniform(0.05, 0.2)), float(rng.uniform(0.25, 0.55)))


def vessel_transmission(tree: VesselTree, wall: Crossing, x: Array, y: Array, step_mm: float, blood: Array) -> Array:
    """Share of light that the vessels let pass.

    Args:
        tree: The vessels.
        wall: The wall of the cup.
        x: Temporal coordinate of the pixels in mm; the grid is a rotated, perhaps mirrored square lattice.
            Shape (H, W).
        y: Superior coordinate in mm, same shape.
        step_mm: Distance of neighboring pixels.
        blood: Optical density per unit of blood in red, green and blue. Shape (3,).

    Returns:
        Transmission in (0, 1]. Shape (H, W, 3), float32.
    """
    density = np.zeros(x.shape, dtype=np.float32)
    for samples, strength, reflex in ((tree.veins, 1.0, tree.reflex / 3), (tree.arteries, 0.58, tree.reflex)):
        for thick in (False, True):
            chosen = samples[(samples[:, 2] > 0.026) == thick]
            share, profile = _cover(chosen, tree, wall, x, y, step_mm, reflex)
            # Where vessels cross, the fuller one shows; both together would be too dark.
            np.maximum(density, share * np.float32(strength) * profile, out=density)
    return np.exp(-density[..., None] * blood)


def _main_branch(
    rng: np.random.Generator,
    start: Array,
    disc_mm: float,
    side: float,
    angles_deg: Array,
    radius_mm: float,
    tortuosity: float,
) -> Array:
    """Path from the trunk across the rim into the retina. Shape (n, 3)."""
    distance = np.array([disc_mm, 1.5, 2.7, _REACH_MM])
    angle = np.deg2rad(angles_deg)
    points = np.stack([distance * np.cos(angle), side * distance * np.sin(angle)], axis=1)
    half_way = start + (points[0] - start) * 0.5 + rng.normal(0, 0.05, 2)
    points = np.concatenate([[start, half_way], points])
    taper = radius_mm * np.array([0.95, 1.0, 1.0, 0.94, 0.82, 0.65])
    rows = np.column_stack([points[:, 0], points[:, 1], np.zeros(len(points)), taper])
    path = spline_path(rows, _STEP_MM)[:, (0, 1, 3)]
    path[:, :2] = ndimage.gaussian_filter1d(path[:, :2], 0.12 / _STEP_MM, axis=0, mode="nearest")
    bends = _smooth_walk(rng, len(path), bend_mm=0.45)
    away = np.clip(np.arange(len(path)) * _STEP_MM / 1.2, 0, 1)
    path[:, :2] += (0.035 * tortuosity * away * bends)[:, None] * _normals(path[:, :2])
    return path


def _daughters(rng: np.random.Generator, parent: Array, generations: int) -> list[Array]:
    """Branches of a vessel and their branches."""
    if generations == 0:
        return []
    paths: list[Array] = []
    length = len(parent) * _STEP_MM
    places = np.cumsum(rng.uniform(0.35, 1.1, 12)) + (0.9 if generations == 2 else 0.1)
    sides = rng.choice([-1.0, 1.0]) * (-1.0) ** np.arange(len(places))
    for place, side in zip(places[places < length - 0.1], sides, strict=False):
        index = int(place / _STEP_MM)
        origin = parent[index]
        ahead = parent[min(index + 3, len(parent) - 1), :2] - parent[max(index - 3, 0), :2]
        angle = np.arctan2(ahead[1], ahead[0]) + side * np.deg2rad(rng.uniform(28, 70))
        radius = max(origin[2] * rng.uniform(0.32, 0.72), 0.007)
        reach = rng.uniform(0.5, 1.0) * (0.6 + 50 * radius)
        branch = _wander(rng, origin[:2], angle, reach, radius, rng.uniform(0.6, 1.6))
        paths += [branch, *_daughters(rng, branch, generations - 1)]
    return paths


def _wander(
    rng: np.random.Generator, start: Array, angle_rad: float, length_mm: float, radius_mm: float, tortuosity: float
) -> Array:
    """Path whose direction drifts. Shape (n, 3)."""
    count = max(6, round(length_mm / _STEP_MM))
    along = np.arange(count) * _STEP_MM
    angle = angle_rad + rng.normal(0, 0.25) * along + 0.33 * tortuosity * _smooth_walk(rng, count, bend_mm=0.3)
    steps = _STEP_MM * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.column_stack([start + np.cumsum(steps, axis=0) - steps[0], radius_mm * (1 - 0.6 * along / length_mm)])


def _smooth_walk(rng: np.random.Generator, count: int, bend_mm: float) -> Array:
    """Random smooth function of the arc length that starts at 0, with bends of about `bend_mm`. Shape (count,)."""
    waves = 3
    turns = rng.uniform(0.15, 0.5, waves) / bend_mm * _STEP_MM
    phases = 2 * np.pi * (np.arange(count)[:, None] * turns + rng.random(waves))
    values = np.sin(phases) @ rng.normal(0, np.sqrt(2 / waves), waves)
    return values - values[0]


def _normals(places: Array, vessel: Array | None = None) -> Array:
    """Unit normals along paths that lie one behind the other; `vessel` tells where a new one begins. Shape (n, 2)."""
    steps = np.diff(places, axis=0)
    if vessel is not None:
        steps[np.diff(vessel) != 0] = 0
    tangent = np.concatenate([steps, np.zeros_like(steps[:1])]) + np.concatenate([np.zeros_like(steps[:1]), steps])
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    return np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)


def _cover(
    samples: Array, tree: VesselTree, wall: Crossing, x: Array, y: Array, step_mm: float, reflex: float
) -> tuple[Array, Array]:
    """Share of each pixel under vessels, and how much blood lies there relative to a full vessel.

    The nearest sample of each pixel comes from a distance transform of the rasterized center lines; the distance to
    the line through it is then exact.
    """
    places = samples[:, :2].astype(np.float32)
    floor = np.clip(0.5 - wall.distance_mm(places[:, 0], places[:, 1]) / np.float32(wall.width_mm), 0, 1)
    places[:, 0] -= np.float32(tree.sunk_mm) * floor
    margin = 8
    shape = (x.shape[0] + 2 * margin, x.shape[1] + 2 * margin)
    # The lattice is orthogonal: its steps give the pixel of a place.
    origin = np.array([x[0, 0], y[0, 0]])
    down = np.array([x[1, 0], y[1, 0]]) - origin
    right = np.array([x[0, 1], y[0, 1]]) - origin
    offset = (places - origin) / np.float32(step_mm**2)
    index = np.rint(np.stack([offset @ down, offset @ right], axis=1)).astype(int) + margin
    normals = _normals(places, samples[:, 3]).astype(np.float32)
    order = np.argsort(samples[:, 2], kind="stable")
    order = order[((index[order] >= 0) & (index[order] < shape)).all(axis=1)]
    nearest = np.full(shape, -1, dtype=np.int32)
    nearest[index[order, 0], index[order, 1]] = order
    if order.size == 0:
        return np.zeros_like(x), np.zeros_like(x)
    rows, columns = ndimage.distance_transform_edt(nearest < 0, return_distances=False, return_indices=True)
    inner = slice(margin, -margin)
    found = nearest[rows[inner, inner], columns[inner, inner]]
    dx, dy = x - places[found, 0], y - places[found, 1]
    nx, ny = normals[found, 0], normals[found, 1]
    across = np.abs(dx * nx + dy * ny)
    beyond = np.maximum(np.abs(dx * ny - dy * nx) - np.float32(_STEP_MM + step_mm), 0)
    radius = samples[:, 2].astype(np.float32)[found]
    # A vessel thinner than a pixel keeps its blood but not its sharpness.
    half = np.maximum(radius, np.float32(0.5 * step_mm))
    share = np.clip(0.5 + (half - np.hypot(across, beyond)) / np.float32(step_mm + 0.012), 0, 1) * (radius / half)
    ratio = across / half
    blood = 0.62 + 0.38 * np.sqrt(np.clip(1 - ratio * ratio, 0, 1))
    blood -= np.float32(reflex) * np.exp(-np.square(ratio / 0.3)) * np.clip(radius / 0.035, 0, 1)
    blood *= np.clip(radius / np.float32(0.04), 0.3, 1.0) * (1 - 0.35 * floor.astype(np.float32)[found])
    return share, blood
