"""Fundus phantoms: numbers that an ophthalmologist would check, camera domains, determinism, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data import inspect_datalist, load_datalist
from common.data.phantoms import FUNDUS_DOMAINS, FUNDUS_LABELS, render_fundus, write_fundus_phantoms
from common.data.phantoms.__main__ import main
from common.data.phantoms.fundus_anatomy import Contour, Population, draw_eye
from common.data.phantoms.fundus_camera import CAMERAS, _stray_light, draw_shot, place_grid
from common.data.phantoms.fundus_vessels import Crossing, vessel_transmission

SMALL = 96
BACKGROUND, RIM, CUP = 255, 128, 0


@pytest.fixture(scope="module")
def cases():
    """Five eyes before every camera."""
    return {
        domain: [render_fundus(np.random.default_rng([number, i]), domain, SMALL) for i in range(5)]
        for number, domain in enumerate(FUNDUS_DOMAINS)
    }


def everyone(cases):
    return [case for domain in cases.values() for case in domain]


def pixel_mm(case):
    return case.shot.settings.field_mm / max(case.mask.shape)


def test_image_and_mask_share_a_grid_and_the_public_values(cases):
    for case in everyone(cases):
        assert case.image.shape == (SMALL, SMALL, 3)
        assert case.image.dtype == case.mask.dtype == np.uint8
        assert case.mask.shape == (SMALL, SMALL)
        assert set(np.unique(case.mask)) == {BACKGROUND, RIM, CUP} == set(FUNDUS_LABELS)


def test_disc_and_cup_have_plausible_sizes(cases):
    for case in everyone(cases):
        disc_height, cup_height = (np.ptp(np.flatnonzero((case.mask <= value).any(axis=1))) + 1 for value in (RIM, CUP))
        assert 1.3 < disc_height * pixel_mm(case) < 2.3
        assert cup_height / disc_height == pytest.approx(case.eye.cup_ratio, abs=0.13)
        area = (case.mask <= RIM).mean()
        assert 0.03 < area < 0.35


def test_a_rim_surrounds_the_cup(cases):
    for case in everyone(cases):
        cup = case.mask == CUP
        for axis in (0, 1):
            for shift in (-1, 1):
                assert not (np.roll(case.mask, shift, axis)[cup] == BACKGROUND).any()


def test_cup_is_paler_than_rim_and_rim_than_fundus(cases):
    for domain in cases.values():
        green = [[case.image[..., 1][case.mask == value].mean() for value in (CUP, RIM, BACKGROUND)] for case in domain]
        cup, rim, background = np.mean(green, axis=0)
        assert cup > rim > background


def test_crop_lies_around_the_disc(cases):
    for case in everyone(cases):
        center = np.argwhere(case.mask <= RIM).mean(axis=0) / SMALL
        assert (np.abs(center - 0.5) < 0.15).all()


def test_cup_ratios_span_the_clinical_range():
    ratios = [draw_eye(np.random.default_rng(i), Population()).cup_ratio for i in range(60)]
    assert 0.2 <= min(ratios) < 0.3
    assert 0.7 < max(ratios) <= 0.8
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.05)


def test_contour_distance_of_a_circle():
    circle = Contour((0.5, 0.0), (2.0, 2.0), 0.3, (0, 0, 0))
    x, y = np.float32([0.5, 2.5, 4.5, 0.5]), np.float32([0.5, 0, 0, -3.0])
    np.testing.assert_allclose(circle.distance_mm(x, y), [-1.5, 0, 2, 1], atol=1e-4)


def test_temporal_side_follows_the_eye():
    shot = draw_shot(np.random.default_rng(0), CAMERAS["a"])
    left, right = (place_grid(shot, (40, 60), left=left) for left in (True, False))
    assert left.x[20, -1] > left.x[20, 0]
    assert right.x[20, -1] < right.x[20, 0]
    for grid in (left, right):
        assert grid.y[0, 30] > grid.y[-1, 30]
        assert np.hypot(grid.x[0, 1] - grid.x[0, 0], grid.y[0, 1] - grid.y[0, 0]) == pytest.approx(
            grid.step_mm, rel=1e-4
        )
        assert grid.step_mm == pytest.approx(shot.settings.field_mm / 60)


def test_veins_are_wider_than_arteries_and_leave_the_disc():
    for seed in range(5):
        tree = draw_eye(np.random.default_rng(seed), Population()).vessels
        assert tree.veins[:, 2].max() > tree.arteries[:, 2].max()
        for samples in (tree.arteries, tree.veins):
            assert np.hypot(samples[:, 0], samples[:, 1]).max() > 4  # mm
            for number in np.unique(samples[:, 3]):
                steps = np.diff(samples[samples[:, 3] == number, :2], axis=0)
                assert np.hypot(*steps.T).max() < 0.06  # unbroken


def test_vessels_are_dark_in_green(cases):
    case = render_fundus(np.random.default_rng(3), "a", 256)
    grid = place_grid(case.shot, (256, 256), case.eye.left)
    veins = case.eye.vessels.veins
    thick = veins[(veins[:, 2] > 0.035) & (np.hypot(veins[:, 0], veins[:, 1]) > 1.3)]
    square = (grid.x[..., None] - thick[::5, 0].astype("f4")) ** 2 + (
        grid.y[..., None] - thick[::5, 1].astype("f4")
    ) ** 2
    away_mm = np.sqrt(square.min(axis=-1))
    green = case.image[..., 1].astype(float)
    assert green[away_mm < 0.025].mean() < 0.75 * green[(away_mm > 0.12) & (away_mm < 0.2)].mean()


def test_cameras_differ_as_described(cases):
    mean = {
        domain: np.mean([case.image.reshape(-1, 3).mean(axis=0) for case in cases[domain]], axis=0) for domain in cases
    }
    ratio = {domain: value[0] / value[1] for domain, value in mean.items()}
    assert ratio["c"] > 1.3 * ratio["a"]  # red
    assert mean["e"][2] / mean["e"][0] > 1.2 * mean["a"][2] / mean["a"][0]  # cool
    spread = {domain: np.mean([case.image[..., 1].std() for case in cases[domain]]) for domain in cases}
    assert spread["d"] < 0.6 * spread["a"]  # hazy


def test_stray_light_glows_on_one_side():
    grid = place_grid(draw_shot(np.random.default_rng(0), CAMERAS["d"]), (60, 60), left=True)
    glow = _stray_light(np.random.default_rng(1), grid)
    assert glow.shape == (60, 60)
    border = [glow[0].max(), glow[-1].max(), glow[:, 0].max(), glow[:, -1].max()]
    assert max(border) == pytest.approx(glow.max())
    assert 0.5 < glow.max() <= 1
    assert glow.min() < 0.05


def test_crossing_vessels_are_no_darker_than_the_fuller_one():
    eye = draw_eye(np.random.default_rng(0), Population())
    grid = place_grid(draw_shot(np.random.default_rng(0), CAMERAS["a"]), (80, 80), left=eye.left)
    wall = Crossing(lambda x, y: np.ones_like(x), 0.1)  # no cup
    light = vessel_transmission(eye.vessels, wall, grid.x, grid.y, grid.step_mm, np.ones(3, dtype=np.float32))
    assert light.shape == (80, 80, 3)
    assert light.max() == 1
    assert np.exp(-1) <= light.min() < 0.6


def test_same_seed_gives_the_same_pixels():
    first, second = (render_fundus(np.random.default_rng(5), "e", SMALL) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.mask, second.mask)


def test_size_changes_the_pixels_but_not_the_eye():
    coarse, fine = (render_fundus(np.random.default_rng(7), "b", size) for size in (64, 192))
    assert coarse.eye.cup == fine.eye.cup
    assert coarse.shot.settings == fine.shot.settings
    agree = (fine.mask[1::3, 1::3] == coarse.mask).mean()
    assert agree > 0.985


@pytest.mark.parametrize("size", [(64, 97), (121, 70), 33])
def test_any_size(size):
    case = render_fundus(np.random.default_rng(1), "c", size)
    assert case.mask.shape == (size if isinstance(size, tuple) else (size, size))
    assert case.image.shape == (*case.mask.shape, 3)


def read(path):
    return np.asarray(Image.open(path))


def test_data_sets_are_complete_and_their_paths_relative(tmp_path):
    listings = write_fundus_phantoms(tmp_path / "set", 4, seed=3, image_size=(40, 48))
    assert [path.relative_to(tmp_path / "set").as_posix() for path in listings] == [
        f"domain_{letter}/dataset.json" for letter in "abcde"
    ]
    for listing in listings:
        content = json.loads(listing.read_text())
        assert content["labels"] == {"0": "cup", "128": "rim", "255": "background"}
        assert {name: len(content[name]) for name in ("training", "validation", "test")} == {
            "training": 2,
            "validation": 1,
            "test": 1,
        }
        entries = [entry for section in ("training", "validation", "test") for entry in content[section]]
        for entry in entries:
            assert all(not Path(path).is_absolute() for path in entry.values())
            with (
                Image.open(listing.parent / entry["image"]) as image,
                Image.open(listing.parent / entry["label"]) as mask,
            ):
                assert (image.mode, mask.mode) == ("RGB", "L")
                assert image.size == mask.size == (48, 40)
        written = {p.relative_to(listing.parent).as_posix() for p in listing.parent.rglob("*.*") if p.is_file()}
        assert written == {path for entry in entries for path in entry.values()} | {"dataset.json"}


def test_data_sets_pass_the_checks_of_the_bundles(tmp_path):
    for listing in write_fundus_phantoms(tmp_path / "set", 3, num_validation=1, num_test=1, image_size=40):
        datalist = load_datalist(listing.parent, ("training", "validation", "test"))
        for summary in inspect_datalist(datalist, num_classes=256, spatial_dims=2, in_channels=3):
            assert set(summary.label_voxels) == {BACKGROUND, RIM, CUP}
            assert not summary.warnings


def test_a_case_does_not_depend_on_how_many_there_are(tmp_path):
    write_fundus_phantoms(tmp_path / "few", 2, seed=1, num_validation=0, num_test=1, image_size=40, domains="ab")
    write_fundus_phantoms(tmp_path / "many", 5, seed=1, num_validation=2, num_test=2, image_size=40, domains="b")
    write_fundus_phantoms(tmp_path / "other", 2, seed=2, num_validation=0, num_test=1, image_size=40, domains="b")
    for name in ("imagesTr/training_000.png", "labelsTr/training_000.png", "imagesTs/test_000.png"):
        few, many, other = (read(tmp_path / folder / "domain_b" / name) for folder in ("few", "many", "other"))
        np.testing.assert_array_equal(few, many)
        assert (few != other).any()


def test_domains_may_be_written_one_after_the_other(tmp_path):
    write_fundus_phantoms(tmp_path, 3, image_size=40, domains="a")
    write_fundus_phantoms(tmp_path, 1, image_size=40, domains=["b", "d"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["domain_a", "domain_b", "domain_d"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_cases": 0}, ValueError, r"num_cases must be at least 1; found 0"),
        ({"num_cases": 2.5}, TypeError, r"num_cases must be a whole number; found 2\.5"),
        ({"num_cases": 2, "num_test": 2}, ValueError, r"num_validation \+ num_test must be less.*found 0 \+ 2 of 2"),
        ({"num_cases": 1, "seed": -4}, ValueError, r"seed must be at least 0; found -4"),
        ({"num_cases": 1, "image_size": 16}, ValueError, r"image_size must lie between 32 and 4096.*found 16"),
        ({"num_cases": 1, "image_size": (64, 9000)}, ValueError, r"image_size must lie.*found \(64, 9000\)"),
        ({"num_cases": 1, "image_size": 64.5}, TypeError, r"image_size must be one or two whole numbers; found 64\.5"),
        ({"num_cases": 1, "image_size": (64, 64, 3)}, TypeError, r"image_size must be one or two.*found \(64, 64, 3\)"),
        ({"num_cases": 1, "domains": "bz"}, ValueError, r"domains must be different letters of abcde; found 'bz'"),
        ({"num_cases": 1, "domains": "bb"}, ValueError, r"domains must be different letters of abcde; found 'bb'"),
        ({"num_cases": 1, "domains": ""}, ValueError, r"domains must be different letters of abcde; found ''"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        write_fundus_phantoms(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_a_domain_that_is_there_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "domain_d").mkdir()
    (tmp_path / "domain_d" / "old.png").touch()
    with pytest.raises(FileExistsError, match=r"output_dir must be new or empty.*found old\.png"):
        write_fundus_phantoms(tmp_path, 1, image_size=40)
    assert not list(tmp_path.rglob("dataset.json"))


def test_an_interrupted_run_leaves_no_dataset_json(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("common.data.phantoms.fundus.json.dumps", stop)
    with pytest.raises(KeyboardInterrupt):
        write_fundus_phantoms(tmp_path, 1, image_size=40, domains="a")
    assert not list(tmp_path.rglob("dataset.json"))


def run_command(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["common.data.phantoms", "fundus", *options])
    main()


def test_command_line_writes_data_sets(tmp_path, monkeypatch):
    run_command(monkeypatch, f"--output_dir={tmp_path / 'set'}", "--num_cases=1", "--seed=1", "--image_size=40,48")
    assert read(tmp_path / "set/domain_e/imagesTr/training_000.png").shape == (40, 48, 3)


def test_command_line_refuses_by_message(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"error: image_size must lie between"):  # a text as code is status 1
        run_command(monkeypatch, f"--output_dir={tmp_path / 'set'}", "--num_cases=1", "--image_size=4")
