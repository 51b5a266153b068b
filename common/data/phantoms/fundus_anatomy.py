"""Anatomy of a fundus phantom: optic disc and cup, choroid, nerve fibers, atrophy and lesions around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fields import spline_field
from .fundus_vessels import Crossing, VesselTree, draw_vessels, vessel_transmission
from .shapes import ellipse, smooth_max

Array = np.ndarray

CUP_VALUE, RIM_VALUE, BACKGROUND_VALUE = 0, 128, 255
CUP_RATIO_RANGE = (0.2, 0.8)

# Linear reflectance (red, green, blue) of what the light meets, before pigment and blood take their share.
_FUNDUS = np.array((0.66, 0.168, 0.052), dtype=np.float32)
_RIM = np.array((0.86, 0.33, 0.145), dtype=np.float32)
_CUP = np.array((1.0, 0.72, 0.45), dtype=np.float32)
_SCLERA = np.array((1.0, 0.62, 0.32), dtype=np.float32)
_FIBERS = np.array((0.62, 0.36, 0.22), dtype=np.float32)
_EXUDATE = np.array((0.95, 0.62, 0.16), dtype=np.float32)
_LAMINA = np.array((0.62, 0.42, 0.27), dtype=np.float32)
# Share of red, green and blue that one unit of pigment or of blood absorbs, as optical density.
_MELANIN = np.array((0.55, 0.85, 1.0), dtype=np.float32)
_BLOOD = np.array((0.65, 1.5, 1.2), dtype=np.float32)
_THINNEST_RIM_MM = 0.045


@dataclass(frozen=True)
class Population:
    """Who sits in front of a camera.

    Attributes:
        cup_ratio: Mean and standard deviation of the vertical cup-to-disc ratio, before clipping to [0.2, 0.8].
        pigment: Lowest and highest melanin density of the fundus; 0.3 is blond, 1 dark.
        atrophy: Share of eyes with a pale crescent beside the disc.
        lesions: Share of eyes with exudates or hemorrhages.
    """

    cup_ratio: tuple[float, float] = (0.5, 0.13)
    pigment: tuple[float, float] = (0.35, 0.8)
    atrophy: float = 0.25
    lesions: float = 0.15


@dataclass(frozen=True)
class Contour:
    """An almost elliptic outline.

    Attributes:
        center_mm: Temporal and superior coordinate of the center.
        axes_mm: Half-axis along the tilted temporal and superior direction.
        tilt_rad: Rotation of the axes, from temporal toward superior.
        waves: Relative amplitudes of the third to fifth harmonic of the radius, complex.
    """

    center_mm: tuple[float, float]
    axes_mm: tuple[float, float]
    tilt_rad: float
    waves: tuple[complex, complex, complex]

    def distance_mm(self, x: Array, y: Array) -> Array:
        """Signed distance in mm, negative inside.

        Args:
            x: Temporal coordinate in mm, any shape.
            y: Superior coordinate in mm, same shape.

        Returns:
            Distance of the same shape, of first order: exact in sign.
        """
        dx, dy = x - np.float32(self.center_mm[0]), y - np.float32(self.center_mm[1])
        cos, sin = np.float32(np.cos(self.tilt_rad)), np.float32(np.sin(self.tilt_rad))
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        # The wave n of the angle is the n-th power of the unit number that points there.
        unit = (u + 1j * v) / np.maximum(np.hypot(u, v), np.float32(1e-3))
        cube = unit * unit * unit
        radius = np.float32(1)
        for wave, power in zip(self.waves, (cube, cube * unit, cube * unit * unit), strict=True):
            radius = radius + (np.complex64(wave) * power).real
        return ellipse(u, v, np.float32(self.axes_mm[0]) * radius, np.float32(self.axes_mm[1]) * radius)


@dataclass(frozen=True)
class Crescent:
    """Atrophy of pigment beside the disc (beta zone), with clumped pigment at its border.

    Attributes:
        width_mm: Greatest width.
        angle_rad: Where it is widest, from temporal toward superior.
        spread_rad: How far it reaches around the disc.
        strength: Opacity in [0, 1].
    """

    width_mm: float
    angle_rad: float
    spread_rad: float
    strength: float


@dataclass(frozen=True)
class Eye:
    """One drawn eye; coordinates are mm on the retina, temporal and superior of the disc's center.

    Attributes:
        left: A left eye: the temporal side lies to the right of the photograph.
        disc: Outline of the optic disc.
        cup: Outline of the cup before it is kept inside the disc.
        cup_ratio: Vertical cup-to-disc ratio.
        disc_edge_mm: Width over which the disc blends into the retina.
        cup_edge_mm: Width of the slope from rim to cup.
        cup_pallor: How much paler than the rim the cup is; 1 as pale as sclera.
        rim_tone: Blood in the rim, as optical density; negative is pale.
        pigment: Melanin density of the fundus.
        tessellation: Contrast of the choroidal vessels.
        fiber_sheen: Strength of the nerve fibers' reflex.
        lamina: Contrast of the pores at the cup's floor.
        crescent: Atrophy, if any.
        ring: Brightness of the scleral ring.
        num_exudates: How many.
        num_hemorrhages: How many.
        vessels: The retinal vessels.
    """

    left: bool
    disc: Contour
    cup: Contour
    cup_ratio: float
    disc_edge_mm: float
    cup_edge_mm: float
    cup_pallor: float
    rim_tone: float
    pigment: float
    tessellation: float
    fiber_sheen: float
    lamina: float
    crescent: Crescent | None
    ring: float
    num_exudates: int
    num_hemorrhages: int
    vessels: VesselTree

    def cup_distance_mm(self, x: Array, y: Array, disc_mm: Array) -> Array:
        """Signed distance of the cup, which leaves a rim everywhere, as `Contour.distance_mm` gives it.

        Args:
            x: Temporal coordinate in mm.
            y: Superior coordinate in mm.
            disc_mm: Signed distance of the disc there.

        Returns:
            Distance of the same shape.
        """
        return smooth_max(self.cup.distance_mm(x, y), disc_mm + np.float32(_THINNEST_RIM_MM), 0.05)


@dataclass(frozen=True)
class Grid:
    """Where the pixels lie on the retina.

    Attributes:
        x: Temporal coordinate in mm. Shape (H, W), float32; `y` the superior one.
        y: See `x`.
        step_mm: Distance of neighboring pixels.
    """

    x: Array
    y: Array
    step_mm: float

    def field(self, rng: np.random.Generator, knot_mm: float) -> Array:
        """Smooth random field over the photograph, with bumps of about `knot_mm`, variance near 1. Shape (H, W)."""
        step = self.step_mm
        return spline_field(rng, (*self.x.shape, 1), (step, step, 1.0), max(knot_mm, step))[..., 0]


def draw_eye(rng: np.random.Generator, population: Population) -> Eye:
    """Draw an eye.

    Args:
        rng: Source of randomness.
        population: Whom to draw from.

    Returns:
        The eye.
    """
    height = float(np.clip(rng.normal(0.90, 0.07), 0.72, 1.08))
    width = height * rng.uniform(0.84, 1.0)
    ratio = float(np.clip(rng.normal(*population.cup_ratio), *CUP_RATIO_RANGE))
    tilt = np.deg2rad(rng.normal(0, 9))
    disc = Contour((0.0, 0.0), (width, height), tilt, _waves(rng, 0.008))
    cup_axes = (min(ratio * rng.uniform(0.88, 1.12), 0.86) * width, ratio * height)
    slack = 0.55 * (1 - ratio)
    center = (slack * width * rng.uniform(-0.25, 0.55), slack * height * rng.uniform(-0.35, 0.35))
    cup = Contour(center, cup_axes, tilt + np.deg2rad(rng.normal(0, 8)), _waves(rng, 0.012))
    with_crescent = rng.random() < population.atrophy
    crescent = Crescent(
        width_mm=float(rng.uniform(0.1, 0.45)),
        angle_rad=float(np.deg2rad(rng.normal(-20, 25))),
        spread_rad=float(rng.uniform(0.4, 1.0)),
        strength=float(rng.uniform(0.3, 0.7)),
    )
    sick = rng.random() < population.lesions
    exudates, hemorrhages = (int(n) for n in rng.integers((2, 0), (26, 4)))
    return Eye(
        left=bool(rng.random() < 0.5),
        disc=disc,
        cup=cup,
        cup_ratio=ratio,
        disc_edge_mm=float(rng.uniform(0.03, 0.11)),
        cup_edge_mm=float(rng.uniform(0.08, 0.3)),
        cup_pallor=float(rng.uniform(0.4, 1.0)),
        rim_tone=float(rng.normal(0, 0.12)),
        pigment=float(rng.uniform(*population.pigment)),
        tessellation=float(rng.uniform(0.0, 0.3)),
        fiber_sheen=float(rng.uniform(0.1, 0.7)),
        lamina=float(rng.uniform(0, 0.45) * (ratio > 0.4)),
        crescent=crescent if with_crescent else None,
        ring=float(rng.uniform(0, 0.5)),
        num_exudates=exudates if sick else 0,
        num_hemorrhages=hemorrhages if sick else 0,
        vessels=draw_vessels(rng, disc_mm=height, cup_mm=cup_axes, cup_center_mm=center),
    )


def paint_eye(rng: np.random.Generator, eye: Eye, grid: Grid) -> tuple[Array, Array]:
    """Paint the light that comes back from the fundus under even, white light, and the mask.

    Args:
        rng: Source of randomness, for texture and lesions.
        eye: The eye.
        grid: Where the pixels lie.

    Returns:
        Linear reflectance, red, green and blue, about [0, 1]. Shape (H, W, 3), float32. Mask with 255 = background,
        128 = rim, 0 = cup. Shape (H, W), uint8.
    """
    x, y = grid.x, grid.y
    disc = eye.disc.distance_mm(x, y)
    cup = eye.cup_distance_mm(x, y, disc)
    angle = np.arctan2(y, x)
    light = _choroid(rng, eye, grid, disc)
    if eye.crescent is not None:
        _paint_crescent(rng, eye.crescent, grid, light, disc, angle)
    fibers = _fiber_sheen(rng, grid, disc, angle)
    _blend(light, fibers * np.float32(eye.fiber_sheen) * _rise(disc, 0.1), _FIBERS)
    _paint_disc(rng, eye, grid, light, disc, cup, fibers)
    if eye.num_exudates or eye.num_hemorrhages:
        _paint_lesions(rng, eye, grid, light, disc)
    climb = Crossing(lambda u, v: eye.cup_distance_mm(u, v, eye.disc.distance_mm(u, v)), eye.cup_edge_mm)
    light *= vessel_transmission(eye.vessels, climb, x, y, grid.step_mm, _BLOOD)
    mask = np.full(x.shape, BACKGROUND_VALUE, dtype=np.uint8)
    mask[disc < 0] = RIM_VALUE
    mask[cup < 0] = CUP_VALUE
    return light, mask


def _waves(rng: np.random.Generator, amplitude: float) -> tuple[complex, complex, complex]:
    third, fourth, fifth = amplitude * (rng.standard_normal(3) + 1j * rng.standard_normal(3))
    return complex(third), complex(fourth), complex(fifth)


def _rise(distance_mm: Array, width_mm: float) -> Array:
    """Smooth step from 0 to 1 across a border, half-way where the distance is 0."""
    t = np.clip(0.5 + distance_mm * np.float32(0.5 / width_mm), 0, 1)
    return t * t * (3 - 2 * t)


def _blend(light: Array, share: Array, color: Array) -> None:
    light += share[..., None] * (color - light)


def _choroid(rng: np.random.Generator, eye: Eye, grid: Grid, disc: Array) -> Array:
    """Fundus without disc and vessels: pigment in clouds and grains, choroidal vessels shining through."""
    clouds = 0.16 * grid.field(rng, 1.3) + 0.08 * grid.field(rng, 0.4)
    grains = 0.05 * grid.field(rng, 0.045) + 0.05 * grid.field(rng, 0.12)
    winding = grid.field(rng, 0.42) + 0.4 * grid.field(rng, 0.2)
    bands = np.clip(1 - 1.6 * np.abs(winding), 0, 1)
    density = eye.pigment * (1 + clouds + grains) - eye.tessellation * (bands - 0.35)
    # Pigment is a little denser along the disc's border.
    density += 0.08 * np.exp(-np.square((disc - 0.08) / 0.1))
    light = np.exp(-np.maximum(density, 0)[..., None] * _MELANIN)
    return light * _FUNDUS * np.float32(1.35)


def _paint_crescent(
    rng: np.random.Generator, crescent: Crescent, grid: Grid, light: Array, disc: Array, angle: Array
) -> None:
    turn = np.cos(angle - np.float32(crescent.angle_rad)) - 1
    width = np.float32(crescent.width_mm) * np.exp(turn / np.float32(crescent.spread_rad**2))
    ragged = disc - width * (1 + 0.12 * grid.field(rng, 0.2))
    _blend(light, np.float32(crescent.strength) * (1 - _rise(ragged, 0.05)) * np.clip(width / 0.06, 0, 1), _SCLERA)
    clumps = np.exp(-np.square((ragged - 0.05) / 0.06)) * np.clip(0.6 + 0.6 * grid.field(rng, 0.1), 0, 1.5)
    light *= np.exp(-0.35 * (clumps * np.clip(width / 0.1 - 0.3, 0, 1))[..., None] * _MELANIN)


def _fiber_sheen(rng: np.random.Generator, grid: Grid, disc: Array, angle: Array) -> Array:
    """Streaks of the nerve fiber layer, which is thick above and below the disc; in [0, 1]."""
    knots = 420
    turns = (angle + np.float32(0.05) * grid.field(rng, 0.6)) / (2 * np.pi) * knots
    streaks = rng.random((2, knots + 1)) ** 2
    streaks[:, -1] = streaks[:, 0]
    near, far = (np.interp(np.mod(turns, knots), np.arange(knots + 1), row).astype(np.float32) for row in streaks)
    mix = np.clip(disc, 0, 1)
    poles = 0.25 + np.square(np.sin(angle)) * (0.75 + 0.25 * np.cos(angle))
    return poles * np.exp(-np.abs(disc) / np.float32(1.1)) * (0.45 + 0.55 * (near + mix * (far - near)))


def _paint_disc(
    rng: np.random.Generator, eye: Eye, grid: Grid, light: Array, disc: Array, cup: Array, fibers: Array
) -> None:
    """Rim, scleral ring, cup and its floor."""
    # The nasal border is blurred by the thicker bundle of fibers there.
    edge = np.float32(eye.disc_edge_mm) * (1 + 0.35 * np.clip(-grid.x / np.float32(eye.disc.axes_mm[0]), -0.5, 1))
    inside = 1 - _rise(disc, edge)
    tone = eye.rim_tone + 0.1 * grid.field(rng, 0.5) + 0.03 * grid.field(rng, 0.06)
    tone -= 0.07 * grid.x / np.float32(eye.disc.axes_mm[0])  # the temporal rim is paler
    rim = _RIM * np.exp(-tone[..., None] * _BLOOD) * (0.92 + 0.2 * fibers[..., None])
    light += inside[..., None] * (rim - light)
    ring = np.exp(-np.square((disc + 0.02) / 0.035)) * np.clip(0.4 + grid.x + 0.4 * grid.field(rng, 0.5), 0, 1)
    _blend(light, np.float32(eye.ring) * ring, _SCLERA)
    sunk = 1 - _rise(cup, eye.cup_edge_mm)
    depth = np.clip(-cup / np.float32(0.35), 0, 1)
    pallor = np.float32(eye.cup_pallor) * (0.8 + 0.2 * depth + 0.05 * grid.field(rng, 0.25))
    _blend(light, np.clip(sunk * pallor, 0, 1), _CUP)
    if eye.lamina > 0:
        pores = np.clip(grid.field(rng, 0.045) - 0.5, 0, 1)
        _blend(light, np.float32(eye.lamina) * depth * depth * pores, _LAMINA)


def _paint_lesions(rng: np.random.Generator, eye: Eye, grid: Grid, light: Array, disc: Array) -> None:
    """Yellow exudates in clusters and dark blots of blood."""
    spots = np.zeros_like(disc)
    uneven = 0.02 * grid.field(rng, 0.06)
    middle = rng.uniform(-2.0, 2.0, 2)
    for dx, dy, radius in zip(
        *rng.normal(0, 0.45, (2, eye.num_exudates)), rng.uniform(0.015, 0.07, eye.num_exudates), strict=True
    ):
        away = np.hypot(grid.x - np.float32(middle[0] + dx), grid.y - np.float32(middle[1] + dy))
        np.maximum(spots, 1 - _rise(away - np.float32(radius) + uneven, 0.03), out=spots)
    outside = _rise(disc - 0.1, 0.1)
    _blend(light, 0.85 * spots * outside, _EXUDATE)
    ragged = 0.05 * grid.field(rng, 0.12)
    for _ in range(eye.num_hemorrhages):
        place, size, turn = rng.uniform(-2, 2, 2), rng.uniform(0.05, 0.22), rng.uniform(0, np.pi)
        dx, dy = grid.x - np.float32(place[0]), grid.y - np.float32(place[1])
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        blot = ellipse(cos * dx + sin * dy, cos * dy - sin * dx, np.float32(size), np.float32(0.55 * size)) + ragged
        light *= np.exp(-0.8 * ((1 - _rise(blot, 0.04)) * outside)[..., None] * _BLOOD)
