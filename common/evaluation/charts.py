"""Box plots and significance maps, as SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

SIGNIFICANT_COLORS = ("#9ecae1", "#4292c6", "#08519c")
NEUTRAL_COLOR = "#eeeeee"
MAP_COLUMNS = 4


def box_plots(groups: Mapping[str, Mapping[str, np.ndarray]], axis_title: str) -> bytes:
    """Draw a box for each series of each group: quartiles, median, whiskers of 1.5 box lengths, and all outliers.

    Args:
        groups: By group (row) the values of each series (color); NaN is left out.
        axis_title: Title of the axis of the values.

    Returns:
        SVG.
    """
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    colors = mpl.colormaps["tab10"](np.arange(len(series)) % 10)
    figure = Figure(figsize=(8, 1.2 + len(groups) * (0.15 + 0.22 * len(series))), layout="constrained")
    axes = figure.subplots()
    for k, (name, color) in enumerate(zip(series, colors, strict=True)):
        samples = [np.asarray(group.get(name, ())) for group in groups.values()]
        boxes = axes.boxplot(
            [sample[~np.isnan(sample)] for sample in samples],
            orientation="horizontal",
            positions=[row + (k + 0.5) / len(series) * 0.8 - 0.4 for row in range(len(groups))],
            widths=0.6 / len(series),
            patch_artist=True,
            flierprops={"markersize": 3},
            medianprops={"color": "black"},
            manage_ticks=False,
        )
        for box in boxes["boxes"]:
            box.set_facecolor(color)
        axes.plot([], [], color=color, linewidth=6, label=name)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel(axis_title)
    axes.grid(axis="x", alpha=0.4)
    if len(series) > 1:
        figure.legend(loc="outside upper center", ncols=min(len(series), 5), fontsize=8)
    return svg(figure)


def significance_panels(maps: Mapping[str, Sequence[Sequence[float]]], names: Sequence[str], alpha: float) -> bytes:
    """Draw a map for each structure: darker blue where the row is more surely better than the column.

    Args:
        maps: By structure the adjusted p-values that row is better than column.
        names: Names of the algorithms.
        alpha: Level.

    Returns:
        SVG.
    """
    columns = min(MAP_COLUMNS, len(maps))
    rows = math.ceil(len(maps) / columns)
    side = 0.7 + 0.42 * len(names)
    figure = Figure(figsize=(1.2 + columns * side, 0.8 + rows * (side + 0.2)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    levels = [0, alpha / 50, alpha / 5, alpha, 1.000001]
    colormap = mpl.colors.ListedColormap([*SIGNIFICANT_COLORS[::-1], NEUTRAL_COLOR]).with_extremes(bad="white")
    norm = mpl.colors.BoundaryNorm(levels, colormap.N)
    for panel, (title, p_values) in zip(panels.flat, maps.items(), strict=False):
        panel.imshow(np.ma.masked_invalid(np.asarray(p_values, dtype=float)), cmap=colormap, norm=norm)
        panel.set_title(title, fontsize=9)
        panel.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        panel.set_yticks(range(len(names)), names, fontsize=7)
    for panel in list(panels.flat)[len(maps) :]:
        panel.set_axis_off()
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, colormap), ax=panels, shrink=0.6, spacing="uniform")
    bar.set_ticks(levels[:-1], labels=[f"{level:g}" for level in levels[:-1]])
    bar.set_label("adjusted p: row better than column", fontsize=8)
    return svg(figure)


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG that is the same for the same figure."""
    stream = io.BytesIO()
    # the same picture is the same file: no date, no random identifiers
    with mpl.rc_context({"svg.hashsalt": "evaluation", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
