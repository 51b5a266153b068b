"""Scores of any folder of predictions, and statistics over algorithms."""

from .algorithms import Algorithms, load_algorithms, load_groups
from .commands import compare, score
from .comparison import compare_algorithms
from .protocols import METRICS, PROTOCOLS
from .scores import ScoreTable
from .scoring import ScoredFolder, Settings, score_folder, score_pairs
from .structures import (
    LabelSet,
    Structure,
    label_set_of_names,
    label_set_of_pictures,
    load_label_set,
    shipped_label_sets,
)

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Algorithms",
    "LabelSet",
    "ScoreTable",
    "ScoredFolder",
    "Settings",
    "Structure",
    "compare",
    "compare_algorithms",
    "label_set_of_names",
    "label_set_of_pictures",
    "load_algorithms",
    "load_groups",
    "load_label_set",
    "score",
    "score_folder",
    "score_pairs",
    "shipped_label_sets",
]
