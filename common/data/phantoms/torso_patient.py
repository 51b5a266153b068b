"""Who lies on the table: build, fat, contrast phase and the place of every organ, drawn once per phantom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import rotation_matrix

Array = np.ndarray

PHASES = ("plain", "arterial", "portal")

# HU at 120 kV without contrast, in the arterial and in the portal venous phase.
_TISSUE_HU = {
    "fat": (-105, -105, -104),
    "muscle": (52, 56, 62),
    "skin": (15, 20, 25),
    "liver": (56, 68, 108),
    "spleen": (47, 112, 116),
    "kidney_cortex": (32, 165, 178),
    "kidney_medulla": (32, 72, 168),
    "kidney_pelvis": (4, 4, 10),
    "pancreas": (38, 96, 88),
    "gallbladder": (9, 9, 10),
    "bladder": (4, 4, 6),
    "gut_wall": (40, 72, 86),
    "gut_fluid": (16, 16, 16),
    "aorta": (42, 290, 150),
    "portal_vein": (42, 95, 162),
    "hepatic_vein": (42, 58, 150),
    "vena_cava": (40, 78, 138),
    "right_heart": (42, 170, 142),
    "left_heart": (42, 280, 148),
    "myocardium": (46, 92, 104),
    "pulmonary_artery": (42, 190, 140),
}

# Standard deviation of an organ's place in mm, of its size as a share, and of its tilt in degrees.
_ORGAN_SPREAD = {
    "liver": (4.0, 0.06, 4.0),
    "spleen": (6.0, 0.09, 8.0),
    "kidney_right": (6.0, 0.05, 6.0),
    "kidney_left": (6.0, 0.05, 6.0),
    "stomach": (6.0, 0.10, 5.0),
    "gallbladder": (6.0, 0.17, 12.0),
    "pancreas": (5.0, 0.10, 5.0),
    "heart": (4.0, 0.06, 6.0),
    "bladder": (4.0, 0.09, 5.0),
    "colon": (5.0, 0.10, 3.0),
    "bowel": (6.0, 0.08, 8.0),
}


@dataclass(frozen=True)
class Placement:
    """How an organ departs from the textbook: shift in mm (3,), relative size, rotation matrix (3, 3)."""

    shift_mm: Array
    size: float
    rotation: Array


@dataclass(frozen=True)
class Patient:
    """One drawn patient.

    Attributes:
        female: Adds breasts, widens the pelvis and drops the prostate.
        age_years: Old patients have less dense bone and more fat within muscle.
        fatness: Share of fat, 0 (lean) to 1 (obese).
        stature: Scale of the body along x, y and z.
        phase: One of `PHASES`.
        tissue_hu: Attenuation of every tissue in this phase.
        organs: Placement of every organ.
    """

    female: bool
    age_years: float
    fatness: float
    stature: tuple[float, float, float]
    phase: str
    tissue_hu: dict[str, float]
    organs: dict[str, Placement]


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient.

    Args:
        rng: Source of randomness.

    Returns:
        The patient.
    """
    female = bool(rng.random() < 0.5)
    height = rng.normal(0.95 if female else 1.02, 0.04)
    stature = (height * rng.normal(0.99, 0.04), height * rng.normal(0.99, 0.05), height * rng.normal(1.0, 0.03))
    phase = str(rng.choice(PHASES, p=[0.3, 0.25, 0.45]))
    return Patient(
        female=female,
        age_years=float(rng.uniform(25, 85)),
        fatness=float(rng.beta(1.6, 2.0)),
        stature=stature,
        phase=phase,
        tissue_hu=_draw_tissue_hu(rng, phase),
        organs={name: _draw_placement(rng, *spread) for name, spread in _ORGAN_SPREAD.items()},
    )


def _draw_tissue_hu(rng: np.random.Generator, phase: str) -> dict[str, float]:
    # One uptake for the whole patient (dose, weight, delay), and a little of each tissue's own.
    uptake = rng.uniform(0.75, 1.15)
    tissue = {}
    for name, by_phase in _TISSUE_HU.items():
        plain = by_phase[0]
        gain = (by_phase[PHASES.index(phase)] - plain) * uptake * rng.normal(1, 0.05)
        tissue[name] = float(plain + gain + rng.normal(0, 2))
    # A fatty liver comes close to muscle, spleen and bowel, or falls below them.
    tissue["liver"] -= float(35 * rng.beta(1, 3))
    return tissue


def _draw_placement(rng: np.random.Generator, shift_mm: float, size: float, tilt_deg: float) -> Placement:
    return Placement(
        shift_mm=np.clip(rng.normal(0, shift_mm, 3), -2 * shift_mm, 2 * shift_mm),
        size=float(np.clip(rng.normal(1, size), 1 - 2 * size, 1 + 2 * size)),
        rotation=rotation_matrix(np.clip(rng.normal(0, tilt_deg, 3), -2 * tilt_deg, 2 * tilt_deg)),
    )
