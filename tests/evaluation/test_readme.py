"""The commands of common/evaluation/README.md, as they stand there."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from common.evaluation import load_label_set, shipped_label_sets

PAGE = (Path(__file__).resolve().parents[2] / "common" / "evaluation" / "README.md").read_text()
BLOCKS = re.findall(r"```\n(.*?)```", PAGE, flags=re.DOTALL)


def find_command(name):
    (line,) = [block.strip() for block in BLOCKS if f"common.evaluation {name}" in block]
    words = shlex.split(line)
    return words[words.index(name) :]


def test_both_commands(folders, label_file, command, tmp_path, monkeypatch):
    (set_in_page,) = [block for block in BLOCKS if block.startswith("{")]
    (tmp_path / "set.json").write_text(set_in_page)
    assert load_label_set(tmp_path / "set.json").names == ["liver", "kidneys"]
    paths = {"/path/to/predictions": folders / "predictions", "/path/to/labels": folders / "references"}
    paths |= {"word": label_file, "runs/mine": tmp_path / "mine"}
    words = [str(paths.get(word, word)) for word in find_command("score")]
    assert command(*words, "--num_workers", 1)[0] is None
    words[words.index("--output_dir") + 1] = str(tmp_path / "theirs")
    assert command(*words, "--num_workers", 1)[0] is None
    (tmp_path / "cases.csv").write_text("case,sex,scanner\na,f,A\nb,m,A\nc,f,B\n")
    names = {"runs/mine,runs/theirs": f"{tmp_path / 'mine'},{tmp_path / 'theirs'}"}
    names |= {"cases.csv": tmp_path / "cases.csv", "runs/comparison": tmp_path / "comparison"}
    words = [str(names.get(word, word)) for word in find_command("compare")]
    assert command(*words)[0] is None
    result = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert result["algorithms"] == ["mine", "theirs"]
    page = (tmp_path / "comparison" / "report.html").read_text()
    assert "Worst cases of theirs" in page


def test_options_and_label_sets_exist(monkeypatch, capsys):
    help_texts = ""
    from common.evaluation.__main__ import main

    for name in ("score", "compare"):
        monkeypatch.setattr(sys, "argv", ["common.evaluation", name, "--help"])
        with pytest.raises(SystemExit):
            main()
        captured = capsys.readouterr()
        help_texts += captured.out + captured.err
    options = set(re.findall(r"--([a-z_]+)", PAGE)) - {"help"}
    assert {"geometry", "images", "metrics", "num_workers"} <= options
    for option in options:
        assert re.search(rf"\b{option.upper()}\b|--{option}\b", help_texts), option
    sets = set(re.findall(r"`([a-z0-9_]+)`", PAGE.split("**Structures.**")[1].split("or a file of yours")[0]))
    assert sets <= set(shipped_label_sets())
    assert len(sets) == len(shipped_label_sets()) - 8  # "msd01 to msd10" names two of ten
