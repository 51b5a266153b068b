"""Overlays of the worst and the best cases of a run, from the files that it has written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ...data.label_names import load_label_names
from ...data.mask_values import MaskConvention
from ...data.problems import DatasetError
from ...data.readers import read_volume
from ...evaluation.html import legend, panels
from ...evaluation.masks import CaseMasks, canonical, read_case_masks
from ...evaluation.overlays import worst_cases
from ...evaluation.score_report import RANKED_BY
from ...evaluation.scores import ScoreTable
from ...evaluation.structures import LabelSet, label_set_of_names, label_set_of_pictures
from ..pictures import SOFT_TISSUE_HU, center_of, draw_planes, structure_colors
from .records import Run

# What follows the name of a case in the name of its mask: label maps, and masks of photographs.
MASK_ENDINGS = ("_seg.nii.gz", "_mask.png")
HU = "_hu"


@dataclass(frozen=True)
class ChosenCase:
    """A case to be drawn.

    Attributes:
        name: Its name.
        structure: Structure whose center the planes go through; None for all together.
        title: What stands above its pictures.
    """

    name: str
    structure: str | None
    title: str


def read_scores(run: Run) -> ScoreTable | None:
    """Return the scores of a run, None where there are none; damage is noted.

    Args:
        run: The run.
    """
    if not (run.folder / "scores.csv").is_file():
        return None
    rows = run.rows("scores.csv")  # notes a table that is cut off
    try:
        entries = [(r["case"], r["structure"], r["metric"], float(r["value"] or "nan"), r["outcome"]) for r in rows]
    except (KeyError, ValueError) as error:
        run.problems.append(f"scores.csv is no table of scores: {error}.")
        return None
    return ScoreTable.from_rows(entries) if entries else None


def choose_cases(run: Run, scores: ScoreTable | None, num_cases: int) -> list[ChosenCase]:
    """Choose the worst and the best cases by mean Dice; without scores, the first ones.

    Args:
        run: The run.
        scores: Its scores.
        num_cases: How many of each.
    """
    if scores is None or RANKED_BY not in scores.values:
        masks = {name: find_mask(run, name) for name in _cases(run)}
        names = [name for name, mask in masks.items() if mask is not None][:num_cases]
        return [ChosenCase(name, None, name) for name in names]
    ranked = worst_cases(scores, RANKED_BY, len(scores.cases))
    num_best = min(num_cases, max(len(ranked) - num_cases, 0))
    chosen = [(k + 1, *ranked[k], True) for k in range(min(num_cases, len(ranked)))]
    chosen += [(k + 1, *ranked[-1 - k], False) for k in range(num_best)]
    found = []
    for rank, name, structure, is_worst in chosen:
        i = scores.cases.index(name)
        mean, own = scores.case_means(RANKED_BY)[i], scores.values[RANKED_BY][i, scores.structures.index(structure)]
        kind = "worst" if is_worst else "best"
        title = f"{rank} of the {kind}: {name}, mean Dice {mean:.3f}; its worst structure, {structure}, {own:.3f}"
        found.append(ChosenCase(name, structure, title))
    return found


def find_mask(run: Run, case: str) -> Path | None:
    """Return the mask that a run has written for a case, None where there is none.

    Args:
        run: The run.
        case: Name of the case.
    """
    paths = (run.folder / f"{case}{ending}" for ending in MASK_ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def label_set_of(run: Run) -> LabelSet | None:
    """Return what the masks of a run mean by its settings, None where they do not say.

    Args:
        run: The run.

    Raises:
        DatasetError: If the data set's names contradict each other.
    """
    settings = run.settings
    if {"channel_names", "mask_ranges", "mask_values", "background_value"} <= set(settings):
        convention = MaskConvention(*(settings[key] for key in ("mask_ranges", "mask_values", "background_value")))
        return label_set_of_pictures(settings["channel_names"], convention, 1.0)
    if "label_names" in settings:
        return label_set_of_names({int(key): name for key, name in settings["label_names"].items()}, 1.0)
    if "num_classes" in settings and "dataset_dir" in settings:
        return label_set_of_names(load_label_names(settings["dataset_dir"], settings["num_classes"]), 1.0)
    return None


def window_of(settings: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the intensities to show black and white: soft tissue where there is a setting in HU, else None.

    Args:
        settings: Settings of a run.
    """
    return SOFT_TISSUE_HU if any(key.endswith(HU) for key in settings) else None


def draw_cases(run: Run, chosen: list[ChosenCase]) -> Iterator[str]:
    """Draw cases, and note those that cannot be drawn.

    Args:
        run: The run.
        chosen: What to draw.

    Yields:
        HTML of each case, the legend first.
    """
    try:
        label_set = label_set_of(run)
    except DatasetError as error:
        run.problems.append(f"No case is drawn: {error}")
        return
    if label_set is None or not chosen:
        return
    colors = structure_colors(label_set.names, label_set.is_gray)
    yield legend(colors)
    for case in chosen:
        try:
            pictures = list(_draw(run, case, label_set, colors))
        except (DatasetError, OSError) as error:
            run.problems.append(f"Case {case.name} is not drawn: {error}")
            continue
        yield f"<h4>{escape(case.title)}</h4>" + panels(pictures, _columns(pictures))


def _draw(run: Run, case: ChosenCase, label_set: LabelSet, colors: Mapping[str, str]) -> Iterator[tuple[bytes, str]]:
    files = _cases(run).get(case.name, {})
    if "image" not in files:
        raise FileNotFoundError("run.json does not name its image")
    array, grid = canonical(read_volume(files["image"]))
    masks: dict[str, CaseMasks] = {}
    for title, path in (("prediction", find_mask(run, case.name)), ("reference", files.get("label"))):
        if path is not None:
            masks[title] = read_case_masks(Path(path), label_set)
            if not masks[title].grid.coincides(grid):
                raise OSError(f"its {title} lies on another grid than the image: {masks[title].grid} against {grid}")
    in_order = [masks[title] for title in ("reference", "prediction") if title in masks]
    center = center_of(in_order, case.structure, grid)
    if array.ndim > len(grid.shape) and len(grid.shape) == 3:
        array = array[..., 0]
    window = (0.0, 255.0) if len(grid.shape) == 2 and array.dtype == np.uint8 else window_of(run.settings)
    yield from draw_planes(array, grid, masks, colors, center, window)


def _cases(run: Run) -> dict[str, dict[str, str]]:
    """Files of each case by its name, as far as the run has written them down."""
    return {case["case"]: case for case in run.settings.get("datalist", ()) if "case" in case}


def _columns(pictures: list[tuple[bytes, str]]) -> int:
    """How many of the pictures belong to one plane."""
    return next((k for k in range(1, len(pictures)) if pictures[k][1].startswith("image")), len(pictures))
