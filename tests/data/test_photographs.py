"""Photographs, masks and streams of domains: what is read, and what is refused with which words."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from common.data import (
    DatasetError,
    MaskConvention,
    check_photographs,
    load_domain_stream,
    read_mask,
    read_photograph,
)

DISC_CUP = MaskConvention([[0, 254], [0, 0]], [128, 0], 255)
POLYP = MaskConvention([[128, 255]], [255], 0)


def make_photograph(height=70, width=90, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def make_mask(height=70, width=90):
    mask = np.full((height, width), 255, dtype=np.uint8)
    mask[20:50, 30:70] = 128
    mask[30:40, 40:60] = 0
    return mask


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


class TestPhotographs:
    def test_rows_come_first(self, tmp_path):
        pixels = make_photograph()
        np.testing.assert_array_equal(read_photograph(save(pixels, tmp_path / "a.png")), pixels)
        assert read_photograph(save(pixels, tmp_path / "a.jpg")).shape == (70, 90, 3)
        np.testing.assert_array_equal(read_photograph(save(pixels, tmp_path / "a.tif")), pixels)

    def test_an_opaque_alpha_channel_is_left_out(self, tmp_path):
        pixels = make_photograph(channels=4)
        pixels[..., 3] = 255
        np.testing.assert_array_equal(read_photograph(save(pixels, tmp_path / "a.png")), pixels[..., :3])

    def test_floating_point(self, tmp_path):
        pixels = np.random.default_rng(0).random((70, 90, 3)).astype(np.float32)
        tifffile.imwrite(tmp_path / "a.tif", pixels)
        np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif"), pixels)

    @pytest.mark.parametrize(
        ("name", "write", "message"),
        [
            (
                "gray.png",
                lambda p: save(make_photograph(channels=1), p),
                r"3 channels, RGB; found 1 gray channel \(mode L\)",
            ),
            ("alpha.png", lambda p: save(make_photograph(channels=4), p), "found a transparent picture.*flatten it"),
            ("cmyk.jpg", lambda p: Image.fromarray(make_photograph()).convert("CMYK").save(p), "color mode CMYK"),
            (
                "palette.png",
                lambda p: Image.fromarray(make_photograph()).convert("P").save(p),
                "indices into a palette",
            ),
            (
                "tiny.png",
                lambda p: save(make_photograph(32, 32), p),
                r"must have 64 x 64 pixels or more; found 32 x 32",
            ),
            ("nan.tif", lambda p: tifffile.imwrite(p, np.full((70, 90, 3), np.nan, "f4")), "must be finite; found NaN"),
            ("one.tif", lambda p: tifffile.imwrite(p, np.zeros((70, 90), "f4")), r"1 gray channel \(mode F\)"),
            ("broken.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing"), "must open"),
            ("broken.tif", lambda p: p.write_bytes(b"II*\x00 and then nothing"), "must open"),
            ("empty.jpg", lambda p: p.touch(), "must not be empty"),
            ("missing.png", lambda p: None, "must exist; found nothing"),
            ("volume.nii.gz", lambda p: p.write_bytes(b"x"), r"must be a picture \(.png .jpg .jpeg .tif .tiff\)"),
        ],
    )
    def test_refusals(self, tmp_path, name, write, message):
        write(tmp_path / name)
        with pytest.raises(DatasetError, match=rf"{name}: (.|\n)*{message}"):
            read_photograph(tmp_path / name)

    def test_rotation_by_exif_is_said(self, tmp_path, caplog):
        exif = Image.Exif()
        exif[0x0112] = 6
        path = save(make_photograph(), tmp_path / "a.jpg", exif=exif)
        check_photographs([{"image": str(path), "case": "a"}])
        assert "viewers turn it by its EXIF orientation 6" in caplog.text


class TestMasks:
    def test_disc_holds_the_cup(self):
        channels = DISC_CUP.decode(make_mask())
        assert channels.shape == (2, 70, 90)
        assert channels.sum(axis=(1, 2)).tolist() == [30 * 40, 10 * 20]
        np.testing.assert_array_equal(DISC_CUP.encode(channels), make_mask())

    def test_compressed_polyp_masks(self, tmp_path):
        mask = np.zeros((70, 90), dtype=np.uint8)
        mask[20:52, 32:64] = 255
        path = tmp_path / "a.jpg"
        Image.fromarray(mask).convert("RGB").save(path, quality=60)
        np.testing.assert_array_equal(POLYP.decode(read_mask(path))[0], mask // 255)

    def test_black_and_white_and_palettes(self, tmp_path):
        bits = make_mask() < 255
        Image.fromarray(bits).save(tmp_path / "bits.png")
        assert np.unique(read_mask(tmp_path / "bits.png")).tolist() == [0, 255]
        Image.fromarray(make_mask()).convert("P").save(tmp_path / "palette.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "palette.png"), make_mask())

    def test_colors_and_16_bits_are_refused(self, tmp_path):
        with pytest.raises(
            DatasetError, match="gray mask of 8 bits; found uint8 pixels of mode RGB in different colors"
        ):
            read_mask(save(make_photograph(), tmp_path / "a.png"))
        with pytest.raises(DatasetError, match="found uint16 pixels"):
            read_mask(save(make_mask().astype(np.uint16), tmp_path / "b.png"))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([[0, 254]], [128, 0], 255), "one gray value for each"),
            (([[0, 254]], [255], 0), "background outside"),
            (([[10, 300]], [20], 0), "within 0 to 255"),
        ],
    )
    def test_conventions_that_contradict_themselves(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            MaskConvention(*arguments)


class TestCheck:
    def make_case(self, folder, mask, name="m.png", image=None):
        image = make_photograph() if image is None else image
        return {"image": str(save(image, folder / "a.png")), "label": str(save(mask, folder / name)), "case": "a"}

    def test_good_cases_pass_as_they_are(self, tmp_path):
        cases = [self.make_case(tmp_path, make_mask())]
        assert check_photographs(cases, ["image", "label"], DISC_CUP) == cases

    @pytest.mark.parametrize(
        ("mask", "name", "convention", "message"),
        [
            (
                make_mask() // 128,
                "m.png",
                POLYP,
                "with 0 for background and 128 to 255 for the channels; found the num",
            ),
            (np.zeros_like(make_mask()), "m.png", DISC_CUP, "found no background, only the values 0"),
            (make_mask(), "m.jpg", DISC_CUP, "must keep its values; found a JPEG"),
            (make_mask(80, 90), "m.png", DISC_CUP, "must have the size of a.png; found 90 x 80 against 90 x 70 pixels"),
        ],
    )
    def test_masks_of_another_kind(self, tmp_path, mask, name, convention, message):
        with pytest.raises(DatasetError, match=message):
            check_photographs([self.make_case(tmp_path, mask, name)], ["image", "label"], convention)

    def test_an_empty_polyp_mask_is_a_mask(self, tmp_path):
        check_photographs([self.make_case(tmp_path, make_mask() * 0)], ["image", "label"], POLYP)

    def test_every_problem_is_listed(self, tmp_path):
        case = self.make_case(tmp_path, make_mask() * 0, image=make_photograph(channels=1))
        with pytest.raises(DatasetError, match="3 problems in the data"):
            check_photographs(
                [case, {"image": "none.png", "label": "x"}],
                ["image", "label"],
                POLYP,
            )

    def test_labels_need_a_convention(self):
        with pytest.raises(ValueError, match="convention must be given"):
            check_photographs([{"image": "a.png"}], ["image", "label"])
        with pytest.raises(DatasetError, match="must have a case"):
            check_photographs([])


class TestStream:
    def make_domain(self, folder, sections=("training", "test")):
        folder.mkdir(parents=True)
        entries = {s: [{"image": f"{s}.png", "label": f"{s}_mask.png"}] for s in sections}
        (folder / "dataset.json").write_text(json.dumps(entries))
        return folder

    def test_domains_follow_each_other(self, tmp_path):
        folders = [self.make_domain(tmp_path / name) for name in ("refuge", "origa")]
        cases = load_domain_stream(folders, keys=["image", "label"])
        names = ["refuge/training", "refuge/test", "origa/training", "origa/test"]
        assert [case["case"] for case in cases] == names
        assert [case["domain"] for case in cases] == ["refuge", "refuge", "origa", "origa"]
        assert cases[2]["label"] == str(tmp_path / "origa" / "training_mask.png")
        assert len(load_domain_stream(str(folders[0]), "test")) == 1

    def test_folders_of_one_name_are_told_apart(self, tmp_path):
        folders = [self.make_domain(tmp_path / name / "images") for name in ("refuge", "origa")]
        assert {case["domain"] for case in load_domain_stream(folders)} == {"refuge_images", "origa_images"}

    def test_a_bare_folder_of_photographs(self, tmp_path):
        save(make_photograph(), tmp_path / "b.png")
        save(make_photograph(), tmp_path / "a.png")
        cases = load_domain_stream([tmp_path])
        assert [case["case"] for case in cases] == [f"{tmp_path.name}/a", f"{tmp_path.name}/b"]

    def test_refusals(self, tmp_path):
        with pytest.raises(DatasetError, match="must name a folder for each domain"):
            load_domain_stream([])
        folder = self.make_domain(tmp_path / "a")
        with pytest.raises(DatasetError, match="must be in dataset_dirs once"):
            load_domain_stream([folder, str(folder)])
