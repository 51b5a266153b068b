"""Inferers: masks from boxes, and test-time adaptation to a stream of images without labels."""

from .adaptation import AdaptationInferer, NoAdaptationInferer
from .batch_norm_statistics import BatchNormStatisticsInferer
from .box_prompt import BoxPromptInferer
from .embedding_cache import EmbeddingCache
from .grata import GraTaInferer
from .localization import LocalizationInferer
from .strong_view import StrongView
from .tent import TENTInferer
from .vptta import VPTTAInferer

__all__ = [
    "AdaptationInferer",
    "BatchNormStatisticsInferer",
    "BoxPromptInferer",
    "EmbeddingCache",
    "GraTaInferer",
    "LocalizationInferer",
    "NoAdaptationInferer",
    "StrongView",
    "TENTInferer",
    "VPTTAInferer",
]
