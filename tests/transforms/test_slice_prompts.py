"""Slices with boxes and masks, drawn from a labelled scan."""

import numpy as np
import pytest
import torch

from common.transforms import RandSlicePromptsd


@pytest.fixture
def scan():
    """Organ 1 on the slices 2 to 5, widening; organ 2 on slice 5 alone; the image says slice, row and column."""
    label = torch.zeros(1, 8, 10, 20, dtype=torch.uint8)
    for number in range(2, 6):
        label[0, number, 2 : number + 2, 4:8] = 1
    label[0, 5, 8:10, 15:20] = 2
    image = torch.arange(8 * 10 * 20, dtype=torch.float32).reshape(1, 8, 10, 20)
    return {"image": image, "label": label}


def draw(scan, seed=0, **options):
    options = {"num_slices": 60, "jitter_px": (0, 0), **options}
    return RandSlicePromptsd(**options).set_random_state(seed)(scan)


def number_of(item):
    return int(item["image"][0, 0, 0]) // 200


def test_slices_have_an_organ_and_masks_are_those_of_the_slice(scan):
    items = draw(scan)
    assert {number_of(item) for item in items} == {2, 3, 4, 5}
    for item in items:
        number = number_of(item)
        assert torch.equal(item["image"], scan["image"][:, number])
        assert len(item["label"]) == len(item["boxes"]) == (2 if number == 5 else 1)
        organs = [scan["label"][0, number] == value for value in (1, 2)]
        assert all(any(torch.equal(mask.bool(), organ) for organ in organs) for mask in item["label"])


def test_tight_boxes(scan):
    for item in draw(scan, box_probs=(1, 0, 0)):
        for mask, box in zip(item["label"], item["boxes"], strict=True):
            rows, columns = np.nonzero(mask.numpy())
            expected = [columns.min() / 20, rows.min() / 10, (columns.max() + 1) / 20, (rows.max() + 1) / 10]
            np.testing.assert_allclose(box, expected, atol=1e-6)


def test_boxes_of_the_whole_organ(scan):
    for item in draw(scan, box_probs=(0, 0, 1)):
        for mask, box in zip(item["label"], item["boxes"], strict=True):
            expected = [0.2, 0.2, 0.4, 0.7] if mask[2, 4] else [0.75, 0.8, 1, 1]
            np.testing.assert_allclose(box, expected, atol=1e-6)


def test_boxes_of_parts_lie_between_the_slice_and_the_organ(scan):
    bottoms = {
        round(float(box[3]), 3) for item in draw(scan, box_probs=(0, 1, 0), max_part_slices=1) if number_of(item) == 3
        for box in item["boxes"]
    }  # fmt: skip
    assert bottoms == {0.5, 0.6}  # slices 2-3 or 3 alone; with slice 4


def test_an_organ_beyond_its_end_has_an_empty_mask(scan):
    items = draw(scan, max_overshoot=2, box_probs=(1, 0, 0))
    empty = [item for item in items if not item["label"].bool().flatten(1).any(dim=1).all()]
    assert {number_of(item) for item in empty} == {3, 4}  # organ 2 is on slice 5
    for item in empty:
        missing = ~item["label"].bool().flatten(1).any(dim=1)
        np.testing.assert_allclose(item["boxes"][missing][0], [0.75, 0.8, 1, 1], atol=1e-6)


def test_jitter_moves_each_side_within_its_range(scan):
    tight = draw(scan, num_slices=50)
    for sign, jitter in ((1, (10, 30)), (-1, (-30, -10))):
        moved = draw(scan, num_slices=50, jitter_px=jitter)
        shifts = torch.cat([(a["boxes"] - b["boxes"]) for a, b in zip(moved, tight, strict=True)]) * 1024
        outwards = shifts * torch.tensor([-1.0, -1, 1, 1]) * sign
        inside = torch.cat([(item["boxes"] > 0) & (item["boxes"] < 1) for item in moved])
        assert outwards[inside].min() > 9.9
        assert outwards.max() < 30.1


def test_a_box_never_vanishes(scan):
    for item in draw(scan, jitter_px=(-900, -900)):
        assert (item["boxes"][:, 2:] > item["boxes"][:, :2]).all()


def test_the_same_seed_draws_the_same(scan):
    for first, second in zip(draw(scan, 5, max_overshoot=2), draw(scan, 5, max_overshoot=2), strict=True):
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["boxes"], second["boxes"])


def test_no_more_boxes_than_asked_for(scan):
    assert max(len(item["boxes"]) for item in draw(scan, max_boxes=1)) == 1


def test_refusals(scan):
    with pytest.raises(ValueError, match=r"box_probs must hold three probabilities \(slice, part, organ\).*\[1.0, 1.0"):
        RandSlicePromptsd(box_probs=(1.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="num_slices and max_boxes must be at least 1"):
        RandSlicePromptsd(num_slices=0)
    with pytest.raises(ValueError, match="must have an organ in its label map; found only background"):
        draw({**scan, "label": torch.zeros_like(scan["label"])})
