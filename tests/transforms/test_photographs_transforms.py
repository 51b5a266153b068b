"""Photographs to the size of the network, and predictions back to the size of the photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from common.data import MaskConvention
from common.transforms import LoadMaskd, LoadPhotographd, ResizePhotographd, SavePredictionsd

DISC_CUP = MaskConvention([[0, 254], [0, 0]], [128, 0], 255)


def make_photograph(height=90, width=120):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def item(tmp_path):
    Image.fromarray(make_photograph()).save(tmp_path / "image.png")
    mask = np.full((90, 120), 255, dtype=np.uint8)
    mask[30:60, 40:100] = 128
    mask[40:50, 60:80] = 0
    Image.fromarray(mask).save(tmp_path / "label.png")
    return {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "label.png"), "case": "a/one"}


class TestLoading:
    def test_axes_and_size(self, item):
        loaded = LoadMaskd("label", DISC_CUP)(LoadPhotographd("image")(item))
        np.testing.assert_array_equal(loaded["image"].numpy(), make_photograph().transpose(2, 0, 1))
        assert loaded["image_size"].tolist() == [90, 120]
        assert loaded["label"].shape == (2, 90, 120)
        assert loaded["label"].sum(dim=(1, 2)).tolist() == [30 * 60, 10 * 20]


class TestResizing:
    def test_as_pillow_does(self, item):
        loaded = ResizePhotographd("image", 32, "bicubic")(LoadPhotographd("image")(item))
        expected = np.asarray(Image.fromarray(make_photograph()).resize((32, 32)))  # Pillow's default is bicubic
        np.testing.assert_allclose(loaded["image"].numpy() * 255, expected.transpose(2, 0, 1), atol=1e-4)
        assert loaded["image"].dtype == torch.float32

    def test_large_pictures_are_smoothed(self):
        stripes = np.zeros((3, 300, 300), dtype=np.uint8)
        stripes[:, :, ::2] = 255
        small = ResizePhotographd("image", 64)({"image": torch.from_numpy(stripes)})["image"]
        assert small[:, 4:-4, 4:-4].std() < 0.02  # without smoothing stripes would come out

    def test_masks_keep_values_and_type(self, item):
        loaded = ResizePhotographd("label", 45, "nearest")(LoadMaskd("label", DISC_CUP)(item))
        assert loaded["label"].dtype == torch.uint8
        assert loaded["label"].shape == (2, 45, 45)
        assert loaded["label"].unique().tolist() == [0, 1]
        assert loaded["label"].sum(dim=(1, 2)).tolist() == pytest.approx(
            [30 * 60 / 120 * 45 / 2, 10 * 20 / 120 * 45 / 2], rel=0.1
        )

    def test_floating_point_keeps_its_range(self):
        image = torch.linspace(-3, 7, 3 * 80 * 80).reshape(3, 80, 80)
        resized = ResizePhotographd("image", 40, "bilinear")({"image": image})["image"]
        assert resized.min() == pytest.approx(-3, abs=0.1)
        assert resized.max() == pytest.approx(7, abs=0.1)

    def test_refusals(self):
        with pytest.raises(ValueError, match="one of nearest, bilinear, bicubic; got 'area'"):
            ResizePhotographd("image", 32, "area")
        with pytest.raises(ValueError, match="image_size must be 1 or more; got 0"):
            ResizePhotographd("image", 0)
        with pytest.raises(TypeError, match="must be uint8 or float32 to be resized; got int64"):
            ResizePhotographd("image", 32)({"image": torch.zeros(3, 80, 80, dtype=torch.int64)})


class TestSaving:
    def make_prediction(self, size=32, **more):
        probability = torch.zeros(2, size, size)
        probability[0, size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 0.8
        probability[1] = probability[0] * 0.25
        return {"pred": probability, "image_size": torch.tensor([90, 120]), "case": "refuge/one.a", **more}

    def test_mask_and_probabilities_in_the_size_of_the_photograph(self, tmp_path):
        data = self.make_prediction()
        result = SavePredictionsd("pred", tmp_path, DISC_CUP, ["disc", "cup"])(data)
        torch.testing.assert_close(result["pred"], data["pred"])
        with Image.open(tmp_path / "refuge" / "one.a_mask.png") as image:
            mask = np.asarray(image)
        with Image.open(tmp_path / "refuge" / "one.a_disc.png") as image:
            disc = np.asarray(image)
        assert mask.shape == disc.shape == (90, 120)
        assert np.unique(mask).tolist() == [128, 255]
        assert (mask == 128).mean() == pytest.approx(0.25, abs=0.02)
        assert disc.dtype == np.uint16
        assert disc.max() == round(0.8 * 65535)
        np.testing.assert_array_equal(disc >= 0.5 * 65535, mask == 128)
        assert (tmp_path / "refuge" / "one.a_cup.png").is_file()

    def test_a_smaller_photograph(self, tmp_path):
        data = self.make_prediction(512, image_size=torch.tensor([90, 120]))
        SavePredictionsd("pred", tmp_path, DISC_CUP, ["disc", "cup"], threshold=0.15, save_probabilities=False)(data)
        assert [path.name for path in (tmp_path / "refuge").iterdir()] == ["one.a_mask.png"]
        with Image.open(tmp_path / "refuge" / "one.a_mask.png") as image:
            assert (np.asarray(image) == 0).mean() == pytest.approx(0.25, abs=0.02)  # both channels pass this threshold

    def test_refusals(self, tmp_path):
        with pytest.raises(ValueError, match=r"must name the 2 channels of the masks; got \['disc'\]"):
            SavePredictionsd("pred", tmp_path, DISC_CUP, ["disc"])
        with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\); got 1"):
            SavePredictionsd("pred", tmp_path, DISC_CUP, ["disc", "cup"], threshold=1)
        data = self.make_prediction()
        data["pred"][0, 0, 0] = torch.nan
        with pytest.raises(ValueError, match=r"'pred' of case refuge/one\.a must be finite"):
            SavePredictionsd("pred", tmp_path, DISC_CUP, ["disc", "cup"])(data)

    def test_the_way_there_and_back_keeps_every_place(self, tmp_path):
        """A bright corner of a photograph that is no square comes back where it was."""
        pixels = np.zeros((90, 250, 3), dtype=np.uint8)
        pixels[5:40, 150:240] = 255
        Image.fromarray(pixels).save(tmp_path / "image.png")
        data = LoadPhotographd("image")({"image": str(tmp_path / "image.png"), "case": "one"})
        data = ResizePhotographd("image", 64)(data)
        data["pred"] = data["image"][:1].repeat(2, 1, 1)
        SavePredictionsd("pred", tmp_path, DISC_CUP, ["disc", "cup"], save_probabilities=False)(data)
        with Image.open(tmp_path / "one_mask.png") as image:
            found = np.asarray(image) == 0
        expected = pixels[..., 0] > 0
        assert (found & expected).sum() / (found | expected).sum() > 0.95
