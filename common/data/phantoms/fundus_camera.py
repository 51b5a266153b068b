"""Fundus cameras of the phantom domains: optics, illumination, color response, noise and compression."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image
from scipy import ndimage

from .fundus_anatomy import Grid, Population

Array = np.ndarray
Range = tuple[float, float]

_FLARE = np.array((0.85, 1.0, 1.05), dtype=np.float32)
_LUMA = np.array((0.30, 0.59, 0.11), dtype=np.float32)


@dataclass(frozen=True)
class Camera:
    """A camera and the eyes before it. Pairs are the lowest and highest value that a photograph may have.

    Attributes:
        summary: What distinguishes it, for `dataset.json`.
        population: Who is photographed.
        field_mm: Longer side of the crop on the retina; the disc is about 1.8 mm high.
        off_center_mm: How far the disc may lie from the middle of the crop, along each axis.
        balance: Gain of red, green and blue.
        balance_spread: Standard deviation of the logarithm of each gain from photograph to photograph.
        exposure: Mean luminance that the exposure aims at, linear.
        gamma: Exponent of the tone curve is 1 / gamma.
        contrast: Slope of the tone curve around mid-gray.
        saturation: Distance of the colors from gray, 1 as they are.
        lift: Black level.
        haze: Share of light scattered by a cloudy lens.
        haze_color: Color of that veil, linear.
        flare: Strength of the stray light that a misaligned camera lets in from one side of the crop, linear.
        vignetting: Loss of light at the border of the circular field.
        unevenness: Amplitude of uneven illumination.
        field_radius_mm: Radius of the circular field on the retina, centered between disc and fovea.
        blur_mm: Standard deviation of the point spread on the retina.
        noise: Standard deviation of the shot noise at full well, linear.
        grain_pixels: Correlation of the noise, as standard deviation in pixels.
        sharpening: Strength of unsharp masking.
        jpeg_quality: Quality of the compression before the crop is stored, or None for none.
    """

    summary: str
    population: Population
    field_mm: Range = (4.0, 4.5)
    off_center_mm: float = 0.2
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    balance_spread: float = 0.05
    exposure: Range = (0.22, 0.29)
    gamma: Range = (2.0, 2.2)
    contrast: Range = (1.0, 1.1)
    saturation: Range = (0.95, 1.05)
    lift: Range = (0.0, 0.02)
    haze: Range = (0.0, 0.1)
    haze_color: tuple[float, float, float] = (0.30, 0.26, 0.20)
    flare: Range = (0.0, 0.0)
    vignetting: Range = (0.1, 0.3)
    unevenness: Range = (0.03, 0.1)
    field_radius_mm: Range = (6.4, 7.2)
    blur_mm: Range = (0.008, 0.018)
    noise: Range = (0.01, 0.02)
    grain_pixels: float = 0.5
    sharpening: Range = (0.1, 0.5)
    jpeg_quality: tuple[int, int] | None = None


# The order numbers the random streams: append only. The first is the source.
CAMERAS: dict[str, Camera] = {
    "a": Camera(
        summary="source: tabletop camera, neutral colors, sharp, evenly lit; exposure and balance vary",
        population=Population(),
        balance_spread=0.12,
        exposure=(0.17, 0.32),
        gamma=(1.8, 2.3),
        contrast=(0.9, 1.15),
        saturation=(0.9, 1.1),
        haze=(0.0, 0.15),
        blur_mm=(0.008, 0.024),
        noise=(0.01, 0.025),
    ),
    "b": Camera(
        summary="mild: another maker's warmer, flatter and softer picture, compressed",
        population=Population(cup_ratio=(0.48, 0.12)),
        field_mm=(3.8, 4.3),
        balance=(1.1, 0.95, 0.8),
        exposure=(0.22, 0.3),
        gamma=(1.5, 1.8),
        contrast=(0.72, 0.9),
        haze=(0.1, 0.25),
        blur_mm=(0.022, 0.04),
        jpeg_quality=(60, 80),
    ),
    "c": Camera(
        summary="red: scanned film, red channel overexposed, grain, large cups",
        population=Population(cup_ratio=(0.56, 0.12), pigment=(0.5, 0.95), lesions=0.25),
        field_mm=(4.4, 5.2),
        balance=(1.35, 0.8, 0.78),
        exposure=(0.18, 0.26),
        gamma=(1.6, 1.9),
        contrast=(1.1, 1.3),
        saturation=(1.0, 1.1),
        haze=(0.1, 0.25),
        haze_color=(0.40, 0.20, 0.14),
        vignetting=(0.3, 0.6),
        blur_mm=(0.015, 0.035),
        noise=(0.02, 0.035),
        grain_pixels=0.9,
        jpeg_quality=(60, 80),
    ),
    "d": Camera(
        summary="hazy and dim: cloudy lenses, low contrast, uneven and stray light, strong blur",
        population=Population(cup_ratio=(0.5, 0.14), pigment=(0.4, 0.9), atrophy=0.4, lesions=0.2),
        balance=(0.95, 1.0, 0.9),
        exposure=(0.09, 0.16),
        gamma=(2.0, 2.4),
        contrast=(0.8, 1.0),
        saturation=(0.75, 0.95),
        lift=(0.0, 0.06),
        haze=(0.35, 0.6),
        haze_color=(0.36, 0.25, 0.15),
        flare=(0.0, 0.1),
        vignetting=(0.3, 0.6),
        unevenness=(0.15, 0.35),
        blur_mm=(0.03, 0.05),
        noise=(0.01, 0.025),
        jpeg_quality=(70, 90),
    ),
    "e": Camera(
        summary="cool and hard: handheld LED camera, greenish blue, sharpened, dark border, strongly compressed",
        population=Population(cup_ratio=(0.46, 0.13), pigment=(0.3, 0.9), lesions=0.2),
        field_mm=(4.8, 5.8),
        off_center_mm=0.4,
        balance=(0.75, 1.1, 1.3),
        balance_spread=0.09,
        exposure=(0.14, 0.22),
        gamma=(2.1, 2.6),
        contrast=(1.2, 1.5),
        saturation=(0.7, 0.9),
        vignetting=(0.4, 0.7),
        unevenness=(0.05, 0.2),
        field_radius_mm=(5.6, 6.4),
        blur_mm=(0.012, 0.03),
        noise=(0.012, 0.025),
        sharpening=(0.6, 1.2),
        jpeg_quality=(40, 65),
    ),
}


@dataclass(frozen=True)
class Settings:
    """Numbers of one photograph, each drawn from the pair of the same name in `Camera`."""

    field_mm: float
    exposure: float
    gamma: float
    contrast: float
    saturation: float
    lift: float
    haze: float
    flare: float
    vignetting: float
    unevenness: float
    field_radius_mm: float
    blur_mm: float
    noise: float
    sharpening: float


@dataclass(frozen=True)
class Shot:
    """One drawn photograph: how it is taken, and where the camera looks.

    Attributes:
        camera: The camera.
        settings: Drawn settings.
        gains: Gain of red, green and blue. Shape (3,), float32.
        jpeg_quality: Quality of the compression, or None.
        disc_mm: Place of the disc relative to the middle of the crop, in mm, to the right and down.
        roll_rad: Rotation of the eye against the camera.
        axis_mm: Temporal and superior coordinate of the middle of the camera's field.
    """

    camera: Camera
    settings: Settings
    gains: Array
    jpeg_quality: int | None
    disc_mm: tuple[float, float]
    roll_rad: float
    axis_mm: tuple[float, float]


def draw_shot(rng: np.random.Generator, camera: Camera) -> Shot:
    """Draw the settings of one photograph.

    Args:
        rng: Source of randomness.
        camera: What to draw from.

    Returns:
        The settings.
    """
    settings = Settings(**{field.name: float(rng.uniform(*getattr(camera, field.name))) for field in fields(Settings)})
    gains = np.array(camera.balance) * np.exp(rng.normal(0, camera.balance_spread, 3))
    column, row = rng.uniform(-1, 1, 2) * camera.off_center_mm
    quality = camera.jpeg_quality
    return Shot(
        camera=camera,
        settings=settings,
        gains=gains.astype(np.float32),
        jpeg_quality=None if quality is None else int(rng.integers(quality[0], quality[1] + 1)),
        disc_mm=(float(column), float(row)),
        roll_rad=float(np.deg2rad(rng.normal(0, 6))),
        axis_mm=(float(rng.uniform(1.5, 4.3)), float(rng.normal(0, 0.5))),
    )


def place_grid(shot: Shot, image_size: tuple[int, int], left: bool) -> Grid:
    """Lay the pixels of a photograph on the retina.

    Args:
        shot: Where the camera looks.
        image_size: Height and width in pixels.
        left: A left eye, whose temporal side lies to the right.

    Returns:
        The grid.
    """
    height, width = image_size
    step = np.float32(shot.settings.field_mm / max(image_size))
    right = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)) * step - np.float32(shot.disc_mm[0])
    down = (np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2)) * step - np.float32(shot.disc_mm[1])
    temporal = (right if left else -right)[None, :]
    superior = -down[:, None]
    cos, sin = np.float32(np.cos(shot.roll_rad)), np.float32(np.sin(shot.roll_rad))
    return Grid(x=cos * temporal + sin * superior, y=cos * superior - sin * temporal, step_mm=float(step))


def photograph(rng: np.random.Generator, light: Array, shot: Shot, grid: Grid) -> Array:
    """Take the photograph: illumination, lens, sensor, tone curve, compression.

    Args:
        rng: Source of randomness, for uneven light and noise.
        light: Linear reflectance of the fundus. Shape (H, W, 3), float32.
        shot: How it is taken.
        grid: Where the pixels lie on the retina.

    Returns:
        Red, green and blue. Shape (H, W, 3), uint8.
    """
    set_to = shot.settings
    from_axis = np.hypot(grid.x - np.float32(shot.axis_mm[0]), grid.y - np.float32(shot.axis_mm[1]))
    from_axis /= np.float32(set_to.field_radius_mm)
    lamp = (1 - np.float32(set_to.vignetting) * from_axis * from_axis) * np.exp(
        np.float32(set_to.unevenness) * grid.field(rng, 2.2)
    )
    aperture = np.clip((1 - from_axis) * np.float32(set_to.field_radius_mm / (2 * grid.step_mm)), 0, 1)[..., None]
    light = light * (np.maximum(lamp, 0.08)[..., None] * aperture)
    light = _through_the_lens(light, shot, grid, aperture)
    luminance = light @ _LUMA
    light *= shot.gains * np.float32(set_to.exposure / max(float(luminance.mean() / aperture.mean()), 1e-3))
    light += np.float32(set_to.flare) * _stray_light(rng, grid)[..., None] * _FLARE * aperture
    light += _noise(rng, light, shot)
    picture = _develop(light, shot)
    if set_to.sharpening > 0:
        soft = ndimage.gaussian_filter(picture, (1.2, 1.2, 0))
        picture += np.float32(set_to.sharpening) * (picture - soft)
    # Beyond the field's border the sensor sees next to nothing.
    picture *= 0.03 + 0.97 * aperture
    stored = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return stored if shot.jpeg_quality is None else _compress(stored, shot.jpeg_quality)


def _through_the_lens(light: Array, shot: Shot, grid: Grid, aperture: Array) -> Array:
    """Point spread of the optics, wider in blue, and the veil of a cloudy lens."""
    sigma = shot.settings.blur_mm / grid.step_mm
    blurred = np.stack(
        [ndimage.gaussian_filter(light[..., c], sigma * wider) for c, wider in enumerate((1.0, 1.0, 1.3))], axis=-1
    )
    size = (max(1, round(0.8 / grid.step_mm)),) * 2 + (1,)
    veil = ndimage.uniform_filter(ndimage.uniform_filter(light, size), size)
    color = np.array(shot.camera.haze_color, dtype=np.float32) * aperture
    return blurred + np.float32(shot.settings.haze) * (0.35 * veil + 0.65 * color - blurred)


def _stray_light(rng: np.random.Generator, grid: Grid) -> Array:
    """Glow that is strongest beyond the border of the crop, on a side drawn at random. Shape (H, W), in [0, 1]."""
    angle = rng.uniform(0, 2 * np.pi)
    reach = np.float32(0.5 * max(grid.x.shape) * grid.step_mm)
    dx, dy = grid.x - reach * np.float32(1.3 * np.cos(angle)), grid.y - reach * np.float32(1.3 * np.sin(angle))
    return np.exp(-(dx * dx + dy * dy) / (reach * reach))


def _noise(rng: np.random.Generator, light: Array, shot: Shot) -> Array:
    """Shot noise, with a little of it that the channels share."""
    grain = shot.camera.grain_pixels
    white = rng.standard_normal(light.shape, dtype=np.float32)
    white += 0.5 * rng.standard_normal((*light.shape[:2], 1), dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, (grain, grain, 0))
    return smooth * np.float32(shot.settings.noise / max(float(smooth.std()), 1e-6)) * np.sqrt(np.maximum(light, 2e-3))


def _develop(light: Array, shot: Shot) -> Array:
    """Tone curve with a soft shoulder, contrast, saturation and black level."""
    set_to = shot.settings
    cube = np.square(np.maximum(light, 0)) * np.maximum(light, 0)
    exposed = np.cbrt(cube / (1 + cube))
    picture = exposed ** np.float32(1 / set_to.gamma)
    picture = 0.42 + (picture - 0.42) * np.float32(set_to.contrast)
    gray = (picture @ _LUMA)[..., None]
    picture = gray + (picture - gray) * np.float32(set_to.saturation)
    return np.float32(set_to.lift) + np.float32(1 - set_to.lift) * picture


def _compress(picture: Array, quality: int) -> Array:
    """Store as JPEG in memory and read back."""
    with io.BytesIO() as memory:
        Image.fromarray(picture).save(memory, format="JPEG", quality=quality)
        memory.seek(0)
        with Image.open(memory) as stored:
            return np.array(stored)
