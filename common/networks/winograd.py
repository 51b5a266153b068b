"""Convolutions 3x3x3 with an eighth of the multiplications, for inference on a CPU."""

from __future__ import annotations

import torch
from torch import nn

# F(4, 3) of Lavin and Gray: six products give four outputs of a filter with three taps.
_INPUT = torch.tensor(
    [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
        [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ]
)
_FILTER = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_OUTPUT = torch.tensor(
    [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
    ]
)
_TILE, _WINDOW = 4, 6
# With fewer channels, moving data costs more than the multiplications that are saved.
_MIN_CHANNELS = 64
_MIN_VOXELS = 16**3
# Rows of tiles that are transformed together; their 216 products stay in the cache.
_ROWS = 4


def is_faster(x: torch.Tensor, conv: nn.Conv3d) -> bool:
    """Return whether `winograd_conv3d` may stand in for a convolution, and gains by it.

    Args:
        x: Input. Shape (B, C, D, H, W).
        conv: Convolution 3x3x3 of stride 1 with a padding of one zero.
    """
    return (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and len(x) == 1
        and min(conv.in_channels, conv.out_channels) >= _MIN_CHANNELS
        and all(size % _TILE == 0 for size in x.shape[2:])
        and x[0, 0].numel() >= _MIN_VOXELS
    )


def winograd_conv3d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Convolve with a filter 3x3x3, padding 1, by minimal filtering in all three directions.

    Lavin and Gray, arXiv:1509.09308, section 4: F(4, 3) nested. Each tile of 4x4x4 outputs takes 216 products for a
    pair of channels instead of 1728. Differs from the direct sum by rounding: some 10^-5 of the outputs' deviation.

    Args:
        x: Input. Shape (1, C, D, H, W), float32, sizes multiples of 4; best with channels last in memory.
        weight: Filters. Shape (O, C, 3, 3, 3).
        bias: Bias. Shape (O,).

    Returns:
        Shape (1, O, D, H, W), channels last in memory.

    Raises:
        ValueError: If there are several items or a size is no multiple of 4.
    """
    if len(x) != 1 or any(size % _TILE for size in x.shape[2:]):
        raise ValueError(f"x must be one item with sizes that are multiples of {_TILE}, got shape {tuple(x.shape)}.")
    channels, depth, height, width = x.shape[1:]
    outputs = len(weight)
    filters = torch.einsum("ai,bj,ck,opijk->cbapo", _FILTER, _FILTER, _FILTER, weight.double()).float()
    filters = filters.reshape(_WINDOW**3, channels, outputs)
    source = x[0].permute(1, 2, 3, 0)
    result = x.new_empty((depth, height, width, outputs))
    for front in range(0, depth, _TILE):
        for top in range(0, height, _TILE * _ROWS):
            rows = min(_ROWS, (height - top) // _TILE)
            products = torch.bmm(_transform_input(source, front, top, rows), filters)
            tiles = torch.mm(_OUTPUT, products.view(_WINDOW, -1)).view(_TILE, _WINDOW, -1)
            tiles = torch.matmul(_OUTPUT, tiles).view(_TILE**2, _WINDOW, -1)
            tiles = torch.matmul(_OUTPUT, tiles).view(_TILE, _TILE, _TILE, rows, width // _TILE, outputs)
            block = result[front : front + _TILE, top : top + _TILE * rows]
            block.view(_TILE, rows, _TILE, width // _TILE, _TILE, outputs).copy_(tiles.permute(2, 3, 1, 4, 0, 5))
    if bias is not None:
        result += bias
    return result.permute(3, 0, 1, 2)[None]


def _transform_input(source: torch.Tensor, front: int, top: int, rows: int) -> torch.Tensor:
    """Transformed windows of one layer of tiles, some rows of it. Shape (6 * 6 * 6, tiles, C), axes from last to first.

    The windows of neighbors overlap by two voxels, so each axis is cut into windows just before it is transformed, and
    comes first then: all three transforms are products with a matrix that has six long rows.
    """
    depth, height, width, channels = source.shape
    padded = source.new_zeros((_WINDOW, _TILE * rows + 2, width + 2, channels))
    near, far = max(front - 1, 0), min(front + _TILE + 1, depth)
    upper, lower = max(top - 1, 0), min(top + _TILE * rows + 1, height)
    padded[near - front + 1 : far - front + 1, upper - top + 1 : lower - top + 1, 1:-1] = source[near:far, upper:lower]
    row = (width + 2) * channels
    windows = torch.mm(_INPUT, padded.view(_WINDOW, -1))
    layer = (_TILE * rows + 2) * row
    windows = windows.as_strided((_WINDOW, _WINDOW, rows, row), (row, layer, _TILE * row, 1))
    windows = torch.mm(_INPUT, windows.reshape(_WINDOW, -1))
    tiles = (_WINDOW, _WINDOW**2 * rows, width // _TILE, channels)
    windows = windows.as_strided(tiles, (channels, row, _TILE * channels, 1))
    windows = torch.mm(_INPUT, windows.reshape(_WINDOW, -1))
    return windows.view(_WINDOW**3, rows * (width // _TILE), channels)
