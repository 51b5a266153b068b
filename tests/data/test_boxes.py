"""Boxes in memory, between voxel grids, and as JSON."""

import json

import numpy as np
import pytest

from common.data.boxes import (
    OrganBoxes,
    ScanBoxes,
    VoxelBox,
    boxes_file,
    boxes_of_labels,
    read_boxes,
    write_boxes,
)
from common.data.problems import DatasetError

AFFINE = np.array([[2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
SHAPE = (10, 11, 12)


def scan(*parts, affine=AFFINE, **options):
    return ScanBoxes("a", affine, SHAPE, (OrganBoxes("liver", 1, parts, **options),))


def only_part(boxes):
    (organ,) = boxes.organs
    (part,) = organ.parts
    return part


class TestVoxelBox:
    def test_faces_in_mm_lie_half_a_voxel_outside_the_centers(self):
        # centers of voxels 1..3 lie at 12..16 mm, so the faces at 11 and 17
        assert VoxelBox((1, 2, 3), (4, 5, 6)).bounds_mm(AFFINE) == ((11, 24.5, 40), (17, 33.5, 52))

    @pytest.mark.parametrize(
        ("lower", "upper", "expected"),
        [
            ((0.4, 1.5, 2.6), (3.4, 3.5, 3.6), ((0, 2, 3), (3, 4, 4))),
            ((0.6, 0, 0), (0.8, 1, 1), ((0, 0, 0), (1, 1, 1))),  # thinner than a voxel
            ((-0.2, 0, 0), (0.1, 1, 1), ((-1, 0, 0), (0, 1, 1))),
        ],
    )
    def test_around_takes_the_nearest_faces(self, lower, upper, expected):
        box = VoxelBox.around(lower, upper)
        assert (box.lower, box.upper) == expected

    def test_empty_and_flat_boxes_are_refused(self):
        with pytest.raises(ValueError, match=r"must hold a voxel on each axis.*\(1, 2, 3\) and upper \(2, 2, 4\)"):
            VoxelBox((1, 2, 3), (2, 2, 4))
        with pytest.raises(ValueError, match="must have 3 axes"):
            VoxelBox((1, 2), (2, 3))

    def test_clipped(self):
        assert VoxelBox((-3, 2, 9), (4, 20, 30)).clipped(SHAPE) == VoxelBox((0, 2, 9), (4, 11, 12))
        assert VoxelBox((10, 0, 0), (12, 2, 2)).clipped(SHAPE) is None

    def test_window_cuts_the_box(self):
        array = np.zeros(SHAPE)
        array[VoxelBox((1, 2, 3), (4, 5, 6)).window] = 1
        assert array.sum() == 27
        assert array[3, 4, 5] == 1


class TestGrids:
    def test_other_orientation_and_back_is_exact(self):
        # a grid whose axes are (k, -j, i) of this one
        between = np.array([[0.0, 0, 1, 0], [0, -1, 0, 10], [1, 0, 0, 0], [0, 0, 0, 1]])
        other = AFFINE @ between
        moved = scan(VoxelBox((1, 2, 3), (4, 5, 6))).in_grid(other, (12, 11, 10))
        assert only_part(moved) == VoxelBox((3, 6, 1), (6, 9, 4))
        assert only_part(moved.in_grid(AFFINE, SHAPE)) == VoxelBox((1, 2, 3), (4, 5, 6))

    def test_oblique_grid_gives_the_enclosing_box(self):
        angle = np.deg2rad(45)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        moved = VoxelBox((0, 0, 0), (10, 10, 10)).in_grid(np.eye(4), turn)
        extent = np.subtract(moved.upper, moved.lower)
        assert abs(extent[:2] - 10 * np.sqrt(2)).max() < 1
        assert extent[2] == 10


class TestFile:
    def test_round_trip(self, tmp_path):
        boxes = scan(VoxelBox((1, 2, 3), (4, 5, 6), 0.75), VoxelBox((2, 2, 6), (4, 6, 8)), confidence=0.5)
        path = boxes_file(tmp_path, "a")
        write_boxes(boxes, path)
        read = read_boxes(path)
        assert path.name == "a_boxes.json"
        assert (read.case, read.spatial_shape, read.organs) == (boxes.case, boxes.spatial_shape, boxes.organs)
        np.testing.assert_array_equal(read.affine, AFFINE)
        entry = json.loads(path.read_text())["organs"][0]
        assert entry["box"]["voxels"] == [[1, 2, 3], [4, 6, 8]]
        assert entry["box"]["mm"] == [[11, 24.5, 40], [17, 36.5, 60]]

    def test_absent_organ(self, tmp_path):
        write_boxes(scan(present=False, confidence=0.1, note="nothing is similar"), tmp_path / "a.json")
        (organ,) = read_boxes(tmp_path / "a.json").organs
        assert (organ.present, organ.parts, organ.whole, organ.note) == (False, (), None, "nothing is similar")

    def test_a_box_in_mm_alone_is_enough_where_the_scan_is_known(self, tmp_path):
        entry = {"organ": "liver", "label": 1, "parts": [{"mm": [[11, 24.5, 40], [17, 33.5, 52]]}]}
        (tmp_path / "a.json").write_text(json.dumps({"organs": [entry]}))
        assert only_part(read_boxes(tmp_path / "a.json", AFFINE, SHAPE)) == VoxelBox((1, 2, 3), (4, 5, 6))
        with pytest.raises(DatasetError, match="must have `affine` and `spatial_shape`"):
            read_boxes(tmp_path / "a.json")

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"organ": "liver", "label": 1}, r"organs\[0\]: must have `organ`, `label` and `parts`.*no 'parts'"),
            ({"organ": "liver", "label": 0, "parts": []}, "must be at least 1, as 0 is background"),
            ({"organ": "liver", "label": 1, "parts": [], "present": True}, "is present, so it must have a box"),
            ({"organ": "a", "label": 1, "parts": [{"voxels": [[0, 0, 0], [0, 1, 1]]}]}, "must hold a voxel"),
            ({"organ": "a", "label": 1, "parts": [{"mm": [[0, 0, 2], [1, 1, 1]]}]}, "lower not above upper"),
            ({"organ": "a", "label": 1, "parts": [{}]}, "no 'mm'"),
            ("liver", "must have `organ`, `label` and `parts`"),
        ],
    )
    def test_a_bad_entry_is_named(self, tmp_path, entry, message):
        (tmp_path / "a.json").write_text(json.dumps({"organs": [entry]}))
        with pytest.raises(DatasetError, match=message):
            read_boxes(tmp_path / "a.json", AFFINE, SHAPE)

    def test_bad_files(self, tmp_path):
        path = tmp_path / "a.json"
        with pytest.raises(DatasetError, match=r"must be a file of boxes; found nothing. Remedy: localize first"):
            read_boxes(path)
        path.write_text("{")
        with pytest.raises(DatasetError, match="must be JSON"):
            read_boxes(path)
        path.write_text("[]")
        with pytest.raises(DatasetError, match="must be an object with the list `organs`; found list"):
            read_boxes(path)
        organ = {"organ": "liver", "label": 1, "parts": [{"voxels": [[0, 0, 0], [1, 1, 1]]}]}
        path.write_text(json.dumps({"organs": [organ, organ]}))
        with pytest.raises(DatasetError, match="must name each label once"):
            read_boxes(path, AFFINE, SHAPE)


class TestReference:
    @pytest.fixture
    def label_map(self):
        label = np.zeros(SHAPE, np.uint8)
        label[2:5, 3:7, 4:6] = 1
        label[3, 3:9, 5] = 1
        return label

    def test_one_box_an_organ(self, label_map):
        boxes = boxes_of_labels(label_map, AFFINE, {1: "liver", 2: "spleen"}, "a")
        assert boxes.organs[0].parts == (VoxelBox((2, 3, 4), (5, 9, 6)),)
        assert (boxes.organs[1].present, boxes.organs[1].parts) == (False, ())

    def test_one_box_a_slice(self, label_map):
        (organ,) = boxes_of_labels(label_map, AFFINE, {1: "liver"}, "a", slice_axis=0).organs
        assert organ.parts == (
            VoxelBox((2, 3, 4), (3, 7, 6)),
            VoxelBox((3, 3, 4), (4, 9, 6)),
            VoxelBox((4, 3, 4), (5, 7, 6)),
        )
        (organ,) = boxes_of_labels(label_map, AFFINE, {1: "liver"}, "a", slice_axis=2).organs
        assert organ.parts == (VoxelBox((2, 3, 4), (5, 7, 5)), VoxelBox((2, 3, 5), (5, 9, 6)))
