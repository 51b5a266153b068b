"""The page of the demo, from folders as the runs of the demo leave them."""

from __future__ import annotations

import json
import re

import nibabel as nib
import numpy as np
import pytest

from common.evaluation import ScoreTable
from common.tools.demo import demo, demo_page
from common.tools.report import find_runs


@pytest.fixture
def demo_folder(tmp_path):
    """A bundle with a training and an evaluation of two cases."""
    folder = tmp_path / "some_bundle"
    results, datalist = [], []
    (folder / "evaluate").mkdir(parents=True)
    for k in range(2):
        label = np.zeros((20, 20, 10), dtype=np.uint8)
        label[4:9, 5:12, 3:7] = 1
        for name in (f"c{k}.nii.gz", f"c{k}_seg.nii.gz"):
            nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "evaluate" / name)
        path = str(folder / "evaluate" / f"c{k}.nii.gz")
        datalist.append({"case": f"c{k}", "image": path, "label": path})
        results.append((f"c{k}", "liver", "dice", 1.0 - k / 2, "scored"))
    ScoreTable.from_rows(results).write(folder / "evaluate" / "scores.csv")
    (folder / "evaluate" / "summary.json").write_text('{"mean_over_structures": {"dice": 0.75}}')
    settings = {"datalist": datalist, "label_names": {"1": "liver"}}
    for step, started, own in (("train", "2026-01-01", {}), ("evaluate", "2026-01-02", settings)):
        (folder / step).mkdir(exist_ok=True)
        record = {"outcome": "completed", "started": started, "settings": own, "seconds": 65, "bundle": {"name": "B"}}
        (folder / step / "run.json").write_text(json.dumps(record))
    return folder


def test_the_page_sums_up_and_leads_to_more(demo_folder):
    page = demo_page({"some_bundle": "Some <bundle>"}, {"some_bundle": find_runs(demo_folder)}, 70)
    assert "70 s in all" in page
    assert "Some &lt;bundle&gt;</h2>" in page
    row = "<td>{}</td><td>B</td><td>{}</td><td>1 min 5 s</td><td>completed</td><td>{}</td>"
    assert row.format("train", "2026-01-01", "-") in page
    assert row.format("evaluate", "2026-01-02", "0.750") in page
    assert '<a href="some_bundle.html">' in page
    assert [title.split(":")[0] for title in re.findall("<h4>(.*?)</h4>", page)] == ["1 of the worst", "1 of the best"]


def test_a_bundle_without_scores_still_has_its_link(demo_folder):
    (demo_folder / "evaluate" / "scores.csv").unlink()
    page = demo_page({"some_bundle": "Title"}, {"some_bundle": find_runs(demo_folder)}, 70)
    assert '<a href="some_bundle.html">' in page
    assert "<h4>" not in page


def test_an_unknown_bundle_is_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no bundle 'nothing'; there are "):
        demo(str(tmp_path), "nothing")
