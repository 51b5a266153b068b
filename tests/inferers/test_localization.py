"""Localization: geometry, search against an exhaustive reference, absence, bad input."""

from __future__ import annotations

import logging
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor

from common.data.extreme_points import extreme_points_of_mask, write_extreme_points
from common.data.problems import DatasetError
from common.inferers.localization import (
    LocalizationInferer,
    OrganTemplate,
    boxes_of_points,
    build_templates,
    load_templates,
    localizer,
    read_supports,
    unpack_points,
)
from common.inferers.localization.localizer import FoundPoints
from common.inferers.localization.outputs import draw_boxes
from common.inferers.localization.search import best_place, correlate
from common.inferers.localization.shape import fit_shape
from common.losses.relative_distance import offset_mm
from common.networks import MedLAM
from common.transforms.paired_patches import crop_padded
from tests.oracles import medlam as oracle

PATCH = (16, 16, 32)
# Of a similarity: the fast search estimates what the features are normalized by.
TOLERANCE = {"exact": 1e-5, "fast": 0.05}
NAMES = {1: "cube", 2: "bar", 3: "ghost"}
# a scan whose grid is that of the network: axes (superior, anterior, left), 3 mm
SAL = np.array([[0, 0, -3.0, 50], [0, 3.0, 0, 40], [3.0, 0, 0, -20], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MedLAM(base_channels=2, patch_size=PATCH).eval()


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(0)
    volume = rng.random((24, 20, 30)).astype(np.float32)
    label = np.zeros(volume.shape, np.uint8)
    label[6:15, 5:13, 8:20] = 1
    label[10:18, 14:18, 4:9] = 2
    return volume, label


@pytest.fixture(scope="module")
def datalist(scan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("supports")
    volume, label = scan
    nib.save(nib.Nifti1Image(volume, SAL), folder / "image.nii.gz")
    nib.save(nib.Nifti1Image(label, SAL), folder / "label.nii.gz")
    return [{"case": "a", "image": str(folder / "image.nii.gz"), "label": str(folder / "label.nii.gz")}]


def load(data):
    """Preprocessing of scans that are in the network's grid already."""
    image = nib.load(data["image"])
    return {"image": MetaTensor(torch.from_numpy(image.get_fdata(dtype=np.float32))[None], affine=image.affine)}


@pytest.fixture(scope="module")
def templates(network, datalist):
    return load_templates(network, datalist, load, NAMES)


def diagonal(points):
    return np.concatenate([np.diagonal(points[:3]), np.diagonal(points[3:])])


class TestSupports:
    def test_whole_organs(self, datalist, scan):
        (support,) = read_supports(datalist, NAMES)
        assert set(support.points_mm) == {"cube", "bar"}
        np.testing.assert_allclose(support.points_mm["cube"][0], extreme_points_of_mask(scan[1] == 1, SAL))

    def test_the_shape_is_that_of_the_points(self, templates, scan):
        # outer faces of a box of 9 x 8 x 12 voxels
        ends = diagonal(templates[0].shape[0].numpy())
        np.testing.assert_allclose(ends[3:] - ends[:3], [9, 8, 12], atol=1e-4)
        np.testing.assert_allclose(templates[0].shape.sum(dim=1), 0, atol=1e-4)

    def test_slabs_are_as_many_as_fit(self, datalist):
        # 9 and 8 slices of 3 mm
        (support,) = read_supports(datalist, NAMES, slab_mm=6.0)
        assert {organ: len(points) for organ, points in support.points_mm.items()} == {"cube": 4, "bar": 4}
        (support,) = read_supports(datalist, NAMES, slab_mm=3.0, max_slabs=None)
        assert {organ: len(points) for organ, points in support.points_mm.items()} == {"cube": 9, "bar": 8}
        (support,) = read_supports(datalist, NAMES, slab_mm=1.0, max_slabs=6)
        assert len(support.points_mm["cube"]) == 6

    def test_an_organ_may_be_missing_from_a_support(self, network, datalist, scan, tmp_path):
        nib.save(nib.Nifti1Image((scan[1] == 1).astype(np.uint8), SAL), tmp_path / "label.nii.gz")
        other = {**datalist[0], "case": "b", "label": str(tmp_path / "label.nii.gz")}
        cube, bar = load_templates(network, [*datalist, other], load, NAMES)
        assert (cube.num_supports, bar.num_supports) == (2, 1)

    def test_cut_organs_are_left_out_where_there_is_a_whole_one(self, network, datalist, scan, tmp_path, caplog):
        label = np.zeros_like(scan[1])
        label[:4, 5:9, 5:9] = 1
        nib.save(nib.Nifti1Image(label, SAL), tmp_path / "label.nii.gz")
        cut = {**datalist[0], "case": "b", "label": str(tmp_path / "label.nii.gz")}
        with caplog.at_level(logging.WARNING):
            cube, _ = load_templates(network, [cut, *datalist], load, NAMES)
        assert cube.num_supports == 1
        assert "Support b: cube is cut off (inferior) and is left out." in caplog.text

    def test_points_give_the_templates_of_the_label_map(self, network, datalist, templates, scan, tmp_path):
        points = {name: extreme_points_of_mask(scan[1] == label, SAL) for label, name in ((1, "cube"), (2, "bar"))}
        write_extreme_points(points, tmp_path / "points.json")
        entry = {"case": "a", "image": datalist[0]["image"], "points": str(tmp_path / "points.json")}
        for ours, expected in zip(load_templates(network, [entry], load, NAMES), templates, strict=True):
            torch.testing.assert_close(ours.position, expected.position)
            torch.testing.assert_close(ours.residual, expected.residual, atol=1e-3, rtol=0)
        with pytest.raises(DatasetError, match="must have a label map for slabs; found points"):
            read_supports([entry], NAMES, slab_mm=6.0)
        with pytest.raises(DatasetError, match=r"must name organs among tube; found bar, cube"):
            read_supports([entry], {1: "tube"})

    def test_points_outside_the_scan(self, datalist, scan, tmp_path):
        write_extreme_points({"cube": extreme_points_of_mask(scan[1] == 1, SAL) + 100.0}, tmp_path / "points.json")
        entry = {"case": "a", "image": datalist[0]["image"], "points": str(tmp_path / "points.json")}
        with pytest.raises(DatasetError, match=r"must lie in the scan, of 24 x 20 x 30 voxels; found cube at"):
            read_supports([entry], NAMES)

    def test_supports_without_any_organ(self, datalist):
        with pytest.raises(DatasetError, match="must show one of ghost; found none in a"):
            read_supports(datalist, {7: "ghost"})
        with pytest.raises(DatasetError, match="must have a scan"):
            read_supports([], NAMES)

    def test_refused_slabs(self, datalist):
        with pytest.raises(ValueError, match="slab_mm must be positive and max_slabs at least 1, got 0"):
            read_supports(datalist, NAMES, slab_mm=0.0)


class TestTemplates:
    def test_residual_leads_back_to_the_face(self, templates):
        cube = templates[0]
        # a face lies half a voxel outside of the outermost voxel's center, around which the patch is cut
        expected = torch.zeros(6, 3)
        expected[[0, 1, 2], [0, 1, 2]] = -0.5
        expected[[3, 4, 5], [0, 1, 2]] = 0.5
        torch.testing.assert_close(cube.residual[0], expected, atol=1e-5, rtol=0)

    def test_mean_of_supports(self, network, datalist):
        (support,) = read_supports(datalist, NAMES)
        one = build_templates(network, [support], load, NAMES)
        two = build_templates(network, [support, support], load, NAMES)
        for ours, expected in zip(two[0].maps, one[0].maps, strict=True):
            torch.testing.assert_close(ours, expected)
        # 3 but for voxels at which no channel is active
        assert (one[0].best_similarity() > 2.5).all()
        assert (one[0].best_similarity() < 3.001).all()

    def test_cache_is_used_and_knows_what_changed(self, network, datalist, tmp_path, caplog):
        def refuse(_):
            raise AssertionError("the scan was encoded again")

        first = load_templates(network, datalist, load, NAMES, cache_dir=tmp_path)
        again = load_templates(network, datalist, refuse, NAMES, cache_dir=tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        for ours, expected in zip(again, first, strict=True):
            assert ours.organ == expected.organ
            torch.testing.assert_close(ours.maps, expected.maps)
        load_templates(network, datalist, load, NAMES, settings=[2.0], cache_dir=tmp_path)
        load_templates(MedLAM(base_channels=2, patch_size=PATCH).eval(), datalist, load, NAMES, cache_dir=tmp_path)
        assert len(list(tmp_path.iterdir())) == 3

    def test_a_spoilt_cache_is_made_anew(self, network, datalist, tmp_path, caplog):
        first = load_templates(network, datalist, load, NAMES, cache_dir=tmp_path)
        (file,) = tmp_path.glob("templates_*.pt")
        file.write_bytes(file.read_bytes()[:100])
        again = load_templates(network, datalist, load, NAMES, cache_dir=tmp_path)
        assert "cannot be read and is made anew" in caplog.text
        assert len(again) == len(first)


class TestSearch:
    @pytest.mark.parametrize("search", ["exact", "fast"])
    def test_support_as_query_is_found(self, network, scan, templates, search, monkeypatch):
        monkeypatch.setattr(localizer, "_SHARED", max(PATCH) + 1)  # no patch is shared
        inferer = LocalizationInferer(templates, num_starts=2, search=search)
        volume = torch.from_numpy(scan[0])[None]
        truth = [[5.5, 4.5, 7.5, 14.5, 12.5, 19.5], [9.5, 13.5, 3.5, 17.5, 17.5, 8.5]]
        # a window that is centered on the truth: a patch elsewhere has other features, by its normalization
        inferer._expect = lambda *_: torch.cat([_centers(scan[1] == label) for label in (1, 2)])
        with torch.inference_mode():
            found = inferer.locate(volume, network)
        error = np.abs([diagonal(points.voxels[0].numpy()) for points in found] - np.array(truth))
        for points in found:
            torch.testing.assert_close(points.similarity, torch.ones(1, 6), atol=TOLERANCE[search], rtol=0)
        assert error.max() < 1e-4

    def test_same_points_as_an_exhaustive_reference(self, network, scan, templates):
        volume = torch.from_numpy(scan[0])[None]
        inferer = LocalizationInferer(templates[:1], num_starts=3)
        with torch.inference_mode():
            (found,) = inferer.locate(volume, network)
            starts = inferer.draw_starts(volume)
            q = torch.stack(
                [network(crop_padded(volume, (c - torch.tensor(PATCH) // 2).tolist(), PATCH)[None])[0] for c in starts]
            )
            reach = offset_mm(templates[0].position[0], q.mean(0)) / 3.0
            expected = starts.float().mean(0) + reach
            torch.testing.assert_close(found.expected[0], expected)
            for index in range(6):
                center = np.clip(np.round(expected[index].numpy()), 0, np.array(scan[0].shape) - 1).astype(int)
                start = center - np.array(PATCH) // 2
                maps = network.decode(network.encode(crop_padded(volume, start.tolist(), PATCH)[None]))
                scores = oracle.similarity_map([m[0] for m in maps], [t[0, index] for t in templates[0].maps])
                places = start[:, None, None, None] + np.indices(scores.shape)
                limits = np.array(scan[0].shape)[:, None, None, None]
                scores[((places < 0) | (places >= limits)).any(axis=0)] = -9
                best = np.array(np.unravel_index(scores.argmax(), scores.shape)) + start
                ours = found.voxels[0, index] - templates[0].residual[0, index]
                np.testing.assert_allclose(ours.numpy(), best, atol=1e-4)

    def test_regression_alone(self, network, scan, templates):
        packed = LocalizationInferer(templates, search="none")(torch.from_numpy(scan[0])[None, None], network)
        for points in unpack_points(packed[0], templates):
            torch.testing.assert_close(points.voxels, points.expected)
            assert points.similarity.isnan().all()

    def test_fast_search_and_steps_stay_in_the_scan(self, network, scan, templates):
        inferer = LocalizationInferer(templates, search="fast", num_steps=3, num_starts=2)
        for points in unpack_points(inferer(torch.from_numpy(scan[0])[None, None], network)[0], templates):
            assert (points.voxels > -1).all()
            assert (points.voxels < torch.tensor(scan[0].shape)).all()

    def test_fast_search_shares_patches_and_exact_search_does_not(self, network, scan, templates, monkeypatch):
        centers = torch.tensor([[8.0, 9.0, 10.0], [10.0, 11.0, 12.0], [20.0, 15.0, 25.0]]).repeat(4, 1)
        volume = torch.from_numpy(scan[0])[None]
        counts = {}
        for search in ("exact", "fast"):
            inferer = LocalizationInferer(templates, search=search)
            inferer._expect = lambda *_: centers
            patches = []
            encode = network.encode
            monkeypatch.setattr(
                network, "encode", lambda x, encode=encode, patches=patches: patches.append(x) or encode(x)
            )
            with torch.inference_mode():
                inferer.locate(volume, network)
            monkeypatch.undo()
            counts[search] = len(patches)
        # four times the same three places, of which two are within 2 voxels of their middle
        assert counts == {"exact": 3, "fast": 2}

    def test_weights_of_the_scales(self, network, scan, templates):
        """Of the finest scale alone, the place with the highest similarity of that scale is taken."""
        volume = torch.from_numpy(scan[0])[None]
        center = torch.tensor([12, 10, 15])
        inferer = LocalizationInferer(templates[:1], scale_weights=(0.0, 0.0, 2.0))
        inferer._expect = lambda *_: center.float().repeat(6, 1)
        with torch.inference_mode():
            (found,) = inferer.locate(volume, network)
            patch = crop_padded(volume, (center - torch.tensor(PATCH) // 2).tolist(), PATCH)[None]
            features = F.normalize(network.decode(network.encode(patch))[2][0], dim=0)
        kernels = templates[0].maps[2][0]
        for index in range(6):
            scores = correlate(features, kernels[index, None])[0]
            best, _ = best_place(scores, torch.tensor([0, 0, 1]), torch.tensor([16, 16, 30]))
            place = center - torch.tensor(PATCH) // 2 + best + templates[0].residual[0, index]
            torch.testing.assert_close(found.voxels[0, index], place)
            own = kernels[index].square().sum(dim=0).mean()
            torch.testing.assert_close(found.similarity[0, index], scores[tuple(best)] / own)

    def test_packing_keeps_organs_apart(self, network, scan, templates):
        inferer = LocalizationInferer(templates)
        volume = torch.from_numpy(scan[0])[None]
        with torch.inference_mode():
            direct = inferer.locate(volume, network)
        for ours, expected in zip(unpack_points(inferer(volume[None], network)[0], templates), direct, strict=True):
            for a, b in zip(ours, expected, strict=True):
                torch.testing.assert_close(a, b)


class TestBadInput:
    def test_air_in_the_middle(self, network, templates):
        volume = torch.zeros(1, 80, 20, 30)
        volume[:, :6, :6, :6] = 0.5
        starts = LocalizationInferer(templates).draw_starts(volume)
        assert starts.shape == (10, 3)
        assert (starts < 6).all()

    def test_air_only(self, network, templates):
        with pytest.raises(ValueError, match=r"nothing but air: none of its \(8, 8, 8\) voxels is at least 0.001"):
            LocalizationInferer(templates)(torch.zeros(1, 1, 8, 8, 8), network)

    def test_a_scan_smaller_than_a_patch(self, network, templates):
        packed = LocalizationInferer(templates)(torch.rand(1, 1, 5, 9, 12), network)
        assert torch.isfinite(packed).all()

    def test_points_taken_together(self, network, templates):
        volume = torch.rand(1, 24, 20, 30)
        alone = LocalizationInferer(templates).locate(volume, network)
        together = LocalizationInferer(templates, shape_weight=2.0).locate(volume, network)
        for template, a, b in zip(templates, alone, together, strict=True):
            torch.testing.assert_close(b.voxels, fit_shape(a.voxels, template.shape, 2.0))
            assert not torch.allclose(b.voxels, a.voxels)
            torch.testing.assert_close(b.expected, a.expected)

    def test_refused_shapes_and_options(self, network, templates):
        with pytest.raises(ValueError, match=r"shape \(1, 1, D, H, W\); got \(2, 1, 8, 8, 8\)"):
            LocalizationInferer(templates)(torch.zeros(2, 1, 8, 8, 8), network)
        with pytest.raises(ValueError, match="search must be one of exact, fast, none, got 'slow'"):
            LocalizationInferer(templates, search="slow")
        with pytest.raises(ValueError, match="num_starts and num_steps must be at least 1"):
            LocalizationInferer(templates, num_steps=0)
        with pytest.raises(ValueError, match=r"the last, of the finest scale, above 0; got \[1, 1, 0\]"):
            LocalizationInferer(templates, scale_weights=[1, 1, 0])
        with pytest.raises(ValueError, match=r"scale_weights must be 3 factors from 0"):
            LocalizationInferer(templates, scale_weights=[1, 1])
        with pytest.raises(ValueError, match=r"refine_radius must be at least 1 voxel, got 0"):
            LocalizationInferer(templates, refine_radius=0)
        with pytest.raises(ValueError, match=r"shape_weight must be at least 0 or None, got -1"):
            LocalizationInferer(templates, shape_weight=-1)
        with pytest.raises(ValueError, match=r"packed must have shape \(12, 10\)"):
            unpack_points(torch.zeros(6, 10), templates)


class TestBoxes:
    template = OrganTemplate("liver", 4, 1, *[torch.zeros(1, 6, 3)] * 3, ())

    def judge(
        self, lower, upper, similarity=0.9, expected=None, from_start=None, affine=SAL, shape=(24, 20, 30), parts=1
    ):
        voxels = torch.zeros(parts, 6, 3)
        for axis in range(3):
            voxels[:, axis, axis], voxels[:, 3 + axis, axis] = lower[axis], upper[axis]
        expected = voxels if expected is None else expected
        first = expected if from_start is None else from_start
        found = FoundPoints(voxels, expected, torch.full((parts, 6), similarity), first)
        boxes = boxes_of_points("a", [found], [self.template], SAL, (24, 20, 30), affine, shape)
        return boxes.organs[0]

    def test_faces_between_voxels(self):
        organ = self.judge((5.5, 4.5, 7.5), (14.5, 12.5, 19.5))
        assert organ.present
        assert (organ.whole.lower, organ.whole.upper) == ((6, 5, 8), (15, 13, 20))
        assert organ.confidence == pytest.approx(0.9)

    def test_in_the_scan_as_stored(self):
        """Twice as fine, and turned: axes (left to right, front to back, upward) in 1.5 mm."""
        stored = np.array([[1.5, 0, 0, 0], [0, -1.5, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1]])
        # the same outer corner: left, front, lower end of the grid of 24 x 20 x 30 voxels
        corner = SAL @ [-0.5, 19.5, 29.5, 1]
        stored[:3, 3] = corner[:3] + np.array([0.75, -0.75, 0.75])
        organ = self.judge((5.5, 4.5, 7.5), (14.5, 12.5, 19.5), affine=stored, shape=(60, 40, 48))
        assert (organ.whole.lower, organ.whole.upper) == ((20, 14, 12), (44, 30, 30))

    def test_not_similar_is_not_in_this_scan(self):
        organ = self.judge((5, 5, 5), (9, 9, 9), similarity=0.3)
        assert not organ.present
        assert not organ.parts
        assert organ.note == "not in this scan: nothing is similar enough (0.30, below 0.5)"

    def test_expected_outside_is_not_in_this_scan(self):
        expected = torch.full((1, 6, 3), 5.0)
        expected[0, 0, 0], expected[0, 3, 0] = 60.0, 80.0
        organ = self.judge((5, 5, 5), (9, 9, 9), expected=expected)
        assert not organ.present
        assert organ.note.startswith("not in this scan: 100% of its expected box lie outside")

    def test_first_and_last_step_judge_together(self):
        inside, outside = torch.full((1, 6, 3), 5.0), torch.full((1, 6, 3), 5.0)
        outside[0, 0, 0], outside[0, 3, 0] = 60.0, 80.0
        assert self.judge((5, 5, 5), (9, 9, 9), expected=inside, from_start=outside).present  # one half
        outside[0, 0, 0], outside[0, 3, 0] = 21.0, 31.0
        inside[0, 0, 0], inside[0, 3, 0] = 21.0, 25.0
        assert not self.judge((5, 5, 5), (9, 9, 9), expected=inside, from_start=outside).present

    def test_ends_in_the_wrong_order_are_doubtful(self):
        organ = self.judge((12, 5, 5), (9, 9, 9), similarity=0.8)
        assert organ.present
        assert organ.confidence == pytest.approx(0.4)
        assert organ.note.startswith("doubtful: lower and upper end found in the wrong order in 1 of 1")
        assert organ.whole.lower[0] < organ.whole.upper[0]

    def test_small_boxes_cover_large_ones_in_the_label_map(self):
        organ = self.judge((0, 0, 0), (9, 9, 9))
        boxes = boxes_of_points("a", [], [], SAL, (24, 20, 30), SAL, (24, 20, 30))
        small = self.judge((2.5, 2.5, 2.5), (4.5, 4.5, 4.5))
        drawn = draw_boxes(replace(boxes, organs=(replace(small, label=7), organ)))
        assert (drawn == 7).sum() == 8
        assert (drawn == 4).sum() > 500


def _centers(mask):
    """The outermost voxels' centers of the middle points of a mask in the network's grid. Shape (6, 3)."""
    return torch.from_numpy(oracle.middle_extreme_points(mask)).float()
