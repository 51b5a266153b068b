"""A grid of tissue coordinates on which shapes are painted with soft borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

Array = np.ndarray
FAR_MM = np.float32(60.0)


@dataclass(frozen=True)
class Region:
    """A box of a canvas: views of its arrays, so that painting here changes the canvas.

    Attributes:
        slices: The box on the grid of the canvas.
        x: Tissue coordinate to the patient's right in mm, shape of the box; `y` to the front, `z` to the head.
        y: See `x`.
        z: See `x`.
        hu: Image under construction, HU, float32.
        label: Label map under construction, uint8.
        edge_mm: Width over which a border is blended.
    """

    slices: tuple[slice, slice, slice]
    x: Array
    y: Array
    z: Array
    hu: Array
    label: Array
    edge_mm: float

    def coverage(self, distance_mm: Array) -> Array:
        """Share of each voxel that a shape fills, from its signed distance; in [0, 1]."""
        return np.clip(np.float32(0.5) - distance_mm * np.float32(1 / self.edge_mm), 0, 1)

    def paint(
        self, distance_mm: Array, hu: Array | float, label: int | None = None, strength: Array | float = 1.0
    ) -> None:
        """Blend a shape over what is there.

        Args:
            distance_mm: Signed distance of the shape, shape of the box.
            hu: Its attenuation in HU, a number or one per voxel.
            label: Class id written where the voxel's center is inside; None leaves the labels as they are.
            strength: Opacity in [0, 1], a number or one per voxel. It does not touch the label.
        """
        self.blend(self.coverage(distance_mm) * strength, hu)
        if label is not None:
            self.label[distance_mm < 0] = label

    def blend(self, share: Array, hu: Array | float) -> None:
        """Replace the given share of each voxel by tissue of the given HU."""
        self.hu[...] += share * (hu - self.hu)


@dataclass(frozen=True)
class Canvas:
    """Image and labels under construction, with the tissue coordinate of every voxel.

    Attributes:
        x: Tissue coordinate to the patient's right in mm. Shape (i, j, k), float32; `y` to the front, `z` to the head.
        y: See `x`.
        z: See `x`.
        hu: Image, HU, float32, same shape.
        label: Label map, uint8, same shape.
        index_per_mm: Matrix (3, 3) from millimeters of tissue coordinates to voxels, deformation left out.
        edge_mm: Width over which a border is blended, about one voxel.
    """

    x: Array
    y: Array
    z: Array
    hu: Array
    label: Array
    index_per_mm: Array
    edge_mm: float

    def displaced(self, displacement_mm: Sequence[Array]) -> Canvas:
        """Return the same image and labels over coordinates moved by a field (three arrays of the grid's shape)."""
        dx, dy, dz = displacement_mm
        return replace(self, x=self.x + dx, y=self.y + dy, z=self.z + dz)

    def everywhere(self) -> Region:
        """Return the whole grid as a region."""
        return self._region((slice(None), slice(None), slice(None)))

    def box(self, low_mm: Sequence[float], high_mm: Sequence[float]) -> Region:
        """Return the smallest region that holds all tissue between two corners, with a margin; it may be empty.

        Args:
            low_mm: Smallest x, y and z.
            high_mm: Largest x, y and z.
        """
        stride = 3
        coarse = (slice(None, None, stride),) * 3
        margin = 1.5 * stride * self.edge_mm
        inside = np.ones(self.x[coarse].shape, dtype=bool)
        for coordinate, low, high in zip((self.x, self.y, self.z), low_mm, high_mm, strict=True):
            values = coordinate[coarse]
            inside &= (values > low - margin) & (values < high + margin)
        slices = []
        for axis in range(3):
            hits = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
            if hits.size == 0:
                return self._region((slice(0, 0), slice(0, 0), slice(0, 0)))
            slices.append(slice(max(0, (int(hits[0]) - 1) * stride), (int(hits[-1]) + 1) * stride + 1))
        return self._region((slices[0], slices[1], slices[2]))

    def tube(self, path_mm: Array) -> tuple[Region, Array, Array]:
        """Measure the distance to a tube.

        Args:
            path_mm: Samples along the tube, no further apart than its radius: x, y, z, radius. Shape (n, 4).

        Returns:
            The region around the tube, the signed distance there (at most `FAR_MM`), and the index of the nearest
            sample, int32.
        """
        reach = path_mm[:, 3].max() + 2 * self.edge_mm
        region = self.box(path_mm[:, :3].min(axis=0) - reach, path_mm[:, :3].max(axis=0) + reach)
        distance = np.full(region.hu.shape, FAR_MM, dtype=np.float32)
        nearest = np.zeros(region.hu.shape, dtype=np.int32)
        if distance.size == 0:
            return region, distance, nearest
        start = np.array([s.start or 0 for s in region.slices])
        centers = self.locate(path_mm[:, :3]) - start
        per_mm = np.abs(self.index_per_mm).sum(axis=1)
        samples = path_mm[:, :4].astype(np.float32)  # float64 numbers would make the arrays float64
        for i, (center, (px, py, pz, radius)) in enumerate(zip(centers, samples, strict=True)):
            half = per_mm * (radius + 2.5 * self.edge_mm) + 1
            low = np.maximum(np.floor(center - half), 0).astype(int)
            high = np.minimum(np.ceil(center + half) + 1, distance.shape).astype(int)
            if (high <= low).any():
                continue
            near = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            dx, dy, dz = region.x[near] - px, region.y[near] - py, region.z[near] - pz
            here = np.sqrt(dx * dx + dy * dy + dz * dz) - radius
            closer = here < distance[near]
            distance[near][closer] = here[closer]
            nearest[near][closer] = i
        return region, distance, nearest

    def strands(self, path_mm: Array) -> Array:
        """Volume share of tubes thinner than a voxel.

        Args:
            path_mm: Short pieces: x, y, z, radius and length in mm. Shape (n, 5).

        Returns:
            Share of each voxel, in [0, 1]. Shape of the grid, float32.
        """
        shape = np.array(self.hu.shape)
        index = self.locate(path_mm[:, :3])
        volume = np.pi * path_mm[:, 3] ** 2 * path_mm[:, 4] * abs(np.linalg.det(self.index_per_mm))
        base = np.floor(index).astype(int)
        part = index - base
        share = np.zeros(int(shape.prod()), dtype=np.float64)
        for corner in np.ndindex(2, 2, 2):
            at = base + corner
            weight = volume * np.prod(np.where(np.array(corner) == 1, part, 1 - part), axis=1)
            valid = ((at >= 0) & (at < shape)).all(axis=1)
            flat = np.ravel_multi_index(tuple(at[valid].T), tuple(shape))
            share += np.bincount(flat, weights=weight[valid], minlength=share.size)
        return np.clip(share, 0, 1).astype(np.float32).reshape(self.hu.shape)

    def locate(self, points_mm: Array) -> Array:
        """Find the voxel coordinates at which tissue points lie.

        The map from voxels to tissue is linear plus a small smooth field: a few quasi-Newton steps invert it.

        Args:
            points_mm: Tissue coordinates. Shape (n, 3).

        Returns:
            Voxel coordinates, fractional, also outside the grid. Shape (n, 3), float64.
        """
        center = (np.array(self.hu.shape) - 1) // 2
        at_center = np.array([c[tuple(center)] for c in (self.x, self.y, self.z)])
        index = center + (points_mm - at_center) @ self.index_per_mm.T
        last = np.array(self.hu.shape) - 1
        for _ in range(4):
            held = np.clip(index, 0, last)
            there = np.stack(
                [ndimage.map_coordinates(c, held.T, order=1, mode="nearest") for c in (self.x, self.y, self.z)], axis=1
            )
            index = held + (points_mm - there) @ self.index_per_mm.T
        return index

    def _region(self, slices: tuple[slice, slice, slice]) -> Region:
        x, y, z = self.x[slices], self.y[slices], self.z[slices]
        return Region(slices, x, y, z, self.hu[slices], self.label[slices], self.edge_mm)
