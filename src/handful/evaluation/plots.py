"""Plots of results.csv: a metric against the number of references, a line for each method."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from handful.evaluation.published import METRICS
from handful.evaluation.tables import SETUP, over_categories
from handful.files import replacing

_SHOWN = ("image_auroc", "pixel_auroc", "aupro")
# Okabe and Ito's palette, which people of every colour vision tell apart; grey replaces its yellow, pale on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_STYLES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")  # a style for each round through the colours
_INK, _PALE, _GRID = "#333333", "#666666", "#E4E4E4"
_SIZE, _DPI = (8.0, 4.8), 150  # inches
_LEFT, _BOTTOM, _TOP = 0.1, 0.15, 0.87  # edges of the axes, as shares of the picture
_FONT, _EM = 8.5, 0.072  # size of the methods' names in points, and the width of a letter in inches
_LEAST_RANGE = 2.0  # least range of the y axis in percent points, so that noise does not look like a trend


@dataclass(frozen=True)
class Point:
    """A point of a method's line.

    Attributes:
        shots: the number of references for each category.
        seeds: for each seed, ascending, the mean of the metric over categories, in percent.
        whole: whether the means are over all categories that have the metric.
    """

    shots: int
    seeds: tuple[float, ...]
    whole: bool

    @property
    def mean(self) -> float:
        """The mean over seeds, in percent."""
        return fmean(self.seeds)


@dataclass(frozen=True)
class Chart:
    """The content of a chart.

    Attributes:
        dataset: the name of the data set, or "overall" for the mean over data sets.
        metric: a column of the results.
        setup: protocol, backbone and input size.
        over: the categories or data sets of the means, in words.
        methods: all methods of the setup, so that a method has the same colour in all charts of the setup.
        lines: for each method the points of its line, ascending by shots.
    """

    dataset: str
    metric: str
    setup: tuple[str, str, str]
    over: str
    methods: tuple[str, ...]
    lines: dict[str, tuple[Point, ...]]

    @property
    def shots(self) -> list[int]:
        """All numbers of shots in the chart, ascending."""
        return sorted({point.shots for points in self.lines.values() for point in points})

    @property
    def name(self) -> str:
        """The file name of the chart."""
        return re.sub(r"[^\w.=-]+", "_", "-".join((self.dataset, self.metric, *self.setup))) + ".png"


def plot_shots(results: pl.DataFrame, folder: Path) -> list[Path]:
    """Draw image AUROC, pixel AUROC and AUPRO against shots: for each data set, and overall for several data sets.

    Protocols, backbones and input sizes never share a chart. A metric without results and a single number of shots give
    no chart. Results without references are left out, because the axis of shots is logarithmic.

    Args:
        results: the table of `tables.read_results`.
        folder: the folder of the PNG files; made if missing.

    Returns:
        The paths of the PNG files.

    Raises:
        OutputError: if a file cannot be written; an existing file then stays unchanged.
    """
    paths = []
    for chart in charts(results):
        paths.append(folder / chart.name)
        with replacing(paths[-1], make_folder=True) as file:
            draw(chart).savefig(file, format="png", dpi=_DPI)
    return paths


def charts(results: pl.DataFrame) -> list[Chart]:
    """The content of all charts, sorted by setup, data set ("overall" first) and metric."""
    found = []
    results = results.filter(pl.col("shots") > 0)
    for metric in _SHOWN:
        measured = results.filter(pl.col(metric).is_not_null())
        counts = measured.group_by(*SETUP, "dataset").agg(all_of_it=pl.col("category").n_unique())
        samples = over_categories(results, metric).join(counts, on=[*SETUP, "dataset"])
        samples = samples.with_columns(whole=pl.col("categories").list.len() == pl.col("all_of_it"))
        for key, part in samples.group_by(SETUP):
            setup = (str(key[0]), str(key[1]), str(key[2]))
            same = (pl.col(name) == value for name, value in zip(SETUP, setup, strict=True))
            methods = tuple(results.filter(*same)["method"].unique().sort())
            datasets = part["dataset"].unique().sort().to_list()
            for dataset in datasets:
                here = part.filter(pl.col("dataset") == dataset)
                count = here["all_of_it"][0]
                over = f"mean of {count} categories" if count > 1 else here["categories"][0][0]
                found.append(Chart(dataset, metric, setup, over, methods, _points(here)))
            if len(datasets) > 1:
                groups = part.group_by("method", "shots", "seed")
                means = groups.agg(pl.col("value").mean(), pl.col("whole").all(), datasets=pl.len())
                lines = _points(means.filter(pl.col("datasets") == len(datasets)))
                found.append(Chart("overall", metric, setup, f"mean of {', '.join(datasets)}", methods, lines))
    found = [chart for chart in found if len(chart.shots) > 1]
    return sorted(found, key=lambda chart: (chart.setup, chart.dataset != "overall", chart.dataset, chart.metric))


def _points(samples: pl.DataFrame) -> dict[str, tuple[Point, ...]]:
    """The points of each method, ascending by shots, from a row for each method, number of shots and seed."""
    each = samples.sort("seed").group_by("method", "shots").agg("value", pl.col("whole").all()).sort("method", "shots")
    lines: dict[str, tuple[Point, ...]] = {}
    for method, shots, values, whole in each.iter_rows():
        lines[method] = (*lines.get(method, ()), Point(shots, tuple(values), whole))
    return lines


def draw(chart: Chart) -> Figure:
    """Draw a chart as a figure that belongs to no window and to no global state."""
    figure = Figure(figsize=_SIZE, facecolor="white")
    FigureCanvasAgg(figure)
    labels = [_wrapped(method) for method in chart.lines]
    at_ends = len(labels) <= len(_COLOURS)
    widest = max(len(row) for label in labels for row in label.split("\n"))
    right = 1 - (widest * _EM + (0.45 if at_ends else 0.85)) / _SIZE[0]
    axes = figure.add_axes((_LEFT, _BOTTOM, right - _LEFT, _TOP - _BOTTOM))
    handles = [_draw_line(axes, chart, method) for method in chart.lines]
    _label_axes(axes, chart)
    if at_ends:
        _label_lines(axes, chart, labels)
    else:
        last = [points[-1].mean for points in chart.lines.values()]
        best_first = sorted(zip(last, handles, labels, strict=True), key=lambda entry: -entry[0])
        axes.legend(
            [handle for _, handle, _ in best_first],
            [label for _, _, label in best_first],
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            frameon=False,
            fontsize=_FONT,
            labelcolor=_INK,
            handlelength=2.6,
        )
    figure.text(0.012, 0.015, _note(chart), fontsize=7.5, color=_PALE)
    return figure


def _draw_line(axes: Axes, chart: Chart, method: str) -> Line2D:
    """Draw a method's line and, at each point, the range of its seeds; return the line's symbol for a legend."""
    number, points = chart.methods.index(method), chart.lines[method]
    colour, style = _COLOURS[number % len(_COLOURS)], _STYLES[number // len(_COLOURS) % len(_STYLES)]
    marker = _MARKERS[number % len(_MARKERS)]
    x, y = [_across(chart, method, point) for point in points], [point.mean for point in points]
    lows, highs = [min(point.seeds) for point in points], [max(point.seeds) for point in points]
    axes.vlines(x, lows, highs, color=colour, alpha=0.55, linewidth=1.6)
    axes.plot(x, y, style, color=colour, linewidth=1.6)
    for point, across, up in zip(points, x, y, strict=True):
        face = colour if point.whole else "white"
        axes.plot(across, up, marker, markersize=5.5, markerfacecolor=face, markeredgecolor=colour, zorder=3)
    return Line2D([], [], linestyle=style, marker=marker, color=colour, linewidth=1.6, markersize=5.5)


def _across(chart: Chart, method: str, point: Point) -> float:
    """The abscissa of a point: its shots, shifted a little by method so that the bars of methods do not overlap."""
    methods = list(chart.lines)
    apart = min(0.035, 0.25 / len(methods))  # in doublings of the shots
    return float(point.shots * 2 ** (apart * (methods.index(method) - (len(methods) - 1) / 2)))


def _label_axes(axes: Axes, chart: Chart) -> None:
    shots = chart.shots
    axes.set_xscale("log", base=2)
    axes.set_xlim(shots[0] / 2**0.3, shots[-1] * 2**0.3)
    axes.xaxis.set_major_locator(FixedLocator(shots))
    axes.xaxis.set_major_formatter(FixedFormatter([str(k) for k in shots]))
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    beyond = max(0.0, (_LEAST_RANGE - (high - low)) / 2)
    high = min(high + beyond, 100 + 0.02 * (high - low + 2 * beyond))
    axes.set_ylim(min(low - beyond, high - _LEAST_RANGE), high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10]))
    axes.set_xlabel("shots (references for each category)", color=_INK)
    axes.set_ylabel(f"{METRICS[chart.metric]}, %", color=_INK)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, length=3)
    protocol, backbone, size = chart.setup
    title = f"{chart.dataset}: {METRICS[chart.metric]}, {chart.over}\n{protocol} · {backbone}, {size}"
    axes.set_title(title, loc="left", fontsize=10.5, color=_INK, linespacing=1.4)


def _label_lines(axes: Axes, chart: Chart, labels: Sequence[str]) -> None:
    """Write each method's name right of the end of its line, moved up or down so that no two names overlap."""
    low, high = axes.get_ylim()
    row = (high - low) * _FONT * 1.35 / 72 / (_SIZE[1] * (_TOP - _BOTTOM))  # a text row's height in percent points
    ends = [points[-1] for points in chart.lines.values()]
    heights = [row * (label.count("\n") + 1) for label in labels]
    places = spread_out([end.mean for end in ends], heights, low=low, high=high)
    for method, label, end, place in zip(chart.lines, labels, ends, places, strict=True):
        colour = _COLOURS[chart.methods.index(method) % len(_COLOURS)]
        axes.annotate(
            label,
            (_across(chart, method, end), end.mean),
            (1.02, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=_FONT,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6, "shrinkB": 4},
            annotation_clip=False,
        )


def spread_out(wanted: Sequence[float], heights: Sequence[float], *, low: float, high: float) -> list[float]:
    """The centres of labels in a column from `low` to `high`, moved apart so that no two labels overlap.

    The labels keep the order of their wanted centres. Labels that do not fit into the column reach below its lower end.
    """
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    places, edge = list(wanted), low
    for number in order:  # push up from below, then down from above
        places[number] = max(places[number], edge + heights[number] / 2)
        edge = places[number] + heights[number] / 2
    edge = high
    for number in reversed(order):
        places[number] = min(places[number], edge - heights[number] / 2)
        edge = places[number] - heights[number] / 2
    return places


def _wrapped(method: str) -> str:
    """A method's name, followed by its settings on further lines."""
    name, _, settings = method.partition(":")
    return "\n".join((name, *textwrap.wrap(settings.replace(",", ", "), 24)))


def _note(chart: Chart) -> str:
    points = [point for line in chart.lines.values() for point in line]
    seeds = sorted({len(point.seeds) for point in points})
    count = " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
    note = "one seed" if seeds == [1] else f"lines: mean over {count} seeds; bars: lowest to highest seed"
    return note + ("" if all(point.whole for point in points) else "; hollow: some categories lack a result")
