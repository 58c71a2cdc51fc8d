"""The page summary.md of results.csv: settings, test sets, figures by protocol, and published numbers beside them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import polars as pl

from handful.errors import InputError
from handful.evaluation.published import MEAN, METRICS, OFFICIAL_CATEGORIES, Published, read_published
from handful.evaluation.results import COLUMNS, Row
from handful.metrics import wilson

SETUP = ("protocol", "backbone", "size")  # results that differ in any of these columns never share a table
_CELL = ("dataset", "category", "method", *SETUP, "shots", "seed")
_DTYPES: dict[object, type[pl.DataType]] = {str: pl.String, int: pl.Int64}
_SCHEMA = {field.name: _DTYPES.get(field.type, pl.Float64) for field in fields(Row)}
_RATES = {"false_alarm_rate": "good", "miss_rate": "anomalous"}  # each rate is a share of these test pictures
_PERCENT = (*METRICS, *_RATES)
PROTOCOLS = {
    "target-only": "Learnt from the references of the category alone.",
    "auxiliary-trained": "Learnt from the references and, before, from labelled defects of another data set.",
}
_TRANSDUCTIVE = "A picture's image score depends on the other test pictures, so no threshold can be shipped."
_READING = (
    "Percent. Higher is better, but for false alarms and misses. `±` is the sample standard deviation over seeds. F1 "
    "is an oracle: its threshold is the best one on the test labels. AUPRO goes to a false-positive rate of 0.3. False "
    "alarms and misses are those at the shipped threshold, which rests on the references alone; in brackets their "
    "Wilson 95 % interval for one seed's number of pictures, since all seeds share them. `-`: nothing to measure. A "
    "mean is over the categories that have the figure at every seed; a number in brackets says how many where they "
    "are fewer."
)
_CONTEXT = (
    "Image AUROC / pixel AUROC / AUPRO as published: other references, resolutions, backbones and, as the column says, "
    "other protocols. Nothing here was run by this benchmark."
)
_TAGS = (
    "`OFF`: the authors' paper or repository; `3P`: somebody else's table; `3P-note`: others' notes on a paper, "
    "indicative only; `PLOT`: read off a figure."
)


def read_results(path: Path) -> pl.DataFrame:
    """Read a results.csv.

    Returns:
        A table with the columns of `results.COLUMNS`, typed; rates and metrics in percent; numbers are null if there is
        nothing to measure, texts are never null.

    Raises:
        InputError: if the file cannot be read, has other columns or no row, holds a value of another type or out of its
            range, or holds a cell twice.
    """
    try:
        text = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} must be a table of results, got: {str(error).splitlines()[0]}; check it.") from error
    for name in (*COLUMNS, *text.columns):
        if name not in text.columns or name not in COLUMNS:
            what = "none of that name" if name in COLUMNS else "one more"
            raise InputError(
                f"{path} must have the columns of a benchmark's results, got {what}: {name}; run the benchmark anew."
            )
    if text.is_empty():
        raise InputError(f"{path} must hold a row, got the head only; run the benchmark.")
    results = text.select(pl.col(name).cast(kind, strict=False) for name, kind in _SCHEMA.items())
    for name, kind in _SCHEMA.items():
        wrong = text[name].is_not_null() & results[name].is_null()
        if name in _CELL:
            wrong |= results[name].is_null()
        if name in _PERCENT:
            wrong |= ~results[name].is_between(0, 100).fill_null(True)
        if wrong.any():
            row, what = wrong.arg_true()[0], "a percentage" if name in _PERCENT else f"a value of the type {kind}"
            raise InputError(
                f"{path} must hold {what} in the column {name}, got {text[name][row] or ''!r} in row {row + 1}; "
                f"correct it or run that cell anew."
            )
    twice = results.filter(results.select(_CELL).is_duplicated())
    if not twice.is_empty():
        cell = ", ".join(map(str, twice.select(_CELL).row(0)))
        raise InputError(f"{path} must hold each cell once, got one twice: {cell}; remove one.")
    return results.with_columns(pl.col(name).fill_null("") for name, kind in _SCHEMA.items() if kind is pl.String)


def over_categories(results: pl.DataFrame, metric: str) -> pl.DataFrame:
    """The mean of a metric over categories, for each seed.

    A mean includes only the categories that have the metric at every seed, so that the means of all seeds are over the
    same categories.

    Returns:
        A row for each seed of each setup, data set, method and number of shots with such categories: the mean `value`,
        and the sorted names `categories`.
    """
    line = [*SETUP, "dataset", "method", "shots"]
    measured = results.filter(pl.col(metric).is_not_null())
    seeds, of_all = pl.col("seed").n_unique().over([*line, "category"]), pl.col("seed").n_unique().over(line)
    each_seed = measured.filter(seeds == of_all).group_by(*line, "seed")
    return each_seed.agg(value=pl.col(metric).mean(), categories=pl.col("category").sort()).sort(*line, "seed")


def summary(results: pl.DataFrame, environment: Mapping[str, Any]) -> str:
    """The text of the page summary.md.

    Args:
        results: the table of `read_results`.
        environment: the content of environment.json.

    Raises:
        InputError: if the environment does not number the test pictures of a category.
    """
    lines = ["# Benchmark", "", *_head(results, environment)]
    sources = _Sources()
    setups = results.select(SETUP).unique().rows()
    for setup in sorted(setups, key=lambda setup: (not setup[0].startswith("target-only"), setup)):
        part = results.filter(*(pl.col(name) == value for name, value in zip(SETUP, setup, strict=True)))
        lines += _section(part, environment, sources)
    lines += [*_failed(results), *_context(results, sources), *sources.listed()]
    return "\n".join(lines).rstrip() + "\n"


class _Sources(dict[tuple[str, str], int]):
    """The numbers of sources, by source and tag, from 1 in the order of first mention on the page."""

    def number(self, one: Published) -> str:
        return f"[{self.setdefault((one.source, one.tag), len(self) + 1)}]"

    def listed(self) -> Iterator[str]:
        if self:
            yield from ("## Sources of the published numbers", "", _TAGS, "")
            yield from (f"- [{number}] {source} (`{tag}`)" for (source, tag), number in self.items())


@dataclass(frozen=True)
class _Samples:
    """A figure for each seed, and the categories over which the figure is a mean."""

    by_seed: dict[int, float]
    categories: tuple[str, ...]

    def text(self, *, expected: int = 1) -> str:
        """Mean ± sample standard deviation over seeds, and the number of categories if it is less than expected."""
        values = list(self.by_seed.values())
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        fewer = f" ({len(self.categories)})" if len(self.categories) < expected else ""
        return f"{mean(values):.1f}{spread}{fewer}"


@dataclass(frozen=True)
class _Line:
    """A row of a table: a category, or the mean over categories, with a method and a number of shots."""

    category: str
    shots: int
    method: str
    figures: dict[str, _Samples]

    @property
    def over(self) -> int:
        """The largest number of categories over which a figure of the row is a mean."""
        return max((len(samples.categories) for samples in self.figures.values()), default=0)

    def label(self, seeds: set[int]) -> str:
        """The name of the row, followed by the row's seeds if some of `seeds` are missing."""
        name = f"**mean of {self.over}**" if self.category == MEAN else self.category
        own = {seed for samples in self.figures.values() for seed in samples.by_seed}
        if own == seeds:
            return name
        return f"{name} ({'seeds ' + _listed(own) if own else 'failed'})"

    def text(self, metric: str) -> str:
        """The figure of a metric in words; `-` without a figure."""
        return self.figures[metric].text(expected=self.over) if metric in self.figures else "-"


def _lines(here: pl.DataFrame, metrics: Sequence[str]) -> tuple[list[_Line], list[_Line]]:
    """The rows of means and the rows of single categories of a data set, sorted by category, shots and method."""
    figures: dict[tuple[str, int, str], dict[str, _Samples]] = {}
    for metric in metrics:
        measured = here.filter(pl.col(metric).is_not_null())
        single = measured.with_columns(value=pl.col(metric), categories=pl.concat_list("category"))
        means = over_categories(here, metric).with_columns(category=pl.lit(MEAN))
        for frame in (means, single):
            columns = frame.select("category", "shots", "method", "seed", "value", "categories")
            for category, shots, method, seed, value, categories in columns.sort("seed").iter_rows():
                of_line = figures.setdefault((category, shots, method), {})
                of_line.setdefault(metric, _Samples({}, tuple(categories))).by_seed[seed] = value

    def line(category: str, shots: int, method: str) -> _Line:
        return _Line(category, shots, method, figures.get((category, shots, method), {}))

    keys = sorted(set(here.select("category", "shots", "method").iter_rows()))
    return [line(MEAN, *key) for key in sorted({key[1:] for key in keys})], [line(*key) for key in keys]


def _head(results: pl.DataFrame, environment: Mapping[str, Any]) -> Iterator[str]:
    networks = results.select("backbone", "size", "weights_sha256").unique().sort("backbone", "size").rows()
    facts = {
        "Command": f"`{environment['command']}`",
        "Code": f"handful {environment['handful']} at {environment['commit'] or 'no commit'}, "
        f"started {environment['started']}",
        "Machine": f"torch {environment['torch']}, {environment['platform']}, {environment['cpu']}, "
        f"{environment['cpu_cores']} cores, device {environment['device']}",
        "Thresholds": f"set to reject {100 * environment['false_alarm_rate']:g} % of good parts",
        "Seeds": _listed(results["seed"]),
        "Shots": _listed(results["shots"]),
        "Backbone": "; ".join(
            f"{name}, input {size}, weights sha256 {digest[:12] or 'unknown'}" for name, size, digest in networks
        ),
    }
    yield from (f"- {name}: {fact}" for name, fact in facts.items())
    missing = [f"  - {dataset}: {said}" for dataset, all_said in environment["missing"].items() for said in all_said]
    yield "- Test sets: " + ("other than the official ones in this:" if missing else "nothing was found missing.")
    yield from missing
    yield from ("", _READING, "")


def _section(part: pl.DataFrame, environment: Mapping[str, Any], sources: _Sources) -> Iterator[str]:
    """The section of a setup: the table of methods by shots, then the tables of each data set, means first."""
    protocol, backbone, size = part.select(SETUP).row(0)
    base, _, transductive = protocol.partition(" ")
    yield from (f"## {protocol}: {backbone}, {size}", "")
    yield from (" ".join(filter(None, (PROTOCOLS.get(base), transductive and _TRANSDUCTIVE))), "")
    yield from _cross_table(part)
    for dataset in part["dataset"].unique().sort():
        here = part.filter(pl.col("dataset") == dataset)
        means, single = _lines(here, [*METRICS, *_RATES, "ms_per_image"])
        tables = _Tables(set(here["seed"]), environment["test_sets"].get(dataset, {}))
        yield from (f"### {dataset}", "", _coverage(here), "")
        if here["category"].n_unique() > 1:
            yield from (*tables.accuracy(means), *tables.decisions(means))
        yield from _beside(here, [*means, *single], environment["missing"].get(dataset, ()), sources)
        yield from (f"#### {dataset} by category", "", *tables.accuracy(single), *tables.decisions(single))


def _cross_table(part: pl.DataFrame) -> Iterator[str]:
    """The table of image AUROC by method and shots, means over categories."""
    shots = part["shots"].unique().sort().to_list()
    rows = []
    for dataset in part["dataset"].unique().sort():
        here = part.filter(pl.col("dataset") == dataset)
        count = here["category"].n_unique()
        cells: dict[str, dict[int, str]] = {}
        for line in _lines(here, ["image_auroc"])[0]:
            figure = line.figures.get("image_auroc")
            cells.setdefault(line.method, {})[line.shots] = figure.text(expected=count) if figure else "-"
        name = f"{dataset}, mean of {count}" if count > 1 else f"{dataset}, {here['category'][0]}"
        rows += [[name, method, *(by.get(k, "-") for k in shots)] for method, by in sorted(cells.items())]
    yield from ("Image AUROC by method and shots, mean over categories:", "")
    yield from markdown_table(["data set", "method", *map(_shots, shots)], rows)


def _coverage(here: pl.DataFrame) -> str:
    ran, official = set(here["category"]), set(OFFICIAL_CATEGORIES.get(here["dataset"][0], ()))
    if not official:
        return f"Categories: {len(ran)}."
    if ran == official:
        return f"All {len(official)} official categories."
    return f"{len(ran & official)} of the {len(official)} official categories: no published mean can stand beside ours."


@dataclass(frozen=True)
class _Tables:
    """The layout of a data set's tables.

    Attributes:
        seeds: all seeds of the data set.
        pictures: for each category the numbers of its "good" and "anomalous" test pictures.
    """

    seeds: set[int]
    pictures: Mapping[str, Mapping[str, int]]

    def accuracy(self, lines: Sequence[_Line]) -> Iterator[str]:
        rows = [[line.label(self.seeds), line.shots, line.method, *map(line.text, METRICS)] for line in lines]
        return markdown_table(["category", "shots", "method", *METRICS.values()], rows)

    def decisions(self, lines: Sequence[_Line]) -> Iterator[str]:
        """The table of false alarms and misses at the shipped threshold, and of the time for a picture."""
        rows = []
        for line in lines:
            rates = [line.text(rate) + self._interval(line, rate) for rate in _RATES]
            times = line.figures.get("ms_per_image")
            time = f"{mean(times.by_seed.values()):.3g}" if times else "-"
            rows.append([line.label(self.seeds), line.shots, line.method, *rates, time])
        return markdown_table(["category", "shots", "method", "false alarms", "misses", "ms per picture"], rows)

    def _interval(self, line: _Line, rate: str) -> str:
        """The Wilson interval of a category's rate; empty for a mean over categories, which is not a single rate.

        All seeds are tested on the same pictures, so the sample size is the number of pictures for a single seed.

        Raises:
            InputError: if the numbers of the category's test pictures are not known.
        """
        if line.category == MEAN or rate not in line.figures:
            return ""
        if line.category not in self.pictures:
            raise InputError(
                f"The environment must number the test pictures of every category, got none for {line.category}; "
                f"take the one that was written beside these results."
            )
        pictures = self.pictures[line.category][_RATES[rate]]
        share = mean(line.figures[rate].by_seed.values()) / 100
        low, high = wilson(round(share * pictures), pictures)
        return f" [{100 * low:.1f}, {100 * high:.1f}]"


def _beside(here: pl.DataFrame, lines: Sequence[_Line], missing: Sequence[str], sources: _Sources) -> Iterator[str]:
    """The table of our figures beside published numbers of the same method, data set, category, shots and protocol."""
    dataset, protocol, backbone, size = here.select("dataset", *SETUP).row(0)
    official = OFFICIAL_CATEGORIES.get(dataset, ())
    found: dict[tuple[Any, ...], dict[str, str]] = {}
    published = [one for one in read_published() if (one.dataset, one.protocol) == (dataset, protocol)]
    for line in lines:
        for one in published:
            ours = line.figures.get(one.metric)
            if not ours or (one.method, one.category, one.shots) != (_name(line.method), line.category, line.shots):
                continue
            if line.category == MEAN and set(ours.categories) != set(official):
                continue
            weights = "same" if (one.backbone, one.size) == (backbone, size) else "other"
            marks = f"{weights} weights" + (", incomplete data set" if differs(ours.categories, missing) else "")
            row = (line.category, line.shots, line.method, one.network, sources.number(one), marks)
            found.setdefault(row, {})[one.metric] = f"{ours.text()} / {one}"
    if found:
        metrics = [metric for metric in METRICS if any(metric in figures for figures in found.values())]
        yield from ("Ours / published, for orientation; `same weights`: the same backbone at the same input size.", "")
        heads = ["category", "shots", "method", "published with", "source", "marks", *(METRICS[m] for m in metrics)]
        rows = [[*row, *(figures.get(metric, "-") for metric in metrics)] for row, figures in found.items()]
        yield from markdown_table(heads, rows)


def differs(categories: Sequence[str], missing: Sequence[str]) -> bool:
    """Whether a sentence about missing files names at least one of the categories, as a whole word."""
    words = [re.compile(rf"(?<!\w){re.escape(category)}(?!\w)") for category in categories]
    return any(word.search(sentence) for word in words for sentence in missing)


def _failed(results: pl.DataFrame) -> Iterator[str]:
    bad = results.filter(pl.col("error") != "").sort(_CELL)
    if len(bad):
        yield from ("## Failed cells", "")
        heads = ["dataset", "category", "method", "protocol", "shots", "seed", "error"]
        yield from markdown_table(heads, bad.select(heads).rows())


def _context(results: pl.DataFrame, sources: _Sources) -> Iterator[str]:
    """Tables of published numbers of methods that the benchmark did not run."""
    ours = {(_name(method), protocol) for method, protocol in results.select("method", "protocol").iter_rows()}
    shots = results["shots"].unique().sort().to_list()
    shown = ("image_auroc", "pixel_auroc", "aupro")
    for dataset in results["dataset"].unique().sort():
        ran = set(results.filter(pl.col("dataset") == dataset)["category"])
        wanted = {MEAN} if ran == set(OFFICIAL_CATEGORIES.get(dataset, ())) else ran
        found: dict[tuple[str, ...], dict[int, dict[str, str]]] = {}
        for one in read_published():
            other = (one.method, one.protocol) not in ours and one.dataset == dataset
            if (
                other
                and one.category in wanted
                and one.metric in shown
                and one.shots is not None
                and one.shots in shots
            ):
                row = (one.category, one.protocol, one.method, one.network, sources.number(one))
                found.setdefault(row, {}).setdefault(one.shots, {})[one.metric] = str(one)
        if found:
            yield from (f"## Published numbers of other methods, for context: {dataset}", "")
            yield from (_CONTEXT, "")
            heads = ["category", "protocol", "method", "with", "source", *map(_shots, shots)]
            texts = {
                row: {k: " / ".join(values.get(m, "-") for m in shown) for k, values in by.items()}
                for row, by in found.items()
            }
            yield from markdown_table(
                heads, [[*row, *(by.get(k, "") for k in shots)] for row, by in sorted(texts.items())]
            )


def _name(method: str) -> str:
    """A method's name without its settings."""
    return method.partition(":")[0]


def _shots(count: int) -> str:
    return f"{count} shot{'s' * (count != 1)}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """A Markdown table and an empty line."""
    for row in (heads, ["---"] * len(heads), *rows):
        yield "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |"
    yield ""
