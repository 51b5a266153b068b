"""Phantom data sets: images made by formula, with exact labels, to develop and test without patient data."""

from .torso import TORSO_LABELS, TorsoCase, render_torso, write_torso_phantoms

__all__ = ["TORSO_LABELS", "TorsoCase", "render_torso", "write_torso_phantoms"]
