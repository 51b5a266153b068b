"""`python -m common.evaluation compare`: planted algorithms, what is said about them, and refusals."""

import csv
import json
import re

import numpy as np
import pytest

from common.evaluation import compare_algorithms, load_algorithms, load_groups

STRUCTURES = ("liver", "spleen")
PLANTED = {"X": 0.9, "Y": 0.7, "Z": 0.8}


def write_scores(folder, dice, protocol="plain", tolerance_mm=1.0):
    """Write what `score` writes, with given Dice. Shape (cases, structures)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["case,structure,metric,value,outcome"]
    for i, row in enumerate(dice):
        for structure, value in zip(STRUCTURES, row, strict=True):
            text = "" if np.isnan(value) else f"{value:.6f}"
            lines.append(f"case{i:02d},{structure},dice,{text},scored")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    summary = {
        "protocol": protocol,
        "label_set": "Two organs",
        "geometry": "refuse",
        "rules": [f"Rule of {protocol}."],
        "structures": {name: {"nsd_tolerance_mm": tolerance_mm} for name in STRUCTURES},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def planted_dice(mean, seed, num_cases=30):
    difficulty = np.random.default_rng(0).normal(0, 0.03, (num_cases, 2))
    return mean + difficulty + np.random.default_rng(seed).normal(0, 0.01, (num_cases, 2))


@pytest.fixture
def runs(tmp_path):
    """Three algorithms: best, worst, middle."""
    return [write_scores(tmp_path / n, planted_dice(m, k)) for k, (n, m) in enumerate(PLANTED.items(), 1)]


def joined(paths):
    return ",".join(map(str, paths))


def test_the_planted_order(runs, tmp_path, command):
    options = ("--scores", joined(runs), "--output_dir", tmp_path / "out", "--metrics", "dice")
    status, log = command("compare", *options)
    assert status is None
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    found = result["metrics"]["dice"]
    for rule in ("rank of means", "mean of ranks", "mean of structure ranks", "rank of medians"):
        assert [found["summary"][name]["ranks"][rule] for name in "XYZ"] == [1, 3, 2]
    assert found["summary"]["X"]["mean"] == pytest.approx(planted_dice(0.9, 1).mean(), abs=1e-6)
    low, high = found["summary"]["X"]["confidence_interval"]
    assert low < found["summary"]["X"]["mean"] < high
    for name in ("overall", *STRUCTURES):
        p_values = np.array(found["significance"][name], dtype=float)
        assert (p_values[[0, 0, 2], [1, 2, 1]] < 0.001).all()
        assert (p_values[[1, 2, 1], [0, 0, 2]] == 1).all()
    assert result["warnings"] == []
    for text in (
        "- Rule of plain.",
        "- Rank of means: ",
        "- Mean of ranks: ",
        "- Mean of structure ranks",
        "- Rank of medians: ",
        "- Confidence intervals: 95%, percentiles of 2000 bootstrap resamples of cases (seed 0)",
        "adjusted by Holm over the 6 tests of a map, level 0.05",
    ):
        assert text in log
    with (tmp_path / "out" / "comparison.csv").open() as stream:
        rows = {
            (r["structure"], r["algorithm"], r["other"], r["statistic"]): float(r["value"])
            for r in csv.DictReader(stream)
        }
    assert rows["overall", "X", "", "rank: rank of means"] == 1
    assert rows["overall", "X", "Y", "adjusted p of being better"] < 0.001
    assert rows["liver", "Z", "", "mean"] == pytest.approx(planted_dice(0.8, 3)[:, 0].mean(), abs=1e-6)
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(link.startswith("#") for link in re.findall(r'<a href="([^"]+)"', page))
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 2
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    mean = planted_dice(0.9, 1).mean()
    assert f"<li>X: mean Dice {mean:.3f}; significantly better than Y, Z.</li>" in page
    assert "<li>Y: mean Dice" in page
    assert "not significantly better than any other.</li>" in page
    assert "<strong>&lt; 0.001</strong>" in page
    assert page.index("<td>X</td>") < page.index("<td>Z</td>") < page.index("<td>Y</td>")


def test_it_warns_where_the_ranking_depends_on_the_rule(tmp_path):
    steady = np.full((20, 2), 0.8)
    mostly_better = np.where(np.arange(20)[:, None] < 15, 0.85, 0.1) * np.ones((1, 2))
    runs = [write_scores(tmp_path / "steady", steady), write_scores(tmp_path / "risky", mostly_better)]
    (warning,) = compare_algorithms(load_algorithms(runs), ["dice"])["warnings"]
    assert warning == (
        "dice: the ranking depends on the rule. steady before risky by rank of means, mean of structure ranks; "
        "risky before steady by mean of ranks, rank of medians."
    )


def test_it_warns_of_too_few_cases_and_uneven_scores(tmp_path):
    dice = planted_dice(0.9, 1, 4)
    other = planted_dice(0.8, 2, 4)
    other[0, 1] = np.nan
    runs = [write_scores(tmp_path / "a", dice), write_scores(tmp_path / "b", other)]
    few, uneven = compare_algorithms(load_algorithms(runs), ["dice"])["warnings"]
    assert few.startswith("4 cases are too few for any of the 2 tests of a map to be significant at 0.05")
    assert uneven.startswith("dice: 1 of 8 scores are there for some algorithms only")


def test_subgroups(runs, tmp_path, command):
    dice = planted_dice(0.9, 1)
    dice[::2] -= 0.2
    write_scores(runs[0], dice)
    rows = [f"case{i:02d},{'fm'[i % 2]},{'AB'[i // 15]}" for i in range(30)]
    (tmp_path / "meta.csv").write_text("case,sex,scanner\n" + "\n".join(rows) + "\n")
    status, log = command(
        *("compare", "--scores", joined(runs), "--output_dir", tmp_path / "out", "--metrics", "dice"),
        *("--names", "ours,theirs,third", "--metadata", tmp_path / "meta.csv", "--subgroups", "sex,scanner"),
    )
    assert status is None
    groups = json.loads((tmp_path / "out" / "comparison.json").read_text())["metrics"]["dice"]["subgroups"]
    assert groups["sex"]["ours"]["kruskal_wallis_p"] < 0.001
    assert groups["sex"]["ours"]["pairs"][0]["groups"] == ["f", "m"]
    assert groups["sex"]["ours"]["groups"]["f"]["num"] == 15
    assert groups["sex"]["theirs"]["kruskal_wallis_p"] > 0.05
    assert groups["scanner"]["theirs"]["pairs"] == []
    assert "adjusted by Benjamini and Hochberg" in log
    assert "Groups by scanner" in (tmp_path / "out" / "report.html").read_text()


def test_scores_of_someone_else(tmp_path, runs):
    lines = (runs[0] / "scores.csv").read_text().splitlines()
    (tmp_path / "foreign.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in reversed(lines[1:])) + "\n")
    text = "case,structure,metric,value\n" + (tmp_path / "foreign.csv").read_text()
    (tmp_path / "foreign.csv").write_text(text)
    algorithms = load_algorithms([runs[0], tmp_path / "foreign.csv"])
    assert algorithms.names == ["X", "foreign"]
    np.testing.assert_array_equal(algorithms.values["dice"][0], algorithms.values["dice"][1])


def refused(scores, **options):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the message
        load_algorithms(scores, **options)
    return str(caught.value)


def test_refusals_of_scores(runs, tmp_path):
    assert "scores must name at least two algorithms; found 1." in refused(runs[:1])
    assert "names must give each of 2 algorithms a name of its own; found a, a." in refused(runs[:2], names=["a", "a"])
    assert "scores.csv: must exist; found nothing. Remedy: run score first" in refused([runs[0], tmp_path])
    fewer = write_scores(tmp_path / "fewer", planted_dice(0.9, 1)[:28])
    assert "must have the cases of" in refused([runs[0], fewer])
    assert "only there: case28, case29" in refused([runs[0], fewer])
    other = write_scores(tmp_path / "touchstone", planted_dice(0.9, 1), protocol="touchstone")
    assert "must be scored with the protocol of" in refused([runs[0], other])
    other = write_scores(tmp_path / "tolerant", planted_dice(0.9, 1), tolerance_mm=3.0)
    assert "must be scored with the tolerances of" in refused([runs[0], other])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,organ,dice\n", "must have the columns case, structure, metric, value; found case, organ, dice"),
        ("case,structure,metric,value\n", "must hold scores; found none"),
        ("case,structure,metric,value\na,b,dice,x\n", "line 2: must give a number; found 'x'"),
        ("case,structure,metric,value\na,b,dice,1\na,b,dice,1\n", "line 3: must give a score once; found a / b / dice"),
    ],
)
def test_refusals_of_a_file(runs, tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    assert message in refused([runs[0], tmp_path / "bad.csv"])


def test_refusals_of_metadata(tmp_path):
    path = tmp_path / "meta.csv"
    cases = [f"c{i}" for i in range(12)]
    path.write_text("case,age\n" + "".join(f"{case},{i}\n" for i, case in enumerate(cases)))
    for columns, names, message in (
        (["sex"], cases, "must have the columns sex; found case, age"),
        (["age"], [*cases, "d"], "must list each case once; found d absent, none twice"),
        (["age"], cases, "must have at most 10 groups in age; found 12. Remedy: bin measurements"),
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at
            load_groups(path, columns, names)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metrics", "iou"), "metrics must be among dice; found iou."),
        (
            ("--metrics", "dice", "--alpha", "2"),
            "alpha must be in (0, 1) and num_resamples from 100; found 2 and 2000.",
        ),
        (("--subgroups", "sex"), "metadata and subgroups belong together; found None and sex."),
    ],
)
def test_wrong_options(runs, tmp_path, command, options, message):
    assert message in command("compare", "--scores", joined(runs), "--output_dir", tmp_path / "out", *options)[0]
    assert not (tmp_path / "out").exists()
