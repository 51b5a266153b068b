"""Extreme points of all organs of a scan: a step of regression, then a search by similarity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from monai.inferers import Inferer

from ...losses.relative_distance import DISTANCE_RANGE_MM, offset_mm
from ...memory import kept_memory
from ...networks.medlam import NUM_SCALES, MedLAM
from ...transforms.paired_patches import crop_padded
from .search import TEMPLATE_SIZES, add_finest, best_place, group_points, similarity_maps
from .shape import fit_shape
from .templates import OrganTemplate

EXACT, FAST = "exact", "fast"
SEARCHES = (EXACT, FAST, "none")
INPUT_NDIM = 5
# Which part of a patch's size points may be from its center in the fast search.
_SHARED = 8
# Of a point as `LocalizationInferer` gives it.
_COLUMNS = 10


class FoundPoints(NamedTuple):
    """Extreme points of one organ in one scan, in the order of the template's.

    Attributes:
        voxels: Where the points are, in voxels of the network's grid, not rounded. Shape (parts, 6, 3).
        expected: Where the regression alone puts them; may be outside the scan. Shape (parts, 6, 3).
        similarity: How similar the features are, as a share of the template's own; NaN without a search. Shape
            (parts, 6).
        from_start: Where its first step puts them, the only one that never looks from the scan's border. Shape
            (parts, 6, 3).
    """

    voxels: torch.Tensor
    expected: torch.Tensor
    similarity: torch.Tensor
    from_start: torch.Tensor


class LocalizationInferer(Inferer):
    """Find the extreme points of all organs that the supports show.

    MedLSAM's inference (arXiv:2306.14752; its code for what the paper leaves open):

    1. The patches at `num_starts` random voxels near the middle of the scan give the mean position q at the mean place
       c, once for all organs. A point with the position P in the supports is expected at c + r * tanh(P - q).
    2. With `num_steps` above 1, the expectation is corrected from a patch at the expected place, the same way.
    3. The features of a patch around the expected place are compared with the supports' (`similarity_maps`); the most
       similar place within half a patch is taken. `scale_weights` are ours; published scales count the same.
    4. With `shape_weight`, which is ours, the six points of a part give way to the supports' own, moved and scaled to
       them (`fit_shape`).

    `exact` decodes a patch for each point, as published. In `fast`, points that are expected near each other, an eighth
    of a patch from its center at most, share a patch; the most similar place is found by the scales of stride 4 and 2,
    and the finest scale, most of the work of a patch, is compared only around that place.

    Differs from the authors' code: coarse scales are aligned exactly; the start runs no decoder, and organs share it;
    start points are drawn in tissue, the nearest of it where the middle is air; the fraction of a voxel by which the
    supports' points differ from their patches' centers is added to the result.

    Args:
        templates: What the supports say.
        spacing_mm: Voxel size of the scans in mm per axis.
        distance_range_mm: Range r per axis in mm, that of training.
        search: `exact`, `fast`, or `none` for the regression alone.
        num_starts: Number of start patches.
        num_steps: Steps of regression.
        start_radius: How far from the middle start points are drawn, in voxels per axis.
        air_threshold: What is below counts as air.
        seed: Seed of the start points, the same for every scan.
        scale_weights: How much each scale counts in the similarity, coarse to fine.
        refine_radius: How far around the place that coarse scales find `fast` compares the finest one, in voxels.
        shape_weight: How much the size of the supports' parts counts beside that of what is found, see `fit_shape`;
            None leaves every point where it is found, as published.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        templates: Sequence[OrganTemplate],
        spacing_mm: Sequence[float] = (3.0, 3.0, 3.0),
        distance_range_mm: Sequence[float] = DISTANCE_RANGE_MM,
        search: str = EXACT,
        num_starts: int = 10,
        num_steps: int = 1,
        start_radius: int = 10,
        air_threshold: float = 0.001,
        seed: int = 0,
        scale_weights: Sequence[float] = (1.0, 1.0, 1.0),
        refine_radius: int = 4,
        shape_weight: float | None = None,
    ) -> None:
        super().__init__()
        if search not in SEARCHES:
            raise ValueError(f"search must be one of {', '.join(SEARCHES)}, got {search!r}.")
        if min(num_starts, num_steps) < 1 or start_radius < 0:
            raise ValueError(
                f"num_starts and num_steps must be at least 1 and start_radius at least 0, got {num_starts}, "
                f"{num_steps} and {start_radius}."
            )
        if len(scale_weights) != NUM_SCALES or min(scale_weights) < 0 or not scale_weights[-1] > 0:
            raise ValueError(
                f"scale_weights must be {NUM_SCALES} factors from 0, the last, of the finest scale, above 0; got "
                f"{list(scale_weights)}."
            )
        if refine_radius < 1:
            raise ValueError(f"refine_radius must be at least 1 voxel, got {refine_radius}.")
        if shape_weight is not None and shape_weight < 0:
            raise ValueError(f"shape_weight must be at least 0 or None, got {shape_weight}.")
        self.templates = list(templates)
        self.spacing_mm = torch.tensor([float(s) for s in spacing_mm])
        self.distance_range_mm = tuple(float(r) for r in distance_range_mm)
        self.search = search
        self.num_starts = num_starts
        self.num_steps = num_steps
        self.start_radius = start_radius
        self.air_threshold = air_threshold
        self.seed = seed
        self.scale_weights = tuple(float(w) for w in scale_weights)
        self.refine_radius = refine_radius
        self.shape_weight = shape_weight

    def __call__(self, inputs: torch.Tensor, network: MedLAM) -> torch.Tensor:
        """Find the points of one scan; `unpack_points` gives them back by organ.

        Args:
            inputs: Scan. Shape (1, 1, D, H, W), as in training.
            network: Trained MedLAM.

        Returns:
            For each point of each part of each template its voxel, its expected voxel, its similarity and its voxel as
            the first step expects it. Shape (1, points, 10), float32, on the CPU.

        Raises:
            ValueError: If `inputs` has another shape, or holds nothing but air.
        """
        if inputs.ndim != INPUT_NDIM or tuple(inputs.shape[:2]) != (1, 1):
            raise ValueError(f"inputs must be one scan, shape (1, 1, D, H, W); got {tuple(inputs.shape)}.")
        volume = inputs.as_tensor()[0] if hasattr(inputs, "as_tensor") else inputs[0]
        with torch.inference_mode():
            found = self.locate(volume.float(), network)
            rows = [
                (
                    f.voxels.flatten(0, 1),
                    f.expected.flatten(0, 1),
                    f.similarity.reshape(-1, 1),
                    f.from_start.flatten(0, 1),
                )
                for f in found
            ]
            packed = torch.cat([torch.cat(row, dim=1) for row in rows])[None]
        return packed.clone()

    @kept_memory()
    def locate(self, volume: torch.Tensor, network: MedLAM) -> list[FoundPoints]:
        """Find the points of every template.

        Args:
            volume: Scan. Shape (1, D, H, W), as in training.
            network: Trained MedLAM.

        Returns:
            The points of each template, in order.

        Raises:
            ValueError: If the scan holds nothing but air.
        """
        sizes = [template.num_parts * 6 for template in self.templates]
        position = torch.cat([template.position.flatten(0, 1) for template in self.templates])
        from_start = self._expect(volume, network, position)
        expected = self._correct(from_start, volume, network, position)
        if self.search == "none":
            centers, similarity = expected, torch.full((len(expected),), torch.nan)
        else:
            maps = [
                torch.cat(kind)
                for kind in zip(*([m.flatten(0, 1) for m in t.maps] for t in self.templates), strict=True)
            ]
            centers, similarity = self._search(volume, network, expected, maps)
            similarity = similarity / torch.cat(
                [t.best_similarity(self.scale_weights).flatten() for t in self.templates]
            )
        residual = torch.cat([template.residual.flatten(0, 1) for template in self.templates])
        voxels = centers + (residual if self.search != "none" else 0)
        if self.shape_weight is not None:
            shape = torch.cat([template.shape for template in self.templates])
            voxels = fit_shape(voxels.unflatten(0, (-1, 6)), shape, self.shape_weight).flatten(0, 1)
        return [
            FoundPoints(*(block.unflatten(0, (-1, 6)) for block in blocks))
            for blocks in zip(
                *(rows.split(sizes) for rows in (voxels, expected, similarity, from_start)),
                strict=True,
            )
        ]

    def _expect(self, volume: torch.Tensor, network: MedLAM, position: torch.Tensor) -> torch.Tensor:
        """Where the regression from the middle puts points with the given positions, in voxels. Shape (points, 3)."""
        starts = self.draw_starts(volume)
        start_position = self._positions(volume, network, starts).mean(dim=0)
        reach = offset_mm(position, start_position, self.distance_range_mm) / self.spacing_mm
        return starts.float().mean(dim=0) + reach

    def _correct(
        self, expected: torch.Tensor, volume: torch.Tensor, network: MedLAM, position: torch.Tensor
    ) -> torch.Tensor:
        """The same after the other steps, each from where the last one put a point. Shape (points, 3)."""
        for _ in range(self.num_steps - 1):
            centers = self._clamp(expected, volume)
            reach = offset_mm(position, self._positions(volume, network, centers), self.distance_range_mm)
            expected = centers + reach / self.spacing_mm
        return expected

    def _positions(self, volume: torch.Tensor, network: MedLAM, centers: torch.Tensor) -> torch.Tensor:
        """MedLAM's position of the patch around each center. Shape (points, 3)."""
        return torch.cat([network(_patch(volume, center, network)).float().cpu() for center in centers])

    def draw_starts(self, volume: torch.Tensor) -> torch.Tensor:
        """Return voxels of tissue near the middle, the nearest ones where there are too few.

        Args:
            volume: Scan. Shape (1, D, H, W), as in training.

        Returns:
            Shape (num_starts, 3), int64; the same for the same scan.

        Raises:
            ValueError: If the scan holds nothing but air.
        """
        generator = torch.Generator().manual_seed(self.seed)
        size = torch.tensor(volume.shape[1:])
        low = (size // 2 - self.start_radius).clamp_min(0)
        high = torch.minimum(size // 2 + self.start_radius, size - 1)
        draws = low + (torch.rand((20 * self.num_starts, 3), generator=generator) * (high - low + 1)).long()
        tissue = volume[0].cpu() >= self.air_threshold
        starts = draws[tissue[draws[:, 0], draws[:, 1], draws[:, 2]]][: self.num_starts]
        if len(starts) < self.num_starts:
            voxels = torch.nonzero(tissue)
            if not len(voxels):
                raise ValueError(
                    f"The scan holds nothing but air: none of its {tuple(size.tolist())} voxels is at least "
                    f"{self.air_threshold}. Check that it is a CT in HU."
                )
            nearest = (voxels - size // 2).square().sum(dim=1).argsort()[: self.num_starts]
            starts = voxels[nearest]
        return starts

    def _clamp(self, voxels: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
        """The nearest voxels whose patch shows any of the scan. Shape (points, 3), int64."""
        last = torch.tensor(volume.shape[1:]) - 1
        return torch.minimum(voxels.round().long().clamp_min(0), last)

    def _search(
        self, volume: torch.Tensor, network: MedLAM, expected: torch.Tensor, templates: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Most similar place of each point, (points, 3), and its similarity, (points,)."""
        search, reach = self._search_patch, 0
        if self.search == FAST:
            search, reach = self._search_coarse_to_fine, min(network.patch_size) // _SHARED
        last = torch.tensor(volume.shape[1:]) - 1
        half = torch.tensor(network.patch_size) // 2
        places = torch.zeros(expected.shape)
        similarity = torch.zeros(len(expected))
        for center, points in group_points(self._clamp(expected, volume), reach):
            first = center - half
            # only places within the patch and within the scan
            low, high = first.clamp_min(0) - first, torch.minimum(center + half, last) - first
            kernels = [t[points].to(volume.device) for t in templates]
            found = search(_patch(volume, center, network), network, kernels, low, high)
            for point, (place, score) in zip(points, found, strict=True):
                places[point], similarity[point] = (first + place).float(), score
        return places, similarity

    def _search_patch(
        self,
        patch: torch.Tensor,
        network: MedLAM,
        kernels: Sequence[torch.Tensor],
        low: torch.Tensor,
        high: torch.Tensor,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Most similar place of a patch between `low` and `high`, (3,), and its similarity, for each template."""
        *coarse, finest = network.decode(network.encode(patch))
        maps = similarity_maps([m[0] for m in coarse], kernels[:-1], network.patch_size, self.scale_weights)
        # all that templates at these places lie over
        half = TEMPLATE_SIZES[-1] // 2
        start, end = (low - half).clamp_min(0), (high + half).minimum(torch.tensor(network.patch_size))
        cut = [slice(a, b) for a, b in zip(start.tolist(), end.tolist(), strict=True)]
        block = finest[0][:, cut[0], cut[1], cut[2]]
        for index in range(len(maps)):
            add_finest(maps[index], block, kernels[-1][index, None], start, self.scale_weights[-1])
            yield best_place(maps[index], low, high)

    def _search_coarse_to_fine(
        self,
        patch: torch.Tensor,
        network: MedLAM,
        kernels: Sequence[torch.Tensor],
        low: torch.Tensor,
        high: torch.Tensor,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The same, with the finest scale only around what the others find; if they count 0, what they find at 1."""
        encoded = network.encode(patch)
        maps = network.decode(encoded, NUM_SCALES - 1)
        statistics = network.finest_statistics(encoded, maps[-1])
        *weights, finest_weight = self.scale_weights
        counts = sum(weights) > 0
        guesses = weights if counts else [1.0] * len(weights)
        size = min(TEMPLATE_SIZES[-1] + 2 * self.refine_radius, *network.patch_size)
        coarse = similarity_maps([m[0] for m in maps], kernels[:-1], network.patch_size, guesses)
        for index in range(len(coarse)):
            scores = coarse[index]
            guess, _ = best_place(scores, low, high)
            start = (guess - size // 2).clamp_min(0).minimum(torch.tensor(network.patch_size) - size)
            block = network.finest_block(encoded, maps[-1], start, size, statistics)[0]
            refined = scores if counts else torch.zeros_like(scores)
            add_finest(refined, block, kernels[-1][index, None], start, finest_weight)
            yield best_place(refined, low.maximum(guess - self.refine_radius), high.minimum(guess + self.refine_radius))


def unpack_points(packed: torch.Tensor, templates: Sequence[OrganTemplate]) -> list[FoundPoints]:
    """Give back what `LocalizationInferer` found for one scan, by template.

    Args:
        packed: Points of one scan. Shape (points, 10).
        templates: The templates that they were found with.

    Raises:
        ValueError: If the number of points is not that of the templates.
    """
    sizes = [template.num_parts * 6 for template in templates]
    if packed.shape != (sum(sizes), _COLUMNS):
        raise ValueError(
            f"packed must have shape ({sum(sizes)}, {_COLUMNS}) for these templates, got {tuple(packed.shape)}."
        )
    return [
        FoundPoints(*(b.unflatten(0, (-1, 6)) for b in (rows[:, :3], rows[:, 3:6], rows[:, 6], rows[:, 7:])))
        for rows in packed.split(sizes)
    ]


def _patch(volume: torch.Tensor, center: torch.Tensor, network: MedLAM) -> torch.Tensor:
    start = [int(c) - n // 2 for c, n in zip(center, network.patch_size, strict=True)]
    return crop_padded(volume, start, network.patch_size)[None]
