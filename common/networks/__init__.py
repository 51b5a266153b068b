"""Networks of the bundles; each keeps a single-tensor `forward` in eval mode."""

from .fm_unet import FMUNet
from .medlam import MedLAM
from .pct_net import PCTNet
from .promptable import PromptSegmenter, SamSegmenter
from .res_unet import ResUNet

__all__ = ["FMUNet", "MedLAM", "PCTNet", "PromptSegmenter", "ResUNet", "SamSegmenter"]
