"""Template search against a slow loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.inferers.localization.search import add_finest, correlate, cut_template, group_points, similarity_maps
from tests.oracles import medlam as oracle

PATCH = (16, 24, 16)


@pytest.fixture
def maps():
    torch.manual_seed(0)
    return [torch.randn(1, 5, n, n + n // 2, n) for n in (4, 8, 16)]


def test_against_the_slow_loop(maps):
    torch.manual_seed(1)
    templates = [t + 0.2 * torch.randn_like(t) for t in cut_template(maps)]
    ours = similarity_maps([m[0] for m in maps], templates, PATCH)[0]
    expected = oracle.similarity_map([m[0] for m in maps], [t[0] for t in templates])
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


def test_a_patch_is_found_in_itself_without_any_shift(maps):
    scores = similarity_maps([m[0] for m in maps], cut_template(maps), PATCH)[0]
    assert np.unravel_index(int(scores.argmax()), scores.shape) == (8, 12, 8)
    assert scores.max().item() == pytest.approx(3.0, abs=1e-5)


def test_coarse_scales_alone_have_the_places_of_the_patch(maps):
    coarse, templates = [m[0] for m in maps[:2]], cut_template(maps)[:2]
    scores = similarity_maps(coarse, templates, PATCH)[0]
    assert scores.shape == (17, 25, 17)
    assert np.unravel_index(int(scores.argmax()), scores.shape) == (8, 12, 8)
    assert scores.max().item() == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("shift", [(4, 0, 0), (0, -4, 4)])
def test_every_scale_moves_with_the_patch(maps, shift):
    """A shift by whole voxels of the coarsest scale moves the peak of each scale by just as much."""
    moved = [m.roll([s // (16 // m.shape[2]) for s in shift], dims=(2, 3, 4)) for m in maps]
    for scale in range(3):
        features = F.normalize(moved[scale][0], dim=0)
        scores = correlate(features, cut_template(maps)[scale])[0]
        stride = 4 // 2**scale
        expected = [(n // 2 + s) // stride for n, s in zip((16, 24, 16), shift, strict=True)]
        assert list(np.unravel_index(int(scores.argmax()), scores.shape)) == expected


def test_several_templates_at_once(maps):
    templates = cut_template(maps)
    two = [torch.cat([t, t.flip(1)]) for t in templates]
    both = similarity_maps([m[0] for m in maps], two, PATCH)
    torch.testing.assert_close(both[:1], similarity_maps([m[0] for m in maps], templates, PATCH))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 0.0, 2.0), (0.0, 0.0, 1.0)])
def test_weights_of_the_scales(maps, weights):
    templates, features = cut_template(maps), [m[0] for m in maps]
    singles = [similarity_maps(features, templates, PATCH, [float(i == scale) for i in range(3)]) for scale in range(3)]
    expected = sum(w * single for w, single in zip(weights, singles, strict=True))
    torch.testing.assert_close(similarity_maps(features, templates, PATCH, weights), expected)


def test_the_finest_scale_of_a_block_is_that_of_the_patch_where_no_template_hangs_over(maps):
    templates, features = cut_template(maps), [m[0] for m in maps]
    expected = similarity_maps(features, templates, PATCH)[0]
    scores = similarity_maps(features[:2], templates[:2], PATCH)[0]
    # from a face of the patch on, so nothing hangs over at that end but what the patch has, too
    add_finest(scores, features[2][:, 0:14, 2:20, 3:16], templates[2], torch.tensor([0, 2, 3]))
    torch.testing.assert_close(scores[0:11, 6:17, 7:17], expected[0:11, 6:17, 7:17])


class TestGroups:
    def test_solved_by_hand(self):
        centers = torch.tensor([[0, 0, 0], [9, 0, 0], [3, 2, 0], [4, 4, 4], [20, 0, 0]])
        groups = group_points(centers, 4)
        # the third point has three others within 8 voxels, of which the second does not fit into 8 with the first
        assert [(center.tolist(), points) for center, points in groups] == [
            ([2, 2, 2], [0, 2, 3]),
            ([9, 0, 0], [1]),
            ([20, 0, 0], [4]),
        ]

    def test_every_point_once_and_within_reach(self):
        centers = torch.randint(0, 40, (60, 3), generator=torch.Generator().manual_seed(0))
        groups = group_points(centers, 5)
        assert sorted(point for _, points in groups for point in points) == list(range(60))
        assert max((centers[p] - c).abs().max() for c, p in groups) <= 5
        assert len(groups) < 50

    def test_no_reach_is_a_patch_for_each_place(self):
        centers = torch.tensor([[1, 2, 3], [1, 2, 4], [1, 2, 3]])
        assert [points for _, points in group_points(centers, 0)] == [[0, 2], [1]]
