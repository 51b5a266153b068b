"""What is kept of the supports: positions and features around the extreme points of each organ, cached on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import CommonKeys

from ...data.extreme_points import grid_sides
from ...files import write_atomically
from ...memory import kept_memory
from ...networks.medlam import MedLAM
from ...transforms.paired_patches import crop_padded
from ...weights.checkpoint import READ_ERRORS
from .search import cut_template
from .supports import Support, choose_supports, read_supports

# Counts up when templates of an older version must not be used any more.
CACHE_VERSION = 2
# How far inside of an extreme point, in voxels, its patch is centered: a face between two voxels belongs to the inner.
INWARD = 0.25

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OrganTemplate:
    """What the supports say about one organ; means over the supports.

    The six points of a part are the ends of the grid's axes, the lower ends first, then the upper ones.

    Attributes:
        organ: Name.
        label: Value in label maps.
        num_supports: How many supports it is made of.
        position: MedLAM's position of the patches around the points. Shape (parts, 6, 3).
        residual: From the voxel at a patch's center to the point, in voxels. Shape (parts, 6, 3).
        shape: Points relative to the mean of their six, in voxels. Shape (parts, 6, 3).
        maps: Features around the points, coarse to fine. Shape (parts, 6, C, k, k, k) each.
    """

    organ: str
    label: int
    num_supports: int
    position: torch.Tensor
    residual: torch.Tensor
    shape: torch.Tensor
    maps: tuple[torch.Tensor, ...]

    @property
    def num_parts(self) -> int:
        """Number of parts, 1 for a whole organ."""
        return len(self.position)

    def best_similarity(self, weights: Sequence[float] = (1.0, 1.0, 1.0)) -> torch.Tensor:
        """Return what `similarity_maps` gives for the template's own features. Shape (parts, 6).

        Args:
            weights: Factor of each scale, coarse to fine.
        """
        scales = zip(self.maps, weights, strict=True)
        return torch.stack([w * m.square().sum(dim=2).mean(dim=(2, 3, 4)) for m, w in scales]).sum(dim=0)


def build_templates(
    network: MedLAM,
    supports: Sequence[Support],
    preprocessing: Callable[[Any], Any],
    label_names: Mapping[int, str],
    device: torch.device | str = "cpu",
) -> list[OrganTemplate]:
    """Encode the patches around all extreme points of all supports.

    Each scan is loaded once. An organ that no support shows has no template.

    Args:
        network: Trained MedLAM.
        supports: Supports, as `read_supports` gives them.
        preprocessing: Turns {image: path} into {image: MetaTensor} in the grid that the network was trained on.
        label_names: Label to organ.
        device: Where to run the network.

    Returns:
        One template for each organ that a support shows, in the order of `label_names`.
    """
    chosen = {organ: choose_supports(supports, organ) for organ in label_names.values()}
    absent = [organ for organ, shown in chosen.items() if not shown]
    if absent:
        _logger.warning("No support shows %s: it will be looked for nowhere.", ", ".join(absent))
    collected: dict[str, list[tuple[torch.Tensor, ...]]] = {organ: [] for organ in chosen}
    network.eval()
    for support in supports:
        organs = [organ for organ, shown in chosen.items() if any(s is support for s in shown)]
        if not organs:
            continue
        image = preprocessing({CommonKeys.IMAGE: support.image})[CommonKeys.IMAGE]
        affine = np.asarray(image.affine, dtype=float)
        volume = image.as_tensor().float().to(device)
        for organ in organs:
            collected[organ].append(_encode_points(network, volume, affine, support.points_mm[organ]))
    templates = []
    for label, organ in label_names.items():
        if collected[organ]:
            position, residual, shape, *maps = (
                torch.stack(kind).mean(dim=0) for kind in zip(*collected[organ], strict=True)
            )
            templates.append(OrganTemplate(organ, label, len(collected[organ]), position, residual, shape, tuple(maps)))
    return templates


@kept_memory()
@torch.inference_mode()
def _encode_points(
    network: MedLAM, volume: torch.Tensor, affine: np.ndarray, points_mm: np.ndarray
) -> tuple[torch.Tensor, ...]:
    """Position, residual, shape and template maps of the points of one organ in one support, on the CPU."""
    ordered = points_mm[:, grid_sides(affine)]
    flat = ordered.reshape(-1, 3)
    indices = np.linalg.solve(affine, np.c_[flat, np.ones(len(flat))].T)[:3].T.reshape(ordered.shape)
    inward = np.zeros((6, 3))
    inward[range(6), [0, 1, 2, 0, 1, 2]] = [INWARD] * 3 + [-INWARD] * 3
    centers = np.floor(indices + inward + 0.5).astype(int)
    half = [n // 2 for n in network.patch_size]
    positions, maps = [], []
    for center in centers.reshape(-1, 3):
        start = [int(c) - h for c, h in zip(center, half, strict=True)]
        encoded = network.encode(crop_padded(volume, start, network.patch_size)[None])
        positions.append(network.locate(encoded)[0].float().cpu())
        maps.append([t[0].cpu() for t in cut_template(network.decode(encoded))])
    parts = (len(ordered), 6)
    stacked = [torch.stack(scale).unflatten(0, parts) for scale in zip(*maps, strict=True)]
    residual = torch.from_numpy(indices - centers).float()
    shape = torch.from_numpy(indices - indices.mean(axis=1, keepdims=True)).float()
    # clones, since tensors of inference mode cannot be used in other ways later
    return tuple(t.clone() for t in (torch.stack(positions).unflatten(0, parts), residual, shape, *stacked))


def load_templates(
    network: MedLAM,
    datalist: Sequence[Mapping[str, Any]],
    preprocessing: Callable[[Any], Any],
    label_names: Mapping[int, str],
    settings: Any = None,
    slab_mm: float | None = None,
    max_slabs: int | None = 6,
    cache_dir: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> list[OrganTemplate]:
    """Return the templates of supports, from disk where the same weights, supports and settings were met before.

    Args:
        network: MedLAM with its weights loaded.
        datalist: See `read_supports`.
        preprocessing: See `build_templates`.
        label_names: Label to organ.
        settings: What else the preprocessing depends on (voxel size, intensities), for the key of the cache.
        slab_mm: See `read_supports`.
        max_slabs: See `read_supports`.
        cache_dir: Folder of cached templates; None keeps none. Files in it may be deleted at any time.
        device: Where to run the network.

    Returns:
        See `build_templates`.
    """
    names = {int(label): str(organ) for label, organ in label_names.items() if int(label) != 0}
    file = None
    if cache_dir is not None:
        key = _cache_key(network, datalist, [sorted(names.items()), settings, slab_mm, max_slabs])
        file = Path(cache_dir) / f"templates_{key[:32]}.pt"
        if file.is_file() and (templates := _read_cached(file)) is not None:
            _logger.info("Templates of %d supports from %s", len(datalist), file)
            return templates
    supports = read_supports(datalist, names, slab_mm, max_slabs)
    templates = build_templates(network, supports, preprocessing, names, device)
    if file is not None:
        write_atomically([{**vars(template), "maps": list(template.maps)} for template in templates], file)
        _logger.info("Templates of %d supports written to %s", len(datalist), file)
    return templates


def _read_cached(file: Path) -> list[OrganTemplate] | None:
    """Return what a former run has kept, or None if a bad disk has spoilt it."""
    try:
        entries = torch.load(file, weights_only=True)
    except READ_ERRORS as error:
        _logger.warning("%s cannot be read and is made anew: %s", file, str(error).partition("\n")[0])
        return None
    return [OrganTemplate(**{**entry, "maps": tuple(entry["maps"])}) for entry in entries]


def _cache_key(network: MedLAM, datalist: Sequence[Mapping[str, Any]], settings: Any) -> str:
    """Digest of everything that templates depend on: the content of files, not their names or dates."""
    digest = hashlib.sha256(json.dumps([CACHE_VERSION, network.patch_size, settings], default=str).encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for case in datalist:
        for key in (CommonKeys.IMAGE, CommonKeys.LABEL, "points"):
            for path in _files(case[key]) if key in case else ():
                digest.update(key.encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(path: str) -> list[Path]:
    """The file, or the files of a DICOM folder."""
    source = Path(path)
    return sorted(p for p in source.iterdir() if p.is_file()) if source.is_dir() else [source]
