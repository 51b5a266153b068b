"""Pages in a real browser: they load from a file, sort, fit the screen, and ask the network for nothing."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from common.evaluation.html import page, table
from common.tools.report import report

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium, of the extra `dev`")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WIDTHS = (1280, 400)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def open_page(browser, path: Path, width: int = WIDTHS[0]) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("browser")  # of pages before
    browser.get(path.as_uri())


def column(browser, index: int) -> list[str]:
    script = "return [...document.querySelector('table').tBodies[0].rows].map(r => r.cells[arguments[0]].textContent)"
    return browser.execute_script(script, index)


def click_heading(browser, index: int) -> None:
    browser.execute_script("document.querySelectorAll('th button')[arguments[0]].click()", index)


@pytest.fixture(scope="module")
def report_file(tmp_path_factory) -> Path:
    """A page with a bit of everything, of 20 cases with long names and many structures."""
    folder = tmp_path_factory.mktemp("runs") / ("a_folder_with_a_very_long_name_" * 3)
    folder.mkdir()
    structures = [f"structure_with_a_long_name_{k}" for k in range(9)]
    names = [f"case_{k:02d}_of_an_examination_<b>&" for k in range(20)]
    generator = np.random.default_rng(0)
    datalist, scores = [], [("case", "structure", "metric", "value", "outcome")]
    for k, name in enumerate(names):
        label = np.zeros((40, 40, 16), dtype=np.uint8)
        for s in range(9):
            label[4 * s : 4 * s + 3, 10:20, 4:10] = s + 1
        image = (label * 20 + generator.normal(0, 30, label.shape)).astype(np.int16)
        for path, array in ((f"{k}.nii.gz", image), (f"{name}_seg.nii.gz", np.roll(label, k % 5, axis=1))):
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 3.0, 1.0])), folder / path)
        nib.save(nib.Nifti1Image(label, np.diag([1.0, 1.0, 3.0, 1.0])), folder / f"{k}_label.nii.gz")
        files = {"image": str(folder / f"{k}.nii.gz"), "label": str(folder / f"{k}_label.nii.gz")}
        datalist.append({"case": name, **files})
        values = [("dice", 1 - (k % 5) / 10), ("nsd", 0.5), ("hd95_mm", float(k))]
        scores += [(name, s, metric, value, "scored") for s in structures for metric, value in values]
    with (folder / "scores.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(scores)
    settings = {"datalist": datalist, "label_names": {k + 1: s for k, s in enumerate(structures)}, "range_hu": [0, 1]}
    settings["a_path"] = "/" + "folder/" * 60
    record = {"outcome": "started", "config": settings, "settings": settings, "command": ["x" * 300], "seconds": 5}
    (folder / "run.json").write_text(json.dumps(record))
    with SummaryWriter(str(folder)) as writer:
        for step in range(200):
            writer.add_scalar("train_loss", 1 / (step + 1), step)
    report(str(folder))
    return folder / "run_report.html"


class TestReport:
    @pytest.mark.parametrize("width", WIDTHS)
    def test_it_fits_the_screen(self, browser, report_file, width):
        open_page(browser, report_file, width)
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        # what is wider scrolls in its box, and can be reached by keyboard
        boxes = "[...document.querySelectorAll('.scroll')]"
        wider = f"return {boxes}.filter(b => b.scrollWidth > b.clientWidth).every(b => b.tabIndex === 0)"
        assert browser.execute_script(wider)
        smallest = "return Math.min(...[...document.images].map(i => i.getBoundingClientRect().width))"
        assert browser.execute_script(smallest) > 100

    def test_it_loads_without_error_and_without_network(self, browser, report_file):
        open_page(browser, report_file)
        assert browser.get_log("browser") == []
        names = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        assert [name for name in names if not name.startswith("data:")] == []
        loaded = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
        assert browser.execute_script(loaded)
        assert browser.execute_script("return document.images.length") > 50

    def test_every_picture_and_table_has_a_text(self, browser, report_file):
        open_page(browser, report_file)
        assert browser.execute_script("return [...document.images].every(i => i.alt.length > 0)")
        assert browser.execute_script("return document.querySelectorAll('.scroll:not([aria-label])').length") == 0
        assert browser.execute_script("return document.documentElement.lang") == "en"
        levels = browser.execute_script("return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))

    def test_links_of_the_page_lead_somewhere(self, browser, report_file):
        open_page(browser, report_file)
        target = "document.getElementById(decodeURIComponent(link.hash.slice(1)))"
        links = "[...document.querySelectorAll('nav a')]"
        assert browser.execute_script(f"return {links}.length > 0 && {links}.every(link => {target} !== null)")


class TestSorting:
    @pytest.fixture
    def small_table(self, browser, tmp_path):
        rows = [["b", 10.0, "done"], ["a", 9.5, "failed"], ["c", None, "done"], ["d", -1.0, "done"]]
        (tmp_path / "page.html").write_text(page("Sorted", [table(["case", "x", "outcome"], rows, sortable=True)]))
        open_page(browser, tmp_path / "page.html")

    def test_numbers_are_sorted_as_numbers_and_what_is_missing_comes_last(self, browser, small_table):
        click_heading(browser, 1)
        assert column(browser, 1) == ["-1.000", "9.500", "10.000", "-"]
        assert column(browser, 0) == ["d", "a", "b", "c"]
        click_heading(browser, 1)
        assert column(browser, 1) == ["10.000", "9.500", "-1.000", "-"]

    def test_texts_are_sorted_as_texts(self, browser, small_table):
        click_heading(browser, 0)
        assert column(browser, 0) == ["a", "b", "c", "d"]
        states = "return [...document.querySelectorAll('th')].map(h => h.getAttribute('aria-sort'))"
        assert browser.execute_script(states) == ["ascending", "none", "none"]
        click_heading(browser, 2)
        assert column(browser, 2) == ["done", "done", "done", "failed"]
        assert browser.execute_script(states) == ["none", "none", "ascending"]

    def test_the_keyboard_sorts(self, browser, small_table):
        button = browser.find_element("css selector", "th:nth-child(2) button")
        button.send_keys("\ue007")  # Enter
        assert column(browser, 1)[0] == "-1.000"

    def test_a_page_without_such_tables_has_no_script(self, tmp_path):
        assert "<script>" not in page("Plain", [table(["a"], [[1]])])
