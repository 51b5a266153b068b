"""`python -m common.evaluation score`, as a user runs it."""

import csv
import json
import logging
import re

import numpy as np
import pytest

from common.evaluation import score_folder


def options(folders, label_file, **more):
    values = {
        "predictions": folders / "predictions",
        "references": folders / "references",
        "labels": label_file,
        "output_dir": folders / "out",
        "num_workers": 1,
        **more,
    }
    return ["score", *(text for name, value in values.items() for text in (f"--{name}", value))]


def attempt(folders, label_file, **more):
    """Score without drawing; return what it is refused with, or None."""
    values = {"protocol": "plain", "num_workers": 1, **more}
    paths = [values.pop("predictions", folders / "predictions"), values.pop("references", folders / "references")]
    try:
        scored = score_folder(*paths, values.pop("labels", label_file), folders / "out", **values)
    except ValueError as error:
        return str(error)
    return "\n".join(map(str, scored.missing_problems())) or None


def read_scores(folder):
    with (folder / "scores.csv").open() as stream:
        return {(r["case"], r["structure"], r["metric"]): r for r in csv.DictReader(stream)}


def test_scores_of_shifted_organs(folders, label_file, command):
    status, log = command(*options(folders, label_file))
    assert status is None
    rows = read_scores(folders / "out")
    assert len(rows) == 3 * 2 * 6
    assert float(rows["a", "liver", "dice"]["value"]) == 1
    assert float(rows["b", "liver", "dice"]["value"]) == pytest.approx(5 / 6)
    assert float(rows["c", "spleen", "dice"]["value"]) == pytest.approx(1 / 3)
    assert float(rows["c", "spleen", "hd95_mm"]["value"]) == pytest.approx(1.6)  # two voxels of 0.8 mm
    # the tolerances: liver 2 mm, spleen 1 mm
    assert float(rows["c", "liver", "nsd"]["value"]) == 1
    assert float(rows["c", "spleen", "nsd"]["value"]) < 1
    summary = json.loads((folders / "out" / "summary.json").read_text())
    assert summary["num_cases"] == 3
    assert summary["structures"]["liver"]["dice"]["mean"] == pytest.approx((1 + 5 / 6 + 4 / 6) / 3)
    assert summary["mean_over_structures"]["dice"] == pytest.approx(
        ((1 + 5 / 6 + 4 / 6) / 3 + (1 + 2 / 3 + 1 / 3) / 3) / 2
    )
    assert summary["structures"]["spleen"]["outcomes"]["scored"] == 3
    assert "mean over structures  0.750" in log
    assert "- A structure in neither mask is not scored" in log
    assert "- Mean over structures: first the mean of each structure" in log


def test_the_page_stands_alone(folders, label_file, command):
    command(*options(folders, label_file))
    page = (folders / "out" / "report.html").read_text()
    links = re.findall(r'<a href="([^"]+)"', page)
    assert links
    assert all(f'id="{link.removeprefix("#")}"' in page for link in links)
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 3 + 3  # three box plots, three worst cases
    assert all(source.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,")) for source in sources)
    assert "c: mean Dice 0.500; spleen 0.333 (scored)" in page
    assert page.index("c: mean Dice") < page.index("b: mean Dice")
    assert "<td>mean over structures</td><td>0.750</td>" in page


def test_a_missing_prediction_scores_the_worst_value_and_fails(folders, label_file, command):
    (folders / "predictions" / "a.nii.gz").unlink()
    status, _ = command(*options(folders, label_file))
    assert "case a: must have a prediction; found nothing. Remedy: predict it; it has scored the worst value." in status
    rows = read_scores(folders / "out")
    assert rows["a", "liver", "dice"]["outcome"] == "missing prediction"
    assert float(rows["a", "liver", "dice"]["value"]) == 0
    assert float(rows["a", "liver", "hd95_mm"]["value"]) == pytest.approx(np.linalg.norm([16 * 0.8, 12, 24]))
    summary = json.loads((folders / "out" / "summary.json").read_text())
    assert summary["missing_predictions"] == {"a": ["liver", "spleen"]}
    assert summary["structures"]["liver"]["dice"]["mean"] == pytest.approx((0 + 5 / 6 + 4 / 6) / 3)
    page = (folders / "out" / "report.html").read_text()
    assert "Without a prediction, and scored with the worst value: a." in page


def test_a_missing_structure_of_a_folder_is_a_missing_prediction(folders, label_file, label_map, write):
    for path in (folders / "predictions").iterdir():
        path.unlink()
    for case in "abc":
        write(folders / "predictions" / case / "liver.nii.gz", label_map() == 1)
        write(folders / "predictions" / case / "spleen.nii.gz", label_map() == 2)
    (folders / "predictions" / "b" / "spleen.nii.gz").unlink()
    status = attempt(folders, label_file)
    assert "predictions/b: must have a prediction; found no spleen. Remedy: " in status
    rows = read_scores(folders / "out")
    assert float(rows["b", "spleen", "dice"]["value"]) == 0
    assert float(rows["b", "liver", "dice"]["value"]) == float(rows["c", "spleen", "dice"]["value"]) == 1


def test_suffixes_of_names(folders, label_file):
    for path in list((folders / "predictions").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii.gz", "_seg.nii.gz")))
    status = attempt(folders, label_file)
    assert "must hold files named as in" in status
    assert "a_seg, b_seg, c_seg against a, b, c" in status
    assert "(prediction_suffix '_seg' would match)" in status
    assert attempt(folders, label_file, prediction_suffix="_seg") is None
    assert len(read_scores(folders / "out")) == 36


def test_an_extra_prediction_is_listed(folders, label_file, label_map, write, command, caplog):
    write(folders / "predictions" / "z.nii.gz", label_map())
    with caplog.at_level(logging.WARNING):
        assert command(*options(folders, label_file))[0] is None
    assert "1 predictions have no reference and are not scored: z" in caplog.text
    assert json.loads((folders / "out" / "summary.json").read_text())["extra_predictions"] == ["z"]


def test_two_files_of_one_case_are_refused(folders, label_file, label_map, write):
    write(folders / "predictions" / "a.nii", label_map())
    assert "a.nii.gz: must be the only one of case a; found" in attempt(folders, label_file)


def test_every_bad_file_is_named_and_nothing_is_averaged(folders, label_file, label_map, write, affine, command):
    predictions = folders / "predictions"
    (predictions / "a.nii.gz").write_bytes((predictions / "a.nii.gz").read_bytes()[:100])
    affine[2, 3] += 3
    write(predictions / "b.nii.gz", label_map(), affine)
    write(folders / "references" / "d.nii.gz", label_map())
    write(predictions / "d.nii.gz", np.zeros((16, 12, 8, 4), dtype=np.uint8))
    (folders / "out").mkdir()
    (folders / "out" / "summary.json").write_text("from an older run")
    status, _ = command(*options(folders, label_file))
    assert "3 problems in the data:" in status
    assert "a.nii.gz: must open" in status
    assert "b.nii.gz: must lie on the grid of" in status
    assert "origin -2, 9, -27 against 16 x 12 x 8 of 0.8 x 1 x 3 mm, RAS, origin -2, 9, -30" in status
    assert "d.nii.gz: must be a label map or have a channel for each of the 2 structures; found 4 channels" in status
    assert sorted(path.name for path in (folders / "out").iterdir()) == ["cases"]


def test_another_grid_is_resampled_on_request(folders, label_file, label_map, write, affine):
    finer = affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    finer[:3, 3] = (affine @ [-0.25, -0.25, -0.25, 1.0])[:3]
    write(folders / "predictions" / "a.nii.gz", label_map().repeat(2, 0).repeat(2, 1).repeat(2, 2), finer)
    status = attempt(folders, label_file)
    assert "Remedy: save it in the geometry of the reference, or score with geometry resample." in status
    assert attempt(folders, label_file, geometry="resample") is None
    assert float(read_scores(folders / "out")["a", "liver", "dice"]["value"]) == 1


def test_labels_may_be_numbered_otherwise(folders, label_file, label_map, write, tmp_path):
    attempt(folders, label_file)
    before = read_scores(folders / "out")
    renamed = tmp_path / "renamed.json"
    content = json.loads(label_file.read_text())
    content["structures"][0]["label"], content["structures"][1]["label"] = 2, 1
    renamed.write_text(json.dumps(content))
    for shift, case in enumerate("abc"):
        for kind, moved in (("references", 0), ("predictions", shift)):
            write(folders / kind / f"{case}.nii.gz", np.array([0, 2, 1], dtype=np.uint8)[label_map(moved)])
    attempt(folders, renamed)
    assert read_scores(folders / "out") == before


def test_an_interrupted_run_goes_on(folders, label_file, label_map, write, monkeypatch, caplog):
    from common.evaluation import scoring

    scored = []
    original = scoring._score_case
    monkeypatch.setattr(
        scoring, "_score_case", lambda pair, settings: scored.append(pair.case) or original(pair, settings)
    )
    broken = (folders / "predictions" / "c.nii.gz").read_bytes()
    (folders / "predictions" / "c.nii.gz").write_bytes(broken[:50])
    assert "c.nii.gz: must open" in attempt(folders, label_file)
    (folders / "predictions" / "c.nii.gz").write_bytes(broken)
    scored.clear()
    with caplog.at_level(logging.INFO):
        assert attempt(folders, label_file) is None
    assert scored == ["c"]
    assert "2 of 3 cases were scored before" in caplog.text
    # other files, and other settings, are scored again
    write(folders / "predictions" / "a.nii.gz", label_map(2))
    scored.clear()
    attempt(folders, label_file)
    assert scored == ["a"]
    scored.clear()
    attempt(folders, label_file, protocol="segrap2023")
    assert scored == ["a", "b", "c"]


def test_a_case_file_cut_off_by_a_crash_is_scored_again(folders, label_file):
    attempt(folders, label_file)
    before = read_scores(folders / "out")
    (folders / "out" / "cases" / "b.json").write_text('{"case": "b", ')
    assert attempt(folders, label_file) is None
    assert read_scores(folders / "out") == before


def test_absent_structures_are_counted_apart(folders, label_file, label_map, write):
    write(folders / "references" / "a.nii.gz", label_map(spleen=False))
    write(folders / "references" / "b.nii.gz", label_map(spleen=False))
    write(folders / "predictions" / "b.nii.gz", label_map(spleen=False))
    means = {}
    for protocol in ("plain", "touchstone", "segrap2023"):
        assert attempt(folders, label_file, protocol=protocol) is None
        summary = json.loads((folders / "out" / "summary.json").read_text())
        spleen = summary["structures"]["spleen"]
        means[protocol] = spleen["dice"]["mean"]
        assert (spleen["outcomes"]["only in prediction"], spleen["outcomes"]["both empty"]) == (1, 1)
    assert means == pytest.approx({"plain": (0 + 1 / 3) / 2, "touchstone": 1 / 3, "segrap2023": (0 + 1 + 1 / 3) / 3})


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("protocol", "fair", "protocol must be one of segrap2023, touchstone, plain; found 'fair'"),
        ("geometry", "ignore", "geometry must be one of refuse, resample; found 'ignore'"),
        ("num_workers", 0, "num_workers must be a whole number from 1; found 0"),
        ("labels", "nothing", "must be a label set; found none; shipped are"),
        ("predictions", "nowhere", "nowhere: must be a folder; found nothing"),
    ],
)
def test_wrong_options(folders, label_file, option, value, message):
    assert message in attempt(folders, label_file, **{option: value})


def test_an_empty_folder(folders, label_file):
    (folders / "empty").mkdir()
    (folders / "empty" / "notes.txt").write_text("nothing")
    status = attempt(folders, label_file, references=folders / "empty")
    assert "must hold cases; found no image and no folder of images. Remedy: correct references" in status


def test_a_reference_without_one_structure_is_refused(folders, label_file, label_map, write):
    (folders / "references" / "a.nii.gz").unlink()
    write(folders / "references" / "a" / "liver.nii.gz", label_map() == 1)
    assert "must hold a reference of spleen; found no such file" in attempt(folders, label_file)


def test_images_lie_under_the_worst_cases(folders, label_file, label_map, write, command):
    write(folders / "images" / "c_0000.nii.gz", label_map().astype(np.int16) * 100)
    write(folders / "images" / "b.nii.gz", np.zeros((4, 4, 4), dtype=np.int16))
    status, log = command(*options(folders, label_file, images=folders / "images"))
    assert status is None
    assert "No image is shown for case b:" in log
    assert "No image is shown for case a: none found" in log
    assert "case c" not in log


@pytest.mark.slow
def test_processes_give_the_same_scores(folders, label_file, monkeypatch):
    from common.evaluation import scoring

    names = [folders / "predictions", folders / "references", label_file]
    one = score_folder(*names, folders / "one", num_workers=1)
    # what is left when processes would have started goes to them
    monkeypatch.setattr(scoring, "START_UP_S", 0.0)
    two = score_folder(*names, folders / "two")
    assert (folders / "one" / "scores.csv").read_bytes() == (folders / "two" / "scores.csv").read_bytes()
    assert one.summary == two.summary
