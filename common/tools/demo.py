"""Every bundle on phantoms, through its real JSON, and a page with what came out."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..data.phantoms import write_fundus_phantoms, write_heart_phantoms, write_torso_phantoms
from ..evaluation.html import heading, page, table
from ..evaluation.reports import text_table
from ..files import write_text_atomically
from .report import Run, find_runs, overview_table, report_page
from .report.cases import choose_cases, draw_cases, read_scores
from .report.sections import domain_means, score_tables
from .runs import ensure_phantoms, find_bundles, run_bundle

# How each kind is written, and which of its files last.
PHANTOMS: dict[str, tuple[Callable[..., object], str]] = {
    "torso": (write_torso_phantoms, "dataset.json"),
    "fundus": (write_fundus_phantoms, "domain_e/dataset.json"),
    "heart": (write_heart_phantoms, "dataset.json"),
}
# The worst and the best cases of each bundle that are drawn.
NUM_CASES = 1
# What the demo of a bundle runs.
PLAN = "docs/demo.json"

_logger = logging.getLogger(__name__)


def demo(output_dir: str = "demo", bundle: str | None = None) -> None:
    """Run the steps that each bundle lists in `docs/demo.json`, and write `report/index.html`, which links to more.

    Args:
        output_dir: Folder for phantoms, runs and report; what a former demo left there is used again or overwritten.
        bundle: Name of one bundle; by default all.

    Raises:
        ValueError: If there is no such bundle.
        RuntimeError: If a step fails.
    """
    start = time.perf_counter()
    root = Path(output_dir).resolve()
    bundles = find_bundles()
    if bundle is not None:
        names = [path.name for path in bundles]
        if bundle not in names:
            raise ValueError(f"There is no bundle {bundle!r}; there are {', '.join(names)}.")
        bundles = [path for path in bundles if path.name == bundle]
    shown = [path for path in bundles if (path / PLAN).is_file()]
    for path in bundles:
        if path not in shown:
            _logger.info("%s has no %s, and so no part in the demo", path.name, PLAN)
    plans = [_run_bundle(path, root) for path in shown]
    runs = {path.name: find_runs(root / path.name) for path in shown}
    for path in shown:
        write_text_atomically(report_page(runs[path.name]), root / "report" / f"{path.name}.html")
    titles = {path.name: str(plan["title"]) for path, plan in zip(shown, plans, strict=True)}
    index = root / "report" / "index.html"
    write_text_atomically(demo_page(titles, runs, time.perf_counter() - start), index)
    for name, found in runs.items():
        _logger.info("\n%s\n%s", titles[name], text_table(*overview_table(found)))
    _logger.info("Done in %.0f s. Open %s", time.perf_counter() - start, index)


def _run_bundle(bundle: Path, root: Path) -> dict[str, Any]:
    """Run the steps of a bundle, and return its plan."""
    plan: dict[str, Any] = json.loads((bundle / PLAN).read_text())
    options = dict(plan["phantoms"])
    kind = options.pop("kind")
    data, run = root / "data" / f"{bundle.name}_{kind}", root / bundle.name
    write, last_file = PHANTOMS[kind]
    ensure_phantoms(write, data, options, last_file)
    for number, step in enumerate(plan["steps"], start=1):
        name = step["name"]
        _logger.info(
            "\n%s, step %d of %d: %s (%s)", bundle.name, number, len(plan["steps"]), name, " + ".join(step["configs"])
        )
        overrides = {
            "dataset_dir": str(data),
            "output_dir": str(run / name),
            **{key: _fill(value, data, run) for key, value in step["overrides"].items()},
        }
        run_bundle(bundle, step["configs"], overrides)
    return plan


def _fill(value: Any, data: Path, run: Path) -> Any:
    return value.format(data=data, run=run) if isinstance(value, str) else value


def demo_page(titles: dict[str, str], runs: dict[str, list[Run]], seconds: float) -> str:
    """Return the page of the demo: what ran, and for each bundle its scores, a bad and a good case, and a link to more.

    Args:
        titles: Title by bundle.
        runs: Runs by bundle.
        seconds: What the demo took.
    """
    intro = (
        f"<p>Synthetic phantoms, a small network, {seconds:.0f} s in all: this shows that everything runs, not how "
        "good a method is.</p>"
    )
    summary = [row for found in runs.values() for row in overview_table(found)[1]]
    headings = overview_table(())[0]
    sections = [heading(titles[name]) + _section(name, found) for name, found in runs.items()]
    return page("Frugal Bundles: demo", [intro, table(headings, summary), *sections])


def _section(bundle: str, runs: Sequence[Run]) -> str:
    link = f'<p><a href="{escape(bundle)}.html">Everything about these runs</a></p>'
    scored = next((run for run in reversed(runs) if read_scores(run) is not None), None)
    if scored is None:
        return link
    cases = draw_cases(scored, choose_cases(scored, read_scores(scored), NUM_CASES))
    return "".join([link, "<h3>Scores of the test cases</h3>", score_tables(scored), domain_means(scored), *cases])
