"""Checkpoints: the authors' releases converted to our layout, and loading that leaves no key unsaid."""

from .catalog import CATALOG, PublishedCheckpoint
from .checkpoint import read_checkpoint
from .conversion import ConvertedState
from .imagenet import load_imagenet_encoder
from .inspection import CheckpointReport, inspect_checkpoint
from .loading import LoadReport, load_weights
from .releases import RELEASES, convert_checkpoint, convert_state_dict
from .sam import load_segmenter

__all__ = [
    "CATALOG",
    "RELEASES",
    "CheckpointReport",
    "ConvertedState",
    "LoadReport",
    "PublishedCheckpoint",
    "convert_checkpoint",
    "convert_state_dict",
    "inspect_checkpoint",
    "load_imagenet_encoder",
    "load_segmenter",
    "load_weights",
    "read_checkpoint",
]
