"""The scans that a run reads, by their headers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from monai.utils import ensure_tuple

from ...data.headers import ImageHeader, read_header

__all__ = ["Scans"]

# A header takes milliseconds; of more cases than this, evenly spread ones are read.
MAX_HEADERS = 500


@dataclass
class Scans:
    """Cases of one list of a configuration.

    Attributes:
        name: What the list is for.
        cases: As `load_datalist` gives them.
        keys: Which files of a case are read.
        headers: Of the images; of at most 500 cases, and only where the format has one.
    """

    name: str
    cases: list[dict[str, Any]]
    keys: tuple[str, ...]
    headers: list[ImageHeader] = field(default_factory=list)

    def read_headers(self) -> None:
        """Fill `headers`."""
        found = (read_header(ensure_tuple(case["image"])[0]) for case in evenly(self.cases, MAX_HEADERS))
        self.headers = [header for header in found if header is not None]

    def voxels(self, spacing_mm: Sequence[float] | None) -> list[int]:
        """Return the voxels of each image whose header was read.

        Args:
            spacing_mm: Voxel size that images are resampled to, any order of axes; `None` leaves them.
        """
        counts = []
        for header in self.headers:
            count = float(math.prod(header.spatial_shape))
            if spacing_mm is not None and header.spacing_mm is not None:
                count *= math.prod(header.spacing_mm) / math.prod(float(s) for s in spacing_mm)
            counts.append(round(count))
        return counts


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most `count` items, evenly spread, first and last among them.

    Args:
        items: Any sequence.
        count: At least 1.
    """
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[0]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
