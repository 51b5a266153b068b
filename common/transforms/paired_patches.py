"""Two patches of a scan and a deformed copy of each, with the place in the scan that every voxel comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..seeding import derive_seed

__all__ = ["PairedPatches", "crop_padded"]

SPLINE_DEGREE = 3


def crop_padded(volume: torch.Tensor, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """Cut a box out of a volume, with zeros where it reaches outside.

    Args:
        volume: Volume. Shape (C, D, H, W).
        start: First voxel per axis; may be negative or behind the end.
        size: Size of the box per axis.

    Returns:
        The box. Shape (C, *size), a copy.
    """
    box = volume.new_zeros((volume.shape[0], *size))
    bounds = [
        (max(0, -first), min(length, extent - first))
        for first, length, extent in zip(start, size, volume.shape[1:], strict=True)
    ]
    if all(low < high for low, high in bounds):
        target = [slice(low, high) for low, high in bounds]
        source = [slice(first + low, first + high) for first, (low, high) in zip(start, bounds, strict=True)]
        box[:, target[0], target[1], target[2]] = volume[:, source[0], source[1], source[2]]
    return box


class PairedPatches:
    """Draw the training pairs of MedLAM on the device that the scans are on.

    MedLSAM (arXiv:2306.14752) and its code: from each scan two centers are drawn, neither in air if it can be helped.
    An original patch is cut at up to `jitter` voxels from each center; a copy around the center itself is deformed
    (scale and rotation, elastic) and gets another tone and noise, each with probability `prob`. Points for the
    similarity loss are drawn in the original patches.

    Differs from the authors' code, which resamples a crop once for each deformation and carries coordinates through the
    same interpolation: here all deformations are one map, whose image is sampled once, from the whole scan, so that no
    corner is cut off, and whose coordinates are the sampling positions themselves, exact. Tone and noise follow the
    deformation, so that noise is not smoothed by it.

    Args:
        patch_size: Size of a patch in voxels.
        spacing_mm: Voxel size of the scans in mm per axis.
        jitter: How far in voxels the original patch may be from its center, per axis and direction.
        num_points: Points of the similarity loss per patch.
        prob: Probability of each kind of change of a copy.
        tone_ranges: Where the thresholds of the tone curve, a mean of sigmoids, are drawn.
        tone_slope: Slope of these sigmoids.
        noise_std: Upper bound of the standard deviation of the noise.
        scale_range: Range of the scale per axis.
        rotation_range_deg: Bound of the rotation around each axis in degrees.
        num_control_points: Control points per axis of the elastic deformation, a cubic B-spline.
        max_displacement: Bound of the displacement of a control point in voxels.
        air_threshold: What is below counts as air.
        max_tries: How many centers, and how many points, may be rejected for being in air.
        num_position_patches: How many more original patches are cut from each scan, for the regression alone; 0 as
            published.
        seed: Seed of the generator.

    Raises:
        ValueError: If an argument is outside its range.

    Note:
        The generator's state is the only state; `set_epoch` sets it by `seed` and the epoch alone.
    """

    def __init__(
        self,
        patch_size: Sequence[int] = (64, 64, 64),
        spacing_mm: Sequence[float] = (3.0, 3.0, 3.0),
        jitter: int = 8,
        num_points: int = 20,
        prob: float = 0.5,
        tone_ranges: Sequence[Sequence[float]] = ((0.2, 0.4), (0.4, 0.6), (0.6, 0.8)),
        tone_slope: float = 10.0,
        noise_std: float = 0.2,
        scale_range: Sequence[float] = (0.9, 1.1),
        rotation_range_deg: float = 15.0,
        num_control_points: int = 5,
        max_displacement: float = 3.0,
        air_threshold: float = 0.001,
        max_tries: int = 20,
        num_position_patches: int = 0,
        seed: int = 0,
    ) -> None:
        if len(patch_size) != 3 or min(patch_size) < 1 or len(spacing_mm) != 3 or min(spacing_mm) <= 0:
            raise ValueError(
                f"patch_size and spacing_mm must have three positive values, got {patch_size}, {spacing_mm}."
            )
        if not 0.0 <= prob <= 1.0:
            raise ValueError(f"prob must lie in [0, 1], got {prob}.")
        if min(jitter, max_tries, num_position_patches) < 0 or num_points < 1:
            raise ValueError(
                f"Counts must not be negative, and num_points at least 1, got {jitter=}, {num_points=}, {max_tries=}, "
                f"{num_position_patches=}."
            )
        if num_control_points <= SPLINE_DEGREE:
            raise ValueError(f"num_control_points must be above {SPLINE_DEGREE}, got {num_control_points}.")
        self.patch_size = tuple(int(n) for n in patch_size)
        self.spacing_mm = torch.tensor([float(s) for s in spacing_mm])
        self.jitter = jitter
        self.num_points = num_points
        self.prob = prob
        self.tone_ranges = torch.tensor(tone_ranges, dtype=torch.float32)
        self.tone_slope = tone_slope
        self.noise_std = noise_std
        self.scale_range = (float(scale_range[0]), float(scale_range[1]))
        self.rotation_range_deg = rotation_range_deg
        self.num_control_points = num_control_points
        self.max_displacement = max_displacement
        self.air_threshold = air_threshold
        self.max_tries = max_tries
        self.num_position_patches = num_position_patches
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        half = torch.tensor([n // 2 for n in self.patch_size])
        axes = [torch.arange(n, dtype=torch.float32) for n in self.patch_size]
        # Voxels of a patch relative to its center, the voxel behind its middle. Shape (*patch_size, 3).
        self.offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) - half
        self.half = half
        self.bases = [_spline_basis(n, num_control_points) for n in self.patch_size]

    def set_epoch(self, epoch: int) -> None:
        """Draw from now on what belongs to this epoch."""
        self.generator.manual_seed(derive_seed("paired patches", self.seed, epoch))

    def __call__(self, volumes: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Draw one pair from each scan.

        Args:
            volumes: Scans of shape (1, D, H, W), in [0, 1] with air 0, on one device; sizes may differ.

        Returns:
            Patches of shape (4 + E, B, 1, *patch_size), float32: original 0 and 1, deformed copy 0 and 1, and
            E = `num_position_patches` more originals. And `center_mm`, where the center of each patch is in its scan,
            (4 + E, B, 3); `points`, voxels in original 0 and 1, (2, N, 3), int64; `points_mm`, the same in the scan,
            (2, B, N, 3); `coordinates_mm`, where each voxel of the copies comes from, (2, B, 3, *patch_size). All in
            the order of the spatial axes, on the scans' device.

        Raises:
            ValueError: If there is no scan, or one has another shape than (1, D, H, W).
        """
        if not volumes or any(volume.ndim != 4 or volume.shape[0] != 1 for volume in volumes):
            raise ValueError(
                f"volumes must be scans of shape (1, D, H, W), at least one, got {[tuple(v.shape) for v in volumes]}."
            )
        device = volumes[0].device
        originals, copies, starts, coordinates_mm = [], [], [], []
        more, more_starts = [], []
        for volume in volumes:
            centers = torch.stack([self._draw_center(volume) for _ in range(2)])
            start = centers - self.half + self._integers(-self.jitter, self.jitter, (2, 3))
            originals.append(torch.stack([crop_padded(volume, s.tolist(), self.patch_size) for s in start]))
            positions = torch.stack([self._draw_map(center) for center in centers]).to(device)
            copies.append(self._change_values(_sample(volume, positions)))
            coordinates_mm.append((positions * self.spacing_mm.to(device)).movedim(-1, 1))
            starts.append(start)
            for _ in range(self.num_position_patches):
                more_starts.append(self._draw_center(volume) - self.half)
                more.append(crop_padded(volume, more_starts[-1].tolist(), self.patch_size))
        original = torch.stack(originals, dim=1).float()
        start = torch.stack(starts, dim=1)
        points = torch.stack([self._draw_points(patch) for patch in original])
        coordinates = torch.stack(coordinates_mm, dim=1)
        middle = coordinates[:, :, :, self.half[0], self.half[1], self.half[2]]
        center_mm = [(start + self.half) * self.spacing_mm, middle.cpu()]
        patches = [original, torch.stack(copies, dim=1)]
        if more:
            shape = (len(volumes), self.num_position_patches)
            patches.append(torch.stack(more).float().unflatten(0, shape).transpose(0, 1))
            center_mm.append(
                (torch.stack(more_starts).unflatten(0, shape).transpose(0, 1) + self.half) * self.spacing_mm
            )
        target = {
            "center_mm": torch.cat(center_mm),
            "points": points,
            "points_mm": (start[:, :, None] + points[:, None]) * self.spacing_mm,
            "coordinates_mm": coordinates,
        }
        return torch.cat(patches), {k: v.to(device) for k, v in target.items()}

    def _uniform(self, low: float, high: float, shape: Sequence[int]) -> torch.Tensor:
        return low + (high - low) * torch.rand(tuple(shape), generator=self.generator)

    def _integers(self, low: int, high: int, shape: Sequence[int]) -> torch.Tensor:
        return torch.randint(low, high + 1, tuple(shape), generator=self.generator)

    def _draw_center(self, volume: torch.Tensor) -> torch.Tensor:
        """A voxel that is not in air; any voxel where `max_tries` more are in air."""
        size = torch.tensor(volume.shape[1:])
        draws = (torch.rand((1 + self.max_tries, 3), generator=self.generator) * size).long()
        depth, height, width = draws.to(volume.device).unbind(1)
        values = volume[0, depth, height, width].cpu()
        return draws[_first_true(values >= self.air_threshold, len(draws) - 1)]

    def _draw_points(self, patches: torch.Tensor) -> torch.Tensor:
        """Voxels that lie in tissue in half of the batch or more, as far as `max_tries` more draws reach."""
        draws = (torch.rand((self.num_points + self.max_tries, 3), generator=self.generator) * (2 * self.half)).long()
        depth, height, width = draws.to(patches.device).unbind(1)
        values = patches[:, 0, depth, height, width].cpu()
        in_tissue = (values >= self.air_threshold).float().mean(dim=0) >= 0.5
        order = torch.argsort((~in_tissue).to(torch.uint8), stable=True)
        return draws[order[: self.num_points]]

    def _draw_map(self, center: torch.Tensor) -> torch.Tensor:
        """Voxel position in the scan that each voxel of a copy comes from. Shape (*patch_size, 3)."""
        offsets = self.offsets
        affine, elastic = (torch.rand(2, generator=self.generator) < self.prob).tolist()
        scale = self._uniform(*self.scale_range, (3,))
        angles = torch.deg2rad(self._uniform(-self.rotation_range_deg, self.rotation_range_deg, (3,)))
        count = self.num_control_points
        control = self._uniform(-self.max_displacement, self.max_displacement, (count, count, count, 3))
        if affine:
            # A rotation is one in mm only.
            matrix = _rotation(angles) * scale
            matrix = self.spacing_mm * matrix / self.spacing_mm[:, None]
            offsets = offsets @ matrix.T
        if elastic:
            depth, height, width = self.bases
            field = torch.einsum("abcv,wc->abwv", control, width)
            field = torch.einsum("abwv,hb->ahwv", field, height)
            offsets = offsets + torch.einsum("ahwv,da->dhwv", field, depth)
        return center + offsets

    def _change_values(self, patches: torch.Tensor) -> torch.Tensor:
        """Change tone and add noise, each patch for itself. Shape (2, 1, *patch_size)."""
        changed = []
        for source in patches:
            patch = source
            new_tone, noisy = (torch.rand(2, generator=self.generator) < self.prob).tolist()
            low, high = self.tone_ranges.T
            thresholds = low + (high - low) * torch.rand(len(low), generator=self.generator)
            std = float(self._uniform(0.0, self.noise_std, ()))
            if new_tone:
                patch = torch.stack([torch.sigmoid(self.tone_slope * (patch - t)) for t in thresholds.tolist()]).mean(0)
            if noisy:
                patch = patch + std * torch.randn(patch.shape, generator=self.generator).to(patch.device)
            changed.append(patch)
        return torch.stack(changed)


def _first_true(mask: torch.Tensor, otherwise: int) -> int:
    found = torch.nonzero(mask)
    return int(found[0]) if len(found) else otherwise


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    """Rotation around the three axes, the first axis last. Shape (3, 3)."""
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles.tolist()):
        first, second = (other for other in range(3) if other != axis)
        turn = torch.eye(3)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix


def _spline_basis(size: int, num_control_points: int) -> torch.Tensor:
    """Weights of the control points of a cubic B-spline over an axis. Shape (size, num_control_points)."""
    place = torch.linspace(0, num_control_points - SPLINE_DEGREE, size)[:, None]
    distance = (place - torch.arange(-1, num_control_points - 1)).abs()
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = (2 - distance).clamp_min(0) ** 3 / 6
    return torch.where(distance < 1, inner, outer)


def _sample(volume: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Interpolate a volume linearly at voxel positions, zero outside. Shape (2, 1, *patch_size)."""
    size = torch.tensor(volume.shape[1:], device=volume.device)
    grid = (2 * positions + 1) / size - 1
    source = volume.float()[None].expand(len(positions), -1, -1, -1, -1)
    return F.grid_sample(source, grid.flip(-1), mode="bilinear", padding_mode="zeros", align_corners=False)
