"""Slices with boxes and masks of their organs, drawn from a labelled scan: what a promptable network learns from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from monai.utils import CommonKeys

from ..data.boxes import MARGIN_GRID

BOX_KINDS = ("slice", "part", "organ")


class RandSlicePromptsd(Randomizable, Transform):
    """Draw slices that have an organ, and for each some of its organs with their mask and a box.

    A box is one of three kinds: that of the organ on the slice itself, that over a random range of slices around it (as
    the parts of a localization), or that of the whole organ. So the network learns from the boxes that it will get: a
    box from a localization encloses the organ on many slices and is larger than the organ on most of them. An organ
    that ends up to `max_overshoot` slices away may be asked for, too, with an empty mask. MedSAM trains on the first
    kind with sides moved outwards by up to 20 pixels: `box_probs` of 1, 0, 0, and `jitter_px` of 0, 20.

    Args:
        num_slices: Slices drawn from each scan.
        max_boxes: Most boxes on a slice.
        box_probs: Probability of each of the three kinds.
        max_part_slices: Most slices that a part reaches to either side.
        max_overshoot: Most slices beyond an organ's end where it is still asked for.
        jitter_px: Least and greatest shift of each side outwards, in pixels of a grid of 1024 x 1024 over the slice.

    Raises:
        ValueError: If a number is out of range; from a call, if the scan has no label but 0.
    """

    def __init__(
        self,
        num_slices: int = 4,
        max_boxes: int = 4,
        box_probs: Sequence[float] = (1.0, 0.0, 0.0),
        max_part_slices: int = 8,
        max_overshoot: int = 0,
        jitter_px: Sequence[float] = (0.0, 20.0),
    ) -> None:
        if min(num_slices, max_boxes) < 1 or min(max_part_slices, max_overshoot) < 0 or jitter_px[0] > jitter_px[1]:
            raise ValueError(
                f"num_slices and max_boxes must be at least 1, max_part_slices and max_overshoot at least 0, jitter_px "
                f"a range; got {num_slices}, {max_boxes}, {max_part_slices}, {max_overshoot}, {list(jitter_px)}."
            )
        if len(box_probs) != len(BOX_KINDS) or min(box_probs) < 0 or not np.isclose(sum(box_probs), 1):
            raise ValueError(
                f"box_probs must hold three probabilities ({', '.join(BOX_KINDS)}) whose sum is 1, got "
                f"{list(box_probs)}."
            )
        self.num_slices = num_slices
        self.max_boxes = max_boxes
        self.box_probs = np.asarray(box_probs, dtype=float) / sum(box_probs)
        self.max_part_slices = max_part_slices
        self.max_overshoot = max_overshoot
        self.jitter = (jitter_px[0] / MARGIN_GRID, jitter_px[1] / MARGIN_GRID)

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return the drawn slices.

        Args:
            data: `image` and `label` with the slices first. Shape (1, D, H, W).

        Returns:
            For each slice `image`, shape (1, H, W); `label`, one mask a box, shape (N, H, W), uint8; `boxes`, left,
            top, right and bottom face as shares of the slice, shape (N, 4); and `case`, where `data` has it.
        """
        image, label = (_plain(data[key])[0] for key in (CommonKeys.IMAGE, CommonKeys.LABEL))
        filled = np.flatnonzero((label > 0).flatten(1).any(dim=1).numpy())
        if not len(filled):
            raise ValueError(
                "A scan to learn from must have an organ in its label map; found only background. Leave it out."
            )
        drawn = [self._draw_slice(image, label, int(number)) for number in self.R.choice(filled, self.num_slices)]
        return [{**item, "case": data["case"]} for item in drawn] if "case" in data else drawn

    def _draw_slice(self, image: torch.Tensor, label: torch.Tensor, number: int) -> dict[Hashable, Any]:
        reach = int(self.R.randint(self.max_overshoot + 1))
        organs = torch.unique(label[max(0, number - reach) : number + reach + 1])
        organs = organs[organs > 0]
        order = self.R.permutation(len(organs))[: self.max_boxes]
        boxes, masks = [], []
        for organ in organs[torch.from_numpy(order)]:
            boxes.append(self._draw_box(label, organ, number))
            masks.append(label[number] == organ)
        return {
            CommonKeys.IMAGE: image[number][None].clone(),
            CommonKeys.LABEL: torch.stack(masks).to(torch.uint8),
            "boxes": torch.stack(boxes),
        }

    def _draw_box(self, label: torch.Tensor, organ: torch.Tensor, number: int) -> torch.Tensor:
        kind = BOX_KINDS[int(self.R.choice(len(BOX_KINDS), p=self.box_probs))]
        below, above = self.R.randint(self.max_part_slices + 1, size=2).tolist()
        jitter = self.R.uniform(*self.jitter, size=4)
        if kind == "organ":
            below = above = len(label)
        elif kind == "slice":
            below = above = 0
        area = _area(label, organ, number, below, above)
        if not area.any():  # the organ ends before this slice
            area = _area(label, organ, number, self.max_overshoot, self.max_overshoot)
        rows, columns = (torch.nonzero(area.any(dim=axis))[:, 0] for axis in (1, 0))
        height, width = area.shape
        faces = np.asarray(
            [columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height], dtype=float
        )
        # an inward shift leaves a box of at least a pixel of that grid around the center
        center, least = (faces[:2] + faces[2:]) / 2, 0.5 / MARGIN_GRID
        lower = np.minimum(faces[:2] - jitter[:2], center - least)
        upper = np.maximum(faces[2:] + jitter[2:], center + least)
        return torch.from_numpy(np.concatenate([lower, upper]).clip(0, 1)).float()


def _area(label: torch.Tensor, organ: torch.Tensor, number: int, below: int, above: int) -> torch.Tensor:
    """Where an organ is on any of the slices around one, shape (H, W)."""
    return (label[max(0, number - below) : number + above + 1] == organ).any(dim=0)


def _plain(image: torch.Tensor) -> torch.Tensor:
    return image.as_tensor() if hasattr(image, "as_tensor") else image
