"""How a torso is scanned: field of view, grid, orientation, table, reconstruction noise."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from .canvas import Canvas
from .fields import filtered_noise, spline_field
from .shapes import rotation_matrix
from .torso_patient import Patient

Array = np.ndarray

# Lowest and highest tissue z in mm of each field of view.
FIELDS_OF_VIEW = {"chest": (188.0, 392.0), "abdomen": (12.0, 246.0), "abdomen_pelvis": (-186.0, 242.0)}
ORIENTATIONS = ("RAS", "LPS", "LAS", "RPI", "SPL", "AIR")
AIR_HU, PADDING_HU, MAX_HU = -1000.0, -1024, 3071
_MARGIN_MM = 14.0


@dataclass(frozen=True)
class Scan:
    """One drawn acquisition.

    Attributes:
        field_of_view: A key of `FIELDS_OF_VIEW`.
        spacing_mm: Voxel size along the patient's right-left, back-front and foot-head axis.
        shape: Grid size along the same axes.
        orientation: Axis codes in which the volume is stored.
        tilt: Rotation of the grid against the world, matrix (3, 3).
        pose: Rotation of the patient against the world, matrix (3, 3).
        center_mm: World position of the grid's center.
        noise_hu: Standard deviation of the noise in the middle of the body.
        kernel_mm: Standard deviation of the reconstruction kernel.
        padded: Fill outside the circular field of view with `PADDING_HU`.
        table_gap_mm: Thickness of the pad between patient and table.
        table_radius_mm: Radius of the table's curve.
    """

    field_of_view: str
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    orientation: str
    tilt: Array
    pose: Array
    center_mm: Array
    noise_hu: float
    kernel_mm: float
    padded: bool
    table_gap_mm: float
    table_radius_mm: float


def draw_scan(rng: np.random.Generator, patient: Patient, field_of_view: str, spacing_mm: float) -> Scan:
    """Draw an acquisition for a patient.

    Args:
        rng: Source of randomness.
        patient: Who is scanned; the grid follows the width of the body.
        field_of_view: A key of `FIELDS_OF_VIEW`.
        spacing_mm: Typical voxel size; the drawn one departs from it by up to 10 % in plane, and slices are up to
            twice as thick.

    Returns:
        The acquisition.
    """
    in_plane = spacing_mm * rng.uniform(0.9, 1.08)
    ratio = rng.choice([rng.uniform(0.95, 1.1), rng.uniform(1.2, 1.6), rng.uniform(1.7, 2.0)], p=[0.5, 0.3, 0.2])
    spacing = (in_plane, in_plane, spacing_mm * float(ratio))
    fat_mm = 5 + 30 * patient.fatness
    width = 2 * patient.stature[0] * (166 + fat_mm) * rng.uniform(1.0, 1.08) + 2 * _MARGIN_MM
    depth = patient.stature[1] * (205 + 2.3 * fat_mm + (24 if patient.female else 0)) + 60
    low, high = FIELDS_OF_VIEW[field_of_view]
    length = patient.stature[2] * (high - low) + rng.uniform(-12, 12)
    size = [max(8, round(extent / step)) for extent, step in zip((width, depth, length), spacing, strict=True)]
    oblique = rng.random() < 0.3
    angles = rng.uniform(-9, 9, 3) if oblique else np.zeros(3)
    return Scan(
        field_of_view=field_of_view,
        spacing_mm=spacing,
        shape=(size[0], size[1], size[2]),
        orientation=str(rng.choice(ORIENTATIONS, p=[0.25, 0.25, 0.2, 0.1, 0.1, 0.1])),
        tilt=rotation_matrix(angles),
        pose=rotation_matrix(rng.normal(0, 2.0, 3)),
        center_mm=np.array([rng.uniform(-15, 15), rng.uniform(-25, 25), rng.uniform(-900, 900)]),
        noise_hu=float(rng.uniform(6, 20)),
        kernel_mm=float(rng.uniform(0.45, 0.8) * in_plane),
        padded=bool(rng.random() < 0.4),
        table_gap_mm=float(rng.uniform(6, 16)),
        table_radius_mm=float(rng.uniform(420, 900)),
    )


def world_affine(scan: Scan) -> Array:
    """Affine from (right, front, head) indices of the scan's grid to world mm (RAS+). Shape (4, 4), float64."""
    affine = np.eye(4)
    affine[:3, :3] = scan.tilt * np.array(scan.spacing_mm)
    affine[:3, 3] = scan.center_mm - affine[:3, :3] @ ((np.array(scan.shape) - 1) / 2)
    return affine


def slice_samples(scan: Scan) -> int:
    """Layers rendered per slice spacing: 2 for slices clearly thicker than the pixels, else 1."""
    return 2 if scan.spacing_mm[2] > 1.5 * scan.spacing_mm[0] else 1


def rendered_spacing_mm(scan: Scan) -> tuple[float, float, float]:
    """Spacing of the layers that are rendered, before `average_slices`."""
    return (scan.spacing_mm[0], scan.spacing_mm[1], scan.spacing_mm[2] / slice_samples(scan))


def make_canvas(rng: np.random.Generator, scan: Scan, patient: Patient) -> tuple[Canvas, Array]:
    """Place the patient in the scanner.

    Thick slices get a layer at every center and one half-way before, between and after: see `average_slices`.

    Args:
        rng: Source of randomness, for the smooth deformation of the body.
        scan: The acquisition.
        patient: The patient.

    Returns:
        An empty canvas of tissue coordinates, and the scanner's (x, y) of every voxel relative to the patient's
        origin in mm, shape (2, i, j, k), in which the table is drawn.
    """
    samples = slice_samples(scan)
    count = scan.shape[2] if samples == 1 else 2 * scan.shape[2] + 1
    step = rendered_spacing_mm(scan)
    shape = (scan.shape[0], scan.shape[1], count)
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(s) for n, s in zip(shape, step, strict=True)]

    def combine(row: Array) -> Array:
        return (
            np.float32(row[0]) * axes[0][:, None, None]
            + np.float32(row[1]) * axes[1][None, :, None]
            + np.float32(row[2]) * axes[2][None, None, :]
        )

    # The grid's center shows this tissue point; the table lies behind, hence the shift to the back.
    middle = float(np.mean(FIELDS_OF_VIEW[scan.field_of_view]))
    to_tissue = (scan.pose.T @ scan.tilt) / np.array(patient.stature)[:, None]
    center = np.array([0.0, -8.0 if not patient.female else 0.0, middle])
    # Deformation: low frequencies change the build, together with higher ones the outline.
    x, y, z = (
        combine(to_tissue[a]) + np.float32(center[a]) + np.float32(amplitude) * spline_field(rng, shape, step, 110.0)
        for a, amplitude in enumerate((4.0, 4.0, 7.0))
    )
    scanner = np.stack([combine(scan.tilt[a]) + np.float32(center[a] * patient.stature[a]) for a in range(2)])
    canvas = Canvas(
        x=x,
        y=y,
        z=z,
        hu=np.full(shape, AIR_HU, dtype=np.float32),
        label=np.zeros(shape, dtype=np.uint8),
        index_per_mm=np.linalg.inv(to_tissue * np.array(step)),
        edge_mm=float(np.mean(step)),
    )
    return canvas, scanner


def paint_table(canvas: Canvas, scanner_mm: Array, skin_mm: Array, scan: Scan) -> None:
    """Paint the scanner's table below the patient: a curved shell of carbon fiber on foam, and a pad on top.

    Args:
        canvas: Where to paint; paint the patient later.
        scanner_mm: Scanner coordinates from `make_canvas`. Shape (2, i, j, k).
        skin_mm: Signed distance of the patient's skin; finds the lowest point.
        scan: The acquisition.
    """
    x, y = scanner_mm
    inside = skin_mm < 0
    lowest = float(y[inside].min()) if inside.any() else float(y.min())
    surface = lowest - scan.table_gap_mm + x * x / (2 * scan.table_radius_mm)
    below = y - surface
    everywhere = canvas.everywhere()
    width = np.abs(x) - 215
    pad = np.maximum(np.abs(below - scan.table_gap_mm / 2) - scan.table_gap_mm / 2, np.abs(x) - 180)
    everywhere.paint(pad, -935)
    thickness = 46 - np.clip(x * x / (2 * scan.table_radius_mm), 0, 40)
    everywhere.paint(np.maximum(np.maximum(below, -below - thickness), width), -955)
    for depth in (np.zeros_like(thickness), thickness):
        everywhere.paint(np.maximum(np.abs(below + depth) - 1.6, width), 40)


def average_slices(image: Array, label: Array, samples: int) -> tuple[Array, Array]:
    """Turn rendered layers into slices: a triangular slice profile for the image, the central layer for the labels.

    Args:
        image: HU. Shape (i, j, 2 k + 1) for 2 samples, (i, j, k) for 1.
        label: Labels, same shape.
        samples: Layers per slice, 1 or 2.

    Returns:
        Image and labels. Shape (i, j, k).
    """
    if samples == 1:
        return image, label
    mean = 0.25 * image[..., 0:-2:2] + 0.5 * image[..., 1::2] + 0.25 * image[..., 2::2]
    return mean, np.ascontiguousarray(label[..., 1::2])


def reconstruct(rng: np.random.Generator, image: Array, scan: Scan) -> Array:
    """Add what the scanner adds: blur, correlated noise, streaks between dense bones, padding, whole numbers.

    Args:
        rng: Source of randomness.
        image: Noise-free HU. Shape (i, j, k), float32.
        scan: The acquisition.

    Returns:
        Image, int16, in [-1024, 3071].
    """
    sigma = [scan.kernel_mm / s for s in scan.spacing_mm]
    body = ndimage.gaussian_filter(np.clip((image + 1000) / 1000, 0, 2), [40 / s for s in scan.spacing_mm])
    # Photons that cross much tissue are few: noise grows toward the middle and through the hips.
    strength = scan.noise_hu * (0.25 + 0.95 * body * body)
    noise = filtered_noise(rng, image.shape, [s * f for s, f in zip(sigma, (1.0, 1.0, 0.5), strict=True)])
    dense = np.clip(image - 300, 0, 900)
    shadow = dense.mean(axis=0, keepdims=True)
    streaks = filtered_noise(rng, image.shape, [30 / scan.spacing_mm[0], 0.4, 0.3])
    fringe = np.clip(shadow / 60, 0, 1.5) * (14 * streaks - 6) * np.clip(body * 1.3, 0, 1)
    result = image + strength * noise + fringe
    if scan.padded:
        u, v = (np.arange(n) - (n - 1) / 2 for n in image.shape[:2])
        radius = 0.52 * max(image.shape[:2])
        result[np.add.outer(u * u, v * v) > radius * radius] = PADDING_HU
    return np.clip(np.rint(result), PADDING_HU, MAX_HU).astype(np.int16)


def store_as(array: Array, affine: Array, orientation: str) -> tuple[Array, Array]:
    """Flip and permute a volume from (right, front, head) order to other axis codes, with its affine.

    Args:
        array: Volume. Shape (i, j, k).
        affine: Its affine. Shape (4, 4).
        orientation: Three axis codes, for example "LPS".

    Returns:
        Volume and affine; every voxel keeps its world position up to the grid's tilt.
    """
    change = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
    )
    stored = np.ascontiguousarray(nib.orientations.apply_orientation(array, change))
    return stored, affine @ nib.orientations.inv_ornt_aff(change, array.shape)
