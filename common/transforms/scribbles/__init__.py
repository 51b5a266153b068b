"""Scribbles: making them from masks, converting conventions, keeping unlabelled pixels unlabelled."""

from .conventions import ScribbleConvertd, ShiftScribbled, UnshiftScribbled
from .dictionary import CutScribbled, GenerateScribbled
from .generation import check_scribble_options, cut_scribble, generate_scribble

__all__ = [
    "CutScribbled",
    "GenerateScribbled",
    "ScribbleConvertd",
    "ShiftScribbled",
    "UnshiftScribbled",
    "check_scribble_options",
    "cut_scribble",
    "generate_scribble",
]
