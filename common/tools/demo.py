"""Every bundle on phantoms, through its real JSON, and a page with what came out."""

from __future__ import annotations

import html
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..data.label_names import load_label_names
from ..data.mask_values import MaskConvention
from ..data.phantoms import write_fundus_phantoms, write_heart_phantoms, write_torso_phantoms
from ..handlers.case_scores import format_scores
from ..handlers.domain_metrics import format_domains
from .pictures import SOFT_TISSUE_HU, draw_case, draw_fusion, draw_photograph
from .runs import ensure_phantoms, find_bundles, read_summary, run_bundle

# How each kind is written, and which of its files last.
PHANTOMS: dict[str, tuple[Callable[..., object], str]] = {
    "torso": (write_torso_phantoms, "dataset.json"),
    "fundus": (write_fundus_phantoms, "domain_e/dataset.json"),
    "heart": (write_heart_phantoms, "dataset.json"),
}
# Intensities shown black and white; None for percentiles of the volume.
WINDOWS = {"torso": SOFT_TISSUE_HU, "heart": None}
MAX_PICTURES = 3
# What the demo of a bundle runs.
PLAN = "docs/demo.json"

_logger = logging.getLogger(__name__)


def demo(output_dir: str = "demo", bundle: str | None = None) -> None:
    """Run the steps that each bundle lists in `docs/demo.json`, and write `report/index.html`.

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
    sections = [_demo_bundle(path, root) for path in shown]
    page = root / "report" / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_page(sections, time.perf_counter() - start))
    _logger.info("Done in %.0f s. Open %s", time.perf_counter() - start, page)


def _demo_bundle(bundle: Path, root: Path) -> str:
    plan: dict[str, Any] = json.loads((bundle / PLAN).read_text())
    options = dict(plan["phantoms"])
    kind = options.pop("kind")
    data, run = root / "data" / f"{bundle.name}_{kind}", root / bundle.name
    write, last_file = PHANTOMS[kind]
    ensure_phantoms(write, data, options, last_file)
    seconds = {}
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
        seconds[name] = run_bundle(bundle, step["configs"], overrides)
    figures = _fundus_figures if kind == "fundus" else partial(_volume_figures, window=WINDOWS[kind])
    return _section(plan["title"], seconds, *figures(bundle, data, run, root / "report"))


def _fill(value: Any, data: Path, run: Path) -> Any:
    return value.format(data=data, run=run) if isinstance(value, str) else value


def _volume_figures(
    bundle: Path, data: Path, run: Path, report: Path, window: tuple[float, float] | None
) -> tuple[str, list[tuple[str, str]]]:
    """Table of the scores, and names and captions of the pictures, which go to `report`."""
    report.mkdir(parents=True, exist_ok=True)
    table = format_scores(read_summary(run / "evaluate"))
    description = json.loads((data / "dataset.json").read_text())
    names = load_label_names(data, len(description["labels"]))
    cases = description["test"][:MAX_PICTURES]
    figures = []
    for case in cases:
        name = Path(case["image"]).name.removesuffix(".nii.gz")
        picture = report / f"{bundle.name}_{name}.png"
        prediction = run / "evaluate" / f"{name}_seg.nii.gz"
        draw_case(data / case["image"], prediction, data / case["label"], picture, names, window)
        figures.append((picture.name, f"{name}: image, prediction, reference"))
    if (run / "pretrain").is_dir():
        picture = report / f"{bundle.name}_fused.png"
        draw_fusion(data / cases[0]["image"], picture)
        figures.insert(0, (picture.name, "What pretraining sees: fused volumes and the labels that it has to find"))
    return table, figures


def _fundus_figures(bundle: Path, data: Path, run: Path, report: Path) -> tuple[str, list[tuple[str, str]]]:
    """The same for photographs of several domains: the first test photograph of each."""
    report.mkdir(parents=True, exist_ok=True)
    summary = read_summary(run / "evaluate", "domains.json")
    configuration = json.loads((bundle / "configs" / "inference.json").read_text())
    convention = MaskConvention(*(configuration[key] for key in ("mask_ranges", "mask_values", "background_value")))
    figures = []
    for domain in summary["domains"]:
        case = json.loads((data / domain / "dataset.json").read_text())["test"][0]
        name = Path(case["image"]).stem
        picture = report / f"{bundle.name}_{domain}.png"
        files = (data / domain / case["image"], run / "evaluate" / domain / f"{name}_mask.png")
        draw_photograph(*files, data / domain / case["label"], picture, convention, configuration["channel_names"])
        figures.append((picture.name, f"{domain}: contours of prediction (solid) and reference (dashed)"))
    return format_domains(summary), figures


def _section(title: str, seconds: dict[str, float], table: str, figures: list[tuple[str, str]]) -> str:
    """HTML of one bundle."""
    _logger.info("\n%s\n%s", title, table)
    steps = "".join(f"<tr><td>{name}</td><td>{value:.0f} s</td></tr>" for name, value in seconds.items())
    pictures = "".join(
        f'<figure><img src="{source}" alt="{html.escape(text)}"><figcaption>{html.escape(text)}</figcaption></figure>'
        for source, text in figures
    )
    return (
        f"<h2>{html.escape(title)}</h2><table>{steps}</table><h3>Scores of the test cases</h3>"
        f"<pre>{html.escape(table)}</pre>{pictures}"
    )


def _page(sections: list[str], seconds: float) -> str:
    style = (
        "body{font-family:sans-serif;max-width:70rem;margin:auto;padding:1rem}img{max-width:100%}figure{margin:1rem 0}"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Frugal Bundles: demo</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style></head><body>'
        f"<h1>Frugal Bundles: demo</h1><p>Synthetic phantoms, a small network, {seconds:.0f} s in all: this shows that "
        f"everything runs, not how good a method is.</p>{''.join(sections)}</body></html>\n"
    )
