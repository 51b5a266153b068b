"""PCT-Net, the hybrid of convolutions and window attention that Volume Fusion was first published with."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import MLPBlock
from monai.networks.layers import DropPath
from torch import nn

from .dropout import Dropout
from .pyramid import (
    NUM_HEADS,
    NUM_LEVELS,
    Merge,
    PyramidNetwork,
    check_pyramid_arguments,
    conv3d,
    level_kernels,
    level_strides,
    preactivation,
)

WINDOW_SIZE = 6
# Attention heads of the three levels that have a transformer.
ATTENTION_HEADS = {2: 4, 3: 8, 4: 16}
# Added to the score of a token from another region; float16 holds it. The published -100 leaves weights near 1e-44,
# denormal numbers that make softmax and products several times slower on a CPU; here they are exactly zero.
MASKED_SCORE = -1e4
# Plans of so many different level sizes are kept; a sliding window needs one, whole volumes of many sizes more.
MAX_CACHED_PLANS = 16

NORM = "batch"
ACT = "prelu"


def relative_position_index(legacy: bool = True) -> torch.Tensor:
    """Return which row of the bias table each pair of tokens in a window reads.

    The published code multiplies the offset along D by 3w-1 and the one along H by 2w-1 (w = 6), where (2w-1)^2 and
    2w-1 would keep different offsets apart. So only 291 of 1331 rows are used and offsets share rows; weights trained
    so need the same index.

    Args:
        legacy: If True, the published index; if False, one row per offset.

    Returns:
        Row numbers. Shape (216, 216), int64, axis order (query, key); tokens in (D, H, W) order.
    """
    axis = torch.arange(WINDOW_SIZE)
    position = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    offset = position[:, None] - position[None, :] + WINDOW_SIZE - 1
    span = 2 * WINDOW_SIZE - 1
    factors = torch.tensor([3 * WINDOW_SIZE - 1 if legacy else span**2, span, 1])
    return (offset * factors).sum(-1)


def window_slots(
    depth: int, height: int, width: int, shift: int, device: torch.device, window_size: int = WINDOW_SIZE
) -> torch.Tensor:
    """Return where each voxel of a level stands once the level is padded, rolled and cut into windows.

    The level is padded at the far end to multiples of the window and rolled by `-shift` on each axis. This one index
    replaces padding, rolling, partition and their inverses.

    Args:
        depth: Voxels along D.
        height: Voxels along H.
        width: Voxels along W.
        shift: Roll in voxels.
        device: Device of the result.
        window_size: Window in voxels, w.

    Returns:
        Slot = window * w^3 + position in the window, windows and positions in (D, H, W) order.
        Shape (depth * height * width,), int64.
    """
    window = torch.zeros([1], dtype=torch.int64, device=device)
    inside = torch.zeros([1], dtype=torch.int64, device=device)
    for size in (depth, height, width):
        count = (size + window_size - 1) // window_size
        rolled = torch.remainder(torch.arange(size, device=device) - shift, count * window_size)
        window = (window[:, None] * count + torch.div(rolled, window_size, rounding_mode="floor")).flatten()
        inside = (inside[:, None] * window_size + torch.remainder(rolled, window_size)).flatten()
    return window * (window_size * window_size * window_size) + inside  # TorchScript makes a float of `**`


def shifted_window_mask(
    depth: int,
    height: int,
    width: int,
    device: torch.device,
    window_size: int = WINDOW_SIZE,
    masked_score: float = MASKED_SCORE,
) -> torch.Tensor:
    """Return what is added to the scores of shifted windows, so that only neighbors in the volume attend.

    The roll brings the near border behind the far one: the last window of each axis holds both, half a window each.

    Args:
        depth: Voxels along D, more than a window.
        height: Voxels along H, more than a window.
        width: Voxels along W, more than a window.
        device: Device of the result.
        window_size: Window in voxels, w, even; windows are shifted by w / 2.
        masked_score: What is added to the score of a pair from two regions.

    Returns:
        0 within a region and `masked_score` between two. Shape (windows, 1, w^3, w^3), float32.
    """
    region = torch.zeros([1, 1], dtype=torch.int64, device=device)
    wrapped = (torch.arange(window_size, device=device) >= window_size // 2).long()
    for size in (depth, height, width):
        count = (size + window_size - 1) // window_size
        last = (torch.arange(count, device=device) == count - 1).long()
        side = last[:, None] * wrapped
        # (windows so far, 1, positions so far, 1) x (1, windows of this axis, 1, positions of this axis)
        region = (region[:, None, :, None] * 2 + side[None, :, None, :]).flatten(0, 1).flatten(1)
    apart = region[:, :, None] != region[:, None, :]
    return apart.to(torch.float32).mul(masked_score).unsqueeze(1)


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows of 6x6x6 tokens, with a learned bias per relative position.

    Slots of a window that no token fills are zeros before the query, key and value projection and real keys after
    it, as published: their query, key and value are the projection's bias.

    Args:
        channels: Channels of a token.
        num_heads: Attention heads; divides `channels`.
        dropout: Dropout probability of the attention weights and of the result.
        legacy_rel_pos: See `relative_position_index`.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float, legacy_rel_pos: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_tokens = WINDOW_SIZE**3
        self.attention_dropout = Dropout(dropout)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.proj_dropout = Dropout(dropout)
        self.bias_table = nn.Parameter(torch.empty((2 * WINDOW_SIZE - 1) ** 3, num_heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.relative_index: torch.Tensor
        self.register_buffer("relative_index", relative_position_index(legacy_rel_pos).flatten(), persistent=False)

    def forward(
        self, tokens: torch.Tensor, slots: torch.Tensor, num_windows: int, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the attended tokens. Shape (B, L, C).

        Args:
            tokens: Normalized tokens of the whole level. Shape (B, L, C).
            slots: Slot of each token, see `window_slots`. Shape (L,), int64.
            num_windows: How many windows the slots are in.
            mask: Added to the scores, or None. Shape (num_windows, 1, 216, 216).
        """
        batch, _, channels = tokens.shape
        qkv = self.qkv(tokens)
        empty = self.qkv.bias.to(qkv.dtype).expand(batch, num_windows * self.window_tokens, 3 * channels)
        qkv = torch.index_copy(empty, 1, slots, qkv)
        qkv = qkv.view(batch * num_windows, self.window_tokens, 3, self.num_heads, channels // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias_table.index_select(0, self.relative_index).t().to(query.dtype)
        bias = bias.reshape(1, self.num_heads, self.window_tokens, self.window_tokens)
        if self.training and tokens.device.type == "cpu":
            attended = self.attend_by_softmax(query, key, value, bias, mask)
        else:
            if mask is not None:
                bias = (bias + mask.to(query.dtype)).repeat(batch, 1, 1, 1)
            dropout = self.attention_dropout.p if self.training else 0.0
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        attended = attended.transpose(1, 2).reshape(batch, num_windows * self.window_tokens, channels)
        return self.proj_dropout(self.proj(attended.index_select(1, slots)))

    def attend_by_softmax(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return softmax(Q K^T / sqrt(d) + bias + mask) V, with dropout of the weights.

        The same as PyTorch's fused attention, which on a CPU has no dropout and falls back to something that takes
        1.7 times as long. Shape of the result (B * windows, heads, 216, d).

        Args:
            query: Queries. Shape (B * windows, heads, 216, d).
            key: Keys, as `query`.
            value: Values, as `query`.
            bias: Bias of the relative position. Shape (1, heads, 216, 216).
            mask: Added to the scores, or None. Shape (windows, 1, 216, 216).
        """
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-2, -1)).add_(bias)
        if mask is not None:
            # A view for the batch axis, so that the mask is broadcast and not repeated.
            scores.view(-1, mask.shape[0], self.num_heads, mask.shape[2], mask.shape[3]).add_(mask)
        return torch.matmul(self.attention_dropout(scores.softmax(-1)), value)


class SwinBlock(nn.Module):
    """Pre-norm transformer block: window attention, then a perceptron, each added with stochastic depth.

    Args:
        channels: Channels of a token.
        num_heads: Attention heads.
        dropout: Dropout probability in attention and perceptron.
        drop_path: Probability of leaving out a whole branch.
        legacy_rel_pos: See `relative_position_index`.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float, drop_path: float, legacy_rel_pos: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, num_heads, dropout, legacy_rel_pos)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLPBlock(channels, 4 * channels, dropout_mode="swin")
        self.mlp.drop1 = self.mlp.drop2 = Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, tokens: torch.Tensor, slots: torch.Tensor, num_windows: int, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the transformed tokens. Shape (B, L, C); arguments as in `WindowAttention.forward`.

        Args:
            tokens: Tokens of the whole level. Shape (B, L, C).
            slots: Slot of each token. Shape (L,), int64.
            num_windows: How many windows the slots are in.
            mask: Added to the scores, or None. Shape (num_windows, 1, 216, 216).
        """
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens), slots, num_windows, mask))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class WindowTransformer(nn.Module):
    """Two Swin blocks on the voxels of a feature map, the second with windows shifted by half their size.

    Windows are 6x6x6 whatever the size. Where an axis has 6 voxels or fewer nothing is shifted, as published. (The
    published code also shrinks the window there, which changes the shape of its bias tables; where its tables have
    the shape of ours, the function is the same.)

    Args:
        channels: Channels of the feature map.
        num_heads: Attention heads.
        dropout: Dropout probability.
        drop_path: Probability of leaving out a branch.
        legacy_rel_pos: See `relative_position_index`.

    Note:
        Slots and mask depend on the size and device only. They are made once for each and kept outside of the state
        dict; up to 16 sizes are kept.
    """

    _plans: dict[str, list[torch.Tensor]]  # TorchScript needs the type of an empty dictionary in the class body

    def __init__(self, channels: int, num_heads: int, dropout: float, drop_path: float, legacy_rel_pos: bool) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.block = SwinBlock(channels, num_heads, dropout, drop_path, legacy_rel_pos)
        self.shifted_block = SwinBlock(channels, num_heads, dropout, drop_path, legacy_rel_pos)
        self._plans = {}
        self.window_size = WINDOW_SIZE
        self.max_plans = MAX_CACHED_PLANS

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the transformed feature map. Shape (B, C, D, H, W).

        Args:
            features: Feature map. Shape (B, C, D, H, W).
        """
        batch, channels, depth, height, width = features.shape
        plan = self.plan(depth, height, width, features.device)
        windows = 1
        for size in (depth, height, width):
            windows *= (size + self.window_size - 1) // self.window_size
        tokens = self.dropout(features.flatten(2).transpose(1, 2))
        tokens = self.block(tokens, plan[0], windows, None)
        tokens = self.shifted_block(tokens, plan[1], windows, plan[2] if len(plan) == 3 else None)
        return tokens.transpose(1, 2).reshape(batch, channels, depth, height, width)

    def plan(self, depth: int, height: int, width: int, device: torch.device) -> list[torch.Tensor]:
        """Return slots of the first block, slots of the second and, if the second is shifted, its mask.

        Args:
            depth: Voxels along D.
            height: Voxels along H.
            width: Voxels along W.
            device: Where the tensors are needed.
        """
        key = f"{depth}x{height}x{width}"
        if key in self._plans:
            cached = self._plans[key]
            if cached[0].device == device:
                return cached
        shift = self.window_size // 2 if min(depth, height, width) > self.window_size else 0
        plan = [window_slots(depth, height, width, 0, device), window_slots(depth, height, width, shift, device)]
        if shift > 0:
            plan.append(shifted_window_mask(depth, height, width, device))
        if not torch.jit.is_scripting() and torch.compiler.is_compiling():
            # What is traced holds no numbers and must not outlive the trace.
            return plan
        if len(self._plans) >= self.max_plans:
            self._plans.clear()
        self._plans[key] = plan
        return plan


class PCTBlock(nn.Module):
    """Sum of a convolution branch and a transformer branch on the same features.

    Args:
        conv: Convolution branch, keeps the shape.
        transformer: Transformer branch, keeps the shape; its residual connections carry the identity.
    """

    def __init__(self, conv: nn.Module, transformer: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.transformer = transformer

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the sum of the two branches. Shape (B, C, D, H, W).

        Args:
            features: Features. Shape (B, C, D, H, W).
        """
        return self.conv(features) + self.transformer(features)


class PCTNet(PyramidNetwork):
    """Pyramid of parallel convolution and transformer blocks.

    Wang et al., "MIS-FM: 3D Medical Image Segmentation using Foundation Models Pretrained on a Large-Scale
    Unannotated Dataset", 2023, arXiv:2306.16925. The two finest levels convolve only; at the three coarser ones two
    convolutions (pre-activation, batch normalization, PReLU) run beside two Swin blocks of 6x6x6 windows.
    `resolution_mode` levels at the top convolve and scale in-plane only, for thick slices.

    Differs from the authors' code: only the stem and head of the chosen resolution mode exist; no layer that is never
    used; any input size (see `PyramidNetwork` and `WindowTransformer`); masks made once a size; one tensor in eval
    mode. Total stride, axis order (D, H, W): 16x16x16, 8x16x16 and 4x16x16 in modes 0, 1 and 2.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the logits, i.e. classes with background.
        feature_channels: Channels of the five levels, finest first; those of levels 2, 3 and 4 are divisible by 4, 8
            and 16, the numbers of attention heads.
        resolution_mode: How many of the finest levels are convolved in-plane only: 0, 1 or 2. The published weights
            are used in mode 1.
        dropout: Dropout probability of the five levels, finest first.
        drop_path: Probability that a transformer branch is left out, the same in every block.
        deep_supervision: If True, training returns the logits of four scales.
        legacy_rel_pos: If True, the published relative position index, which the published weights need; if False,
            one table row per relative position.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 5,
        feature_channels: Sequence[int] = (24, 48, 128, 256, 512),
        resolution_mode: int = 1,
        dropout: Sequence[float] = (0.0, 0.0, 0.2, 0.2, 0.2),
        drop_path: float = 0.2,
        deep_supervision: bool = False,
        legacy_rel_pos: bool = True,
    ) -> None:
        check_pyramid_arguments("PCTNet", in_channels, out_channels, feature_channels, resolution_mode, dropout)
        width = list(feature_channels)
        for level, num_heads in ATTENTION_HEADS.items():
            if width[level] % num_heads:
                raise ValueError(
                    f"PCTNet: feature_channels[{level}] must be divisible by its {num_heads} attention heads, "
                    f"got {width[level]}."
                )
        if not 0.0 <= drop_path < 1.0:
            raise ValueError(f"PCTNet: drop_path must be a probability in [0, 1), got {drop_path}.")
        kernels = level_kernels(resolution_mode)
        strides = level_strides(resolution_mode)

        def conv_level(level: int) -> nn.Sequential:
            channels, kernel = width[level], kernels[level]
            return nn.Sequential(
                nn.Sequential(preactivation(conv3d(channels, channels, kernel), channels, NORM, ACT)),
                nn.Sequential(preactivation(conv3d(channels, channels, kernel), channels, NORM, ACT, dropout[level])),
            )

        def pct_level(level: int) -> PCTBlock:
            transformer = WindowTransformer(
                width[level], ATTENTION_HEADS[level], dropout[level], drop_path, legacy_rel_pos
            )
            return PCTBlock(conv_level(level), transformer)

        def level_block(level: int) -> nn.Module:
            return pct_level(level) if level in ATTENTION_HEADS else conv_level(level)

        def down(level: int) -> nn.Sequential:
            conv = conv3d(width[level], width[level + 1], kernels[level + 1])
            pool = nn.MaxPool3d(strides[level])
            return nn.Sequential(OrderedDict(pool=pool, **preactivation(conv, width[level], NORM, ACT)))

        def up(level: int) -> Merge:
            stride = strides[level]
            upsample = nn.ConvTranspose3d(width[level + 1], width[level], kernel_size=stride, stride=stride)
            merge = conv3d(2 * width[level], width[level], kernels[level])
            return Merge(
                nn.Sequential(preactivation(upsample, width[level + 1], NORM, ACT)),
                nn.Sequential(preactivation(merge, 2 * width[level], NORM, ACT)),
            )

        def head(level: int) -> nn.Sequential:
            return nn.Sequential(preactivation(conv3d(width[level], out_channels, (1, 1, 1)), width[level], NORM, ACT))

        super().__init__(
            project=conv3d(in_channels, width[0], kernels[0]),
            encoder=[level_block(level) for level in range(NUM_LEVELS)],
            down=[down(level) for level in range(NUM_LEVELS - 1)],
            # The coarsest level has one block, counted to the encoder.
            decoder=[*(level_block(level) for level in range(NUM_LEVELS - 1)), nn.Identity()],
            up=[up(level) for level in range(NUM_LEVELS - 1)],
            heads=[head(level) for level in range(NUM_HEADS)],
            strides=strides,
            deep_supervision=deep_supervision,
        )
