"""Metrics of one case, per structure."""

from .segmentation import StructureScore, score_structures

__all__ = ["StructureScore", "score_structures"]
