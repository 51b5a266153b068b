"""What stands between a batch and MONAI's trainers and evaluators."""

from .distributed import start_process_group, validation_sampler
from .fusion import FusionPrepareBatch, collate_volumes, freeze_fused_samples
from .sampling import EpochSampler

__all__ = [
    "EpochSampler",
    "FusionPrepareBatch",
    "collate_volumes",
    "freeze_fused_samples",
    "start_process_group",
    "validation_sampler",
]
