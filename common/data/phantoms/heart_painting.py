"""Paint a heart and what lies around it, in the coordinates of `heart_anatomy`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Region
from .fields import spline_field
from .heart_anatomy import Heart, HeartState
from .shapes import ellipsoid, smooth_max, smooth_min, spline_path

Array = np.ndarray

HEART_LABELS = {0: "background", 1: "right_ventricle", 2: "myocardium", 3: "left_ventricle"}
_RIGHT, _MYOCARDIUM, _LEFT = 1, 2, 3
_RIGHT_WALL_MM = 3.0
_APEX_WALL = 0.75  # thickness of the apex relative to the rest of the wall
_THINNEST_WALL_MM = 4.5


@dataclass(frozen=True)
class _Walls:
    """Signed distances in mm of the surfaces of the heart, negative inside."""

    cavity: Array
    epicardium: Array
    right: Array
    right_outside: Array


def paint_heart(canvas: Canvas, heart: Heart, state: HeartState, spacing_mm: tuple[float, float, float]) -> None:
    """Paint a patient on an empty canvas, whose image then holds MR signal instead of HU.

    Labels are those of the ACDC challenge: papillary muscles and trabeculae belong to the cavity, the right
    ventricle's wall and everything above the valves to the background.

    Args:
        canvas: Where to paint.
        heart: The patient.
        state: The patient at one phase.
        spacing_mm: Spacing of the canvas, for the textures.
    """
    rng = np.random.default_rng(heart.texture_seed)
    shape = canvas.hu.shape
    fine, middle, coarse = (spline_field(rng, shape, spacing_mm, knot) for knot in (4.5, 14.0, 45.0))
    everywhere = canvas.everywhere()
    # The valves lie in the plane of the slices, so that a slice shows and labels a whole ring or none, as readers do.
    on_axis = np.argmin(np.hypot(canvas.x, canvas.y).reshape(-1, shape[2]), axis=0)
    depth = canvas.z.reshape(-1, shape[2])[on_axis, np.arange(shape[2])]
    walls = _heart_walls(everywhere, heart, state, depth)
    silhouette = smooth_min(walls.epicardium, walls.right_outside, 14.0)
    _paint_chest(everywhere, heart, fine, coarse)
    _paint_abdomen(everywhere, heart, silhouette, fine, middle, coarse)
    _paint_aorta_and_spine(canvas, heart)
    _paint_fat(everywhere, heart, silhouette, coarse)
    _paint_above_the_valves(canvas, heart, state, depth)
    _paint_right_ventricle(everywhere, heart, walls, fine, middle)
    _paint_left_ventricle(everywhere, heart, walls, fine, middle)
    _paint_papillary_muscles(canvas, heart, state, walls)


def _heart_walls(region: Region, heart: Heart, state: HeartState, depth: Array) -> _Walls:
    """Measure the distance to endocardium and epicardium of both ventricles; `depth` is the z of each layer."""
    radius = np.hypot(region.x, region.y)
    angle = np.arctan2(region.y, region.x)
    length = np.float32(heart.length_mm - state.base_mm)
    above = np.float32(state.base_mm) - depth
    along = np.clip(-above / length, 0, None)
    cavity_end = length - np.float32(_APEX_WALL * state.wall_mm)
    cavity = np.float32(state.cavity_mm) * _root(1 - (along * length / cavity_end) ** np.float32(2.3))
    cavity = cavity * (1 + _waves(heart.ripples, 2, angle, along))
    wall = 1 + _waves(heart.wall_ripples, 1, angle, along)
    off = _wrapped(angle - np.float32(heart.focus_angle_rad))
    wall *= 1 + np.float32(heart.focus) * np.exp(-((off / np.float32(0.65)) ** 2))
    wall = np.maximum(np.float32(state.wall_mm) * wall, np.float32(_THINNEST_WALL_MM))
    tapered = np.float32(state.cavity_mm + state.wall_mm) * _root(1 - along ** np.float32(2.3))
    outer = np.minimum(np.maximum(cavity, 0) + wall, tapered + np.float32(0.5) * (wall - np.float32(state.wall_mm)))
    outer = np.maximum(outer, np.where(cavity > 0, cavity + np.float32(_THINNEST_WALL_MM), tapered))
    from_wall = radius - outer
    right = _right_width(heart, state, angle, depth)
    right_above = np.float32(state.right_base_mm) - depth
    return _Walls(
        cavity=np.maximum(radius - cavity, above),
        epicardium=np.maximum(from_wall, above),
        right=np.maximum(np.maximum(from_wall - right, -from_wall), right_above),
        right_outside=from_wall - right - np.float32(_RIGHT_WALL_MM),
    )


def _right_width(heart: Heart, state: HeartState, angle: Array, depth: Array) -> Array:
    """Width of the right ventricle from the epicardium of the left one outward, negative beyond its insertions."""
    length = np.float32(heart.right_length * heart.length_mm - state.right_base_mm)
    along = np.clip((depth - np.float32(state.right_base_mm)) / length, 0, None)
    half_angle = np.float32(heart.right_half_angle_rad) * (np.float32(1.12) - np.float32(0.35) * np.minimum(along, 1))
    t = _wrapped(angle - np.float32(heart.right_angle_rad)) / half_angle
    profile = np.sign(1 - t * t) * np.abs(1 - t * t) ** np.float32(0.72)
    skew = 1 + np.float32(heart.right_skew) * np.clip(t, -1, 1) * (1 - np.minimum(along, 1))
    taper = _root(1 - along ** np.float32(1.7))
    return np.float32(state.right_mm) * np.where(taper > 0, profile * skew * taper, np.minimum(profile, taper))


def _paint_chest(region: Region, heart: Heart, fine: Array, coarse: Array) -> None:
    """Paint the chest wall with ribs, and lungs with vessels."""
    x, y = region.x - np.float32(heart.chest_center_mm[0]), region.y - np.float32(heart.chest_center_mm[1])
    skin = np.hypot(x, y * np.float32(1.04)) - np.float32(heart.chest_mm) + 3 * coarse
    muscle = skin + np.float32(heart.skin_fat_mm)
    inside = muscle + 14 + coarse
    ribs = _wrapped(np.arctan2(y, x) * 13 + region.z / 17) * np.float32(heart.chest_mm / 13)
    signal = heart.signal
    region.paint(skin, signal["fat"] * 0.9)
    region.paint(muscle, signal["muscle"] * (1 + 0.25 * fine))
    rib = np.hypot(inside - 6, ribs * np.float32(0.6)) - 5.5
    region.paint(rib, signal["bone"])
    region.paint(rib + 1.8, signal["marrow"])
    region.paint(inside, signal["fat"] * 0.8)
    vessels = np.clip(fine - 1.3, 0, 1) * np.float32(0.45)
    region.paint(inside + 2.5, signal["lung"] * (1 + 0.25 * coarse) + vessels)


def _paint_abdomen(region: Region, heart: Heart, silhouette: Array, fine: Array, middle: Array, coarse: Array) -> None:
    """Paint what lies under the diaphragm: liver with its veins, stomach, spleen, fat between them."""
    # The heart lies on the diaphragm, also where it narrows toward the apex.
    along = np.clip(region.z / np.float32(heart.length_mm), 0, 1)
    radius = np.float32(heart.cavity_mm + heart.wall_mm) * (np.float32(0.4) + np.float32(0.6) * np.sqrt(1 - along**2))
    dome = -radius - np.float32(heart.diaphragm_mm) - (region.x + 18) ** 2 * np.float32(0.0019)
    below = np.maximum(region.y - dome + 2 * coarse, 4 - silhouette)
    signal = heart.signal
    region.paint(below, signal["muscle"])
    region.paint(below + 2.5, signal["fat"] * (0.85 + 0.1 * fine))
    border = np.float32(18) + 8 * coarse
    liver = np.maximum(below + 4, region.x - border)
    veins = np.clip(middle - 1.0, 0, 0.8) * np.float32(0.6)
    region.paint(liver, signal["liver"] * (1 + 0.08 * fine) + veins)
    stomach = np.hypot(region.x - 44, (region.y - dome + 30) * 0.9) - 20 + 3 * coarse
    region.paint(np.maximum(stomach, below + 4), signal["myocardium"])
    content = signal["stomach"] * (1 + 0.25 * middle)
    region.paint(np.maximum(stomach + 3.5, below + 7), np.maximum(content, np.float32(0.04)))
    spleen = np.hypot((region.x - 84) * 0.9, region.y - dome + 24) - 17 + 3 * coarse
    region.paint(np.maximum(spleen, below + 4), signal["spleen"])


def _paint_aorta_and_spine(canvas: Canvas, heart: Heart) -> None:
    """Paint the descending aorta and a vertebral body, embedded in fat."""
    x, y, radius = heart.aorta_mm
    signal = heart.signal
    region = canvas.everywhere()
    drift = (region.z - 45) * np.float32(0.12)
    aorta = np.hypot(region.x - np.float32(x) + drift, region.y - np.float32(y) - drift) - np.float32(radius)
    vertebra = np.hypot(region.x - np.float32(x + 29), (region.y - np.float32(y - 24)) * np.float32(1.15)) - 19
    region.paint(smooth_min(aorta - 1, vertebra - 2, 8.0), signal["fat"] * 0.85)
    region.paint(vertebra, signal["bone"])
    region.paint(vertebra + 2.2, signal["marrow"])
    region.paint(aorta, signal["myocardium"] * 0.8)
    region.paint(aorta + 1.8, signal["blood"] * 0.95)


def _paint_fat(region: Region, heart: Heart, silhouette: Array, coarse: Array) -> None:
    """Paint the fat around the heart and toward the sternum, and the pericardium as a dark line in it."""
    signal = heart.signal
    fat = silhouette - np.float32(heart.fat_mm) * np.clip(1 + 0.7 * coarse, 0.1, None)
    direction = np.deg2rad(128 + 8 * np.sin(heart.fat_mm))
    along = region.x * np.float32(np.cos(direction)) + region.y * np.float32(np.sin(direction))
    across = -region.x * np.float32(np.sin(direction)) + region.y * np.float32(np.cos(direction))
    x, y = region.x - np.float32(heart.chest_center_mm[0]), region.y - np.float32(heart.chest_center_mm[1])
    wall = np.hypot(x, y * np.float32(1.04)) - np.float32(heart.chest_mm - heart.skin_fat_mm - 12)
    width = 12 + 2 * np.float32(heart.fat_mm) + 9 * coarse + along * np.float32(0.12)
    cushion = smooth_max(np.maximum(np.abs(across + 6 * coarse) - width, -along), wall, 8.0)
    outside = smooth_min(fat - 2.0, cushion, 16.0)
    region.paint(outside, signal["fat"] * (0.92 + 0.06 * coarse))
    region.paint(np.abs(fat) - 0.7, 0.25)


def _paint_above_the_valves(canvas: Canvas, heart: Heart, state: HeartState, depth: Array) -> None:
    """Paint atria, ascending aorta and pulmonary trunk; they carry no label."""
    base, right = state.base_mm, state.right_base_mm
    signal = heart.signal
    scale = heart.cavity_mm / 25
    region = canvas.everywhere()
    septum = np.array([np.cos(heart.right_angle_rad), np.sin(heart.right_angle_rad)])
    atria = (
        ((5 * scale, -11 * scale), (25 * scale, 22 * scale, 30.0), base - 22, signal["blood"], base),
        (
            tuple(septum * (heart.cavity_mm + 26) + [2, -14]),
            (23.0, 27.0, 30.0),
            right - 22,
            signal["right_blood"],
            right,
        ),
    )
    for (x, y), axes, z, blood, valve in atria:
        shape = ellipsoid(region.x - np.float32(x), region.y - np.float32(y), region.z - np.float32(z), axes)
        above = depth - np.float32(valve)
        region.paint(np.maximum(shape - 2, above), signal["myocardium"])
        region.paint(np.maximum(shape, above + 1.5), blood)
    vessels = (
        ([(-4, 11, base, 11.5), (-9, 17, base - 20, 14), (-12, 20, base - 55, 14)], signal["blood"], base),
        ([(-27, 33, right + 14, 12), (-14, 40, right - 12, 13), (8, 42, right - 50, 12)], signal["right_blood"], right),
    )
    for points, blood, valve in vessels:
        box, shape, _ = canvas.tube(spline_path(points, 5.0))
        above = depth[box.slices[2]] - np.float32(valve)
        box.paint(np.maximum(shape - 2, above), signal["myocardium"])
        box.paint(np.maximum(shape, above + 1), blood)


def _paint_right_ventricle(region: Region, heart: Heart, walls: _Walls, fine: Array, middle: Array) -> None:
    """Paint the right ventricle: a thin wall, and blood between coarse trabeculae, more of them toward the apex."""
    signal = heart.signal
    region.paint(walls.right - _RIGHT_WALL_MM, signal["myocardium"] * 1.05)
    region.paint(walls.right, signal["right_blood"] * (1 + 0.06 * middle), _RIGHT)
    rim = np.clip(1 + walls.right / 11, 0, 1) * np.clip(0.35 + region.z / 75, 0.2, 1)
    region.blend(
        _strands(fine + 0.4 * middle, heart.trabeculation * 1.4) * rim * (walls.right < 0), signal["myocardium"]
    )


def _paint_left_ventricle(region: Region, heart: Heart, walls: _Walls, fine: Array, middle: Array) -> None:
    """Paint the myocardium and the left cavity with a trabeculated rim."""
    signal = heart.signal
    region.paint(walls.epicardium, signal["myocardium"] * (1 + 0.05 * fine + 0.05 * middle), _MYOCARDIUM)
    region.paint(walls.cavity, signal["blood"] * (1 + 0.05 * middle), _LEFT)
    rim = np.clip(1 + walls.cavity / 5, 0, 1) * np.clip(0.4 + region.z / 60, 0.2, 1)
    region.blend(_strands(fine, heart.trabeculation) * rim * (walls.cavity < 0), signal["myocardium"])


def _paint_papillary_muscles(canvas: Canvas, heart: Heart, state: HeartState, walls: _Walls) -> None:
    """Paint the two papillary muscles into the left cavity, and the moderator band into the right one."""
    length = heart.length_mm - state.base_mm
    for angle, radius in zip(heart.papillary_angles_rad, heart.papillary_mm, strict=True):
        direction = np.array([np.cos(angle), np.sin(angle)])
        points = []
        for share, place, size in ((0.3, 0.5, 0.55), (0.45, 0.6, 1.0), (0.62, 0.62, 1.0), (0.8, 0.7, 0.8)):
            cavity = state.cavity_mm * np.sqrt(max(0.0, 1 - share**2.3))
            points.append(
                (*(place * cavity * direction), state.base_mm + share * length, size * radius * state.papillary_scale)
            )
        region, shape, _ = canvas.tube(spline_path(points, 2.0))
        inside = np.maximum(shape, walls.cavity[region.slices])
        region.paint(inside, heart.signal["myocardium"] * 1.04)
    outward = np.array([np.cos(heart.right_angle_rad + 0.5), np.sin(heart.right_angle_rad + 0.5)])
    near, far = state.cavity_mm + state.wall_mm, state.cavity_mm + state.wall_mm + 0.8 * state.right_mm
    z = state.base_mm + 0.6 * length
    band = [
        (*(near * 0.9 * outward), z, 2.2),
        (*(0.5 * (near + far) * outward), z + 4, 1.7),
        (*(far * outward), z + 8, 2.2),
    ]
    region, shape, _ = canvas.tube(spline_path(band, 1.5))
    region.paint(np.maximum(shape, walls.right[region.slices]), heart.signal["myocardium"])


def _strands(texture: Array, share: float) -> Array:
    """Share of each voxel that trabeculae fill: where a random field is high."""
    return np.clip((texture - np.float32(1.1 - 1.6 * share)) * 2, 0, np.float32(0.85))


def _waves(ripples: Array, first: int, angle: Array, along: Array) -> Array:
    """Sum of harmonics around the axis that turn toward the apex."""
    terms = [
        np.float32(amplitude) * np.cos(order * angle + np.float32(phase) + np.float32(twist) * along)
        for order, (amplitude, phase, twist) in enumerate(ripples, first)
    ]
    return np.asarray(np.sum(terms, axis=0, dtype=np.float32))


def _root(value: Array) -> Array:
    """Square root that goes on below zero, so that distances keep their sign."""
    return np.sign(value) * np.sqrt(np.abs(value))


def _wrapped(angle: Array) -> Array:
    return np.mod(angle + np.float32(np.pi), np.float32(2 * np.pi)) - np.float32(np.pi)
