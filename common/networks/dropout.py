"""Dropout that spends few random numbers on a CPU."""

import torch
import torch.nn.functional as F
from torch import nn


class Dropout(nn.Module):
    """Zero elements with probability `p` in training and scale the rest by 1 / (1 - p).

    `torch.nn.Dropout` draws a double for each element on a CPU, which was 15 % of a training step of PCT-Net. Here
    four elements share a draw of 64 bits, so on a CPU `p` is rounded to a multiple of 1/65536. Other devices and
    TorchScript use PyTorch's dropout. Randomness comes from PyTorch's generator of the device, as in PyTorch's.

    Args:
        p: Probability of zeroing an element, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"Dropout: p must be a probability in [0, 1), got {p}.")
        self.p = p
        # Among 65536 equally likely numbers from -32768 on, those below `threshold` drop the element.
        dropped = round(p * 2**16)
        self.threshold = dropped - 2**15
        self.scale = 2**16 / (2**16 - dropped)
        self.lowest = -(2**63)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`, in training with elements zeroed. Shape and dtype as `x`.

        Args:
            x: Any floating point tensor.
        """
        if not self.training or self.p == 0.0:
            return x
        if torch.jit.is_scripting() or x.device.type != "cpu":  # TorchScript has no view as another dtype
            return F.dropout(x, self.p, True)
        draws = torch.empty([(x.numel() + 3) // 4], dtype=torch.int64).random_(self.lowest, None)
        bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
        return x * (bits >= self.threshold).to(x.dtype).mul_(self.scale)

    def extra_repr(self) -> str:
        """Return the probability for the printed network."""
        return f"p={self.p}"
