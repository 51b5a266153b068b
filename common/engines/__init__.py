"""What stands between a batch and MONAI's trainers and evaluators."""

from .fusion import FusionPrepareBatch, collate_volumes, freeze_fused_samples

__all__ = ["FusionPrepareBatch", "collate_volumes", "freeze_fused_samples"]
