"""Checkpoints: the authors' releases converted to our layout, and loading that leaves no key unsaid."""

from .checkpoint import read_checkpoint
from .conversion import ConvertedState
from .imagenet import load_imagenet_encoder
from .loading import LoadReport, load_weights
from .releases import RELEASES, convert_checkpoint, convert_state_dict
from .sam import load_segmenter

__all__ = [
    "RELEASES",
    "ConvertedState",
    "LoadReport",
    "convert_checkpoint",
    "convert_state_dict",
    "load_imagenet_encoder",
    "load_segmenter",
    "load_weights",
    "read_checkpoint",
]
