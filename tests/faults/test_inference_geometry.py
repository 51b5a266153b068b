"""A prediction lies on its image, whatever the orientation, obliqueness, spacing and size of the file."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image

from common.data.boxes import VoxelBox, boxes_file, boxes_of_labels, read_boxes, write_boxes
from common.data.phantoms import write_torso_phantoms
from common.networks import MedLAM
from tests.faults.inference_runs import (
    STREAMS,
    heart_overrides,
    run_inference,
    segmenter_overrides,
    stream_overrides,
    volume_overrides,
)

ORIENTATIONS = [
    np.array(list(zip(p, f, strict=True))) for p in permutations(range(3)) for f in product((1, -1), repeat=3)
]
SAMPLE = ORIENTATIONS[::9]
MAX_AFFINE_ERROR = 1e-4


def oblique(degrees: float, spacing_mm) -> np.ndarray:
    """An affine that is turned about two axes, with anisotropic voxels, away from the origin."""
    a, b = np.deg2rad([degrees, degrees / 2])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(spacing_mm)
    affine[:3, 3] = [13.7, -81.25, 402.1]
    return affine


AFFINES = {
    "axis-aligned": np.diag([1.0, 1.0, 1.0, 1.0]),
    "anisotropic": np.diag([-0.7, -0.9, 5.0, 1.0]),
    "oblique": oblique(25, [1.0, 1.3, 2.9]),
    "very oblique": oblique(44, [2.0, 0.5, 1.1]),
    "left-handed and oblique": oblique(10, [1.0, -1.0, 3.0]),
}


def blob(shape, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Intensities in HU and the mask of those above 0; no symmetry maps it to itself."""
    generator = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    high = [max(1, n // 2) for n in shape]
    mask[: high[0], : max(1, shape[1] // 3), : max(1, shape[2] * 2 // 3)] = 1
    mask.flat[generator.choice(mask.size, max(1, mask.size // 20), replace=False)] = 1
    return np.where(mask, 400, -400).astype(np.int16) + generator.integers(-90, 90, shape).astype(np.int16), mask


def write_turned(folder, name, array, affine, orientation):
    """Write an array with its axes permuted and flipped, and the affine that keeps it where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    turned = affine @ inv_ornt_aff(orientation, array.shape)
    nib.save(nib.Nifti1Image(apply_orientation(array, orientation), turned), folder / f"{name}.nii.gz")
    return turned


def turned_back(array, affine, turned_affine):
    """Bring an array from the axes of a file to those of the base."""
    return apply_orientation(array, ornt_transform(io_orientation(turned_affine), io_orientation(affine)))


def check(folder, out, mask, affine, names, exact=True):
    for name in names:
        image = nib.load(folder / f"{name}.nii.gz")
        found = nib.load(out / f"{name}_seg.nii.gz")
        assert found.shape == image.shape, name
        np.testing.assert_allclose(found.affine, image.affine, atol=MAX_AFFINE_ERROR, err_msg=name)
        back = turned_back(np.asarray(found.dataobj), affine, image.affine)
        if exact:
            np.testing.assert_array_equal(back, mask, err_msg=name)
        else:
            dice = 2 * (back & mask).sum() / max(1, back.sum() + mask.sum())
            assert dice > 0.8, (name, dice)


def run_turned(bundle, overrides, orientations, shape, affine, tmp_path, exact=True, **options):
    array, mask = blob(shape)
    names = []
    for index, orientation in enumerate(orientations):
        names.append(f"o{index:02d}")
        write_turned(tmp_path / "data", names[-1], array, affine, orientation)
    settings = overrides(tmp_path / "data", tmp_path, output_dir=str(tmp_path / "out"), **options)
    run_inference(bundle, settings)
    check(tmp_path / "data", tmp_path / "out", mask, affine, names, exact)


@pytest.mark.parametrize("kind", ["oblique", "left-handed and oblique"])
def test_volume_fusion_in_some_orientations(kind, tmp_path):
    run_turned("volume_fusion", volume_overrides, SAMPLE, (9, 12, 7), AFFINES[kind], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", AFFINES)
def test_volume_fusion_in_all_orientations(kind, tmp_path):
    run_turned("volume_fusion", volume_overrides, ORIENTATIONS, (9, 12, 7), AFFINES[kind], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", AFFINES)
def test_volume_fusion_resampled(kind, tmp_path):
    """To another spacing and back."""
    smooth = {"spacing_mm": [1.0, 1.0, 1.0], "roi_size": [16, 16, 16]}
    run_turned("volume_fusion", volume_overrides, SAMPLE, (19, 22, 15), AFFINES[kind], tmp_path, False, **smooth)


@pytest.mark.parametrize("shape", [(1, 12, 7), (9, 1, 7), (9, 12, 1), (1, 1, 5), (2, 3, 5), (17, 5, 3)])
def test_volume_fusion_of_odd_sizes(shape, tmp_path):
    run_turned("volume_fusion", volume_overrides, SAMPLE[:2], shape, AFFINES["oblique"], tmp_path)


def test_maco_in_some_orientations(tmp_path):
    run_turned("maco", heart_overrides, SAMPLE, (16, 16, 16), AFFINES["oblique"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", AFFINES)
def test_maco_in_all_orientations(kind, tmp_path):
    run_turned("maco", heart_overrides, ORIENTATIONS, (16, 16, 16), AFFINES[kind], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(33, 40, 1), (29, 31, 3), (64, 21, 5)])
def test_maco_of_odd_sizes(shape, tmp_path):
    """Slices are resized in their plane and back, so borders may move by a pixel."""
    identity = ORIENTATIONS[:1]
    run_turned("maco", heart_overrides, identity, shape, AFFINES["anisotropic"], tmp_path, False)


def segment_turned(orientations, affine, tmp_path):
    """`medlsam` from boxes of the reference; gives the masks in the axes of the base."""
    array, mask = blob((9, 12, 7))
    boxes_dir, masks = tmp_path / "boxes", []
    for index, orientation in enumerate(orientations):
        turned = write_turned(tmp_path / "data", f"o{index:02d}", array, affine, orientation)
        label = apply_orientation(mask, orientation)
        boxes = boxes_of_labels(label, turned, {1: "liver"}, f"o{index:02d}")
        write_boxes(boxes, boxes_file(boxes_dir, f"o{index:02d}"))
    sources = {"torso": tmp_path / "data", "medlam.pt": tmp_path / "none.pt"}
    options = {"boxes_from": "files", "boxes_dir": str(boxes_dir), "output_dir": str(tmp_path / "out")}
    run_inference("medlsam", segmenter_overrides(sources, tmp_path, window_hu=[-1000, 1000], **options))
    for index in range(len(orientations)):
        image = nib.load(tmp_path / "data" / f"o{index:02d}.nii.gz")
        found = nib.load(tmp_path / "out" / f"o{index:02d}_seg.nii.gz")
        assert found.shape == image.shape
        np.testing.assert_allclose(found.affine, image.affine, atol=MAX_AFFINE_ERROR)
        masks.append(turned_back(np.asarray(found.dataobj), affine, image.affine))
    assert 2 * (masks[0] & mask).sum() / (masks[0].sum() + mask.sum()) > 0.8
    return masks


def test_medlsam_in_some_orientations(tmp_path):
    masks = segment_turned(SAMPLE, AFFINES["oblique"], tmp_path)
    assert all(np.array_equal(found, masks[0]) for found in masks)


@pytest.mark.slow
@pytest.mark.parametrize("kind", AFFINES)
def test_medlsam_in_all_orientations(kind, tmp_path):
    masks = segment_turned(ORIENTATIONS, AFFINES[kind], tmp_path)
    assert all(np.array_equal(found, masks[0]) for found in masks)


@pytest.mark.slow
@pytest.mark.parametrize(("degrees", "search", "orientations"), [(20, "none", ORIENTATIONS), (0, "fast", SAMPLE)])
def test_localization_in_all_orientations(degrees, search, orientations, tmp_path):
    """The same scan in 48 files has its boxes at the same place of the world; with the search, in some."""
    torso = {"num_unlabeled": 0, "num_validation": 0, "num_test": 1, "spacing_mm": 12.0, "field_of_view": "abdomen"}
    write_torso_phantoms(tmp_path / "torso", 2, seed=1, **torso)
    torch.manual_seed(0)
    torch.save(MedLAM(base_channels=2, patch_size=(16, 16, 32)).state_dict(), tmp_path / "medlam.pt")
    (scan,) = (tmp_path / "torso" / "imagesTs").iterdir()
    image = nib.load(scan)
    array, affine = np.asarray(image.dataobj), oblique(degrees, nib.affines.voxel_sizes(image.affine))
    for index, orientation in enumerate(orientations):
        write_turned(tmp_path / "data", f"o{index:02d}", array, affine, orientation)
    tiny = {"spacing_mm": [16.0] * 3, "patch_size": [16, 16, 32], "base_channels": 2, "min_similarity": 0.0}
    tiny |= {"min_inside": 0.0, "cache_dir": str(tmp_path / "templates"), "num_workers": 0, "search": search}
    options = {"dataset_dir": str(tmp_path / "data"), "support_dir": str(tmp_path / "torso"), "num_supports": 1}
    options |= {"ckpt_path": str(tmp_path / "medlam.pt"), "output_dir": str(tmp_path / "out")}
    run_inference("medlsam", {**tiny, **options}, ("localize.json",))
    base = read_boxes(boxes_file(tmp_path / "out", "o00"), affine, array.shape)
    assert sum(organ.present for organ in base.organs) >= 4
    for index in range(len(orientations)):
        turned = nib.load(tmp_path / "data" / f"o{index:02d}.nii.gz")
        own = read_boxes(boxes_file(tmp_path / "out", f"o{index:02d}"))
        np.testing.assert_allclose(own.affine, turned.affine, atol=MAX_AFFINE_ERROR)
        assert own.spatial_shape == turned.shape
        found = read_boxes(boxes_file(tmp_path / "out", f"o{index:02d}"), affine, array.shape)
        for one, other in zip(base.organs, found.organs, strict=True):
            assert [close(a, b) for a, b in zip(one.parts, other.parts, strict=True)] == [True] * len(one.parts)


def close(one: VoxelBox, other: VoxelBox) -> bool:
    """The same box, but for the rounding of a face that lies in the middle of a voxel."""
    return (
        max(np.abs(np.subtract(one.lower, other.lower)).max(), np.abs(np.subtract(one.upper, other.upper)).max()) <= 1
    )


@pytest.mark.parametrize("bundle", STREAMS)
class TestPhotographs:
    def predict(self, bundle, pictures, tmp_path, image_size):
        folder = tmp_path / "photographs" / "b" / "imagesTs"
        folder.mkdir(parents=True)
        for name, pixels in pictures.items():
            Image.fromarray(pixels).save(folder / f"{name}.png")
        options = {"network_def": {"_target_": "tests.faults.inference_runs.PixelNetwork"}, "image_size": image_size}
        settings = stream_overrides(tmp_path / "photographs", tmp_path, output_dir=str(tmp_path / "out"), **options)
        torch.save({"threshold": torch.tensor(0.5)}, tmp_path / "model.pt")
        run_inference(bundle, {**settings, "inferer": "@methods#none"})
        masks = {}
        for name in pictures:
            with Image.open(tmp_path / "out" / "b" / f"{name}_mask.png") as image:
                masks[name] = np.asarray(image)
            for channel in ("disc", "cup"):
                with Image.open(tmp_path / "out" / "b" / f"{name}_{channel}.png") as image:
                    assert np.array_equal(np.asarray(image) > 65535 // 2, masks[name] == 0)
        return masks

    def test_flips_and_transposes(self, bundle, tmp_path):
        _, mask = blob((72, 72, 1))
        pixels = np.repeat(np.where(mask, 250, 5).astype(np.uint8), 3, axis=2)
        turns = {
            f"t{k}{m}": (lambda a, k=k, m=m: np.rot90(a if m else a.swapaxes(0, 1), k))
            for k in range(4)
            for m in (0, 1)
        }
        found = self.predict(bundle, {name: np.ascontiguousarray(t(pixels)) for name, t in turns.items()}, tmp_path, 72)
        for name, turn in turns.items():
            np.testing.assert_array_equal(found[name] == 0, turn(mask[..., 0]) == 1)

    def test_other_sizes(self, bundle, tmp_path):
        pictures = {}
        for height, width in ((65, 131), (131, 65), (400, 97), (64, 64)):
            pixels = np.full((height, width, 3), 5, np.uint8)
            pixels[: height // 2, : width // 3] = 250
            pictures[f"s{height}x{width}"] = pixels
        found = self.predict(bundle, pictures, tmp_path, 48)
        for name, pixels in pictures.items():
            assert found[name].shape == pixels.shape[:2]
            mask, expected = found[name] == 0, pixels[..., 0] > 100
            assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) > 0.93
