"""What TENT and GraTa share: the scales and shifts of BatchNorm layers are trained during the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .adaptation import AdaptationInferer
from .batch_norm import ImageBatchNorm2d, replace_batch_norms


class AffineAdaptationInferer(AdaptationInferer):
    """Train weight and bias of every BatchNorm2d with Adam; statistics are those of the image at hand.

    State over the stream: the adapted weights and biases, and Adam's moments and step count.

    Args:
        learning_rate: Learning rate of Adam, above 0.
        betas: Decay rates of Adam's moments, in [0, 1).
        channels_last: If True, network and images are laid out channels-last.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    def __init__(self, learning_rate: float, betas: tuple[float, float], channels_last: bool) -> None:
        super().__init__(channels_last)
        check_adam(learning_rate, betas)
        self.learning_rate = learning_rate
        self.betas = (betas[0], betas[1])

    def _prepare(self, network: nn.Module) -> None:
        layers = replace_batch_norms(network, ImageBatchNorm2d)
        self._affine = {
            f"{layer.name}.{kind}": parameter
            for layer in layers
            for kind, parameter in layer.named_parameters(recurse=False)
        }
        if not self._affine:
            raise ValueError(
                f"network must have BatchNorm2d layers with weight and bias to train; those of "
                f"{type(network).__name__} have affine=False. Use BatchNormStatisticsInferer."
            )
        self._parameters = list(self._affine.values())
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.Adam(self._parameters, lr=self.learning_rate, betas=self.betas)
        self._network = network

    def _gradients(self, loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of `loss` for each parameter, None for layers that the network never calls."""
        return torch.autograd.grad(loss, self._parameters, allow_unused=True)

    def _step(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """Take one Adam step along the given gradients."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _state(self) -> dict[str, Any]:
        affine = {name: parameter.detach() for name, parameter in self._affine.items()}
        return {"affine": affine, "optimizer": self._optimizer.state_dict()}

    def _restore(self, state: dict[str, Any]) -> None:
        if state["affine"].keys() != self._affine.keys():
            raise ValueError(
                f"The state holds {len(state['affine'])} weights and biases of BatchNorm layers under other names than "
                f"the network's {len(self._affine)}. Give the network that the state was written with."
            )
        with torch.no_grad():
            for name, parameter in self._affine.items():
                parameter.copy_(state["affine"][name])
        self._optimizer.load_state_dict(state["optimizer"])


def check_adam(learning_rate: float, betas: tuple[float, float]) -> None:
    """Refuse settings that Adam cannot run with.

    Args:
        learning_rate: Above 0.
        betas: Two numbers in [0, 1).

    Raises:
        ValueError: If a value breaks its rule.
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be above 0, got {learning_rate}.")
    if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(f"betas must be two numbers in [0, 1), got {tuple(betas)}.")
