"""Pictures: the right planes, the right way up, structures where they are."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from common.evaluation.masks import CaseMasks, CroppedMask, Grid
from common.evaluation.overlays import cut_plane
from common.tools.pictures import Line, center_of, colored, draw_planes, encode, gray, structure_colors

GRID = Grid((20, 30, 10), np.diag([2.0, 2.0, 6.0, 1.0]), (2.0, 2.0, 6.0))
BLOCK = (slice(4, 8), slice(10, 20), slice(2, 5))


def pixels_of(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def masks(*windows):
    names = ("first", "second")
    found = {
        n: CroppedMask(w, np.ones([s.stop - s.start for s in w], bool)) for n, w in zip(names, windows, strict=False)
    }
    return CaseMasks(GRID, {"first": None, "second": None} | found)


def test_planes_are_shown_as_radiologists_look_at_them():
    volume = np.zeros((3, 4, 5))  # RAS
    volume[2, 3, 4] = 1  # right, front, head
    assert cut_plane(volume, 2, 4)[0, 0] == 1  # axial: right of the patient on the left, front up
    assert cut_plane(volume, 1, 3)[0, 0] == 1  # coronal: head up
    assert cut_plane(volume, 0, 2)[0, 0] == 1  # sagittal: front on the left, head up
    assert cut_plane(volume, 2, 4).shape == (4, 3)


def test_each_plane_has_the_image_and_each_set_of_masks():
    image = np.zeros(GRID.shape, dtype=np.float32)
    case = masks(BLOCK)
    center = center_of([case], None, GRID)
    sets = {"prediction": case, "reference": masks()}
    pictures = list(draw_planes(image, GRID, sets, structure_colors(["first", "second"]), center, (0.0, 1.0)))
    assert [caption for _, caption in pictures] == [
        f"{title}, {plane}"
        for plane in ("axial", "coronal", "sagittal")
        for title in ("image", "prediction", "reference")
    ]
    for (png, _), is_colored in zip(pictures, [False, True, False] * 3, strict=True):
        assert bool(np.ptp(pixels_of(png), axis=2).max() > 20) == is_colored
    # 10 slices of 6 mm above 20 voxels of 2 mm: higher than wide
    height, width = pixels_of(pictures[3][0]).shape[:2]
    assert (height, width) == (288, 192)


def test_the_middle_is_that_of_the_structure():
    case = masks(BLOCK, (slice(0, 2), slice(0, 2), slice(0, 2)))
    assert center_of([case], "first", GRID) == [5, 14, 3]
    assert center_of([case], "second", GRID) == [0, 0, 0]
    assert center_of([masks(), case], "first", GRID) == [5, 14, 3]  # the first that has it
    assert center_of([masks()], "first", GRID) == [10, 15, 5]


def test_what_is_drawn_lies_where_it_is():
    black = np.zeros((10, 10, 3), dtype=np.uint8)
    labels = np.zeros((10, 10), dtype=np.uint8)
    labels[2:4, 5:8] = 2
    found = np.argwhere(pixels_of(encode(black, 1.0, labels, [(1, 0, 0), (0, 1, 0)])).max(axis=2) > 50) / 28.8
    np.testing.assert_allclose(found.min(axis=0), (2, 5), atol=0.1)
    np.testing.assert_allclose(found.max(axis=0), (4, 8), atol=0.1)
    line = Line(np.array([(1.0, 2.0), (9.0, 2.0)]), "#ff0000")
    rows, columns = np.argwhere(pixels_of(encode(black, lines=[line]))[..., 0] > 50).T / 28.8
    assert (abs(rows - 2) < 0.1).all()
    assert columns.min() < 1.1
    assert columns.max() > 8.9
    broken = Line(line.points, line.color, dashed=True, dots=True)
    drawn = pixels_of(encode(black, lines=[broken]))[..., 0] > 50
    assert 0.3 < drawn[57:59, 40:250].any(axis=0).mean() < 0.7


def test_intensities_and_numbers_become_pixels():
    np.testing.assert_array_equal(gray(np.array([[-5.0, 0.0, 1.0, 2.0, 9.0]]), 0, 2)[0, :, 0], [0, 0, 128, 255, 255])
    assert gray(np.zeros((2, 2, 3)), 0, 0).shape == (2, 2, 3)
    np.testing.assert_array_equal(colored(np.array([[0.0, 1.0]]), 0, 1, "gray")[0], [[0] * 3, [255] * 3])


def test_structures_keep_their_colors():
    colors = structure_colors([f"s{k}" for k in range(12)])
    assert len(set(colors.values())) == 12
    assert structure_colors(["disc", "cup"], on_photograph=True) == {"disc": "#00d5ff", "cup": "#39ff14"}
