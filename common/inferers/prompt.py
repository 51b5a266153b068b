"""The prompt of VPTTA: a factor on the low frequencies of an image, and the memory of prompts."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F


class LowFrequencies(NamedTuple):
    """Low-frequency part of an image's Fourier transform.

    Attributes:
        image: The image. Shape (1, C, H, W), float32 (or float64).
        spectrum: Coefficients within the window. Shape (C, p_h, p_w), complex64.
        row_waves: Waves along H, one column a row of the window. Shape (H, p_h), complex64.
        column_waves: Waves along W. Shape (W, p_w), complex64.
    """

    image: torch.Tensor
    spectrum: torch.Tensor
    row_waves: torch.Tensor
    column_waves: torch.Tensor


class FrequencyWindow:
    """Which low frequencies a prompt scales, in cycles per image side.

    The prompt multiplies amplitudes inside the window and leaves phases and all other frequencies alone
    (arXiv:2311.18363, section 3.2). Since only p_h x p_w coefficients change, only those are computed, as products with
    p waves along each axis; the result is that of a forward and an inverse FFT.

    The window is taken from the first image of a stream: p = max(1, int(fraction * side)). Its frequencies are cycles
    per image side, so later images of other sizes have the same window and share the prompts; the amplitudes that serve
    as keys grow with the number of pixels, which the cosine between keys does not see.

    Args:
        size: Coefficients along H and W.
        published: If False, the window is centered on the mean of the image, its size rounded up to odd numbers, and so
            symmetric: the scaled spectrum stays Hermitian up to the symmetric part of the prompt. If True, it is where
            the authors' code has it, which for an even side and an odd p lies one row and column too low (frequencies
            -3 to 1 for p = 5); the spectrum is no longer Hermitian, and the imaginary part of the image is dropped. As
            in that code, the shift of the spectrum also rolls the channels by one, so that channel c of the prompt
            acts on channel c - 1 of the image.
    """

    def __init__(self, size: tuple[int, int], published: bool) -> None:
        self.published = published
        self.size = size if published else (size[0] | 1, size[1] | 1)

    @classmethod
    def of_image(cls, height: int, width: int, fraction: float, published: bool) -> FrequencyWindow:
        """Return the window for an image.

        Args:
            height: Height in pixels.
            width: Width in pixels.
            fraction: Side of the window as a fraction of the image's.
            published: See the class.
        """
        return cls((max(1, int(fraction * height)), max(1, int(fraction * width))), published)

    def frequencies(self, side: int, axis: int, device: torch.device) -> torch.Tensor:
        """Return the frequencies of the window along one axis in cycles per image side. Shape (p,), float64.

        Args:
            side: Pixels along the axis.
            axis: 0 for H, 1 for W.
            device: Where to make them.

        Raises:
            ValueError: If the image has fewer pixels than the window coefficients.
        """
        count = self.size[axis]
        if side < count:
            raise ValueError(
                f"The image must have at least as many pixels per side as the window of the prompt ({self.size[0]}x"
                f"{self.size[1]}, from the first image of the stream and prompt_fraction), got a side of {side}. Call "
                "reset() before a stream of smaller images, or lower prompt_fraction."
            )
        first = (side - count) // 2 - side // 2 if self.published else -(count // 2)
        return torch.arange(first, first + count, dtype=torch.float64, device=device)

    def read(self, image: torch.Tensor) -> LowFrequencies:
        """Return the image's coefficients within the window.

        Args:
            image: Shape (1, C, H, W), float32.
        """
        waves = []
        for axis, side in enumerate(image.shape[2:]):
            positions = torch.arange(side, dtype=torch.float64, device=image.device) / side
            angles = 2 * math.pi * torch.outer(positions, self.frequencies(side, axis, image.device))
            waves.append(
                torch.polar(torch.ones_like(angles), angles).to(torch.promote_types(image.dtype, torch.complex64))
            )
        row_waves, column_waves = waves
        pixels = image[0].contiguous().to(torch.promote_types(image.dtype, torch.complex64))
        spectrum = row_waves.mH @ (pixels @ column_waves.conj())
        return LowFrequencies(image, spectrum, row_waves, column_waves)

    def amplitudes(self, low: LowFrequencies) -> torch.Tensor:
        """Return the amplitudes that the prompt scales, in the prompt's channel order. Shape (C, p_h, p_w), float32.

        Args:
            low: What `read` returned.
        """
        amplitudes = low.spectrum.abs()
        return amplitudes.roll(1, 0) if self.published else amplitudes

    def apply(self, low: LowFrequencies, prompt: torch.Tensor) -> torch.Tensor:
        """Return the image whose low-frequency amplitudes are scaled by the prompt. Shape (1, C, H, W), float32.

        Args:
            low: What `read` returned.
            prompt: Factors. Shape (C, p_h, p_w); differentiable.
        """
        factors = prompt.roll(-1, 0) if self.published else prompt
        change = low.row_waves @ (low.spectrum * (factors - 1)) @ low.column_waves.mT
        pixels = low.image.shape[2] * low.image.shape[3]
        return low.image + (change.real / pixels)[None]


class PromptMemory:
    """Bank of (key, trained prompt), first in, first out; entries are clones on the device of the images.

    Args:
        capacity: Entries that are kept, at least 1.
        num_neighbors: Entries that a new prompt is made of, 1 to `capacity`.
        temperature: Temperature of the softmax over cosines.
    """

    def __init__(self, capacity: int, num_neighbors: int, temperature: float) -> None:
        self.capacity = capacity
        self.num_neighbors = num_neighbors
        self.temperature = temperature
        self.keys: torch.Tensor | None = None
        self.prompts: torch.Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.keys is None else len(self.keys)

    def recall(self, key: torch.Tensor) -> torch.Tensor:
        """Return the initial prompt for an image (arXiv:2311.18363, section 3.3). Shape as `key`.

        It is the mean of the prompts whose keys have the largest cosines with `key`, weighted by the softmax of
        cosine / temperature; ones, which change nothing, before there are `num_neighbors` entries.

        Args:
            key: Low-frequency amplitudes of the image. Shape (C, p_h, p_w).
        """
        if self.keys is None or self.prompts is None or len(self) < self.num_neighbors:
            return torch.ones_like(key)
        cosines = F.cosine_similarity(self.keys.flatten(1), key.flatten()[None], dim=1)
        nearest = cosines.topk(self.num_neighbors)
        weights = torch.softmax(nearest.values / self.temperature, dim=0)
        return torch.einsum("n,nchw->chw", weights, self.prompts[nearest.indices])

    def remember(self, key: torch.Tensor, prompt: torch.Tensor) -> None:
        """Store a trained prompt; an equal key is overwritten in its place, else the oldest entry leaves a full bank.

        Args:
            key: Low-frequency amplitudes of the image. Shape (C, p_h, p_w).
            prompt: Trained prompt. Shape (C, p_h, p_w).
        """
        key, prompt = key.detach()[None], prompt.detach()[None]
        if self.keys is None or self.prompts is None:
            self.keys, self.prompts = key.clone(), prompt.clone()
            return
        equal = (self.keys == key).flatten(1).all(dim=1)
        if bool(equal.any()):
            self.prompts = torch.where(equal[:, None, None, None], prompt, self.prompts)
            return
        self.keys = torch.cat([self.keys, key])[-self.capacity :].clone()
        self.prompts = torch.cat([self.prompts, prompt])[-self.capacity :].clone()
