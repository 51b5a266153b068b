"""Networks of the bundles; each keeps a single-tensor `forward` in eval mode."""

from .fm_unet import FMUNet
from .pct_net import PCTNet

__all__ = ["FMUNet", "PCTNet"]
