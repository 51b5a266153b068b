"""Training curves from TensorBoard's event files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

from ...evaluation.charts import svg

# A record is its length (8 bytes), a checksum of that (4), the content, a checksum of it (4).
HEAD, CHECKSUM = 12, 4
# A running mean over this share of the curve lies over a curve of more points than this.
SMOOTHED_SHARE, MIN_SMOOTHED = 0.05, 50

Curve = list[tuple[int, float]]


def read_curves(folder: Path) -> tuple[dict[str, Curve], list[str]]:
    """Read the scalars of all event files of a folder.

    A run that was resumed, or repeated into the same folder, leaves several files. As in TensorBoard, a later file
    replaces an earlier one from its first step on.

    Args:
        folder: `output_dir` of a training.

    Returns:
        By tag the steps and values, and a sentence for each file that is damaged.
    """
    curves: dict[str, Curve] = {}
    problems = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        own: dict[str, Curve] = {}
        try:
            for event in _events(path.read_bytes()):
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        own.setdefault(value.tag, []).append((event.step, value.simple_value))
                    elif value.tensor.float_val:
                        own.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
        except (EOFError, DecodeError, struct.error):
            problems.append(f"{path.name} is cut off or damaged; what stands before that is shown.")
        for tag, curve in own.items():
            curves[tag] = [point for point in curves.get(tag, []) if point[0] < curve[0][0]] + curve
    return curves, problems


def _events(data: bytes) -> Iterator[Event]:
    position = 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        start = position + HEAD
        position = start + length + CHECKSUM
        if position > len(data):
            raise EOFError(f"a record of {length} bytes at {start}")
        yield Event.FromString(data[start : start + length])


def draw_curve(curve: Curve, unit: str) -> bytes:
    """Draw one curve, with its running mean where it has many points.

    Args:
        curve: Steps and values.
        unit: What a step is: epoch or iteration.

    Returns:
        SVG.
    """
    steps, values = (np.asarray(column, dtype=float) for column in zip(*curve, strict=True))
    figure, axes = _axes(unit)
    width = int(len(values) * SMOOTHED_SHARE)
    is_long = len(values) >= MIN_SMOOTHED and width > 1
    axes.plot(steps, values, alpha=0.35 if is_long else 1.0, marker="" if is_long else "o", markersize=3, linewidth=1)
    if is_long:
        kernel = np.ones(width) / width
        axes.plot(steps[width - 1 :], np.convolve(values, kernel, mode="valid"), color="C0", label=f"mean of {width}")
        axes.legend(fontsize=8)
    return svg(figure)


def draw_steps(columns: dict[str, list[float]], domains: list[str]) -> list[tuple[bytes, str]]:
    """Draw the numbers of an adaptation over the stream of images.

    Args:
        columns: By name a number for each image.
        domains: Domain of each image, in order; where it changes, a line is drawn.

    Returns:
        SVG and caption of each number.
    """
    changes = [i for i in range(1, len(domains)) if domains[i] != domains[i - 1]]
    drawn = []
    for name, values in columns.items():
        figure, axes = _axes("image of the stream")
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=2, linewidth=1)
        axes.margins(y=0.15)  # room for the names
        for i in changes:
            axes.axvline(i + 0.5, color="gray", linewidth=0.8, linestyle="dashed")
        for i in (0, *changes):
            axes.text(i + 0.7, 0.98, domains[i], transform=axes.get_xaxis_transform(), fontsize=7, va="top")
        drawn.append((svg(figure), f"{name.replace('_', ' ')} of each image; a line where the domain changes"))
    return drawn


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(title, fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=8)
    axes.yaxis.get_offset_text().set_fontsize(7)
    axes.grid(alpha=0.4)
    return figure, axes
