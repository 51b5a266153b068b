"""Volume Fusion: a pretext task that makes segmentation labels out of unlabelled volumes.

Two augmented sub-volumes are mixed region by region with a few discrete weights; the network segments the regions by
the weight with which they were mixed (Wang et al., 2023, arXiv:2306.16925; block-wise regions: Wang et al., IEEE TIP
2025, doi:10.1109/TIP.2025.3610249).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import Randomizable

from ..seeding import derive_seed

VARIANTS = ("blocks", "patches")
AUGMENTATIONS = ("none", "intensity", "spatial", "both")

# A piece of the contrast curve narrower than this share of the intensity range is taken as empty: its slope would
# magnify the rounding of float32 to visible size.
_NARROWEST_PIECE = 1e-4
# Resizing a constant leaves this much of its value as noise, at the most; it must not pass for contrast.
_ROUNDING = 1e-5
# The logarithm of 0 runs more than ten times slower than that of other numbers; no power in use tells this from 0.
_BLACK = 1e-20
# On a CPU the product with a banded matrix goes through bands of so many columns.
_CPU_BAND_COLUMNS = 32


@dataclass(frozen=True)
class CropPlan:
    """How one sub-volume is cut and augmented.

    Attributes:
        start: First voxel per axis, order (D, H, W).
        size: Voxels per axis before resizing, order (D, H, W).
        flips: Whether each axis (D, H, W) is flipped after resizing.
        percentiles: The two percentiles in [0, 100] that the contrast curve maps to 0.1 and 0.9.
        gamma: Exponent of the gamma curve.
    """

    start: tuple[int, int, int]
    size: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    percentiles: tuple[float, float]
    gamma: float


@dataclass(frozen=True)
class BlockRegions:
    """Fusion classes on one regular grid of blocks (variant `blocks`).

    Attributes:
        block_size: Voxels of a block, order (D, H, W).
        offset: First voxel of the grid, order (D, H, W).
        classes: Class of each block, 0 where it stays background. Shape (n_D, n_H, n_W), uint8.
    """

    block_size: tuple[int, int, int]
    offset: tuple[int, int, int]
    classes: np.ndarray


@dataclass(frozen=True)
class BoxRegions:
    """Fusion classes of boxes that are drawn one over another (variant `patches`).

    Attributes:
        starts: First voxel of each box, clipped at the border. Shape (M, 3), order (D, H, W).
        stops: One past the last voxel of each box, clipped. Shape (M, 3).
        classes: Class of each box, at least 1. Shape (M,).
    """

    starts: np.ndarray
    stops: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class SamplePlan:
    """Everything that is random in one fused sample.

    Attributes:
        crops: Background crop, and for `blocks` the foreground crop of the same volume.
        invert: Whether the intensities of the pair are inverted.
        regions: Where which class is painted.
    """

    crops: tuple[CropPlan, ...]
    invert: bool
    regions: BlockRegions | BoxRegions


class VolumeFusion(Randomizable):
    """Turn a batch of unlabelled volumes into fused volumes and their label maps.

    With classes `Y` in {0..K} and weights `alpha = Y / K`, the fused volume is
    `alpha * foreground + (1 - alpha) * background` (arXiv:2306.16925). The crops are taken, resized,
    augmented and fused where the volumes lie, so a GPU does the work when the volumes are on it.

    Two published ways of choosing pair and regions stand behind `variant`:

    - `blocks` (IEEE TIP 2025, and the authors' public configurations): the pair are two crops of one volume; the
      regions are the cells of one regular grid, of which exactly `floor(foreground_ratio * cells)` get a class.
    - `patches` (arXiv 2023): the foreground of a sample is the crop of the next sample in the batch; the regions are
      boxes at random places, later ones over earlier ones.

    Differences from the authors' code, all measured in the tests: percentiles are estimated from `percentile_voxels`
    evenly spread voxels instead of all (rank error about 0.05 %, of a drawn range of 1.9 %); a crop without contrast
    gives zeros instead of NaN; gamma acts on values rescaled to [0, 1] whatever pieces of the contrast curve are
    empty.

    Args:
        roi_size: Size of the fused volume, order (D, H, W).
        num_classes: Output classes K + 1, background included.
        variant: `blocks` or `patches`.
        augmentation: `none`, `intensity`, `spatial` or `both`; without `spatial` the crops have `roi_size` and are
            not flipped.
        scale_range: Crop size per axis as a multiple of `roi_size`; a crop never exceeds its volume.
        flip_prob: Probability of a flip, per axis.
        low_percentile_range: Percentile that the contrast curve maps to 0.1.
        high_percentile_range: Percentile that the contrast curve maps to 0.9.
        gamma_range: Exponent of the gamma curve.
        invert_prob: Probability that the pair is inverted (`1 - x`).
        foreground_ratio: Share of the blocks that get a class (`blocks`).
        block_size_min: Smallest block, order (D, H, W) (`blocks`).
        block_size_max: Largest block, inclusive (`blocks`).
        num_boxes_range: Smallest and largest number of boxes, inclusive (`patches`).
        box_size_min: Smallest box, order (D, H, W) (`patches`).
        box_size_max: Largest box, inclusive; None takes the paper's 0.625 of `roi_size` (`patches`).
        percentile_voxels: Voxels from which percentiles are estimated; None takes all.
        seed: Seed of the generator; None draws one from the operating system.

    Raises:
        ValueError: If an argument is outside its range; the message shows it.

    Note:
        The generator's state is the only state; `set_epoch` sets it by `seed` and the epoch alone.
    """

    def __init__(
        self,
        roi_size: Sequence[int] = (64, 128, 128),
        num_classes: int = 5,
        variant: str = "blocks",
        augmentation: str = "both",
        scale_range: Sequence[float] = (0.7, 1.5),
        flip_prob: float = 0.5,
        low_percentile_range: Sequence[float] = (0.1, 2.0),
        high_percentile_range: Sequence[float] = (98.0, 99.9),
        gamma_range: Sequence[float] = (0.7, 1.5),
        invert_prob: float = 0.25,
        foreground_ratio: float = 0.7,
        block_size_min: Sequence[int] = (5, 8, 8),
        block_size_max: Sequence[int] = (20, 32, 32),
        num_boxes_range: Sequence[int] = (10, 40),
        box_size_min: Sequence[int] = (8, 8, 8),
        box_size_max: Sequence[int] | None = None,
        percentile_voxels: int | None = 32768,
        seed: int | None = None,
    ) -> None:
        self.roi_size = _as_voxels("roi_size", roi_size)
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
        if augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {augmentation!r}.")
        if not 2 <= num_classes <= 256:
            raise ValueError(f"num_classes must be from 2 (background and one class) to 256, got {num_classes}.")
        for name, value in (
            ("flip_prob", flip_prob),
            ("invert_prob", invert_prob),
            ("foreground_ratio", foreground_ratio),
        ):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {value}.")
        if percentile_voxels is not None and percentile_voxels < 100:
            raise ValueError(f"percentile_voxels must be None or at least 100, got {percentile_voxels}.")
        self.num_classes = num_classes
        self.variant = variant
        self.spatial = augmentation in ("spatial", "both")
        self.intensity = augmentation in ("intensity", "both")
        self.scale_range = _as_range("scale_range", scale_range, low=0.0)
        self.low_percentile_range = _as_range("low_percentile_range", low_percentile_range, 0.0, 50.0)
        self.high_percentile_range = _as_range("high_percentile_range", high_percentile_range, 50.0, 100.0)
        self.gamma_range = _as_range("gamma_range", gamma_range, low=0.0)
        self.flip_prob = flip_prob
        self.invert_prob = invert_prob
        self.foreground_ratio = foreground_ratio
        self.block_size = self._as_size_range("block_size", block_size_min, block_size_max)
        if box_size_max is None:
            box_size_max = [max(int(0.625 * n), m) for n, m in zip(self.roi_size, box_size_min, strict=True)]
        self.box_size = self._as_size_range("box_size", box_size_min, box_size_max, may_exceed=variant == "blocks")
        low, high = _as_range("num_boxes_range", num_boxes_range, low=1.0)
        self.num_boxes_range = (int(low), int(high))
        self.percentile_voxels = percentile_voxels
        if variant == "patches":
            self.block_size = self._as_size_range("block_size", block_size_min, block_size_max, may_exceed=True)
        self.set_random_state(seed=seed)
        self.seed = int(self.R.randint(1 << 31)) if seed is None else seed

    def _as_size_range(
        self, name: str, smallest: Sequence[int], largest: Sequence[int], may_exceed: bool = False
    ) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        low, high = _as_voxels(f"{name}_min", smallest), _as_voxels(f"{name}_max", largest)
        if any(a > b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"{name}_min must not exceed {name}_max on any axis, got {low} and {high}.")
        if not may_exceed and any(b > n for b, n in zip(high, self.roi_size, strict=True)):
            raise ValueError(f"{name}_max must fit into roi_size {self.roi_size} on every axis, got {high}.")
        return low, high

    def set_epoch(self, epoch: int) -> None:
        """Draw from now on what belongs to this epoch."""
        self.set_random_state(seed=derive_seed("volume fusion", self.seed, epoch))

    def randomize(self, data: Sequence[Sequence[int]]) -> list[SamplePlan]:
        """Draw everything random for one batch.

        Args:
            data: Spatial size (D, H, W) of each volume in the batch.

        Returns:
            One plan for each volume.
        """
        crops = 2 if self.variant == "blocks" else 1
        return [
            SamplePlan(
                crops=tuple(self._draw_crop(size) for _ in range(crops)),
                invert=bool(self.intensity and self.R.uniform() < self.invert_prob),
                regions=self._draw_blocks() if self.variant == "blocks" else self._draw_boxes(),
            )
            for size in data
        ]

    def _draw_crop(self, volume_size: Sequence[int]) -> CropPlan:
        scale = self.R.uniform(*self.scale_range, size=3) if self.spatial else np.ones(3)
        size = [max(1, min(int(s * n), m)) for s, n, m in zip(scale, self.roi_size, volume_size, strict=True)]
        start = [int(self.R.randint(0, m - c + 1)) for c, m in zip(size, volume_size, strict=True)]
        flips = self.R.uniform(size=3) < (self.flip_prob if self.spatial else 0.0)
        return CropPlan(
            start=_triple(start),
            size=_triple(size),
            flips=(bool(flips[0]), bool(flips[1]), bool(flips[2])),
            percentiles=(self.R.uniform(*self.low_percentile_range), self.R.uniform(*self.high_percentile_range)),
            gamma=self.R.uniform(*self.gamma_range),
        )

    def _draw_blocks(self) -> BlockRegions:
        block = [int(self.R.randint(low, high + 1)) for low, high in zip(*self.block_size, strict=True)]
        cells = [n // b for n, b in zip(self.roi_size, block, strict=True)]
        offset = [int(self.R.randint(0, n % b + 1)) for n, b in zip(self.roi_size, block, strict=True)]
        classes = np.zeros(int(np.prod(cells)), dtype=np.uint8)
        chosen = self.R.permutation(classes.size)[: int(self.foreground_ratio * classes.size)]
        classes[chosen] = self.R.randint(1, self.num_classes, size=chosen.size)
        return BlockRegions(_triple(block), _triple(offset), classes.reshape(cells))

    def _draw_boxes(self) -> BoxRegions:
        count = int(self.R.randint(self.num_boxes_range[0], self.num_boxes_range[1] + 1))
        low, high = np.asarray(self.box_size)
        sizes = self.R.randint(low, high + 1, size=(count, 3))
        centers = self.R.randint(0, self.roi_size, size=(count, 3))
        starts = centers - sizes // 2
        return BoxRegions(
            starts=np.maximum(starts, 0),
            stops=np.minimum(starts + sizes, self.roi_size),
            classes=self.R.randint(1, self.num_classes, size=count).astype(np.uint8),
        )

    def __call__(self, volumes: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Fuse a batch.

        Args:
            volumes: Unlabelled volumes, each of shape (1, D, H, W), floating point, all on one device; sizes may
                differ. A tensor of shape (B, 1, D, H, W) serves as well.

        Returns:
            Fused volumes, shape (B, 1, *roi_size), float32 in [0, 1] (in the volumes' own range without intensity
            augmentation), and fusion classes, shape (B, 1, *roi_size), uint8 in [0, num_classes).

        Raises:
            ValueError: If a volume is not of shape (1, D, H, W), or `patches` gets fewer than two volumes.
        """
        for index, volume in enumerate(volumes):
            if volume.ndim != 4 or volume.shape[0] != 1 or 0 in volume.shape:
                raise ValueError(
                    f"volumes[{index}] must have one channel and three spatial axes, shape (1, D, H, W) without an "
                    f"empty axis, got {tuple(volume.shape)}."
                )
        if self.variant == "patches" and len(volumes) < 2:
            raise ValueError(
                f"variant 'patches' fuses each sample with the next of its batch and needs at least 2, got "
                f"{len(volumes)}; raise batch_size, or choose variant 'blocks'."
            )
        return self.apply(volumes, self.randomize([volume.shape[1:] for volume in volumes]))

    @torch.no_grad()
    def apply(self, volumes: Sequence[torch.Tensor], plans: Sequence[SamplePlan]) -> tuple[torch.Tensor, torch.Tensor]:
        """Carry out what `randomize` drew; arguments and results as in `__call__`."""
        crops = [self._cut(volume[0], crop) for volume, plan in zip(volumes, plans, strict=True) for crop in plan.crops]
        if self.intensity:
            drawn = [crop for plan in plans for crop in plan.crops]
            adjust_contrast_(crops, [c.percentiles for c in drawn], [c.gamma for c in drawn], self.percentile_voxels)
        if self.variant == "blocks":
            backgrounds, foregrounds = crops[0::2], crops[1::2]
        else:
            backgrounds, foregrounds = crops, [*crops[1:], crops[0]]
        fused = torch.empty((len(plans), 1, *self.roi_size), dtype=torch.float32, device=crops[0].device)
        label = torch.empty(fused.shape, dtype=torch.uint8, device=fused.device)
        classes = torch.arange(self.num_classes, dtype=torch.uint8)
        weights = classes.to(torch.float32) / (self.num_classes - 1)
        for index, plan in enumerate(plans):
            label[index, 0] = paint_regions(plan.regions, classes, self.roi_size, fused.device)
            alpha = paint_regions(plan.regions, weights, self.roi_size, fused.device)
            mixed = torch.sub(foregrounds[index], backgrounds[index], out=fused[index, 0])
            mixed.mul_(alpha).add_(backgrounds[index])
            if plan.invert:  # the same as inverting both crops: the weights of a voxel sum to one
                mixed.neg_().add_(1.0)
        return fused, label

    def _cut(self, volume: torch.Tensor, plan: CropPlan) -> torch.Tensor:
        window = tuple(slice(a, a + n) for a, n in zip(plan.start, plan.size, strict=True))
        # flipping copies the window anyway, and commutes with a resize whose end points are aligned
        crop = torch.flip(volume[window], [axis for axis, flip in enumerate(plan.flips) if flip])
        return resize_trilinear(crop.to(torch.float32), self.roi_size)


def resize_trilinear(volume: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize with trilinear interpolation, the end points of the grids aligned.

    The same values as `torch.nn.functional.interpolate(..., mode="trilinear", align_corners=True)`, in less CPU time
    (`tests/benchmarks/bench_fusion.py`): the last axis serves as the channels of a channels-last bilinear resize over
    (D, H), which runs over contiguous memory, and is then resized by a product with a banded matrix of two entries a
    column.

    Args:
        volume: Shape (D, H, W), floating point.
        size: Size of the result, order (D, H, W).

    Returns:
        Shape `size`, contiguous.
    """
    depth, height, width = size
    # the batch axis is added first: torch recognizes the channels-last layout by its strides
    channels_last = volume.contiguous().unsqueeze(0).permute(0, 3, 1, 2)
    planes = F.interpolate(channels_last, size=(depth, height), mode="bilinear", align_corners=True)
    rows = planes[0].permute(1, 2, 0).reshape(depth * height, -1)
    num_in = rows.shape[1]
    step = (num_in - 1) / (width - 1) if width > 1 else 0.0
    position = torch.arange(width, dtype=torch.float64, device=rows.device) * step
    nodes = torch.arange(num_in, dtype=torch.float64, device=rows.device)
    weights = (1.0 - (position[None, :] - nodes[:, None]).abs()).clamp_(min=0.0).to(rows.dtype)
    resized = rows.new_empty(depth * height, width)
    band = _CPU_BAND_COLUMNS if rows.device.type == "cpu" else width
    for first in range(0, width, band):
        last = min(first + band, width)
        taps = slice(int(first * step), int((last - 1) * step) + 2)
        torch.mm(rows[:, taps], weights[taps, first:last], out=resized[:, first:last])
    return resized.view(depth, height, width)


def adjust_contrast_(
    volumes: Sequence[torch.Tensor],
    percentiles: Sequence[tuple[float, float]],
    gammas: Sequence[float],
    percentile_voxels: int | None = None,
) -> None:
    """Map intensities to [0, 1], in place, by a curve of three straight pieces through two percentiles, and a power.

    The smallest value goes to 0, the lower percentile to 0.1, the upper one to 0.9 and the largest value to 1; the
    result is rescaled to [0, 1] where the first or the last piece is empty (often so in CT, clipped at air), and
    raised to `gamma`.

    Args:
        volumes: Volumes of any shape, float32, finite, changed in place. 0 is reached up to 1e-14; a volume whose
            percentiles coincide, as in a constant one, becomes 0.
        percentiles: Lower and upper percentile in [0, 100], for each volume.
        gammas: Exponent above 0, for each volume.
        percentile_voxels: Voxels from which the percentiles are estimated, evenly spread; None takes all.
    """
    knots = []
    for volume, pair in zip(volumes, percentiles, strict=True):
        lowest, highest = torch.aminmax(volume)
        knots.append(torch.stack([lowest, *_percentiles(volume, pair, percentile_voxels), highest]))
    # one transfer for the whole batch: with plain numbers the curve is a few passes in place
    for volume, (lowest, low, high, highest), gamma in zip(volumes, torch.stack(knots).tolist(), gammas, strict=True):
        narrowest = max(_NARROWEST_PIECE * (highest - lowest), _ROUNDING * max(abs(lowest), abs(highest)))
        if high - low <= narrowest:
            volume.zero_()
            continue
        slope, start, end = 0.8 / (high - low), 0.1, 0.9
        volume.sub_(low)
        if low - lowest > narrowest:
            start = 0.0
            F.leaky_relu_(volume, 0.1 / (low - lowest) / slope)
        volume.sub_(high - low)
        if highest - high > narrowest:
            end = 1.0
            last_slope = 0.1 / (highest - high)
            F.leaky_relu_(volume, slope / last_slope)
            slope = last_slope
        volume.mul_(slope / (end - start)).add_((0.9 - start) / (end - start))
        # exp(gamma * log(y)) takes a third of the CPU time of pow(y, gamma)
        volume.clamp_(_BLACK, 1.0).log_().mul_(gamma).exp_()


def _percentiles(
    volume: torch.Tensor, percentiles: tuple[float, float], num_voxels: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower and upper percentile, by partial sorting of a sample; no value leaves the device."""
    values = volume.reshape(-1)
    if num_voxels is not None:
        # an odd stride has no factor in common with the usual row lengths, so it visits all columns
        values = values[:: max(1, values.numel() // num_voxels) | 1]
    last = values.numel() - 1

    def at(rank: float, largest: bool) -> torch.Tensor:
        first = min(int(rank), last)
        sorted_values = torch.topk(values, min(first + 2, last + 1), largest=largest).values
        return torch.lerp(sorted_values[first], sorted_values[min(first + 1, last)], rank - first)

    return at(percentiles[0] / 100.0 * last, False), at((1.0 - percentiles[1] / 100.0) * last, True)


def paint_regions(
    regions: BlockRegions | BoxRegions,
    values: torch.Tensor,
    roi_size: Sequence[int],
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Draw the regions of one sample.

    Args:
        regions: Blocks or boxes with their classes.
        values: What stands for class 0, 1, ... in the drawing. Shape (num_classes,), on the CPU.
        roi_size: Size of the drawing, order (D, H, W).
        device: Where to draw.

    Returns:
        Shape `roi_size`, of the type of `values`.
    """
    painted = values[torch.from_numpy(regions.classes).long()]
    if isinstance(regions, BoxRegions):
        drawing = torch.full(tuple(roi_size), values[0].item(), dtype=values.dtype, device=device)
        for start, stop, value in zip(regions.starts.tolist(), regions.stops.tolist(), painted.tolist(), strict=True):
            drawing[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]] = value
        return drawing
    # a border of class 0 behind the last block of each axis is what voxels outside of the grid look up
    drawing = F.pad(painted, (0, 1, 0, 1, 0, 1), value=values[0].item()).to(device)
    for axis in (2, 1, 0):
        cells = regions.classes.shape[axis]
        voxel = torch.arange(roi_size[axis], device=device) - regions.offset[axis]
        cell = torch.div(voxel, regions.block_size[axis], rounding_mode="floor")
        drawing = drawing.index_select(axis, torch.where((cell < 0) | (cell >= cells), cells, cell))
    return drawing


def _as_voxels(name: str, size: Sequence[int]) -> tuple[int, int, int]:
    if len(size) != 3 or any(int(n) != n or n < 1 for n in size):
        raise ValueError(f"{name} must be three positive whole numbers, order (D, H, W), got {list(size)}.")
    return _triple(size)


def _as_range(name: str, bounds: Sequence[float], low: float = 0.0, high: float = np.inf) -> tuple[float, float]:
    if len(bounds) != 2 or not low <= bounds[0] <= bounds[1] <= high:
        raise ValueError(f"{name} must be two ascending numbers in [{low}, {high}], got {list(bounds)}.")
    return float(bounds[0]), float(bounds[1])


def _triple(values: Sequence[int]) -> tuple[int, int, int]:
    depth, height, width = (int(v) for v in values)
    return depth, height, width
