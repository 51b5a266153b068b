"""TENT: entropy minimization over the scales and shifts of BatchNorm layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .affine import AffineAdaptationInferer


class TENTInferer(AffineAdaptationInferer):
    """Minimize the entropy of the prediction, one Adam step an image.

    Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021, arXiv:2006.10726, section 3. As
    there, statistics are those of the batch (here one image), and the prediction is the one of the forward pass that
    the step is computed from. The entropy is that of independent classes (sigmoid), in nats, mean over pixels of the
    sum over classes.

    State over the stream: the adapted weights and biases, and Adam's moments and step count.

    Args:
        learning_rate: Learning rate of Adam.
        betas: Decay rates of Adam's moments.
        channels_last: If True, network and images are laid out channels-last.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        channels_last: bool = True,
    ) -> None:
        super().__init__(learning_rate, betas, channels_last)

    def _adapt_and_predict(self, image: torch.Tensor) -> torch.Tensor:
        logits = self._network(image)
        self._step(self._gradients(bernoulli_entropy(logits)))
        return logits


def bernoulli_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the entropy of independent classes in nats, summed over classes, mean over pixels. Scalar.

    Args:
        logits: Shape (B, K, H, W).
    """
    probability = torch.sigmoid(logits)
    return F.binary_cross_entropy_with_logits(logits, probability, reduction="none").sum(dim=1).mean()
