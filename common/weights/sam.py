"""SAM and MedSAM checkpoints (Apache-2.0), converted to `common.networks.SamSegmenter`, and its loading.

All releases have one layout: `sam_vit_{b,l,h}_*.pth` of SAM and `medsam_vit_b.pth` of MedSAM. Which network a
checkpoint belongs to is told by the shapes of its tensors.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from ..networks.promptable import VARIANTS, SamArchitecture, SamSegmenter
from .checkpoint import read_checkpoint
from .conversion import ConvertedState, expand_modules, rename_modules

logger = logging.getLogger(__name__)

# A key that only this release has.
MARKER = "image_encoder.patch_embed.proj.weight"

PREFIX = "sam."
POSITIONS = "sam.shared_image_embedding.positional_embedding"
# transformers keeps the matrix of the positions a second time.
POSITIONS_AGAIN = "sam.prompt_encoder.shared_embedding.positional_embedding"

ENCODER_BLOCK = {
    "norm1": "layer_norm1",
    "attn": "attn",
    "attn.qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "norm2": "layer_norm2",
    "mlp.lin1": "mlp.lin1",
    "mlp.lin2": "mlp.lin2",
}
ATTENTION = {name: name for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
ATTENTIONS = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
DECODER_BLOCK = {
    **{f"norm{number}": f"layer_norm{number}" for number in range(1, 5)},
    **expand_modules({name: name for name in ATTENTIONS}, ATTENTION),
    "mlp.lin1": "mlp.lin1",
    "mlp.lin2": "mlp.lin2",
}
MLP = {"layers.0": "proj_in", "layers.1": "layers.0", "layers.2": "proj_out"}
NECK = {"0": "conv1", "1": "layer_norm1", "2": "conv2", "3": "layer_norm2"}
MASK_PROMPT = {"0": "conv1", "1": "layer_norm1", "3": "conv2", "4": "layer_norm2", "6": "conv3"}
UPSCALING = {"0": "upscale_conv1", "1": "upscale_layer_norm", "3": "upscale_conv2"}
NUM_POINT_KINDS = 4


def published_modules(depth: int, decoder_depth: int = 2, num_mask_tokens: int = 4) -> dict[str, str]:
    """Return published module to our module.

    Args:
        depth: Blocks of the encoder.
        decoder_depth: Blocks of the decoder.
        num_mask_tokens: Masks that the decoder can give.
    """
    prompt, decoder = "prompt_encoder", "mask_decoder"
    blocks = {f"image_encoder.blocks.{i}": f"sam.vision_encoder.layers.{i}" for i in range(depth)}
    layers = [f"{decoder}.transformer.layers.{i}" for i in range(decoder_depth)]
    mlps = [f"{decoder}.output_hypernetworks_mlps.{i}" for i in range(num_mask_tokens)]
    kept = [f"{prompt}.not_a_point_embed", f"{prompt}.no_mask_embed", f"{decoder}.iou_token", f"{decoder}.mask_tokens"]
    final = f"{decoder}.transformer.final_attn_token_to_image"
    return {
        "image_encoder": "sam.vision_encoder",
        "image_encoder.patch_embed.proj": "sam.vision_encoder.patch_embed.projection",
        **expand_modules(blocks, ENCODER_BLOCK),
        **expand_modules({"image_encoder.neck": "sam.vision_encoder.neck"}, NECK),
        f"{prompt}.pe_layer": "sam.shared_image_embedding",
        **{f"{prompt}.point_embeddings.{i}": f"sam.{prompt}.point_embed.{i}" for i in range(NUM_POINT_KINDS)},
        **expand_modules({f"{prompt}.mask_downscaling": f"sam.{prompt}.mask_embed"}, MASK_PROMPT),
        **{module: f"sam.{module}" for module in kept},
        **expand_modules({layer: f"sam.{layer}" for layer in layers}, DECODER_BLOCK),
        **expand_modules({final: f"sam.{final}"}, ATTENTION),
        f"{decoder}.transformer.norm_final_attn": f"sam.{decoder}.transformer.layer_norm_final_attn",
        **expand_modules({f"{decoder}.output_upscaling": f"sam.{decoder}"}, UPSCALING),
        **expand_modules({mlp: f"sam.{mlp}" for mlp in (*mlps, f"{decoder}.iou_prediction_head")}, MLP),
    }


def convert(state_dict: Mapping[str, torch.Tensor], resolution_mode: int | None = None) -> ConvertedState:
    """Return a published SAM or MedSAM in our layout; nothing is dropped.

    Args:
        state_dict: Published key to tensor, ViT-B, L or H.
        resolution_mode: Must be left out, as SAM has none.

    Returns:
        Our state dict, and no dropped key.

    Raises:
        ValueError: If keys are unknown or missing, or a resolution mode is given.
    """
    if resolution_mode is not None:
        raise ValueError(f"resolution_mode must be left out for 'sam', which has none; got {resolution_mode!r}.")
    modules = published_modules(
        _count(state_dict, "image_encoder.blocks."),
        _count(state_dict, "mask_decoder.transformer.layers."),
        _count(state_dict, "mask_decoder.output_hypernetworks_mlps."),
    )
    renamed = {"positional_encoding_gaussian_matrix": "positional_embedding"}
    converted = rename_modules("sam", state_dict, modules, renamed, lambda _: None)
    return converted._replace(state_dict=_with_positions_twice(converted.state_dict))


def find_architecture(state_dict: Mapping[str, torch.Tensor]) -> SamArchitecture:
    """Return the network that weights belong to, from the shapes of its tensors; the decoder has 8 heads.

    Args:
        state_dict: Key to tensor in our layout.

    Raises:
        ValueError: If a tensor that tells a size is missing.
    """
    encoder, decoder = "sam.vision_encoder", "sam.mask_decoder"

    def shape(key: str) -> torch.Size:
        if key not in state_dict:
            raise ValueError(f"Weights of a SAM network must hold {key}, which these do not. Give the whole network.")
        return state_dict[key].shape

    _, grid, _, width = shape(f"{encoder}.pos_embed")
    patch_size = shape(f"{encoder}.patch_embed.projection.weight")[-1]
    depth = _count(state_dict, f"{encoder}.layers.")
    # A table of relative positions has 2 n - 1 rows for windows of n tokens.
    sides = [(shape(f"{encoder}.layers.{i}.attn.rel_pos_h")[0] + 1) // 2 for i in range(depth)]
    windows = {side for side in sides if side != grid}
    if len(windows) > 1:
        raise ValueError(f"The windows of a SAM encoder must have one size, these have {sorted(windows)} tokens.")
    return SamArchitecture(
        image_size=grid * patch_size,
        patch_size=patch_size,
        width=width,
        depth=depth,
        num_heads=width // shape(f"{encoder}.layers.0.attn.rel_pos_h")[1],
        global_blocks=tuple(i for i, side in enumerate(sides) if side == grid),
        window_size=windows.pop() if windows else grid,
        embedding_channels=shape(f"{encoder}.neck.conv1.weight")[0],
        decoder_depth=_count(state_dict, f"{decoder}.transformer.layers."),
        decoder_mlp_width=shape(f"{decoder}.transformer.layers.0.mlp.lin1.weight")[0],
        decoder_head_width=shape(f"{decoder}.iou_prediction_head.proj_in.weight")[0],
        mask_prompt_channels=shape("sam.prompt_encoder.mask_embed.conv2.weight")[0],
        num_masks=shape(f"{decoder}.mask_tokens.weight")[0] - 1,
    )


def read_sam_weights(source: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read weights of a SAM network, whichever form they have.

    Args:
        source: The authors' `.pth` (SAM or MedSAM), a file of ours, or a local folder in the form of Hugging Face
            (`model.safetensors` or `pytorch_model.bin`); nothing is downloaded.

    Returns:
        Key to tensor in our layout.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the file holds other weights; the message says whose they are where that is known.
    """
    from .releases import find_release  # releases.py imports this module

    path = Path(source)
    if path.is_dir():
        path = _weights_of_folder(path)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    release = find_release(state)
    if release == "sam":
        return convert(state).state_dict
    if release is not None:
        raise ValueError(
            f"{path} holds the weights of {release!r}, not of SAM. Give a checkpoint of SAM or MedSAM here, and those "
            f"of {release!r} where that network is asked for."
        )
    if any(key.startswith("vision_encoder.") for key in state):
        state = {f"{PREFIX}{key}": tensor for key, tensor in state.items()}
    if not any(key.startswith(f"{PREFIX}vision_encoder.") for key in state):
        raise ValueError(
            f"{path} holds no weights of SAM: none of its {len(state)} keys is that of a SAM encoder, the first is "
            f"{next(iter(state))!r}. Give sam_vit_b, l or h, medsam_vit_b, or what finetune_sam.json wrote."
        )
    return _with_positions_twice(state)


def load_segmenter(source: str | os.PathLike[str], preprocess: str) -> SamSegmenter:
    """Return the network that weights belong to, with these weights.

    Args:
        source: See `read_sam_weights`.
        preprocess: "sam" or "medsam"; which one is no part of the weights, and a wrong one spoils them.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ImportError: If transformers is not installed.
        ValueError: If the file holds other weights, not all, or more; or `preprocess` is unknown.
    """
    from .loading import load_weights  # loading.py imports releases.py, and that this module

    state = read_sam_weights(source)
    architecture = find_architecture(state)
    segmenter = SamSegmenter(architecture, preprocess)
    load_weights(segmenter, state)
    names = [name for name, known in VARIANTS.items() if known == architecture]
    logger.info("%s holds SAM %s, used with preprocess=%r", source, names[0] if names else architecture, preprocess)
    return segmenter.eval()


def _count(state_dict: Mapping[str, torch.Tensor], prefix: str) -> int:
    """Number of the blocks that are numbered behind a prefix."""
    return len({key.removeprefix(prefix).partition(".")[0] for key in state_dict if key.startswith(prefix)})


def _with_positions_twice(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fill either place of the matrix of the positions from the other, as files may hold it once."""
    state = dict(state_dict)
    for key, other in ((POSITIONS, POSITIONS_AGAIN), (POSITIONS_AGAIN, POSITIONS)):
        if key not in state and other in state:
            state[key] = state[other]
    return state


def _weights_of_folder(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    held = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
    raise FileNotFoundError(
        f"Folder {folder} must hold model.safetensors or pytorch_model.bin, as a model saved from Hugging Face does; "
        f"found {held}. Give such a folder, or the authors' .pth file."
    )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"Checkpoint {path} does not exist. Give the path of a file of weights.")
    try:
        import safetensors
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(
            f"{path} needs the package safetensors, which comes with transformers. Install it with the extra `sam` of "
            f"this package, or with `pip install 'transformers>=5,<6'`."
        ) from error
    try:
        return load_file(path)
    except (safetensors.SafetensorError, ValueError, RuntimeError, LookupError, OSError) as error:
        raise ValueError(f"Checkpoint {path} cannot be read: {error}. Download it again.") from error
