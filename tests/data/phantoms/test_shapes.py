"""Shapes, fields and the canvas against cases solved by hand."""

import numpy as np
import pytest

from common.data.phantoms.canvas import Canvas
from common.data.phantoms.fields import filtered_noise, spline_field
from common.data.phantoms.shapes import (
    ellipse,
    ellipsoid,
    rotation_matrix,
    smooth_max,
    smooth_min,
    spline_path,
    torso_section,
)


def make_canvas(shape=(21, 17, 13), spacing_mm=2.0):
    """A canvas whose tissue coordinates are mm around the middle of the grid."""
    axes = [(np.arange(n) - (n - 1) / 2) * spacing_mm for n in shape]
    x, y, z = (a.astype(np.float32) for a in np.meshgrid(*axes, indexing="ij"))
    blank = np.zeros(shape, dtype=np.float32)
    return Canvas(x, y, z, blank, np.zeros(shape, dtype=np.uint8), np.eye(3) / spacing_mm, spacing_mm)


def test_sphere_distance_is_exact():
    x = np.array([0.5, 3, 5, 9], dtype=np.float32)
    np.testing.assert_allclose(ellipsoid(x, 0 * x, 0 * x, (5, 5, 5)), x - 5, atol=1e-4)
    np.testing.assert_allclose(ellipse(x, 0 * x, 5.0, 5.0), x - 5, atol=1e-4)


def test_ellipsoid_is_zero_on_its_axes():
    points = np.diag([2.0, 3.0, 4.0]).astype(np.float32)
    np.testing.assert_allclose(ellipsoid(*points, (2, 3, 4)), 0, atol=1e-5)


def test_torso_section_has_its_own_front_and_back():
    x, y = np.array([10, 0, 0], dtype=np.float32), np.array([0, 6, -4], dtype=np.float32)
    np.testing.assert_allclose(torso_section(x, y, 10.0, 6.0, 4.0), 0, atol=1e-4)


def test_smooth_union_and_intersection():
    first, second = np.array([-3.0, 5.0, 1.0]), np.array([4.0, -2.0, 1.0])
    np.testing.assert_allclose(smooth_min(first, second, 1.0)[:2], [-3, -2])
    np.testing.assert_allclose(smooth_max(first, second, 1.0)[:2], [4, 5])
    assert smooth_min(first, second, 1.0)[2] == pytest.approx(0.75)  # the crease, filled by a quarter of the radius


def test_rotation_turns_right_to_front():
    np.testing.assert_allclose(rotation_matrix((0, 0, 90)) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_path_meets_its_points_at_even_steps():
    path = spline_path([(0, 0, 0, 1), (10, 0, 0, 3)], 2.0)
    np.testing.assert_allclose(path[:, 0], [0, 2, 4, 6, 8, 10])
    np.testing.assert_allclose(path[[0, -1], 3], [1, 3])


def test_painting_blends_by_volume_and_labels_by_center():
    canvas = make_canvas()
    region = canvas.everywhere()
    region.paint(region.x - 0.5, 100, 7)  # the border lies a quarter of a voxel right of the center voxel's middle
    assert canvas.hu[10, 0, 0] == pytest.approx(75)
    assert canvas.hu[9, 0, 0] == 100
    assert canvas.hu[11, 0, 0] == 0
    assert canvas.label[10, 0, 0] == 7
    assert canvas.label[11, 0, 0] == 0


def test_box_holds_what_lies_between_the_corners_and_is_empty_elsewhere():
    canvas = make_canvas((41, 41, 41))
    region = canvas.box((-4, -4, -4), (4, 4, 4))
    assert region.x.min() <= -4
    assert region.x.max() >= 4
    assert region.x.shape < canvas.x.shape
    assert canvas.box((500, 500, 500), (510, 510, 510)).hu.size == 0


def test_tube_equals_the_distance_to_its_axis():
    canvas = make_canvas((21, 21, 31), 1.0)
    path = np.column_stack([np.zeros(41), np.zeros(41), np.linspace(-20, 20, 41), np.full(41, 4.0)])
    region, distance, nearest = canvas.tube(path)
    expected = np.hypot(region.x, region.y) - 4
    near = expected < 2
    np.testing.assert_allclose(distance[near], expected[near], atol=1e-4)
    np.testing.assert_allclose(path[nearest[near], 2], region.z[near])


def test_strands_keep_their_volume():
    canvas = make_canvas(spacing_mm=4.0)
    path = np.array([[0.3, -1.2, z, 1.0, 0.5] for z in np.arange(-10, 10, 0.5)])
    share = canvas.strands(path)
    assert share.sum() * 4.0**3 == pytest.approx(np.pi * 20.0, rel=1e-5)


def test_locate_inverts_a_deformed_canvas():
    rng = np.random.default_rng(0)
    canvas = make_canvas((31, 33, 35))
    field = [3 * spline_field(rng, canvas.x.shape, (2.0, 2.0, 2.0), 30.0) for _ in range(3)]
    bent = canvas.displaced(field)
    index = np.array([[10, 12, 20], [20, 9, 15]])
    points = np.array([[c[tuple(i)] for c in (bent.x, bent.y, bent.z)] for i in index])
    np.testing.assert_allclose(bent.locate(points), index, atol=0.05)


def test_fields_are_standardized_and_smooth():
    rng = np.random.default_rng(0)
    field = spline_field(rng, (60, 60, 60), (2.0, 2.0, 2.0), 10.0)
    assert field.std() == pytest.approx(1, abs=0.15)
    assert np.abs(np.diff(field, axis=0)).mean() < 0.35
    noise = filtered_noise(rng, (40, 40, 40), (1.0, 1.0, 0.0))
    assert noise.std() == pytest.approx(1, abs=1e-3)
    assert np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1] > 0.5
    assert abs(np.corrcoef(noise[..., 1:].ravel(), noise[..., :-1].ravel())[0, 1]) < 0.05
