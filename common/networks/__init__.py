"""Networks of the bundles; each keeps a single-tensor `forward` in eval mode."""

from .dual_decoder import DualDecoderUNet
from .fm_unet import FMUNet
from .medlam import MedLAM, PairedMedLAM
from .pct_net import PCTNet
from .promptable import PromptSegmenter, SamSegmenter
from .res_unet import ResUNet

__all__ = [
    "DualDecoderUNet",
    "FMUNet",
    "MedLAM",
    "PCTNet",
    "PairedMedLAM",
    "PromptSegmenter",
    "ResUNet",
    "SamSegmenter",
]
