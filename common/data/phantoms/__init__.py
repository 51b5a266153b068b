"""Phantom data sets: images made by formula, with exact labels, to develop and test without patient data."""

from .fundus import FUNDUS_DOMAINS, FUNDUS_LABELS, FundusCase, render_fundus, write_fundus_phantoms
from .heart import HEART_LABELS, HeartCase, render_heart, write_heart_phantoms
from .torso import TORSO_LABELS, TorsoCase, render_torso, write_torso_phantoms

__all__ = [
    "FUNDUS_DOMAINS",
    "FUNDUS_LABELS",
    "HEART_LABELS",
    "TORSO_LABELS",
    "FundusCase",
    "HeartCase",
    "TorsoCase",
    "render_fundus",
    "render_heart",
    "render_torso",
    "write_fundus_phantoms",
    "write_heart_phantoms",
    "write_torso_phantoms",
]
