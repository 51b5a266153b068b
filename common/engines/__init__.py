"""What stands between a batch and MONAI's trainers and evaluators."""

from .case_dataset import CaseDataset
from .case_isolation import CaseIsolation
from .context_masking import ContextMasking
from .distributed import start_process_group, validation_sampler
from .fusion import FusionPrepareBatch, collate_volumes, freeze_fused_samples
from .objective_update import ObjectiveUpdate
from .objectives import DualDecoderObjective, Objective, ScribbleObjective
from .paired_patches import OffsetInferer, PairPrepareBatch, freeze_pairs
from .prompting import BoxesPrepareBatch, PromptPrepareBatch, collate_prompts
from .sampling import Draw, EpochSampler, SeededDraws
from .slices import SliceDataset

__all__ = [
    "BoxesPrepareBatch",
    "CaseDataset",
    "CaseIsolation",
    "ContextMasking",
    "Draw",
    "DualDecoderObjective",
    "EpochSampler",
    "FusionPrepareBatch",
    "Objective",
    "ObjectiveUpdate",
    "OffsetInferer",
    "PairPrepareBatch",
    "PromptPrepareBatch",
    "ScribbleObjective",
    "SeededDraws",
    "SliceDataset",
    "collate_prompts",
    "collate_volumes",
    "freeze_fused_samples",
    "freeze_pairs",
    "start_process_group",
    "validation_sampler",
]
