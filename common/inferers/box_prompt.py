"""From boxes of organs to one label map of a scan, slice by slice, each slice encoded once."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type

from ..data.boxes import MARGIN_GRID, OrganBoxes, ScanBoxes
from ..data.problems import refusal
from ..memory import kept_memory
from ..networks.promptable import PromptSegmenter
from .embedding_cache import EmbeddingCache

INPUT_NDIM = 5
MAX_LABEL = 255

_logger = logging.getLogger(__name__)


class SlicePrompts(NamedTuple):
    """The boxes of a scan, cut into slices; one row for each box on a slice, ordered by slice.

    Attributes:
        slice_index: Slice. Shape (N,), int64.
        label: Label of the organ. Shape (N,), int64.
        boxes: Left, top, right and bottom face as shares of the width and height of a slice. Shape (N, 4), float32.
    """

    slice_index: torch.Tensor
    label: torch.Tensor
    boxes: torch.Tensor


class BoxPromptInferer(Inferer):
    """Segment all organs of a scan from their boxes with a promptable network.

    A slice is encoded if a box of any organ touches it, once for all organs and parts; the boxes on it are decoded
    together. A voxel gets the organ of the highest probability where that is above 0.5, so organs never overlap; of
    equal ones, the organ that is listed first. Several boxes of an organ on one slice add up.

    MedLSAM: Lei et al., arXiv:2306.14752. Unlike its code, each slice is encoded once and not for every organ and part,
    boxes are clipped to the slice, the slices are chosen by the boxes alone (there, by the reference), water is not
    blackened, and logits are resized to the slice at once.

    Args:
        margin_px: By how much each side of a box is moved outwards, in pixels of a grid of 1024 x 1024 over the slice,
            whatever the input size of the network.
        slice_batch_size: Slices encoded together.
        box_batch_size: Boxes decoded together.
        cache: Where embeddings are kept for further runs; None keeps none.

    Raises:
        ValueError: If a batch size is below 1 or the margin below 0.

    Note:
        Beside the scan and its label map, memory holds the embeddings of one batch of slices and the logits of the
        boxes on them.
    """

    def __init__(
        self,
        margin_px: float = 10.0,
        slice_batch_size: int = 4,
        box_batch_size: int = 16,
        cache: EmbeddingCache | None = None,
    ) -> None:
        super().__init__()
        if min(slice_batch_size, box_batch_size) < 1 or margin_px < 0:
            raise ValueError(
                f"slice_batch_size and box_batch_size must be at least 1 and margin_px at least 0, got "
                f"{slice_batch_size}, {box_batch_size} and {margin_px}."
            )
        self.margin = margin_px / MARGIN_GRID
        self.slice_batch_size = slice_batch_size
        self.box_batch_size = box_batch_size
        self.cache = cache

    @kept_memory()
    def __call__(self, inputs: torch.Tensor, network: PromptSegmenter, boxes: ScanBoxes) -> torch.Tensor:
        """Segment one scan.

        Args:
            inputs: Scan with the slices first. Shape (1, 1, D, H, W), in [0, 1].
            network: What encodes slices and decodes boxes.
            boxes: Boxes in the grid of `inputs`.

        Returns:
            Label map, with the metadata of `inputs` if it has any. Shape (1, 1, D, H, W), uint8.

        Raises:
            DatasetError: If all boxes of an organ lie outside the scan.
            ValueError: If `inputs` has another shape, or a label is above 255.
        """
        if inputs.ndim != INPUT_NDIM or tuple(inputs.shape[:2]) != (1, 1):
            raise ValueError(f"inputs must be one scan, shape (1, 1, D, H, W); got {tuple(inputs.shape)}.")
        volume = inputs.as_tensor()[0, 0] if hasattr(inputs, "as_tensor") else inputs[0, 0]
        # Made here: a tensor of inference mode could not be changed by what follows.
        label_map = torch.zeros(volume.shape, dtype=torch.uint8, device=volume.device)
        prompts = cut_into_slices(boxes, tuple(volume.shape), self.margin)
        if not len(prompts.label):
            _logger.warning("%s: no organ is present, so its label map is empty.", boxes.case)
        else:
            with torch.inference_mode():
                self._segment(volume, network, prompts, label_map)
        # With the metadata of the scan, from which the label map is brought back to the scan's geometry.
        return convert_to_dst_type(label_map[None, None], inputs, dtype=torch.uint8)[0]

    def _segment(
        self, volume: torch.Tensor, network: PromptSegmenter, prompts: SlicePrompts, label_map: torch.Tensor
    ) -> None:
        fingerprint = network.encoder_fingerprint() if self.cache is not None else ""
        touched, row_of_prompt = torch.unique_consecutive(prompts.slice_index, return_inverse=True)
        for start in range(0, len(touched), self.slice_batch_size):
            batch = touched[start : start + self.slice_batch_size]
            slices = volume[batch.to(volume.device)][:, None]
            if self.cache is not None:
                embedding = self.cache.encode(network, slices, fingerprint)
            else:
                embedding = network.encode(slices)
            chosen = (row_of_prompt >= start) & (row_of_prompt < start + len(batch))
            rows, labels = row_of_prompt[chosen] - start, prompts.label[chosen].to(volume.device)
            boxes = (prompts.boxes[chosen] * network.image_size).to(volume.device)
            index = rows.to(volume.device)
            logits = torch.cat(
                [
                    network.decode(embedding, boxes[first : first + self.box_batch_size], index_part)
                    for first, index_part in zip(
                        range(0, len(rows), self.box_batch_size), index.split(self.box_batch_size), strict=True
                    )
                ]
            )
            for row, number in enumerate(batch.tolist()):
                own = index == row
                label_map[number] = merge_organs(logits[own], labels[own], tuple(volume.shape[1:]))


def cut_into_slices(boxes: ScanBoxes, spatial_shape: tuple[int, ...], margin: float = 0.0) -> SlicePrompts:
    """Return the boxes of all present organs on every slice that they touch.

    Args:
        boxes: Boxes in a grid with the slices first.
        spatial_shape: Size of that grid (D, H, W).
        margin: By how much each side moves outwards, as a share of the slice; boxes end at the slice's border.

    Returns:
        Boxes by slice; no row where no organ is present.

    Raises:
        DatasetError: If all boxes of an organ lie outside the scan.
        ValueError: If a label is above 255.
    """
    rows = [row for organ in boxes.organs if organ.present for row in _organ_rows(boxes, organ, spatial_shape)]
    rows.sort(key=lambda row: row[0])  # stable, so organs stay in their order
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    _, height, width = spatial_shape
    faces = table[:, 2:] / torch.tensor([width, height, width, height], dtype=torch.float64)
    faces += margin * torch.tensor([-1, -1, 1, 1], dtype=torch.float64)
    return SlicePrompts(table[:, 0].long(), table[:, 1].long(), faces.clamp(0, 1).float())


def _organ_rows(boxes: ScanBoxes, organ: OrganBoxes, spatial_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Rows (slice, label, left, top, right, bottom) in voxels for one organ."""
    if organ.label > MAX_LABEL:
        raise ValueError(f"Labels must be at most {MAX_LABEL}; {organ.organ!r} has {organ.label}. Renumber the organs.")
    clipped = [part.clipped(spatial_shape) for part in organ.parts]
    inside = [part for part in clipped if part is not None]
    if not inside:
        lower, upper = organ.parts[0].bounds_mm(boxes.affine)
        raise refusal(
            f"Boxes of {boxes.case}",
            "must touch the scan",
            f"{organ.organ!r} from {_rounded(lower)} to {_rounded(upper)} mm (RAS), outside all "
            f"{' x '.join(map(str, spatial_shape))} voxels",
            "check that they are the boxes of this scan, and that mm are right, anterior, superior",
        )
    if len(inside) < len(clipped):
        _logger.warning(
            "%s: %d of %d boxes of %s lie outside the scan.",
            boxes.case,
            len(clipped) - len(inside),
            len(clipped),
            organ.organ,
        )
    return [
        (number, organ.label, part.lower[2], part.lower[1], part.upper[2], part.upper[1])
        for part in inside
        for number in range(part.lower[0], part.upper[0])
    ]


def merge_organs(logits: torch.Tensor, labels: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Return the label map of a slice from the logits of the boxes on it.

    Args:
        logits: Shape (N, 1, s, s).
        labels: Label of each box. Shape (N,).
        size: Height and width of the slice.

    Returns:
        The label of the highest logit where it is above 0, else 0. Shape (H, W), uint8.
    """
    resized = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    highest, winner = resized[:, 0].max(dim=0)
    return torch.where(highest > 0, labels[winner], 0).to(torch.uint8)


def _rounded(values: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(round(value) for value in values)
