"""What stands between batches and promptable networks: boxes of a scan, and slices with boxes to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.engines import PrepareBatch
from monai.utils import CommonKeys

from ..data.boxes import ScanBoxes, boxes_file, boxes_of_labels, read_boxes
from ..inferers.embedding_cache import EmbeddingCache
from ..networks.promptable import PromptSegmenter, resize_slices

BOX_SOURCES = ("files", "reference_organs", "reference_slices")


class BoxesPrepareBatch(PrepareBatch):
    """Bring the boxes of each scan to `BoxPromptInferer`.

    Args:
        source: "files": from `boxes_dir`, where a localization or a person put them. For evaluation alone, from the
            reference labels: "reference_organs", one box an organ, and "reference_slices", one tight box an organ on
            each slice, as a person would draw it.
        boxes_dir: Folder of the files `<case>_boxes.json`.
        label_names: Name of each organ by its label, for boxes from the reference.

    Raises:
        ValueError: If `source` is unknown, or the folder or the names that it needs are missing.
    """

    def __init__(
        self, source: str, boxes_dir: str | Path | None = None, label_names: Mapping[int | str, str] | None = None
    ) -> None:
        if source not in BOX_SOURCES:
            raise ValueError(f"source of boxes must be one of {', '.join(BOX_SOURCES)}, got {source!r}.")
        needed = ("boxes_dir", boxes_dir) if source == "files" else ("label_names", label_names)
        if needed[1] is None:
            raise ValueError(f"Boxes from {source!r} need {needed[0]}.")
        self.source = source
        self.boxes_dir = boxes_dir
        self.label_names = {int(label): name for label, name in (label_names or {}).items() if int(label)}

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, tuple[ScanBoxes], dict[str, Any]]:
        """Return the scan, its reference if it has one, and its boxes in the grid of the scan.

        Args:
            batchdata: One scan: `image`, shape (1, 1, D, H, W), `case`, and for boxes from the reference `label`, a
                label map in any grid of the scan.
            device: Where the network is.
            non_blocking: Whether the transfer from pinned memory may overlap with other work.
            **kwargs: Further arguments of `Tensor.to`.

        Raises:
            DatasetError: If the file of boxes is missing or breaks a rule.
            ValueError: If there are several scans, or boxes are asked for from a reference that is not there.
        """
        image, label = batchdata[CommonKeys.IMAGE], batchdata.get(CommonKeys.LABEL)
        if len(image) != 1:
            raise ValueError(f"Scans are segmented one at a time, got a batch of {len(image)}; set batch_size to 1.")
        boxes = self._boxes(batchdata["case"][0], _affine(image), tuple(image.shape[2:]), label)
        transfer = {"device": device, "non_blocking": non_blocking, **kwargs}
        return image.to(**transfer), None if label is None else label.to(**transfer), (boxes,), {}

    def _boxes(self, case: str, affine: np.ndarray, shape: tuple[int, ...], label: torch.Tensor | None) -> ScanBoxes:
        if self.boxes_dir is not None and self.source == "files":
            return read_boxes(boxes_file(self.boxes_dir, case), affine, shape)
        if label is None:
            raise ValueError(
                f"Boxes from {self.source!r} need the label of each case; they are for evaluation alone, with "
                f"evaluate.json."
            )
        label_affine = _affine(label)
        # The axis of the label map that runs along the slices of the image.
        slice_axis = int(np.abs(np.linalg.solve(affine, label_affine)[0, :3]).argmax())
        reference = boxes_of_labels(
            label[0, 0].cpu().numpy().astype(np.int32),
            label_affine,
            self.label_names,
            case,
            slice_axis if self.source == "reference_slices" else None,
        )
        return reference.in_grid(affine, shape)


def collate_prompts(batch: Sequence[Any]) -> dict[str, list[Any]]:
    """Collate slices of different sizes with different numbers of boxes: as lists, without padding.

    Args:
        batch: Items of `RandSlicePromptsd`, or lists of them.
    """
    items = [item for entry in batch for item in (entry if isinstance(entry, list) else [entry])]
    keys = (CommonKeys.IMAGE, CommonKeys.LABEL, "boxes", "case")
    return {key: [item[key] for item in items if key in item] for key in keys}


class PromptPrepareBatch(PrepareBatch):
    """Make inputs and targets of a promptable network out of slices with boxes and masks.

    Args:
        network: Tells the sizes of its input and output, and encodes where embeddings are kept.
        train_encoder: Whether the encoder learns. Where it does not, embeddings are made without gradients.
        cache: Where embeddings of an encoder that does not learn are kept, so that each slice is encoded once.

    Raises:
        ValueError: If embeddings of an encoder that learns are to be kept.
    """

    def __init__(self, network: PromptSegmenter, train_encoder: bool, cache: EmbeddingCache | None = None) -> None:
        if train_encoder and cache is not None:
            raise ValueError("Embeddings of an encoder that is trained cannot be kept: leave out cache or freeze it.")
        self.network = network
        self.train_encoder = train_encoder
        self.cache = cache
        self._fingerprint: str | None = None

    def __call__(
        self,
        batchdata: Mapping[str, Sequence[torch.Tensor]],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[()], dict[str, torch.Tensor]]:
        """Return slices, (B, 1, S, S), target masks in [0, 1], (N, 1, s, s), and the arguments of `forward`.

        Args:
            batchdata: What `collate_prompts` gives.
            device: Where the network is.
            non_blocking: Whether the transfer from pinned memory may overlap with other work.
            **kwargs: Further arguments of `Tensor.to`.
        """
        transfer = {"device": device, "non_blocking": non_blocking, **kwargs}
        size = (self.network.logits_size,) * 2
        slices = torch.cat(
            [resize_slices(image.to(**transfer)[None], self.network.image_size) for image in batchdata["image"]]
        )
        targets = torch.cat(
            [
                F.interpolate(masks.to(**transfer)[:, None].float(), size, mode="bilinear", antialias=True)
                for masks in batchdata["label"]
            ]
        )
        counts = torch.tensor([len(boxes) for boxes in batchdata["boxes"]])
        arguments = {
            "boxes": torch.cat([boxes.to(**transfer) for boxes in batchdata["boxes"]]) * self.network.image_size,
            "slice_index": torch.arange(len(counts)).repeat_interleave(counts).to(**transfer),
        }
        if not self.train_encoder:
            arguments["embedding"] = self._encode(slices)
        return slices, targets, (), arguments

    def _encode(self, slices: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            if self.cache is None:
                return self.network.encode(slices)
            if self._fingerprint is None:
                self._fingerprint = self.network.encoder_fingerprint()
            return self.cache.encode(self.network, slices, self._fingerprint)


def _affine(image: torch.Tensor) -> np.ndarray:
    """Affine of the one image in a batch of `MetaTensor`."""
    affine: torch.Tensor = image.affine  # type: ignore[attr-defined]
    return affine.cpu().double().reshape(4, 4).numpy()
