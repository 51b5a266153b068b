"""Scribbles: making them from masks, converting conventions, keeping unlabelled pixels unlabelled."""

from .conventions import ScribbleConvertd, ShiftScribbled, UnshiftScribbled
from .generation import CutScribbled, GenerateScribbled, cut_scribble, generate_scribble

__all__ = [
    "CutScribbled",
    "GenerateScribbled",
    "ScribbleConvertd",
    "ShiftScribbled",
    "UnshiftScribbled",
    "cut_scribble",
    "generate_scribble",
]
