"""Gray values of mask pictures, and the channels that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["MaskConvention"]

# A mask whose values stay below this holds the numbers of classes, not gray values.
MIN_GRAY = 16
# JPEG moves values by a few steps; a convention with less room between its values does not survive it.
JPEG_TOLERANCE = 16


class MaskConvention:
    """Which gray values of a mask mean what, for channels that may lie inside of each other.

    The public optic disc and cup masks write 255 for background, 128 for the rim and 0 for the cup; the disc includes
    the cup: ranges [0, 254] and [0, 0], values 128 and 0. Polyp masks write 255 for the polyp: range [128, 255].

    Args:
        channel_ranges: For each channel the lowest and the highest gray value that belong to it.
        channel_values: For each channel the gray value written for it; a later channel is written over an earlier one.
        background_value: Gray value of what is in no channel.

    Raises:
        ValueError: If a value lies outside of 0 to 255 or of its own range, or the background in a range.
    """

    def __init__(
        self, channel_ranges: Sequence[Sequence[int]], channel_values: Sequence[int], background_value: int
    ) -> None:
        self.channel_ranges = [(int(low), int(high)) for low, high in channel_ranges]
        self.channel_values = [int(value) for value in channel_values]
        self.background_value = int(background_value)
        if not self.channel_ranges or len(self.channel_ranges) != len(self.channel_values):
            raise ValueError(
                f"channel_values must name one gray value for each of channel_ranges, at least one; got "
                f"{self.channel_values} and {self.channel_ranges}."
            )
        for (low, high), value in zip(self.channel_ranges, self.channel_values, strict=True):
            if not 0 <= low <= value <= high <= 255 or low <= self.background_value <= high:
                raise ValueError(
                    f"A channel's gray value must lie in its range, this within 0 to 255, and the background outside; "
                    f"got value {value}, range [{low}, {high}], background {self.background_value}."
                )

    @property
    def num_channels(self) -> int:
        """Channels of a mask."""
        return len(self.channel_ranges)

    def decode(self, mask: np.ndarray) -> np.ndarray:
        """Return the channels of a mask.

        Args:
            mask: Gray values. Shape (H, W), uint8.

        Returns:
            1 where a channel is. Shape (K, H, W), uint8.
        """
        return np.stack([(mask >= low) & (mask <= high) for low, high in self.channel_ranges]).astype(np.uint8)

    def encode(self, channels: np.ndarray) -> np.ndarray:
        """Return the gray values of a mask; `decode` gives the channels back where later ones lie inside earlier ones.

        Args:
            channels: Shape (K, H, W), bool.

        Returns:
            Gray values. Shape (H, W), uint8.

        Raises:
            ValueError: If there are more or fewer channels than the convention has.
        """
        if channels.ndim != 3 or len(channels) != self.num_channels:
            raise ValueError(f"channels must have shape ({self.num_channels}, H, W); got {channels.shape}.")
        mask = np.full(channels.shape[1:], self.background_value, dtype=np.uint8)
        for channel, value in zip(channels, self.channel_values, strict=True):
            mask[channel.astype(bool)] = value
        return mask

    def problems(self, mask: np.ndarray, lossy: bool) -> Iterator[tuple[str, str, str]]:
        """Yield what shows that a mask was written in another convention, as rule, what was found, remedy.

        Args:
            mask: Gray values. Shape (H, W), uint8.
            lossy: Whether the file's format changes values (JPEG).
        """
        values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
        channels = ", ".join(f"{low} to {high}" for low, high in self.channel_ranges)
        rule = f"must be written with {self.background_value} for background and {channels} for the channels"
        remedy = "change the mask, or set background_value, mask_ranges and mask_values to what it uses"
        some = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        is_background = np.ones(256, dtype=bool)
        for low, high in self.channel_ranges:
            is_background[low : high + 1] = False
        if 0 < values[-1] < MIN_GRAY:
            yield rule, f"the numbers of classes, {some}", remedy
        elif not is_background[values].any():
            yield rule, f"no background, only the values {some}", remedy
        edges = [edge for low, high in self.channel_ranges for edge in (low, high)]
        if lossy and min(abs(self.background_value - edge) for edge in edges) < JPEG_TOLERANCE:
            yield "must keep its values", "a JPEG, which changes them", "save the mask as PNG from its source"
