"""The strong view of GraTa: random brightness, contrast, gamma, noise and blur of an image."""

from __future__ import annotations

import torch
from monai.networks.layers import GaussianFilter


class StrongView:
    """Change the look of an image at random and leave its geometry alone, as GraTa's authors do.

    In this order, with the distributions of the authors' code (arXiv:2408.07343, implementation details): brightness
    per channel (probability 0.75, factor 0.5 to 1.5); contrast per channel about its mean (0.75, factor 0.5 to 1 or 1
    to 1.5 with equal odds), clipped to the channel's range; gamma on the negated image within its whole range (0.75,
    exponent 0.5 to 1 or 1 to 2 with equal odds); Gaussian noise (0.5, deviation 0 to 0.05); Gaussian blur (0.5, then
    each channel with 0.5, sigma 0.5 to 1.5 pixels). Distributions are the same, not the random numbers: theirs come
    from NumPy's and Python's global generators, ours from the generator that is passed.
    """

    def __call__(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return a changed copy. Shape (C, H, W), float32, not rescaled.

        Args:
            image: Image in [0, 1]. Shape (C, H, W), float32; it is not written to.
            generator: Random generator on the CPU, so that a seed means the same on every device.
        """
        channels = len(image)

        def chosen(probability: float, count: int = channels) -> torch.Tensor:
            return torch.rand(count, generator=generator) < probability

        def uniform(low: float, high: float, count: int = channels) -> torch.Tensor:
            return low + (high - low) * torch.rand(count, generator=generator)

        def two_sided(low: float, high: float, count: int = channels) -> torch.Tensor:
            return torch.where(chosen(0.5, count), uniform(low, 1.0, count), uniform(1.0, high, count))

        def per_channel(values: torch.Tensor) -> torch.Tensor:
            return values.to(image.device)[:, None, None]

        brightness = torch.where(chosen(0.75), uniform(0.5, 1.5), 1.0)
        image = image * per_channel(brightness)
        contrast = torch.where(chosen(0.75), two_sided(0.5, 1.5), 1.0)
        image = change_contrast(image, per_channel(contrast))
        if bool(chosen(0.75, 1)):
            image = change_gamma_of_negative(image, float(two_sided(0.5, 2.0, 1)))
        if bool(chosen(0.5, 1)):
            deviation = float(uniform(0.0, 0.05, 1))
            image = image + deviation * torch.randn(image.shape, generator=generator).to(image.device)
        if bool(chosen(0.5, 1)):
            blurred, sigmas = chosen(0.5), uniform(0.5, 1.5)
            image = torch.stack(
                [
                    GaussianFilter(2, float(sigmas[index]), approx="sampled")(channel[None, None])[0, 0]
                    if blurred[index]
                    else channel
                    for index, channel in enumerate(image)
                ]
            )
        return image


def change_contrast(image: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Scale the distance of each channel from its mean, within the channel's range. Shape (C, H, W).

    Args:
        image: Shape (C, H, W).
        factor: Shape (C, 1, 1).
    """
    mean = image.mean(dim=(1, 2), keepdim=True)
    low, high = image.amin(dim=(1, 2), keepdim=True), image.amax(dim=(1, 2), keepdim=True)
    return ((image - mean) * factor + mean).clamp(low, high)


def change_gamma_of_negative(image: torch.Tensor, exponent: float) -> torch.Tensor:
    """Raise the negated image, scaled to [0, 1] over all channels, to a power, and scale and negate it back.

    Args:
        image: Shape (C, H, W).
        exponent: Above 0; above 1 brightens.
    """
    low, high = image.min(), image.max()
    extent = high - low
    negative = (high - image) / (extent + 1e-7)
    return high - negative.clamp(0.0, 1.0) ** exponent * extent
