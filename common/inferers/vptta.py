"""VPTTA: a low-frequency prompt per image, trained for one step, while the model stays frozen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .adaptation import AdaptationInferer
from .affine import check_adam
from .batch_norm import at_least_float32, replace_batch_norms
from .prompt import FrequencyWindow, LowFrequencies, PromptMemory
from .warm_up import WarmUpBatchNorm2d


class VPTTAInferer(AdaptationInferer):
    """Adapt the image to the model: scale its low frequencies by a prompt that one gradient step has trained.

    Chen et al., "Each Test Image Deserves A Specific Prompt", CVPR 2024, arXiv:2311.18363. For the n-th image of the
    stream: a prompt is made from those of the most similar images in the memory bank; BatchNorm layers mix the source's
    statistics with those of the image, with weight lambda = 1 / (sqrt(n) / warm_up + 1) on the image's; the loss is the
    distance between mixed and own statistics of every layer; one Adam step trains the prompt; the image with the
    trained prompt is segmented, with lambda unchanged.

    State over the stream: the bank, Adam's moments and step count, which go on from prompt to prompt as in the authors'
    code (a fresh Adam would turn each step into one of plus or minus the learning rate), and the count n. Since lambda
    falls with n, a service that runs for long approaches the source's statistics; `reset()` starts over.

    Settings of the paper for optic disc and cup are the defaults; for polyps learning_rate is 0.01 and the layers of
    the decoder are left alone (`adapted_prefixes`).

    Differs from the authors' code, unless `published`: the frequency window is centered, channel c of the prompt acts
    on channel c, and the bank holds `memory_size` entries (theirs holds one more). In both forms stored prompts are
    copies (on a CPU theirs are views, all equal to the newest prompt), a standard deviation of zero has the gradient
    zero instead of NaN, and images need not be square; see `FrequencyWindow` for sizes that change in a stream.

    Args:
        learning_rate: Learning rate of Adam.
        betas: Decay rates of Adam's moments.
        num_steps: Gradient steps per image.
        warm_up: The paper's tau, above 0: the larger, the longer the image's statistics prevail.
        prompt_fraction: The paper's alpha, in (0, 1]: side of the prompt as a fraction of the image's.
        memory_size: Entries of the memory bank.
        num_neighbors: Entries that a new prompt is made of.
        temperature: Temperature of the softmax over cosines; in the authors' code only, not in the paper.
        published: If True, window, channel order and bank size are exactly those of the authors' code.
        adapted_prefixes: Starts of the names of the BatchNorm layers that take part; all by default.
        channels_last: If True, network and images are laid out channels-last.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    def __init__(
        self,
        learning_rate: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.99),
        num_steps: int = 1,
        warm_up: float = 5.0,
        prompt_fraction: float = 0.01,
        memory_size: int = 40,
        num_neighbors: int = 16,
        temperature: float = 0.2,
        published: bool = False,
        adapted_prefixes: Sequence[str] = ("",),
        channels_last: bool = True,
    ) -> None:
        super().__init__(channels_last)
        check_adam(learning_rate, betas)
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
        if not warm_up > 0 or not temperature > 0:
            raise ValueError(f"warm_up and temperature must be above 0, got {warm_up} and {temperature}.")
        if not 0.0 < prompt_fraction <= 1.0:
            raise ValueError(f"prompt_fraction must be in (0, 1], got {prompt_fraction}.")
        if not 1 <= num_neighbors <= memory_size:
            raise ValueError(
                f"num_neighbors must be from 1 to memory_size ({memory_size}), got {num_neighbors}; with more, no "
                "prompt would ever be recalled."
            )
        self.learning_rate = learning_rate
        self.betas = (betas[0], betas[1])
        self.num_steps = num_steps
        self.warm_up = warm_up
        self.prompt_fraction = prompt_fraction
        self.memory_size = memory_size
        self.num_neighbors = num_neighbors
        self.temperature = temperature
        self.published = published
        self.adapted_prefixes = tuple(adapted_prefixes)
        self._forget()

    @property
    def last_step(self) -> PromptStep | None:
        """What the last adapted image did, or None before there is one."""
        return self._last_step

    def _forget(self) -> None:
        self._memory = PromptMemory(self.memory_size + int(self.published), self.num_neighbors, self.temperature)
        self._window: FrequencyWindow | None = None
        self._count = 0
        self._last_step: PromptStep | None = None

    def _prepare(self, network: nn.Module) -> None:
        self._layers = replace_batch_norms(network, WarmUpBatchNorm2d, self.adapted_prefixes)
        self._network = network

    def _adapt_and_predict(self, image: torch.Tensor) -> torch.Tensor:
        # Fourier coefficients need float32 whatever the network computes in.
        with torch.autocast(image.device.type, enabled=False), torch.no_grad():
            window = self._window_for(image)
            low = window.read(at_least_float32(image))
            key = window.amplitudes(low)
            initial = self._memory.recall(key)
            self._prompt.copy_(initial)
        count = self._count + 1  # kept only once the image is done: a refused one does not count
        for layer in self._layers:
            layer.source_weight = 1 - 1 / (math.sqrt(count) / self.warm_up + 1)
        for _ in range(self.num_steps):
            loss = self._step(window, low)
        with torch.no_grad():
            trained = self._prompt.detach().clone()
            logits = self._network(self._prompted(window, low))
            self._memory.remember(key, trained)
            self._last_step = PromptStep(loss, initial, trained, key)
        self._count = count
        return logits

    def _window_for(self, image: torch.Tensor) -> FrequencyWindow:
        """Return the window of the stream; the first image sets it, and makes prompt and optimizer."""
        channels, height, width = image.shape[1:]
        if self._window is None:
            self._window = FrequencyWindow.of_image(height, width, self.prompt_fraction, self.published)
            self._make_prompt(
                torch.ones((channels, *self._window.size), dtype=at_least_float32(image).dtype, device=image.device)
            )
        if channels != len(self._prompt):
            raise ValueError(
                f"inputs must have the {len(self._prompt)} channels of the images before them in the stream, got "
                f"{channels}. Convert gray to RGB or drop the alpha channel; for a stream of other images call reset()."
            )
        return self._window

    def _make_prompt(self, prompt: torch.Tensor) -> None:
        """Make prompt and optimizer from a prompt of shape (C, p_h, p_w)."""
        self._prompt = prompt.requires_grad_(True)
        self._optimizer = torch.optim.Adam([self._prompt], lr=self.learning_rate, betas=self.betas)

    def _prompted(self, window: FrequencyWindow, low: LowFrequencies) -> torch.Tensor:
        """Return the image with the prompt, in the wanted layout. Shape (1, C, H, W), float32."""
        with torch.autocast(low.image.device.type, enabled=False):
            return window.apply(low, self._prompt).contiguous(memory_format=self._memory_format)

    def _step(self, window: FrequencyWindow, low: LowFrequencies) -> torch.Tensor:
        """Train the prompt for one step and return the loss before it."""
        distances: list[torch.Tensor] = []
        for layer in self._layers:
            layer.distances = distances
        self._network(self._prompted(window, low))
        for layer in self._layers:
            layer.distances = None
        loss = torch.stack(distances).mean()
        (self._prompt.grad,) = torch.autograd.grad(loss, [self._prompt])
        self._optimizer.step()
        return loss.detach()

    def _state(self) -> dict[str, Any]:
        if self._window is None:
            return {}
        return {
            "count": self._count,
            "window": list(self._window.size),
            "prompt": self._prompt.detach(),
            "optimizer": self._optimizer.state_dict(),
            "keys": self._memory.keys,
            "prompts": self._memory.prompts,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        if not state:
            return
        device = self._layers[0].running_mean.device
        self._count = state["count"]
        height, width = state["window"]
        self._window = FrequencyWindow((height, width), self.published)
        self._make_prompt(state["prompt"].to(device).clone())
        self._optimizer.load_state_dict(state["optimizer"])
        if state["keys"] is not None:  # the first image may have failed
            self._memory.keys = state["keys"].to(device)
            self._memory.prompts = state["prompts"].to(device)


class PromptStep(NamedTuple):
    """What VPTTA did for one image, for logs and tests.

    Attributes:
        loss: Distance of the statistics before the last step. Scalar.
        initial_prompt: Prompt from the memory. Shape (C, p_h, p_w).
        trained_prompt: Prompt after the steps. Shape (C, p_h, p_w).
        key: Low-frequency amplitudes of the image. Shape (C, p_h, p_w).
    """

    loss: torch.Tensor
    initial_prompt: torch.Tensor
    trained_prompt: torch.Tensor
    key: torch.Tensor
