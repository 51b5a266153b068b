"""Who is drawn: sizes, contraction and surroundings of one heart, in the coordinates of its long axis.

x points to the lateral wall, y to the anterior wall, z from the mitral valve at end-diastole to the apex; the long axis
of the left ventricle is x = y = 0. In a short-axis image the right ventricle lies on the left and the anterior wall on
top. Sizes follow the ranges that are usual in cardiac MR of adults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

DIAGNOSES = ("normal", "dilated", "hypertrophic", "infarct", "right_ventricle")
END_DIASTOLE, END_SYSTOLE = "ed", "es"
PHASES = (END_DIASTOLE, END_SYSTOLE)

# Cavity radius and wall thickness at end-diastole in mm, ejection fraction; width of the right ventricle in mm.
_RANGES: dict[str, tuple[tuple[float, float], ...]] = {
    "normal": ((23.5, 27.5), (7.5, 9.5), (0.55, 0.70), (27, 33)),
    "dilated": ((29.0, 34.5), (6.5, 8.5), (0.15, 0.35), (25, 33)),
    "hypertrophic": ((20.5, 24.0), (12.0, 15.5), (0.60, 0.74), (24, 30)),
    "infarct": ((24.5, 29.5), (7.5, 9.5), (0.28, 0.48), (25, 32)),
    "right_ventricle": ((21.5, 25.0), (7.5, 9.5), (0.50, 0.65), (35, 42)),
}
_MIX = (0.3, 0.2, 0.2, 0.15, 0.15)


@dataclass(frozen=True)
class Heart:
    """One drawn patient.

    Attributes:
        diagnosis: One of `DIAGNOSES`.
        length_mm: From the mitral valve to the epicardium of the apex, at end-diastole.
        cavity_mm: Radius of the left ventricle at end-diastole.
        wall_mm: Mean thickness of its wall at end-diastole.
        ejection_fraction: Of the left ventricle.
        right_mm: Largest width of the right ventricle at end-diastole, from the septum to the free wall.
        right_ejection_fraction: Of the right ventricle.
        right_angle_rad: Where the middle of the septum lies, counted from the lateral wall over the anterior one.
        right_half_angle_rad: Half of the septum's angle in the middle of the heart.
        right_base_mm: z of the tricuspid valve at end-diastole.
        right_length: Share of the left ventricle's length at which the right one ends.
        right_skew: How much wider the right ventricle is on its inferior side.
        ripples: Amplitude, phase and twist toward the apex of the cavity's harmonics 2 to 5. Shape (4, 3).
        wall_ripples: The same of the wall's thickness, harmonics 1 to 3. Shape (3, 3).
        focus_angle_rad: Middle of a thinned (infarct) or thickened (hypertrophic) sector.
        focus: Relative change of the wall's thickness there.
        papillary_angles_rad: Of the two papillary muscles.
        papillary_mm: Their radii at end-diastole.
        trabeculation: Share of the cavity's rim that trabeculae take, about.
        fat_mm: Thickness of the epicardial fat, about.
        chest_mm: Radius of the chest.
        chest_center_mm: Its center (x, y).
        skin_fat_mm: Thickness of the fat below the skin.
        diaphragm_mm: Distance of the diaphragm below the heart.
        aorta_mm: Descending aorta: x, y, radius.
        signal: Signal of the tissues, that of blood about 1.
        texture_seed: Seed of the patient's own textures and deformation, the same in both phases.
    """

    diagnosis: str
    length_mm: float
    cavity_mm: float
    wall_mm: float
    ejection_fraction: float
    right_mm: float
    right_ejection_fraction: float
    right_angle_rad: float
    right_half_angle_rad: float
    right_base_mm: float
    right_length: float
    right_skew: float
    ripples: Array
    wall_ripples: Array
    focus_angle_rad: float
    focus: float
    papillary_angles_rad: tuple[float, float]
    papillary_mm: tuple[float, float]
    trabeculation: float
    fat_mm: float
    chest_mm: float
    chest_center_mm: tuple[float, float]
    skin_fat_mm: float
    diaphragm_mm: float
    aorta_mm: tuple[float, float, float]
    signal: dict[str, float]
    texture_seed: int


@dataclass(frozen=True)
class HeartState:
    """A heart at one phase: the quantities that contraction changes.

    Attributes:
        base_mm: z of the mitral valve.
        right_base_mm: z of the tricuspid valve.
        cavity_mm: Radius of the left ventricle.
        wall_mm: Mean thickness of its wall.
        right_mm: Width of the right ventricle.
        papillary_scale: Radius of the papillary muscles relative to end-diastole.
    """

    base_mm: float
    right_base_mm: float
    cavity_mm: float
    wall_mm: float
    right_mm: float
    papillary_scale: float


def draw_heart(rng: np.random.Generator) -> Heart:
    """Draw a patient.

    Args:
        rng: Source of randomness.

    Returns:
        The patient.
    """
    diagnosis = str(rng.choice(DIAGNOSES, p=_MIX))
    cavity, wall, ejection, right = (float(rng.uniform(*pair)) for pair in _RANGES[diagnosis])
    focus = {"infarct": -rng.uniform(0.3, 0.5), "hypertrophic": rng.uniform(0.2, 0.5)}.get(diagnosis, 0.0)
    focus_angle = {"hypertrophic": np.pi + rng.normal(0, 0.4)}.get(diagnosis, rng.uniform(-np.pi, np.pi))
    failing = diagnosis == "right_ventricle"
    return Heart(
        diagnosis=diagnosis,
        length_mm=float(rng.uniform(80, 98) + (6 if diagnosis == "dilated" else 0)),
        cavity_mm=cavity,
        wall_mm=wall,
        ejection_fraction=ejection,
        right_mm=right,
        right_ejection_fraction=float(rng.uniform(0.2, 0.4) if failing else rng.uniform(0.42, 0.62)),
        right_angle_rad=float(np.deg2rad(rng.normal(178, 6))),
        right_half_angle_rad=float(np.deg2rad(rng.uniform(58, 68) + (5 if failing else 0))),
        right_base_mm=float(rng.uniform(-5, 6)),
        right_length=float(rng.uniform(0.76, 0.92)),
        right_skew=float(rng.uniform(-0.15, 0.3)),
        ripples=_ripples(rng, (0.05, 0.03, 0.02, 0.012)),
        wall_ripples=_ripples(rng, (0.09, 0.07, 0.05)),
        focus_angle_rad=float(focus_angle),
        focus=float(focus),
        papillary_angles_rad=(float(np.deg2rad(rng.normal(48, 10))), float(np.deg2rad(rng.normal(-82, 10)))),
        papillary_mm=(float(rng.uniform(4.2, 6.2)), float(rng.uniform(4.2, 6.2))),
        trabeculation=float(rng.uniform(0.2, 0.55)),
        fat_mm=float(rng.uniform(1.5, 6.5)),
        chest_mm=float(rng.uniform(142, 160)),
        chest_center_mm=(float(rng.uniform(24, 38)), float(rng.uniform(-60, -48))),
        skin_fat_mm=float(rng.uniform(5, 20)),
        diaphragm_mm=float(rng.uniform(2, 8)),
        aorta_mm=(float(rng.uniform(54, 66)), float(rng.uniform(-58, -46)), float(rng.uniform(9.5, 13))),
        signal=_draw_signal(rng),
        texture_seed=int(rng.integers(2**32)),
    )


def contract(heart: Heart, phase: str) -> HeartState:
    """Return the heart at end-diastole or end-systole.

    The base moves toward the apex, the cavity shrinks to the ejection fraction, and the wall thickens so that the
    volume of the myocardium stays.

    Args:
        heart: The patient.
        phase: `ed` or `es`.

    Returns:
        What contraction changes.
    """
    if phase == END_DIASTOLE:
        return HeartState(0.0, heart.right_base_mm, heart.cavity_mm, heart.wall_mm, heart.right_mm, 1.0)
    shortening = 0.24 * heart.ejection_fraction
    remaining = 1 - shortening
    cavity = heart.cavity_mm * np.sqrt((1 - heart.ejection_fraction) / remaining)
    area = ((heart.cavity_mm + heart.wall_mm) ** 2 - heart.cavity_mm**2) / remaining
    descent = heart.length_mm * shortening
    return HeartState(
        base_mm=float(descent),
        right_base_mm=float(heart.right_base_mm + 1.25 * heart.right_ejection_fraction / 0.5 * descent),
        cavity_mm=float(cavity),
        wall_mm=float(np.sqrt(cavity**2 + area) - cavity),
        right_mm=float(heart.right_mm * (1 - heart.right_ejection_fraction) ** 0.6),
        papillary_scale=float(np.sqrt(1 / remaining)),
    )


def _ripples(rng: np.random.Generator, deviations: tuple[float, ...]) -> Array:
    count = len(deviations)
    return np.stack(
        [np.abs(rng.normal(0, deviations)), rng.uniform(-np.pi, np.pi, count), rng.normal(0, 0.7, count)], 1
    )


def _draw_signal(rng: np.random.Generator) -> dict[str, float]:
    """Draw the signal of a balanced steady-state free precession (bSSFP) cine: ratio of T2 to T1, so blood and fat."""
    middle = {
        "blood": (1.0, 0.04),
        "right_blood": (0.93, 0.06),
        "myocardium": (0.37, 0.045),
        "fat": (0.95, 0.12),
        "muscle": (0.27, 0.03),
        "lung": (0.08, 0.02),
        "liver": (0.40, 0.06),
        "spleen": (0.52, 0.06),
        "stomach": (0.40, 0.22),
        "marrow": (0.45, 0.08),
        "bone": (0.10, 0.02),
    }
    return {name: float(max(0.04, rng.normal(mean, deviation))) for name, (mean, deviation) in middle.items()}
