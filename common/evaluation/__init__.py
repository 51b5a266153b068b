"""Scores of any folder of predictions, and statistics over algorithms."""

from .algorithms import Algorithms, load_algorithms, load_groups
from .commands import compare, score
from .comparison import compare_algorithms
from .protocols import METRICS, PROTOCOLS
from .scores import ScoreTable
from .scoring import ScoredFolder, score_folder
from .structures import LabelSet, Structure, load_label_set, shipped_label_sets

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Algorithms",
    "LabelSet",
    "ScoreTable",
    "ScoredFolder",
    "Structure",
    "compare",
    "compare_algorithms",
    "load_algorithms",
    "load_groups",
    "load_label_set",
    "score",
    "score_folder",
    "shipped_label_sets",
]
