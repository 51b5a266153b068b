"""What stands between a batch and MONAI's trainers and evaluators."""

from .context_masking import ContextMasking
from .distributed import start_process_group, validation_sampler
from .fusion import FusionPrepareBatch, collate_volumes, freeze_fused_samples
from .objective_update import ObjectiveUpdate
from .objectives import DualDecoderObjective, Objective, ScribbleObjective
from .paired_patches import OffsetInferer, PairPrepareBatch, freeze_pairs
from .prompting import BoxesPrepareBatch, PromptPrepareBatch, collate_prompts
from .sampling import EpochSampler
from .slices import SliceDataset

__all__ = [
    "BoxesPrepareBatch",
    "ContextMasking",
    "DualDecoderObjective",
    "EpochSampler",
    "FusionPrepareBatch",
    "Objective",
    "ObjectiveUpdate",
    "OffsetInferer",
    "PairPrepareBatch",
    "PromptPrepareBatch",
    "ScribbleObjective",
    "SliceDataset",
    "collate_prompts",
    "collate_volumes",
    "freeze_fused_samples",
    "freeze_pairs",
    "start_process_group",
    "validation_sampler",
]
