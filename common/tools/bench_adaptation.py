"""Does adaptation at test time pay? Fundus phantoms, a source model, five methods, two protocols, several seeds."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..data.phantoms import write_fundus_phantoms
from ..files import write_text_atomically
from .runs import ensure_phantoms, find_bundles, read_summary, refuse_other_settings, run_bundle

SOURCE, TARGETS = "a", "bcde"
SOURCE_VALIDATION, SOURCE_TEST = 4, 8
PROTOCOLS = {"continual": False, "fresh": True}

_logger = logging.getLogger(__name__)


class Arm(NamedTuple):
    """A method of the comparison.

    Attributes:
        bundle: Bundle that runs it.
        overrides: What is changed of its `inference.json`.
        keeps_state: Whether one image changes what happens to the next; if not, both protocols are one.
    """

    bundle: str
    overrides: Mapping[str, Any]
    keeps_state: bool


ARMS = {
    "none": Arm("vptta", {"inferer": "@methods#none"}, False),
    "batch_norm": Arm("vptta", {"inferer": "@methods#batch_norm"}, False),
    "tent": Arm("vptta", {"inferer": "@methods#tent"}, True),
    "vptta": Arm("vptta", {"published": False}, True),
    "vptta, published": Arm("vptta", {"published": True}, True),
    "grata": Arm("grata", {}, True),
}


def bench_adaptation(
    output_dir: str = "runs/bench_adaptation",
    seeds: int = 3,
    num_train: int = 48,
    num_target: int = 24,
    image_size: int = 128,
    max_epochs: int = 10,
    epoch_length: int = 40,
    batch_size: int = 4,
    learning_rate: float = 0.01,
    num_threads: int | None = None,
) -> None:
    """Train a source model on domain A for each seed, then adapt it to the domains B to E with every method.

    Each seed has phantoms, initial weights and random draws of its own; the methods of a seed share the source model
    and the stream. `continual`: one stream over all domains. `fresh`: the adaptation starts anew with each domain. The
    last checkpoint is taken, so nothing is chosen by a score, and all hyper-parameters are those of the bundles. Writes
    `results.json` and `results.md` into `output_dir`; what a former run finished there is not run again.

    Args:
        output_dir: Folder for phantoms, runs and results.
        seeds: Number of seeds, from 0.
        num_train: Training photographs of the source domain.
        num_target: Photographs of each target domain, all of which are adapted to and scored.
        image_size: Side of phantoms and network input in pixels.
        max_epochs: Epochs of the source training.
        epoch_length: Iterations of an epoch.
        batch_size: Of the source training.
        learning_rate: Of the source training.
        num_threads: CPU threads; None leaves that to torch.

    Raises:
        RuntimeError: If a run fails.
        ValueError: If `output_dir` holds a benchmark with other settings.
    """
    settings = {key: value for key, value in locals().items() if key not in ("output_dir", "seeds", "num_threads")}
    root = Path(output_dir).resolve()
    refuse_other_settings(root / "settings.json", settings)
    training = {key: settings[key] for key in ("max_epochs", "epoch_length", "batch_size", "learning_rate")}
    results: dict[str, Any] = {"settings": settings, "seeds": seeds, "source": [], "scores": {}}
    scores: dict[str, dict[str, list[Any]]] = {protocol: {arm: [] for arm in ARMS} for protocol in PROTOCOLS}
    for seed in range(seeds):
        folder = root / f"seed{seed}"
        write_domains(folder, seed, num_train, num_target, image_size)
        shared = {"image_size": image_size, "num_workers": 0, "seed": seed}
        _train(folder, {**shared, **training}, num_threads)
        at_home = {**shared, **_source_only(folder)}
        results["source"].append(_score(folder, "source", ARMS["none"], at_home, num_threads))
        for protocol, reset in PROTOCOLS.items():
            for name, arm in ARMS.items():
                run = f"{protocol}_{name}".replace(", ", "_") if arm.keeps_state else name
                overrides = {**shared, "dataset_dir": str(folder / "targets"), "reset_on_domain_change": reset}
                summary = _score(folder, run, arm, overrides, num_threads)
                scores[protocol][name].append(summary)
                mean = summary["mean_over_domains"]["mean"]["dice"]
                _logger.info("Seed %d, %s, %s: mean Dice over domains %.4f", seed, protocol, name, mean)
    results["scores"] = scores
    write_text_atomically(json.dumps(results, indent=4) + "\n", root / "results.json")
    table = format_results(results)
    write_text_atomically(table + "\n", root / "results.md")
    _logger.info("\n%s", table)


def write_domains(folder: Path, seed: int, num_train: int, num_target: int, image_size: int) -> None:
    """Write the phantoms of a seed unless they are there: domain A under `source`, the others under `targets`.

    Args:
        folder: Folder of the seed.
        seed: Seed of the phantoms.
        num_train: Training photographs of domain A; validation and test are added.
        num_target: Photographs of each other domain.
        image_size: Side in pixels.
    """
    options = {"seed": seed, "image_size": image_size}
    source: dict[str, Any] = {"num_cases": num_train + SOURCE_VALIDATION + SOURCE_TEST, "domains": SOURCE}
    source |= {"num_validation": SOURCE_VALIDATION, "num_test": SOURCE_TEST}
    targets: dict[str, Any] = {"num_cases": num_target, "domains": TARGETS}
    for name, more in (("source", source), ("targets", targets)):
        last = f"domain_{more['domains'][-1]}/dataset.json"
        ensure_phantoms(write_fundus_phantoms, folder / name, {**options, **more}, last)


def _source_only(folder: Path) -> dict[str, Any]:
    """Overrides that score the source model on the held-out photographs of its own domain."""
    return {"dataset_dirs": [str(folder / "source" / "domain_a")], "section": ["test"]}


def _train(folder: Path, overrides: Mapping[str, Any], num_threads: int | None) -> None:
    run = folder / "model"
    if (run / "done").is_file():
        return
    _logger.info("Training %s", run)
    paths = {"dataset_dir": str(folder / "source" / "domain_a"), "ckpt_dir": str(run), "output_dir": str(run / "logs")}
    seconds = run_bundle(
        _bundle("vptta"), ["train.json", "small.json"], {**overrides, **paths}, run / "log.txt", num_threads
    )
    write_text_atomically(f"{seconds:.0f} s\n", run / "done")


def _score(folder: Path, name: str, arm: Arm, overrides: Mapping[str, Any], num_threads: int | None) -> dict[str, Any]:
    run = folder / "scores" / name
    if not (run / "domains.json").is_file():
        paths = {"ckpt_path": str(folder / "model" / "model_last.pt"), "output_dir": str(run)}
        everything = {**overrides, **arm.overrides, **paths, "save_probabilities": False}
        configs = ["inference.json", "small.json", "evaluate.json"]
        run_bundle(_bundle(arm.bundle), configs, everything, run / "log.txt", num_threads)
    return read_summary(run, "domains.json")


def _bundle(name: str) -> Path:
    (bundle,) = (path for path in find_bundles() if path.name == name)
    return bundle


def format_results(results: Mapping[str, Any]) -> str:
    """Lay out mean Dice and its spread over the seeds as one Markdown table for each protocol.

    The gain is the difference to `none` of the same seed, of the means over domains.

    Args:
        results: Content of `results.json`.
    """
    source = _spread([_dice(summary["pooled"]) for summary in results["source"]])
    over = f"mean ± spread over {results['seeds']} seeds"
    lines = [f"Mean Dice of disc and cup in percent, {over}; on the source domain {source}."]
    for protocol, arms in results["scores"].items():
        domains = list(arms["none"][0]["domains"])
        headings = ["method", *domains, "mean over domains", "gain", "worst gain of a seed"]
        lines += ["", f"Protocol `{protocol}`:", "", f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
        baseline = [_dice(summary["mean_over_domains"]) for summary in arms["none"]]
        for name, summaries in arms.items():
            means = [_dice(summary["mean_over_domains"]) for summary in summaries]
            gains = [mean - start for mean, start in zip(means, baseline, strict=True)]
            cells = [_spread([_dice(summary["domains"][domain]) for summary in summaries]) for domain in domains]
            cells += [_spread(means), _spread(gains), f"{min(gains):+.1f}"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _dice(group: Mapping[str, Any]) -> float:
    """Mean Dice of a group in percent."""
    return 100 * float(group["mean"]["dice"])


def _spread(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"
