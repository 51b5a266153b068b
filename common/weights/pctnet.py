"""The PCT-Net checkpoint of MIS-FM (`pctnet_ct10k_volf.pt`, Apache-2.0), converted to `common.networks.PCTNet`."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..networks.pct_net import WINDOW_SIZE, relative_position_index
from .conversion import ConvertedState, expand_modules, rename_modules

# A key that only this release has.
MARKER = "pyramid_ct.down3.conv.0.weight"

TABLE_SUFFIX = ".attn.relative_position_bias_table"
INDEX_SUFFIX = ".attn.relative_position_index"

# Layers of the published blocks, by their number in the authors' sequences.
UNIT = {"0": "adn.N", "1": "adn.A", "2": "conv"}
TWO_UNITS = {"0": "0.adn.N", "1": "0.adn.A", "2": "0.conv", "3": "1.adn.N", "4": "1.adn.A", "6": "1.conv"}
SWIN_BLOCK = {
    "norm1": "norm1",
    "attn": "attention",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.linear1",
    "mlp.fc2": "mlp.linear2",
}
PCT_BLOCKS = {"e2": "encoder.2", "e3": "encoder.3", "e4": "encoder.4", "d3": "decoder.3", "d2": "decoder.2"}


def published_modules(resolution_mode: int) -> dict[str, str]:
    """Return published module to our module.

    The authors count levels from 1 in `up` of the head and from the coarse side in the pyramid: `up1` of the head
    leads to level 0, and `up4` of the pyramid to level 3.

    Args:
        resolution_mode: 0, 1 or 2, which of the three published stems and heads is taken.
    """
    stem, head, pyramid = f"embeddings.{resolution_mode}", f"pred_heads.{resolution_mode}", "pyramid_ct"
    units: dict[str, str] = {}
    two_units: dict[str, str] = {}
    swin_blocks: dict[str, str] = {}
    for level in range(4):
        fine = level < 2
        units[f"{stem if fine else pyramid}.down{level + 1}.conv"] = f"down.{level}"
        units[f"{head if fine else pyramid}.up{level + 1}.up"] = f"up.{level}.upsample"
        units[f"{head if fine else pyramid}.up{level + 1}.conv"] = f"up.{level}.merge"
        units[f"{head if fine else pyramid}.out_conv{level}.conv"] = f"heads.{level}"
        if fine:
            two_units[f"{stem}.conv{level}.conv_conv"] = f"encoder.{level}"
            two_units[f"{head}.conv{level}.conv_conv"] = f"decoder.{level}"
    for published, ours in PCT_BLOCKS.items():
        two_units[f"{pyramid}.convtrans_{published}.conv.conv_conv"] = f"{ours}.conv"
        swin_blocks[f"{pyramid}.convtrans_{published}.trans.blocks.0"] = f"{ours}.transformer.block"
        swin_blocks[f"{pyramid}.convtrans_{published}.trans.blocks.1"] = f"{ours}.transformer.shifted_block"
    return {
        f"{stem}.proj": "project",
        **expand_modules(units, UNIT),
        **expand_modules(two_units, TWO_UNITS),
        **expand_modules(swin_blocks, SWIN_BLOCK),
    }


def convert(state_dict: Mapping[str, torch.Tensor], resolution_mode: int | None) -> ConvertedState:
    """Return the published PCT-Net in our layout.

    Dropped are the stems and heads of the other two resolution modes, the normalization that the published forward
    never calls, and the relative position index, which ours recomputes; the index of the file must equal it.

    Args:
        state_dict: Published key to tensor.
        resolution_mode: 0, 1 or 2; None for 1, the mode that the authors use.

    Returns:
        Our state dict and the dropped keys.

    Raises:
        ValueError: If keys are unknown or missing, a bias table belongs to another window, or the saved index differs.
    """
    mode = 1 if resolution_mode is None else resolution_mode
    check_windows(state_dict)

    def reason_to_drop(key: str) -> str | None:
        part, _, rest = key.partition(".")
        if part in ("embeddings", "pred_heads") and rest.split(".")[0] in {"0", "1", "2"} - {str(mode)}:
            return f"stem or head of resolution mode {rest[0]}, and mode {mode} is built"
        if ".norm_layer." in key:
            return "a normalization that the published forward never calls"
        if key.endswith(INDEX_SUFFIX):
            return "a constant that the network recomputes"
        return None

    renamed = {"relative_position_bias_table": "bias_table"}
    return rename_modules("pctnet", state_dict, published_modules(mode), renamed, reason_to_drop)


def check_windows(state_dict: Mapping[str, torch.Tensor]) -> None:
    """Refuse bias tables of other windows than 6x6x6 and an index other than the published one.

    Args:
        state_dict: Published key to tensor.

    Raises:
        ValueError: If a table has another number of rows, or a saved index other entries.
    """
    span = 2 * WINDOW_SIZE - 1
    shrunken = {
        key: tuple(tensor.shape)
        for key, tensor in state_dict.items()
        if key.endswith(TABLE_SUFFIX) and tensor.shape[0] != span**3
    }
    if shrunken:
        key, shape = next(iter(shrunken.items()))
        raise ValueError(
            f"{len(shrunken)} relative position bias tables are not of a window of {WINDOW_SIZE} voxels "
            f"({span**3} rows): {key} has shape {shape}. The published code shrinks windows when it is built with an "
            "`input_size` whose coarsest level is below 6 voxels, and such weights compute another function. Train "
            "with a larger `input_size` (64x128x128 as the authors), or pretrain with this package."
        )
    expected = relative_position_index(legacy=True)
    for key, tensor in state_dict.items():
        # An index of zeros is the buffer of a state dict that was made from the layout alone.
        if key.endswith(INDEX_SUFFIX) and tensor.any() and not torch.equal(tensor.long().cpu(), expected):
            raise ValueError(
                f"{key} of shape {tuple(tensor.shape)} is not the relative position index of the published PCT-Net. "
                "The weights were trained with another index, so they would compute another function here."
            )
