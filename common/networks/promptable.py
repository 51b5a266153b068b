"""Networks that segment what a box encloses: the interface, and Segment Anything (SAM, MedSAM) behind it.

Kirillov et al.: Segment Anything, arXiv:2304.02643 (2023). Ma et al.: Segment Anything in Medical Images,
arXiv:2304.12306 (2023). The network is that of the package transformers (extra `sam`); resizing and normalization are
ours, so neither torchvision nor a processor is needed.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["PREPROCESSING", "VARIANTS", "PromptSegmenter", "SamArchitecture", "SamSegmenter"]

SLICE_NDIM = 4
LOGITS_PER_TOKEN = 4


class Normalization(NamedTuple):
    """What is subtracted from, and divided out of, the three equal channels of a slice in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# SAM was trained on photographs normalized by the statistics of ImageNet, MedSAM on slices in [0, 1] as they are.
PREPROCESSING = {
    "sam": Normalization((123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)),
    "medsam": Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


class PromptSegmenter(nn.Module, ABC):
    """A network that encodes a slice once and then segments any number of boxes on it.

    Attributes:
        image_size: Side in pixels of the square that slices are resized to; boxes are given on this grid.
    """

    image_size: int

    @abstractmethod
    def encode(self, slices: torch.Tensor) -> torch.Tensor:
        """Encode slices, independently of any box.

        Args:
            slices: Shape (B, 1, H, W), in [0, 1], any size; the aspect ratio is not kept, as in MedLSAM and MedSAM.

        Returns:
            Embedding. Shape (B, C, h, w).
        """

    @abstractmethod
    def decode(
        self, embedding: torch.Tensor, boxes: torch.Tensor, slice_index: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Segment what each box encloses.

        Args:
            embedding: Embedding of slices. Shape (B, C, h, w).
            boxes: Left, top, right and bottom face of each box, in pixels of the `image_size` grid, where the face
                between the pixels i - 1 and i is at i. Shape (N, 4).
            slice_index: Which slice each box lies on, shape (N,), int64; None where there is one box a slice, in order.

        Returns:
            Logits over the whole slice, one map a box. Shape (N, 1, s, s).
        """

    @property
    @abstractmethod
    def logits_size(self) -> int:
        """Side in pixels of the logits."""

    @property
    @abstractmethod
    def encoder(self) -> nn.Module:
        """What encodes; a fine-tuning may freeze it."""

    @abstractmethod
    def trainable_parameters(self, train_encoder: bool) -> list[nn.Parameter]:
        """Return what a training changes, and freeze the rest.

        Args:
            train_encoder: Whether everything is trained, or what decodes alone.
        """

    def forward(
        self,
        slices: torch.Tensor,
        boxes: torch.Tensor | None = None,
        slice_index: torch.Tensor | None = None,
        embedding: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode and decode; without boxes, the box is the whole slice.

        Args:
            slices: Shape (B, 1, H, W), in [0, 1].
            boxes: See `decode`.
            slice_index: See `decode`.
            embedding: What `encode` gave for `slices`, which then are not encoded again.

        Returns:
            Logits. Shape (N, 1, s, s), or (B, 1, s, s) without boxes.
        """
        if embedding is None:
            embedding = self.encode(slices)
        if boxes is None:
            size = self.image_size
            boxes = torch.tensor([[0, 0, size, size]], device=slices.device, dtype=torch.float32)
            boxes = boxes.expand(len(slices), 4)
        return self.decode(embedding, boxes, slice_index)

    def encoder_fingerprint(self) -> str:
        """Return a hash of the encoder's weights, which tells embeddings of other weights apart."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class SamArchitecture:
    """Sizes of a SAM network; the defaults are those of ViT-B.

    Attributes:
        image_size: Side of the input in pixels.
        patch_size: Side of a patch, which becomes one token, in pixels.
        width: Channels of the encoder.
        depth: Blocks of the encoder.
        num_heads: Attention heads of the encoder.
        global_blocks: Encoder blocks that attend over the whole slice; the others do within windows.
        window_size: Side of the windows in tokens.
        embedding_channels: Channels of the embedding and of the decoder; a multiple of twice `decoder_heads`.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder; the only size that the shapes of weights do not tell.
        decoder_mlp_width: Hidden width of the decoder's MLPs.
        decoder_head_width: Hidden width of the head that predicts the quality of a mask.
        mask_prompt_channels: Channels of the branch for mask prompts, which boxes do not use.
        num_masks: Masks for each prompt where several are asked for; boxes ask for one.
    """

    image_size: int = 1024
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    window_size: int = 14
    embedding_channels: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_width: int = 2048
    decoder_head_width: int = 256
    mask_prompt_channels: int = 16
    num_masks: int = 3


VARIANTS = {
    "vit_b": SamArchitecture(),
    "vit_l": SamArchitecture(width=1024, depth=24, num_heads=16, global_blocks=(5, 11, 17, 23)),
    "vit_h": SamArchitecture(width=1280, depth=32, num_heads=16, global_blocks=(7, 15, 23, 31)),
    # Small enough to be trained from nothing on a CPU, on a few phantoms.
    "tiny": SamArchitecture(
        image_size=128,
        patch_size=8,
        width=96,
        depth=4,
        num_heads=4,
        global_blocks=(1, 3),
        window_size=8,
        embedding_channels=64,
        decoder_mlp_width=128,
        decoder_head_width=64,
    ),
}


class SamSegmenter(PromptSegmenter):
    """SAM or MedSAM: a vision transformer that encodes a slice, and a light decoder that takes boxes.

    What differs from the published use: boxes are exact faces, and clipped to the slice (MedLSAM does not clip);
    slices are resized by anti-aliased cubic interpolation, then clipped to [0, 1]; a box asks for one mask, as in
    MedLSAM and MedSAM. The network itself is that of `transformers`, which computes what the authors' code computes.

    Args:
        architecture: A key of `VARIANTS`, or sizes, also as a dictionary of the fields of `SamArchitecture`.
        preprocess: "sam" (SAM: mean and standard deviation of photographs) or "medsam" (MedSAM of 2023-07 on: as it
            is, in [0, 1]). It belongs to the weights.

    Raises:
        ImportError: If transformers is not installed.
        ValueError: If the variant or the preprocessing is unknown, or sizes do not fit each other.

    Note:
        New weights are drawn from torch's global generator, as for every module of torch.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self, architecture: str | SamArchitecture | Mapping[str, Any] = "vit_b", preprocess: str = "medsam"
    ) -> None:
        super().__init__()
        if preprocess not in PREPROCESSING:
            raise ValueError(
                f"preprocess must be one of {', '.join(PREPROCESSING)}, got {preprocess!r}. It belongs to the weights: "
                f"'sam' for those of SAM, 'medsam' for those of MedSAM and for those trained here."
            )
        self.architecture = _find_architecture(architecture)
        self.preprocess = preprocess
        self.image_size = self.architecture.image_size
        transformers = _import_transformers()
        self.sam = transformers.SamModel(_make_config(transformers, self.architecture))
        # transformers draws weights at scales made for loading others over them (positions at half the width, so that
        # neighbors have nothing in common); the authors draw them as torch does, and positions at 1.
        for module in self.sam.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        nn.init.normal_(self.sam.shared_image_embedding.positional_embedding)
        mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in PREPROCESSING[preprocess])
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @property
    def logits_size(self) -> int:
        """Side of the logits: four pixels a token."""
        return LOGITS_PER_TOKEN * self.image_size // self.architecture.patch_size

    @property
    def encoder(self) -> nn.Module:
        """The vision transformer."""
        return self.sam.vision_encoder

    def trainable_parameters(self, train_encoder: bool) -> list[nn.Parameter]:
        """Return the parameters of the mask decoder, or all; the matrix of the positions never changes, as in SAM."""
        self.requires_grad_(train_encoder)
        self.sam.mask_decoder.requires_grad_(True)
        # boxes do not use the branch for masks
        self.sam.prompt_encoder.mask_embed.requires_grad_(False)
        self.sam.shared_image_embedding.requires_grad_(False)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def encode(self, slices: torch.Tensor) -> torch.Tensor:
        """Resize, normalize and encode slices; see `PromptSegmenter.encode`.

        Raises:
            ValueError: If `slices` is not of shape (B, 1, H, W).
        """
        if slices.ndim != SLICE_NDIM or slices.shape[1] != 1:
            raise ValueError(f"slices must have shape (B, 1, H, W), got {tuple(slices.shape)}.")
        resized = resize_slices(slices, self.image_size)
        # `__call__` of the encoder alone, since SamModel's own method for it forbids gradients.
        pixels = (resized - self.pixel_mean) / self.pixel_std
        return self.sam.vision_encoder(pixels).last_hidden_state

    def decode(
        self, embedding: torch.Tensor, boxes: torch.Tensor, slice_index: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Decode all boxes in one call; see `PromptSegmenter.decode`.

        Raises:
            ValueError: If `boxes` is not of shape (N, 4), or does not have one box a slice where there is no index.
        """
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes must have shape (N, 4): left, top, right, bottom; got {tuple(boxes.shape)}.")
        if slice_index is not None:
            embedding = embedding[slice_index]
        if len(embedding) != len(boxes):
            raise ValueError(
                f"There must be one box a slice where slice_index is not given: got {len(boxes)} boxes for "
                f"{len(embedding)} slices."
            )
        # SAM's points are pixel indices, half a pixel before the coordinate that it encodes.
        prompts = boxes.float().clamp(0, self.image_size)[:, None] - 0.5
        # In half precision, coordinates up to 1024 would lose their fraction; the decoder costs little.
        with _full_precision(embedding.device.type):
            output = self.sam(image_embeddings=embedding.float(), input_boxes=prompts, multimask_output=False)
        return output.pred_masks[:, 0]


def resize_slices(slices: torch.Tensor, image_size: int) -> torch.Tensor:
    """Resize slices to a square by anti-aliased cubic interpolation, clipped to [0, 1].

    Args:
        slices: Shape (B, C, H, W), in [0, 1].
        image_size: Side of the square.

    Returns:
        Shape (B, C, image_size, image_size).
    """
    size = (image_size, image_size)
    if tuple(slices.shape[-2:]) == size:
        return slices
    return F.interpolate(slices, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


def _full_precision(device_type: str) -> AbstractContextManager[object]:
    """Switch mixed precision off; on `meta`, where only sizes are computed, there is none."""
    has_it = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if has_it else nullcontext()


def _find_architecture(architecture: str | SamArchitecture | Mapping[str, Any]) -> SamArchitecture:
    if isinstance(architecture, str):
        if architecture not in VARIANTS:
            raise ValueError(f"architecture must be one of {', '.join(VARIANTS)}, or sizes; got {architecture!r}.")
        return VARIANTS[architecture]
    found = architecture if isinstance(architecture, SamArchitecture) else SamArchitecture(**architecture)
    for name, size, divisor in (
        ("image_size", found.image_size, found.patch_size),
        ("width", found.width, found.num_heads),
        ("embedding_channels", found.embedding_channels, 2 * found.decoder_heads),
    ):
        if size % divisor:
            raise ValueError(f"{name} of a SAM network must be a multiple of {divisor}, got {size}.")
    return found


def _import_transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "SAM needs the package transformers, which is not installed. Install it with the extra `sam` of this "
            "package, or with `pip install 'transformers>=5,<6'`."
        ) from error
    return transformers


def _make_config(transformers: ModuleType, sizes: SamArchitecture) -> Any:
    """Return the `SamConfig` of an architecture."""
    return transformers.SamConfig(
        vision_config={
            "hidden_size": sizes.width,
            "output_channels": sizes.embedding_channels,
            "num_hidden_layers": sizes.depth,
            "num_attention_heads": sizes.num_heads,
            "image_size": sizes.image_size,
            "patch_size": sizes.patch_size,
            "window_size": sizes.window_size,
            "global_attn_indexes": list(sizes.global_blocks),
            "num_pos_feats": sizes.embedding_channels // 2,
            # its default of 1e-10 is meant for weights that are loaded
            "initializer_range": 0.02,
        },
        prompt_encoder_config={
            "hidden_size": sizes.embedding_channels,
            "image_size": sizes.image_size,
            "patch_size": sizes.patch_size,
            "mask_input_channels": sizes.mask_prompt_channels,
        },
        mask_decoder_config={
            "hidden_size": sizes.embedding_channels,
            "mlp_dim": sizes.decoder_mlp_width,
            "num_hidden_layers": sizes.decoder_depth,
            "num_attention_heads": sizes.decoder_heads,
            "num_multimask_outputs": sizes.num_masks,
            "iou_head_hidden_dim": sizes.decoder_head_width,
        },
    )
