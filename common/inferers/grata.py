"""GraTa: adaptation of BatchNorm parameters where entropy and consistency agree on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .affine import AffineAdaptationInferer
from .batch_norm import at_least_float32
from .strong_view import StrongView

# Added to a probability before the logarithm, and to a product of norms before the division, as published.
PROBABILITY_EPSILON = 1e-6
NORM_EPSILON = 1e-12


class GraTaInferer(AffineAdaptationInferer):
    """Train BatchNorm's scales and shifts by a pseudo gradient, the faster the more an auxiliary one agrees with it.

    Chen et al., "Gradient Alignment Improves Test-Time Adaptation for Medical Image Segmentation", AAAI 2025,
    arXiv:2408.07343. For each image, with the statistics of the image in all passes: the auxiliary gradient is that of
    the entropy; the parameters take a full step against it (step size 1); there, the pseudo gradient is that of the
    consistency between a strong view of the image and the mean prediction over six weak views (identity, two flips,
    three rotations); the parameters go back, and one Adam step follows the pseudo gradient with learning rate
    `learning_rate` * (1 + cosine)^2 / 4, where the cosine is that of the two gradients; then the image is segmented.

    The entropy is the published one, `-p log(p + 1e-6)` summed over classes and averaged over pixels: half of the
    entropy of a class that is there or not.

    State over the stream: the adapted weights and biases, Adam's moments and step count, and the random generator of
    the strong views. As published, the protocol is a fresh model per target domain: call `reset()` where a domain ends.

    Differs from the authors' code: the strong view has the same distributions and other random numbers, and is rescaled
    to the range of the image (which is [0, 1] in theirs); the image that is segmented is never the augmented one (on a
    CPU theirs shares its memory).

    Args:
        learning_rate: The paper's beta_0: Adam's learning rate where both gradients agree.
        betas: Decay rates of Adam's moments.
        seed: Seed of the strong views; `reset()` returns to it.
        strong_view: Maps (image of shape (C, H, W) in [0, 1], generator) to the strong view; `StrongView()` by default.
        channels_last: If True, network and images are laid out channels-last.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        seed: int = 0,
        strong_view: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__(learning_rate, betas, channels_last)
        self.seed = seed
        self.strong_view = StrongView() if strong_view is None else strong_view
        self._forget()

    @property
    def last_step(self) -> AlignmentStep | None:
        """What the last adapted image did, or None before there is one."""
        return self._last_step

    def _forget(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self._last_step: AlignmentStep | None = None

    def _adapt_and_predict(self, image: torch.Tensor) -> torch.Tensor:
        entropy = published_entropy(self._network(image))
        auxiliary = self._gradients(entropy)
        start = [parameter.detach().clone() for parameter in self._parameters]
        with torch.no_grad():
            move(self._parameters, auxiliary, -1.0)
            target = self._mean_over_views(image)
        strong_logits = self._network(self._strong(image))
        consistency = F.binary_cross_entropy_with_logits(at_least_float32(strong_logits), target)
        pseudo = self._gradients(consistency)
        with torch.no_grad():
            for parameter, value in zip(self._parameters, start, strict=True):
                parameter.copy_(value)
        cosine = float(cosine_of(auxiliary, pseudo))
        rate = self.learning_rate * (cosine + 1) ** 2 / 4
        self._optimizer.param_groups[0]["lr"] = rate
        self._step(pseudo)
        self._last_step = AlignmentStep(entropy.detach(), consistency.detach(), cosine, rate)
        with torch.no_grad():
            return self._network(image)

    def _mean_over_views(self, image: torch.Tensor) -> torch.Tensor:
        """Return the mean probability over six weak views, each turned back. Shape (1, K, H, W), float32."""
        total = torch.zeros(())
        for view, back in WEAK_VIEWS:
            logits = self._network(view(image).contiguous(memory_format=self._memory_format))
            total = total.to(logits.device) + back(torch.sigmoid(at_least_float32(logits)))
        return total / len(WEAK_VIEWS)

    def _strong(self, image: torch.Tensor) -> torch.Tensor:
        """Return the strong view in the range of the image. Shape (1, C, H, W), float32."""
        with torch.autocast(image.device.type, enabled=False), torch.no_grad():
            pixels = at_least_float32(image[0])
            low, high = pixels.min(), pixels.max()
            strong = self.strong_view((pixels - low) / (high - low), self._generator)
            strong_low, strong_high = strong.min(), strong.max()
            extent = strong_high - strong_low
            unit = (strong - strong_low) / torch.where(extent > 0, extent, 1.0)
            return (unit * (high - low) + low)[None].contiguous(memory_format=self._memory_format)

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "generator": self._generator.get_state()}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self._generator.set_state(state["generator"].cpu())


class AlignmentStep(NamedTuple):
    """What GraTa did for one image, for logs and tests.

    Attributes:
        entropy: Auxiliary loss before the step. Scalar.
        consistency: Pseudo loss after the step against the auxiliary gradient. Scalar.
        cosine: Of the two gradients, in [-1, 1].
        learning_rate: That of the Adam step.
    """

    entropy: torch.Tensor
    consistency: torch.Tensor
    cosine: float
    learning_rate: float


def unchanged(image: torch.Tensor) -> torch.Tensor:
    """Return the image.

    Args:
        image: Shape (B, C, H, W).
    """
    return image


def flipped(axis: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the reflection along an axis.

    Args:
        axis: 2 for H, 3 for W.
    """
    return lambda image: image.flip(axis)


def rotated(quarters: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the rotation by quarter turns in the plane.

    Args:
        quarters: Number of turns of 90 degrees, from H to W.
    """
    return lambda image: image.rot90(quarters, dims=(2, 3))


# Each with its inverse.
WEAK_VIEWS: Sequence[tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]] = (
    (unchanged, unchanged),
    (flipped(3), flipped(3)),
    (flipped(2), flipped(2)),
    (rotated(1), rotated(-1)),
    (rotated(2), rotated(-2)),
    (rotated(3), rotated(-3)),
)


def published_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the sum over classes of -p log(p + 1e-6), mean over pixels. Scalar.

    Args:
        logits: Shape (1, K, H, W).
    """
    probability = torch.sigmoid(at_least_float32(logits))
    return -(probability * torch.log(probability + PROBABILITY_EPSILON)).sum(dim=1).mean()


def move(parameters: Sequence[nn.Parameter], directions: Sequence[torch.Tensor | None], factor: float) -> None:
    """Add `factor` times a direction to each parameter, in place; one without a direction stays.

    Args:
        parameters: Tensors to change.
        directions: One for each parameter, of its shape, or None.
        factor: Step size.
    """
    for parameter, direction in zip(parameters, directions, strict=True):
        if direction is not None:
            parameter.add_(direction, alpha=factor)


def cosine_of(first: Sequence[torch.Tensor | None], second: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Return the cosine of two gradients over all tensors jointly. Scalar, float32.

    Args:
        first: Gradient of each parameter, or None where there is none.
        second: The same of another loss of the same network.
    """
    a = torch.cat([gradient.flatten() for gradient in first if gradient is not None])
    b = torch.cat([gradient.flatten() for gradient in second if gradient is not None])
    return torch.dot(a, b) / (a.norm() * b.norm() + NORM_EPSILON)
