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
# Trilinear upsampling by 2, followed by `_INPUT`: a window of six places lies over four of half the resolution.
_UPSAMPLED_INPUT = _INPUT @ torch.tensor(
    [
        [0.75, 0.25, 0.0, 0.0],
        [0.25, 0.75, 0.0, 0.0],
        [0.0, 0.75, 0.25, 0.0],
        [0.0, 0.25, 0.75, 0.0],
        [0.0, 0.0, 0.75, 0.25],
        [0.0, 0.0, 0.25, 0.75],
    ]
)
# All 27 taps of a filter to its 216 factors.
_CUBE_FILTER = torch.einsum("ai,bj,ck->cbaijk", _FILTER, _FILTER, _FILTER).reshape(216, 27).float()
_TILE, _WINDOW = 4, 6
# With fewer channels, moving data costs more than the multiplications that are saved; small maps move fast.
_MIN_CHANNELS, _MIN_CHANNELS_OF_SMALL = 64, 48
_SMALL_VOXELS, _MIN_VOXELS = 24**3, 16**3
# Rows of tiles that are transformed together; their 216 products stay in the cache.
_ROWS = 4


def is_cpu_inference(x: torch.Tensor) -> bool:
    """Return whether one item is computed on a CPU in float32, without gradients, and nothing is recorded for export.

    Args:
        x: Input. Shape (B, C, D, H, W).
    """
    return (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and len(x) == 1
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def is_faster(x: torch.Tensor, conv: nn.Conv3d) -> bool:
    """Return whether `winograd_conv3d` may stand in for a convolution, and gains by it.

    Args:
        x: Input, without what is upsampled. Shape (B, C, D, H, W).
        conv: Convolution 3x3x3 of stride 1 with a padding of one zero.
    """
    voxels = x.shape[2] * x.shape[3] * x.shape[4]
    return (
        is_cpu_inference(x)
        and voxels >= _MIN_VOXELS
        and min(conv.in_channels, conv.out_channels)
        >= (_MIN_CHANNELS_OF_SMALL if voxels <= _SMALL_VOXELS else _MIN_CHANNELS)
        and all(size % _TILE == 0 for size in x.shape[2:])
    )


def winograd_conv3d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, coarser: torch.Tensor | None = None
) -> torch.Tensor:
    """Convolve with a filter 3x3x3, padding 1, by minimal filtering in all three directions.

    Lavin and Gray, arXiv:1509.09308, section 4: F(4, 3) nested. Each tile of 4x4x4 outputs takes 216 products for a
    pair of channels instead of 1728. Upsampling and the transform of the input are both linear along each axis, so
    they are one product, and neither the upsampled features nor their concatenation are ever in memory. Differs from
    the direct sum by rounding: some 10^-5 of the outputs' deviation.

    Args:
        x: Input. Shape (1, C, D, H, W), float32, sizes multiples of 4; best with channels last in memory.
        weight: Filters. Shape (O, E + C, 3, 3, 3).
        bias: Bias. Shape (O,).
        coarser: Input that is upsampled by 2 (trilinear, corners not aligned) and comes before `x`. Shape
            (1, E, D / 2, H / 2, W / 2).

    Returns:
        Shape (1, O, D, H, W), channels last in memory.

    Raises:
        ValueError: If there are several items, a size is no multiple of 4, or `coarser` has another size.
    """
    if len(x) != 1 or any(size % _TILE for size in x.shape[2:]):
        raise ValueError(f"x must be one item with sizes that are multiples of {_TILE}, got shape {tuple(x.shape)}.")
    if coarser is not None and [2 * size for size in coarser.shape[2:]] != list(x.shape[2:]):
        raise ValueError(f"coarser must have half the size of x, got {tuple(coarser.shape)} for {tuple(x.shape)}.")
    depth, height, width = x.shape[2:]
    outputs = len(weight)
    filters = torch.mm(_CUBE_FILTER, weight.permute(2, 3, 4, 1, 0).reshape(27, -1)).view(_WINDOW**3, -1, outputs)
    num_coarser = 0 if coarser is None else coarser.shape[1]
    source = x[0].permute(1, 2, 3, 0)
    coarser_source = None if coarser is None else coarser[0].permute(1, 2, 3, 0)
    result = x.new_empty((depth, height, width, outputs))
    for front in range(depth // _TILE):
        for top in range(0, height // _TILE, _ROWS):
            rows = min(_ROWS, height // _TILE - top)
            products = torch.bmm(_transform_input(source, front, top, rows), filters[:, num_coarser:])
            if coarser_source is not None:
                upsampled = _transform_input(coarser_source, front, top, rows, upsample=True)
                products.baddbmm_(upsampled, filters[:, :num_coarser])
            tiles = torch.mm(_OUTPUT, products.view(_WINDOW, -1)).view(_TILE, _WINDOW, -1)
            tiles = torch.matmul(_OUTPUT, tiles).view(_TILE**2, _WINDOW, -1)
            tiles = torch.matmul(_OUTPUT, tiles).view(_TILE, _TILE, _TILE, rows, width // _TILE, outputs)
            block = result[_TILE * front : _TILE * (front + 1), _TILE * top : _TILE * (top + rows)]
            block.view(_TILE, rows, _TILE, width // _TILE, _TILE, outputs).copy_(tiles.permute(2, 3, 1, 4, 0, 5))
    if bias is not None:
        result += bias
    return result.permute(3, 0, 1, 2)[None]


def _transform_input(source: torch.Tensor, front: int, top: int, rows: int, upsample: bool = False) -> torch.Tensor:
    """Transformed windows of one layer of tiles, some rows of it. Shape (6 * 6 * 6, tiles, C), axes from last to first.

    The windows of neighbors overlap by two voxels, so each axis is cut into windows just before it is transformed, and
    comes first then: all three transforms are products with a matrix that has six long rows.
    """
    transform = _UPSAMPLED_INPUT if upsample else _INPUT
    window = transform.shape[1]
    step = window - 2
    depth, height, width, channels = source.shape
    row = (width + 2) * channels
    layer = (step * rows + 2) * row
    padded = _pad_block(source, (step * front - 1, step * top - 1), (window, step * rows + 2), repeat_edges=upsample)
    steps = [
        # windows, strides, whether the first and the last of them see the padding
        ((window, 1, 1, layer), (layer, 0, 0, 1), front == 0, step * (front + 1) == depth),
        ((window, _WINDOW, rows, row), (row, layer, step * row, 1), top == 0, step * (top + rows) == height),
        ((window, _WINDOW**2 * rows, width // step, channels), (channels, row, step * channels, 1), True, True),
    ]
    transformed = padded
    for shape, strides, first, last in steps:
        windows = transformed.as_strided(shape, strides).contiguous()
        transformed = torch.mm(transform, windows.view(window, -1)).view(_WINDOW, *shape[1:])
        if upsample and first:
            # the padding is zero, whereas upsampling repeats the edges
            transformed[0, :, 0] -= _INPUT[0, 0] * windows[1, :, 0]
        if upsample and last:
            transformed[-1, :, -1] -= _INPUT[-1, -1] * windows[-2, :, -1]
    return transformed.view(_WINDOW**3, -1, channels)


def _pad_block(source: torch.Tensor, start: tuple[int, int], size: tuple[int, int], repeat_edges: bool) -> torch.Tensor:
    """Some layers and rows of a source, one more column on each side; beyond it zeros or its edges.

    Args:
        source: Shape (d, h, w, C).
        start: First layer and first row, at least -1.
        size: Number of layers and rows.
        repeat_edges: Whether to repeat the edges, zeros otherwise.

    Returns:
        Shape (*size, w + 2, C).
    """
    starts, sizes = (*start, -1), (*size, source.shape[2] + 2)
    if repeat_edges:
        layers, rows, columns = (
            torch.arange(first, first + count).clamp(0, n - 1)
            for first, count, n in zip(starts, sizes, source.shape[:3], strict=True)
        )
        return source[layers[:, None, None], rows[:, None], columns]
    block = source.new_zeros((*sizes, source.shape[3]))
    ends = [(max(f, 0), min(f + c, n)) for f, c, n in zip(starts, sizes, source.shape[:3], strict=True)]
    (z0, z1), (y0, y1), (x0, x1) = ((low - f, high - f) for (low, high), f in zip(ends, starts, strict=True))
    block[z0:z1, y0:y1, x0:x1] = source[tuple(slice(low, high) for low, high in ends)]
    return block
