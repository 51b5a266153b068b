"""From boxes of organs to a label map of the scan."""

import logging

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.boxes import OrganBoxes, ScanBoxes, VoxelBox
from common.data.problems import DatasetError
from common.inferers import BoxPromptInferer
from common.inferers.box_prompt import cut_into_slices, merge_organs
from common.networks import PromptSegmenter, SamSegmenter
from common.networks.promptable import SamArchitecture
from tests.oracles import box_prompt as oracle

SHAPE = (5, 12, 10)


class BoxFiller(PromptSegmenter):
    """Segments the box itself, as surely as the gray value at its center is high; counts what it is asked."""

    image_size = 40
    logits_size = 40
    encoder = torch.nn.Identity()

    def __init__(self):
        super().__init__()
        self.encoded, self.decoded = [], []

    def trainable_parameters(self, train_encoder):
        return []

    def encode(self, slices):
        self.encoded.append(len(slices))
        return torch.nn.functional.interpolate(slices, (40, 40))

    def decode(self, embedding, boxes, slice_index=None):
        self.decoded.append(len(boxes))
        embedding = embedding if slice_index is None else embedding[slice_index]
        logits = torch.full((len(boxes), 1, 40, 40), -1.0)
        for number, (left, top, right, bottom) in enumerate(boxes.round().long().tolist()):
            gray = embedding[number, 0, (top + bottom) // 2, (left + right) // 2]
            logits[number, 0, top:bottom, left:right] = 1 + gray
        return logits


def scan_boxes(*organs, shape=SHAPE):
    return ScanBoxes("scan 1", np.eye(4), shape, tuple(organs))


def organ(label, *parts, **options):
    return OrganBoxes(f"organ {label}", label, parts, **options)


def segment(volume, boxes, network=None, **options):
    options = {"margin_px": 0, **options}
    return BoxPromptInferer(**options)(volume[None, None], network or BoxFiller(), boxes)[0, 0]


class TestLabelMap:
    def test_a_box_is_filled_on_its_slices_alone(self):
        box = VoxelBox((1, 2, 3), (4, 8, 9))
        expected = torch.zeros(SHAPE, dtype=torch.uint8)
        expected[box.window] = 7
        result = segment(torch.zeros(SHAPE), scan_boxes(organ(7, box)))
        assert result.dtype == torch.uint8
        assert torch.equal(result, expected)

    def test_parts_add_up_and_each_slice_gets_the_box_of_its_part(self):
        first, second = VoxelBox((0, 0, 0), (2, 6, 5)), VoxelBox((2, 6, 5), (5, 12, 10))
        result = segment(torch.zeros(SHAPE), scan_boxes(organ(1, first, second)))
        expected = torch.zeros(SHAPE, dtype=torch.uint8)
        expected[first.window] = expected[second.window] = 1
        assert torch.equal(result, expected)

    def test_the_surer_organ_takes_the_overlap_and_the_first_of_equals(self):
        volume = torch.zeros(SHAPE)
        volume[:, 6:] = 1.0  # the center of the second box is brighter
        upper, lower = VoxelBox((0, 0, 0), (1, 6, 10)), VoxelBox((0, 4, 0), (1, 12, 10))
        sure = segment(volume, scan_boxes(organ(1, upper), organ(2, lower)))
        assert sure[0, :, 0].tolist() == [1] * 4 + [2] * 8
        equal = segment(torch.zeros(SHAPE), scan_boxes(organ(2, upper), organ(1, upper)))
        assert equal[0, :, 0].tolist() == [2] * 6 + [0] * 6

    def test_absent_organs_are_not_segmented(self, caplog):
        absent = organ(2, VoxelBox((0, 0, 0), (5, 5, 5)), present=False)
        network = BoxFiller()
        with caplog.at_level(logging.WARNING):
            result = segment(torch.zeros(SHAPE), scan_boxes(absent), network)
        assert not result.any()
        assert not network.encoded
        assert "scan 1: no organ is present, so its label map is empty" in caplog.text

    def test_no_organ_at_all(self):
        assert not segment(torch.zeros(SHAPE), scan_boxes()).any()

    def test_a_scan_of_one_slice(self):
        result = segment(torch.zeros(1, 12, 10), scan_boxes(organ(3, VoxelBox((0, 0, 0), (1, 6, 10)))))
        assert result.sum() == 3 * 60

    def test_metadata_is_kept(self):
        affine = torch.diag(torch.tensor([4.0, 2, 2, 1], dtype=torch.float64))
        volume = MetaTensor(torch.zeros(1, 1, *SHAPE), affine=affine)
        result = BoxPromptInferer()(volume, BoxFiller(), scan_boxes(organ(1, VoxelBox((0, 0, 0), (1, 6, 5)))))
        assert isinstance(result, MetaTensor)
        assert torch.equal(result.affine, affine)
        result += 1  # no tensor of inference mode

    def test_merging_takes_the_highest_logit_above_0(self):
        logits = torch.tensor([[[[1.0, -1], [3, -2]]], [[[2, -3], [1, 0]]]])
        assert merge_organs(logits, torch.tensor([4, 9]), (2, 2)).tolist() == [[9, 0], [4, 0]]


class TestPrompts:
    def test_margin_is_in_pixels_of_1024_and_ends_at_the_border(self):
        box = VoxelBox((2, 3, 0), (3, 6, 5))
        prompts = cut_into_slices(scan_boxes(organ(1, box)), SHAPE, 10 / 1024)
        share = 10 / 1024
        expected = torch.tensor([[0, 3 / 12 - share, 0.5 + share, 0.5 + share]])
        torch.testing.assert_close(prompts.boxes, expected)
        assert (prompts.slice_index.tolist(), prompts.label.tolist()) == ([2], [1])

    def test_boxes_end_at_the_scan(self):
        prompts = cut_into_slices(scan_boxes(organ(1, VoxelBox((-4, -2, 3), (2, 30, 40)))), SHAPE)
        assert prompts.slice_index.tolist() == [0, 1]
        torch.testing.assert_close(prompts.boxes[0], torch.tensor([0.3, 0, 1, 1]))

    def test_a_box_outside_the_scan_is_refused(self):
        boxes = scan_boxes(organ(1, VoxelBox((5, 0, 0), (9, 4, 4))))
        with pytest.raises(
            DatasetError, match=r"Boxes of scan 1: must touch the scan; found 'organ 1' from \(4, 0, 0\)"
        ):
            segment(torch.zeros(SHAPE), boxes)

    def test_one_part_outside_is_left_out_with_a_warning(self, caplog):
        inside, outside = VoxelBox((0, 0, 0), (1, 12, 10)), VoxelBox((5, 0, 0), (9, 4, 4))
        with caplog.at_level(logging.WARNING):
            result = segment(torch.zeros(SHAPE), scan_boxes(organ(1, inside, outside)))
        assert result.sum() == 120
        assert "1 of 2 boxes of organ 1 lie outside" in caplog.text


class TestCost:
    @pytest.mark.parametrize(("slice_batch_size", "box_batch_size"), [(1, 1), (2, 3), (4, 16), (64, 64)])
    def test_each_slice_is_encoded_once_whatever_the_batches(self, slice_batch_size, box_batch_size):
        organs = [organ(n, VoxelBox((n % 3, n, n), (n % 3 + 3, n + 2, n + 1))) for n in range(1, 9)]
        network = BoxFiller()
        result = segment(
            torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)),
            scan_boxes(*organs),
            network,
            slice_batch_size=slice_batch_size,
            box_batch_size=box_batch_size,
        )
        assert sum(network.encoded) == 5
        assert max(network.encoded) <= slice_batch_size
        assert sum(network.decoded) == 8 * 3
        assert max(network.decoded) <= box_batch_size
        reference = segment(
            torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)), scan_boxes(*organs), slice_batch_size=5
        )
        assert torch.equal(result, reference)

    def test_slices_without_a_box_are_not_encoded(self):
        network = BoxFiller()
        segment(torch.zeros(SHAPE), scan_boxes(organ(1, VoxelBox((3, 0, 0), (4, 4, 4)))), network)
        assert network.encoded == [1]


def test_the_same_as_slice_by_slice_and_organ_by_organ():
    torch.manual_seed(3)
    small = SamArchitecture(
        image_size=32, patch_size=8, width=16, depth=1, num_heads=2, global_blocks=(0,), window_size=4,
        embedding_channels=16, decoder_mlp_width=16, decoder_head_width=16,
    )  # fmt: skip
    network = SamSegmenter(small).eval()
    volume = torch.rand(4, 9, 14)
    boxes = scan_boxes(
        organ(1, VoxelBox((0, 1, 2), (2, 6, 9)), VoxelBox((2, 0, 3), (4, 9, 12))),
        organ(5, VoxelBox((1, 4, 4), (4, 8, 13))),
        organ(3, VoxelBox((0, 0, 0), (4, 9, 14)), present=False),
        shape=(4, 9, 14),
    )
    expected, encodings = oracle.segment_scan(volume, network, boxes, margin_px=20)
    counted = []
    handle = network.encoder.register_forward_hook(lambda _m, _i, output: counted.append(len(output[0])))
    result = segment(volume, boxes, network, margin_px=20, slice_batch_size=3, box_batch_size=2)
    handle.remove()
    assert set(np.unique(expected)) >= {1, 5}  # not a trivial case
    np.testing.assert_array_equal(result.numpy(), expected)
    assert (encodings, sum(counted)) == (7, 4)


class TestRefusals:
    def test_arguments(self):
        with pytest.raises(ValueError, match="slice_batch_size and box_batch_size must be at least 1"):
            BoxPromptInferer(slice_batch_size=0)
        with pytest.raises(
            ValueError, match=r"inputs must be one scan, shape \(1, 1, D, H, W\); got \(2, 1, 4, 4, 4\)"
        ):
            BoxPromptInferer()(torch.zeros(2, 1, 4, 4, 4), BoxFiller(), scan_boxes())

    def test_label_that_no_label_map_of_bytes_holds(self):
        with pytest.raises(ValueError, match="Labels must be at most 255; 'organ 300' has 300"):
            segment(torch.zeros(SHAPE), scan_boxes(organ(300, VoxelBox((0, 0, 0), (1, 1, 1)))))
