"""From batches to the inputs of promptable networks."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.boxes import OrganBoxes, ScanBoxes, VoxelBox, boxes_file, write_boxes
from common.data.problems import DatasetError
from common.engines import BoxesPrepareBatch, PromptPrepareBatch, collate_prompts
from common.inferers import EmbeddingCache
from common.networks import SamSegmenter

NAMES = {0: "background", 1: "liver", 2: "spleen"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SamSegmenter("tiny")


@pytest.fixture
def stored_affine():
    return np.diag([-2.0, -2, 5, 1])  # LPS


@pytest.fixture
def batch(stored_affine):
    """A scan with the slices first, and its label map as stored, with the slices last."""
    between = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # (k, j, i) to (i, j, k)
    image = MetaTensor(torch.zeros(1, 1, 4, 12, 10), affine=torch.from_numpy(stored_affine @ between)[None])
    label = torch.zeros(1, 1, 10, 12, 4)
    label[..., 2:5, 3:7, 1:3] = 1
    label[..., 6:8, 3:7, 1] = 1
    return {"image": image, "label": MetaTensor(label, affine=torch.from_numpy(stored_affine)[None]), "case": ["a"]}


class TestBoxes:
    def test_files_are_brought_to_the_grid_of_the_scan(self, batch, stored_affine, tmp_path):
        boxes = ScanBoxes("a", stored_affine, (10, 12, 4), (OrganBoxes("liver", 1, (VoxelBox((2, 3, 1), (5, 7, 3)),)),))
        write_boxes(boxes, boxes_file(tmp_path, "a"))
        image, label, (given,), arguments = BoxesPrepareBatch("files", tmp_path)(batch, "cpu")
        assert image is batch["image"] or torch.equal(image, batch["image"])
        assert label is not None
        assert not arguments
        assert given.organs[0].parts == (VoxelBox((1, 3, 2), (3, 7, 5)),)
        assert given.spatial_shape == (4, 12, 10)

    def test_reference_organs(self, batch):
        *_, (given,), _ = BoxesPrepareBatch("reference_organs", label_names=NAMES)(batch)
        assert given.organs[0].parts == (VoxelBox((1, 3, 2), (3, 7, 8)),)
        assert not given.organs[1].present

    def test_reference_slices_run_along_the_slices_of_the_scan(self, batch):
        *_, (given,), _ = BoxesPrepareBatch("reference_slices", label_names=NAMES)(batch)
        assert given.organs[0].parts == (VoxelBox((1, 3, 2), (2, 7, 8)), VoxelBox((2, 3, 2), (3, 7, 5)))

    def test_labels_of_the_scan_choose_nothing_where_boxes_come_from_files(self, batch, stored_affine, tmp_path):
        organ = OrganBoxes("liver", 1, (VoxelBox((0, 0, 0), (2, 2, 4)),))
        write_boxes(ScanBoxes("a", stored_affine, (10, 12, 4), (organ,)), boxes_file(tmp_path, "a"))
        *_, (with_label,), _ = BoxesPrepareBatch("files", tmp_path, NAMES)(batch)
        del batch["label"]
        _, label, (without,), _ = BoxesPrepareBatch("files", tmp_path)(batch)
        assert label is None
        assert with_label.organs == without.organs

    def test_refusals(self, batch, tmp_path):
        with pytest.raises(ValueError, match="source of boxes must be one of files, reference_organs"):
            BoxesPrepareBatch("labels")
        with pytest.raises(ValueError, match="Boxes from 'files' need boxes_dir"):
            BoxesPrepareBatch("files")
        with pytest.raises(ValueError, match="Boxes from 'reference_organs' need label_names"):
            BoxesPrepareBatch("reference_organs", tmp_path)
        with pytest.raises(DatasetError, match=r"a_boxes.json: must be a file of boxes; found nothing"):
            BoxesPrepareBatch("files", tmp_path)(batch)
        with pytest.raises(ValueError, match="segmented one at a time, got a batch of 2"):
            BoxesPrepareBatch("files", tmp_path)({**batch, "image": torch.zeros(2, 1, 4, 12, 10)})
        del batch["label"]
        with pytest.raises(ValueError, match="need the label of each case; they are for evaluation alone"):
            BoxesPrepareBatch("reference_slices", label_names=NAMES)(batch)


class TestTraining:
    @pytest.fixture
    def slices(self):
        masks = torch.zeros(2, 20, 30, dtype=torch.uint8)
        masks[0, :10] = 1
        first = {"image": torch.rand(1, 20, 30), "label": masks, "boxes": torch.tensor([[0, 0, 1, 0.5], [0, 0, 1, 1]])}
        second = {
            "image": torch.rand(1, 16, 16),
            "label": torch.ones(1, 16, 16),
            "boxes": torch.tensor([[0, 0, 1, 1.0]]),
        }
        return collate_prompts([[first], [second]])

    def test_slices_of_any_size_make_a_batch(self, network, slices):
        inputs, targets, args, arguments = PromptPrepareBatch(network, train_encoder=True)(slices, "cpu")
        assert inputs.shape == (2, 1, 128, 128)
        assert targets.shape == (3, 1, 64, 64)
        torch.testing.assert_close(targets.mean(dim=(1, 2, 3)), torch.tensor([0.5, 0, 1]))
        assert arguments["slice_index"].tolist() == [0, 0, 1]
        assert arguments["boxes"].tolist() == [[0, 0, 128, 64], [0, 0, 128, 128], [0, 0, 128, 128]]
        assert args == ()
        assert network(inputs, **arguments).shape == targets.shape

    def test_a_frozen_encoder_encodes_each_slice_once(self, network, slices, tmp_path):
        calls = []
        handle = network.encoder.register_forward_hook(lambda *_: calls.append(1))
        prepare = PromptPrepareBatch(network, train_encoder=False, cache=EmbeddingCache(tmp_path))
        outputs = [prepare(slices, "cpu") for _ in range(2)]
        handle.remove()
        assert len(calls) == 1
        embedding = outputs[1][3]["embedding"]
        assert not embedding.requires_grad
        torch.testing.assert_close(embedding, network.encode(outputs[0][0]))
        network(outputs[0][0], **outputs[1][3]).sum().backward()  # the embedding may be used with gradients
        network.zero_grad()

    def test_a_trained_encoder_keeps_no_embeddings(self, network, tmp_path):
        with pytest.raises(ValueError, match="Embeddings of an encoder that is trained cannot be kept"):
            PromptPrepareBatch(network, train_encoder=True, cache=EmbeddingCache(tmp_path))
