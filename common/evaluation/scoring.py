"""Score a folder of predictions against a folder of references."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..data.problems import DatasetError, Problem
from ..files import write_text_atomically
from .masks import CaseMasks, read_case_masks, resample_masks, structure_files
from .pairs import Pair, pair_files
from .protocols import MISSING, PROTOCOLS, StructureResult, score_masks
from .scores import ScoreTable, summarize
from .structures import LabelSet, load_label_set

logger = logging.getLogger(__name__)

CASE_DIR = "cases"
GEOMETRY_RULES = ("refuse", "resample")
# Processes take about as long to start, so only what takes longer is shared out.
START_UP_S = 10.0
# Changes when the same files would be scored differently, so that older results are not resumed.
SCORING_VERSION = 2


@dataclass(frozen=True)
class Settings:
    """Everything but the files that decides on a score.

    Attributes:
        label_set: Structures.
        protocol: Name of the rule for empty masks.
        geometry: What to do with a prediction in another grid than its reference: `refuse` or `resample`.

    Raises:
        ValueError: If protocol or geometry are not known.
    """

    label_set: LabelSet
    protocol: str
    geometry: str = "refuse"

    def __post_init__(self) -> None:
        rules = (("protocol", self.protocol, tuple(PROTOCOLS)), ("geometry", self.geometry, GEOMETRY_RULES))
        for name, value, known in rules:
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; found {value!r}.")

    def fingerprint(self, pair: Pair) -> str:
        """Return a number that changes with the settings and with the files of a case."""
        files = [f for path in (pair.prediction, pair.reference) if path is not None for f in _files(path)]
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        content = json.dumps([SCORING_VERSION, asdict(self), stats])
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class ScoredFolder:
    """What came of a folder of predictions.

    Attributes:
        table: Scores.
        summary: Content of `summary.json`.
        pairs: The cases with their files.
        settings: How they were scored.
    """

    table: ScoreTable
    summary: dict[str, Any]
    pairs: list[Pair]
    settings: Settings

    def missing_problems(self) -> list[Problem]:
        """Return a problem for each case that lacks its prediction or some of it, in order of the cases."""
        problems = []
        for pair in self.pairs:
            names = self.table.structures_with(pair.case, MISSING)
            if names:
                found = "nothing" if pair.prediction is None else f"no {', '.join(names)}"
                what = pair.prediction or f"case {pair.case}"
                remedy = "predict it; it has scored the worst value"
                problems.append(Problem(what, "must have a prediction", found, remedy))
        return problems


def score_folder(
    predictions: str | Path,
    references: str | Path,
    labels: str | Path,
    output_dir: str | Path,
    protocol: str = "plain",
    geometry: str = "refuse",
    prediction_suffix: str = "",
    reference_suffix: str = "",
    num_workers: int | None = None,
) -> ScoredFolder:
    """Match the files of two folders, and score them as `score_pairs` does.

    Args:
        predictions: Folder of predictions; see `pair_files` and `read_case_masks` for what it may hold.
        references: Folder of references.
        labels: Name of a shipped label set, or file; see `load_label_set`.
        output_dir: Where to write.
        protocol: Rule for empty masks: `segrap2023`, `touchstone` or `plain`.
        geometry: `refuse` predictions in another grid than their reference (other orientations of the same grid are
            understood), or `resample` them, each voxel taking the value of the nearest one.
        prediction_suffix: End of the names of predictions that is not part of the case.
        reference_suffix: The same for references.
        num_workers: As in `score_pairs`.

    Returns:
        Scores, summary, and how and on which files they were made.

    Raises:
        ValueError: If protocol, geometry or num_workers are not what they may be.
        DatasetError: If files cannot be matched or scored; with a line for each.
        RuntimeError: If a process died, mostly for want of memory.
    """
    settings = Settings(load_label_set(labels), protocol, geometry)
    pairs, extra = pair_files(predictions, references, prediction_suffix, reference_suffix)
    if extra:
        logger.warning("%d predictions have no reference and are not scored: %s", len(extra), ", ".join(extra))
    return score_pairs(pairs, settings, output_dir, extra=extra, num_workers=num_workers)


def score_pairs(
    pairs: Sequence[Pair],
    settings: Settings,
    output_dir: str | Path,
    groups: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
    num_workers: int | None = None,
) -> ScoredFolder:
    """Score every structure of every case, and write `scores.csv` and `summary.json`.

    Each case is written to `cases/` as soon as it is scored, and is not scored again while its files and the settings
    stay the same. The two files are written when every case was scored and not before.

    Args:
        pairs: The cases, at least one.
        settings: How to score them.
        output_dir: Where to write.
        groups: Group of each case, such as its scanner, for means of each group; see `summarize`.
        extra: Predictions without a reference, to be listed.
        num_workers: Cases scored at the same time, each in a process and in memory once; None takes as many as there
            are CPUs for what is left after ten seconds.

    Returns:
        Scores, summary, and how and on which files they were made.

    Raises:
        ValueError: If num_workers is not what it may be.
        DatasetError: If files cannot be scored; with a line for each. What was scored is kept for the next run.
        RuntimeError: If a process died, mostly for want of memory.
    """
    if num_workers is not None and (not isinstance(num_workers, int) or num_workers < 1):
        raise ValueError(f"num_workers must be a whole number from 1; found {num_workers!r}.")
    output = Path(output_dir)
    remove_scores(output)
    results = _score_all(pairs, settings, output / CASE_DIR, num_workers)
    table = ScoreTable.from_results(results)
    summary = summarize(table, settings.label_set, PROTOCOLS[settings.protocol], groups)
    summary.update(geometry=settings.geometry, extra_predictions=list(extra), distance_unit=_unit(results))
    table.write(output / "scores.csv")
    write_text_atomically(json.dumps(summary, indent=4) + "\n", output / "summary.json")
    return ScoredFolder(table, summary, list(pairs), settings)


def remove_scores(output_dir: str | Path) -> None:
    """Remove what an older run wrote about all cases, so that a failed run leaves no average; cases are kept."""
    for name in ("scores.csv", "summary.json", "report.html"):
        (Path(output_dir) / name).unlink(missing_ok=True)


def _score_all(
    pairs: Sequence[Pair], settings: Settings, folder: Path, num_workers: int | None
) -> list[dict[str, Any]]:
    """Return the result of every case, from `folder` where it is up to date."""
    results: dict[str, dict[str, Any]] = {}
    open_pairs = []
    for pair in pairs:
        found = _read_result(folder / f"{pair.case}.json", settings.fingerprint(pair))
        if found is None:
            open_pairs.append(pair)
        else:
            results[pair.case] = found
    if results:
        logger.info("%d of %d cases were scored before", len(results), len(pairs))
    problems = []
    progress = tqdm(total=len(pairs), initial=len(results), desc="Scoring", unit="case", delay=1)
    for pair, result in _run(open_pairs, settings, num_workers):
        if isinstance(result, DatasetError):
            problems += result.problems
        else:
            write_text_atomically(json.dumps(result) + "\n", folder / f"{pair.case}.json")
            results[pair.case] = result
        progress.update()
    progress.close()
    if problems:
        raise DatasetError(problems)
    return [results[pair.case] for pair in pairs]


def _read_result(path: Path, fingerprint: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return None
    return result if result.get("fingerprint") == fingerprint else None


def _run(
    pairs: Sequence[Pair], settings: Settings, num_workers: int | None
) -> Iterator[tuple[Pair, dict[str, Any] | DatasetError]]:
    """Score cases in processes, and yield them as they are done."""
    rest = list(pairs)
    if num_workers is None or num_workers == 1:
        start_s = time.perf_counter()
        while rest and (num_workers == 1 or time.perf_counter() - start_s < START_UP_S):
            pair = rest.pop(0)
            yield pair, _score_case(pair, settings)
    if rest:
        yield from _run_processes(rest, settings, min(num_workers or os.cpu_count() or 1, len(rest)))


def _run_processes(
    pairs: Sequence[Pair], settings: Settings, num_workers: int
) -> Iterator[tuple[Pair, dict[str, Any] | DatasetError]]:
    # A fork of this process, whose libraries have threads, may hang; each fork of a server that has only imported
    # does not, and need not import again.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        futures = {pool.submit(_score_case, pair, settings): pair for pair in pairs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"A process that scores cases died, mostly for want of memory: each of {num_workers} holds one case. "
                "Run again with a smaller num_workers; cases that are done are kept."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _score_case(pair: Pair, settings: Settings) -> dict[str, Any] | DatasetError:
    """Score one case; what is wrong with its files is returned, so that all cases are looked at."""
    start_s = time.perf_counter()
    fingerprint = settings.fingerprint(pair)
    try:
        reference = read_case_masks(pair.reference, settings.label_set)
        if reference.missing:
            raise DatasetError(list(_missing_structures(pair, reference)))
        prediction = read_prediction(pair, reference, settings)
    except DatasetError as error:
        return error
    results: dict[str, StructureResult] = {}
    for structure in settings.label_set.structures:
        is_missing = prediction is None or structure.name in prediction.missing
        results[structure.name] = score_masks(
            None if is_missing or prediction is None else prediction.masks[structure.name],
            reference.masks[structure.name],
            reference.grid,
            structure.nsd_tolerance_mm,
            PROTOCOLS[settings.protocol],
            is_missing,
        )
    return {
        "case": pair.case,
        "fingerprint": fingerprint,
        "seconds": round(time.perf_counter() - start_s, 3),
        "distance_unit": "pixel" if reference.grid.affine is None else "mm",
        "structures": {name: result.as_json() for name, result in results.items()},
    }


def read_prediction(pair: Pair, reference: CaseMasks, settings: Settings) -> CaseMasks | None:
    """Read the prediction of a case into the grid of its reference.

    Args:
        pair: The case.
        reference: Its reference.
        settings: Structures, and what to do with another grid.

    Returns:
        The masks; None where there is no prediction.

    Raises:
        DatasetError: If a file cannot be read, or lies on another grid and may not or cannot be resampled.
    """
    if pair.prediction is None:
        return None
    prediction = read_case_masks(pair.prediction, settings.label_set)
    if prediction.grid.coincides(reference.grid):
        return prediction
    if settings.geometry == "resample":
        if prediction.grid.affine is not None and reference.grid.affine is not None:
            return resample_masks(prediction, reference.grid)
        remedy = "without geometry nothing can be resampled: save it with the affine of the reference"
    else:
        remedy = "save it in the geometry of the reference, or score with geometry resample"
    found = f"{prediction.grid} against {reference.grid}"
    raise DatasetError([Problem(pair.prediction, f"must lie on the grid of {pair.reference}", found, remedy)])


def _missing_structures(pair: Pair, reference: CaseMasks) -> Iterable[Problem]:
    remedy = "write an empty mask if it is absent, or leave the structure out of the label set"
    for name in reference.missing:
        yield Problem(pair.reference, f"must hold a reference of {name}", "no such file", remedy)


def _files(path: Path) -> list[Path]:
    return sorted(structure_files(path).values()) if path.is_dir() else [path]


def _unit(results: Sequence[dict[str, Any]]) -> str:
    return " and ".join(sorted({result["distance_unit"] for result in results}))
