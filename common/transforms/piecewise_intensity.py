"""Intensities mapped by a line through given points."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


class PiecewiseIntensityd(MapTransform):
    """Map intensities by straight lines between knots; what lies outside takes the value of the nearest knot.

    Args:
        keys: Keys of the images.
        knots: Intensities, ascending, in the unit of the image.
        values: What they become.

    Raises:
        ValueError: If there are not as many values as knots, at least two, or the knots do not ascend.
    """

    def __init__(self, keys: KeysCollection, knots: Sequence[float], values: Sequence[float]) -> None:
        super().__init__(keys)
        if len(knots) != len(values) or len(knots) < 2 or any(a >= b for a, b in pairwise(knots)):
            raise ValueError(
                f"knots must ascend and have a value each, at least two, got {list(knots)} and {list(values)}."
            )
        self.knots = [float(k) for k in knots]
        self.values = [float(v) for v in values]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with mapped images, float32."""
        mapped = dict(data)
        for key in self.key_iterator(mapped):
            image = mapped[key].to(torch.float32)
            result = torch.full_like(image, self.values[0])
            for (low, high), (start, end) in zip(pairwise(self.knots), pairwise(self.values), strict=True):
                # each line adds its rise, over the part of it that lies below the intensity
                result += (image.clamp(low, high) - low) * ((end - start) / (high - low))
            mapped[key] = result
        return mapped
