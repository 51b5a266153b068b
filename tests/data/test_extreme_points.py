"""Extreme points: from masks, from and to files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from common.data.boxes import OrganBoxes, ScanBoxes, VoxelBox
from common.data.extreme_points import (
    SIDES,
    cut_sides,
    extreme_points_of_mask,
    grid_sides,
    read_extreme_points,
    slab_points_of_mask,
    write_box_markups,
    write_extreme_points,
    write_point_markups,
)
from common.data.problems import DatasetError
from tests.oracles import medlam as oracle

# voxels (i, j, k) to RAS mm: i to the left, j to the back, k up
LPS = np.array([[-2.0, 0, 0, 50], [0, -1.5, 0, 40], [0, 0, 3.0, -20], [0, 0, 0, 1]])
SAL = np.array([[0, 0, -2.0, 50], [0, 1.5, 0, 40], [3.0, 0, 0, -20], [0, 0, 0, 1]])


@pytest.fixture
def mask():
    rng = np.random.default_rng(0)
    mask = np.zeros((14, 12, 10), bool)
    mask[3:9, 2:8, 1:7] = rng.random((6, 6, 6)) > 0.6
    return mask


@pytest.fixture
def points():
    mask = np.zeros((20, 20, 20), bool)
    mask[3:9, 5:12, 4:18] = True
    return {"liver": extreme_points_of_mask(mask, LPS), "left kidney": extreme_points_of_mask(~mask, LPS)}


class TestMasks:
    def test_the_oracles_voxels_on_their_outer_faces(self, mask):
        points = extreme_points_of_mask(mask, SAL)
        indices = np.linalg.solve(SAL, np.c_[points, np.ones(6)].T)[:3].T
        expected = oracle.middle_extreme_points(mask).astype(float)
        for axis in range(3):
            expected[axis, axis] -= 0.5
            expected[3 + axis, axis] += 0.5
        np.testing.assert_allclose(indices, expected, atol=1e-6)

    def test_orientation_in_memory_changes_nothing(self, mask):
        expected = extreme_points_of_mask(mask, SAL)
        flipped = SAL @ np.array([[-1.0, 0, 0, 13], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        np.testing.assert_allclose(extreme_points_of_mask(mask[::-1], flipped), expected)
        swapped = SAL[:, [2, 1, 0, 3]]
        np.testing.assert_allclose(extreme_points_of_mask(mask.transpose(2, 1, 0), swapped), expected)

    def test_sides_of_a_grid(self):
        assert [SIDES[i] for i in grid_sides(SAL)] == list(SIDES)
        names = [SIDES[i] for i in grid_sides(LPS)]
        assert names == ["right", "anterior", "inferior", "left", "posterior", "superior"]

    def test_slabs_share_the_height(self):
        mask = np.zeros((4, 4, 12), bool)
        mask[1:3, 1:3, 2:11] = True
        slabs = slab_points_of_mask(mask, LPS, 3)
        heights = slabs[:, [0, 3], 2]  # inferior and superior faces: 9 slices of 3 mm from -15.5 mm up
        np.testing.assert_allclose(heights, [[-15.5, -6.5], [-6.5, 2.5], [2.5, 11.5]])
        np.testing.assert_allclose(slab_points_of_mask(mask, LPS, 1)[0], extreme_points_of_mask(mask, LPS))

    def test_slabs_of_an_organ_with_a_gap_are_never_empty(self):
        mask = np.zeros((3, 3, 12), bool)
        mask[1, 1, [0, 1, 10, 11]] = True
        assert np.isfinite(slab_points_of_mask(mask, LPS, 4)).all()

    def test_cut_sides(self):
        mask = np.zeros((5, 5, 5), bool)
        mask[0:2, 2, 2:] = True  # i = 0 is the right end, k = 4 the upper one
        assert cut_sides(mask, LPS) == ["right", "superior"]


class TestFiles:
    def test_round_trips(self, points, tmp_path):
        write_extreme_points(points, tmp_path / "points.json")
        write_point_markups(points, tmp_path / "points.mrk.json")
        for name in ("points.json", "points.mrk.json"):
            read = read_extreme_points(tmp_path / name)
            assert list(read) == list(points)
            for organ in points:
                np.testing.assert_allclose(read[organ], points[organ], atol=1e-3)

    def test_slicer_points_are_told_apart_by_where_they_are(self, points, tmp_path):
        controls = [
            {"label": f"liver-{n}", "position": (point * [-1, -1, 1]).tolist()}
            for n, point in enumerate(points["liver"][[4, 0, 5, 2, 1, 3]])
        ]
        (tmp_path / "p.mrk.json").write_text(json.dumps({"markups": [{"type": "Fiducial", "controlPoints": controls}]}))
        np.testing.assert_allclose(read_extreme_points(tmp_path / "p.mrk.json")["liver"], points["liver"])

    def test_boxes_as_regions(self, tmp_path):
        liver = OrganBoxes("liver", 1, (VoxelBox((2, 4, 6), (6, 8, 7)),), 0.8)
        absent = OrganBoxes("spleen", 2, (), 0.1, False, "not in this scan")
        (file,) = write_box_markups(ScanBoxes("a", LPS, (20, 20, 20), (liver, absent)), tmp_path)
        assert file.name == "a_liver.mrk.json"
        (region,) = json.loads(file.read_text())["markups"]
        assert region["size"] == [8.0, 6.0, 3.0]
        # middle voxel (3.5, 5.5, 6): RAS (43, 31.75, -2), LPS (-43, -31.75, -2)
        assert region["center"] == [-43.0, -31.75, -2.0]
        np.testing.assert_allclose(np.reshape(region["orientation"], (3, 3)), np.eye(3), atol=1e-9)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "must be JSON in UTF-8"),
            ("[]", "must have `organs` or Slicer's `markups`; found list"),
            (
                '{"organs": {"liver": {"left": [0, 0, 0]}}}',
                "liver: must have the points inferior, posterior.*found left",
            ),
            ('{"markups": []}', "must have six points named after each organ; found no point"),
            ('{"markups": [{"controlPoints": [{"label": "liver-1", "position": [1, 2, 3]}]}]}', "found 1 of 'liver'"),
        ],
    )
    def test_refused_files(self, content, message, tmp_path):
        (tmp_path / "p.json").write_text(content)
        with pytest.raises(DatasetError, match=message):
            read_extreme_points(tmp_path / "p.json")

    def test_refused_points(self, points, tmp_path):
        write_extreme_points({"liver": points["liver"] * [-1, -1, 1]}, tmp_path / "lps.json")
        with pytest.raises(
            DatasetError, match=r"its posterior point on the posterior side of its anterior one.*RAS, not LPS"
        ):
            read_extreme_points(tmp_path / "lps.json")
        write_extreme_points({"liver": np.full((6, 3), np.nan)}, tmp_path / "nan.json")
        with pytest.raises(DatasetError, match="must have three numbers a point"):
            read_extreme_points(tmp_path / "nan.json")
        with pytest.raises(DatasetError, match=r"must be a file of extreme points; found nothing"):
            read_extreme_points(tmp_path / "absent.json")

    def test_one_point_on_two_sides(self, tmp_path):
        controls = [{"label": f"liver-{n}", "position": [n, n, n]} for n in range(6)]
        (tmp_path / "p.mrk.json").write_text(json.dumps({"markups": [{"controlPoints": controls}]}))
        with pytest.raises(DatasetError, match="a point of its own on each of six sides; found one point twice"):
            read_extreme_points(tmp_path / "p.mrk.json")
