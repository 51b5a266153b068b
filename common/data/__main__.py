"""`python -m common.data check | prepare`: look at a data set before a training does; make one of folders of images."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from monai.utils import ensure_tuple

from ..command_line import run_commands
from .checks import CaseSummary, inspect_datalist
from .datalists import load_datalist
from .preparation import prepare

logger = logging.getLogger("common.data")


def check(
    dataset_dir: str | Sequence[str],
    section: str | Sequence[str] = "training",
    keys: str | Sequence[str] = ("image", "label"),
    num_classes: int | None = None,
    spatial_dims: int = 3,
    in_channels: int = 1,
    ignore_label: int | None = None,
    num_workers: int | None = None,
    scribble_mode: str | dict[int | str, int] = "user",
) -> None:
    """Read every image of a section, then say what it contains, or everything that is wrong with it.

    Args:
        dataset_dir: Directory, or several: "['a', 'b']".
        section: Section of dataset.json, or several: training,unlabeled. Nothing is held out for validation.
        keys: What each case must have: image or image,label or image,scribble.
        num_classes: Labels must lie in [0, num_classes); without it only whole numbers are asked for.
        spatial_dims: 2 or 3.
        in_channels: Channels of an image.
        ignore_label: One more value that label maps may hold, such as 255 for what is unknown.
        num_workers: Cases read at the same time.
        scribble_mode: How scribbles are written: user, wsl4mis, scribblebench, monailabel, internal, or a mapping.

    Raises:
        DatasetError: With one line for each problem.
    """
    datalist = load_datalist(dataset_dir, section, keys, val_fraction=0)
    summaries = inspect_datalist(
        datalist,
        ensure_tuple(keys),
        num_classes,
        spatial_dims,
        in_channels,
        ignore_label,
        num_workers=num_workers,
        scribble_mode=scribble_mode,
    )
    for line in _summary_lines(summaries):
        logger.info(line)


def _summary_lines(summaries: list[CaseSummary]) -> Iterable[str]:
    """Describe a data set: how many cases, their sizes, spacings, intensities and labels."""
    yield f"cases       {len(summaries)}"
    yield "size        " + _ranges([summary.spatial_shape for summary in summaries])
    spacings = [summary.spacing_mm for summary in summaries if summary.spacing_mm]
    if spacings:
        yield "spacing_mm  " + _ranges(spacings)
    ranges = [summary.intensity_range for summary in summaries if summary.intensity_range]
    if ranges:
        yield f"intensity   {min(low for low, _ in ranges):g} to {max(high for _, high in ranges):g}"
    voxels: Counter[int] = Counter()
    cases: Counter[int] = Counter()
    for summary in summaries:
        voxels.update(summary.label_voxels)
        cases.update(value for value, count in summary.label_voxels.items() if count)
    for value in sorted(voxels):
        yield f"label {value:<5} in {cases[value]} cases, {100 * voxels[value] / voxels.total():.3g} % of the voxels"


def _ranges(rows: Sequence[Sequence[float]]) -> str:
    """Give the least and greatest value of each axis."""
    axes = zip(*rows, strict=True)
    return " x ".join(f"{min(a):.4g}" if min(a) == max(a) else f"{min(a):.4g}..{max(a):.4g}" for a in axes)


def main() -> None:
    """Run the command line; a refused data set ends with its message and exit status 1."""
    run_commands({"check": check, "prepare": prepare}, name="python -m common.data")


if __name__ == "__main__":
    main()
