"""A paper's results beside its published numbers, cell by cell: paper.csv and paper.md."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev

from handful.errors import SettingError
from handful.evaluation import results
from handful.evaluation.papers import Paper
from handful.evaluation.papers.plan import Job
from handful.evaluation.papers.run import Prepared
from handful.evaluation.published import MEAN, METRICS, OFFICIAL_CATEGORIES, Published, read_published
from handful.evaluation.results import Row
from handful.evaluation.tables import differs, markdown_table
from handful.files import replacing

PAGE, TABLE = "paper.md", "paper.csv"
SHOWN = ("image_auroc", "pixel_auroc", "aupro")  # metrics whose means the page shows in any case


@dataclass(frozen=True)
class Line:
    """A figure of Handful's beside a published number, or without a published number.

    Attributes:
        run: the name of the job.
        dataset, category: the data set and category of the test; "mean" for the mean over all categories.
        variant, metric: the variant and the metric.
        shots: the number of references; "all" for all good training pictures.
        backbone: the name of the backbone, with the origin of its weights unless the name implies them.
        ours: Handful's figure in percent, the mean over seeds; None without a result.
        spread: the sample standard deviation over seeds; None with fewer than two seeds.
        seeds: the number of seeds.
        published, published_spread: value and spread of the published number, see `Published`; None without a number.
        difference: ours minus published; None if either is missing or the two must not be compared.
        tag, source: tag and source of the published number, see `Published`; empty without a number.
        mark: the reasons why there is no figure or no comparison; empty if a comparison is allowed.
    """

    run: str
    dataset: str
    category: str
    variant: str
    shots: str
    metric: str
    backbone: str
    ours: float | None
    spread: float | None
    seeds: int
    published: float | None
    published_spread: float | None
    difference: float | None
    tag: str
    source: str
    mark: str


def lines(prepared: Prepared) -> list[Line]:
    """The lines of a job: its figures in results.csv and the published numbers, means over categories first."""
    run = prepared.job.run
    found: list[Line] = []
    rows = results.read(prepared.benchmark.out / results.RESULTS)
    by_method = {text: name for name, text in prepared.methods.items()}
    for name, dataset in prepared.benchmark.datasets.items():
        sizes = {category.name: len(category.train) for category in dataset.categories}
        for variant in run.variants:
            for shots in run.shots:
                of_cell = [
                    row
                    for row in rows
                    if (row.dataset, by_method.get(row.method)) == (name, variant)
                    and row.category in sizes
                    and row.shots == (sizes[row.category] if shots == "all" else shots)
                    and row.seed in run.seeds
                ]
                for category in (MEAN, *sizes):
                    marks = [*prepared.marks, *_incomplete(name, category, list(sizes), dataset.missing)]
                    wanted = list(sizes) if category == MEAN else [category]
                    for metric in METRICS:
                        found += _beside(prepared, variant, name, category, shots, metric, of_cell, wanted, marks)
    return found


def check_folder(paper: Paper, out: Path) -> None:
    """Raise SettingError if the folder of the results holds the table of another paper, which would be lost."""
    page = out / PAGE
    if page.is_file() and not page.read_text("utf-8", "replace").startswith(f"{_title(paper)}\n"):
        raise SettingError(
            f"`--out` must be a folder without the table of another paper, got {out}, whose {PAGE} is not that of "
            f"{paper.name}; choose another folder."
        )


def write(paper: Paper, prepared: Sequence[Prepared], skipped: Iterable[str], out: Path) -> Path:
    """Write paper.csv and paper.md.

    Args:
        paper: the paper.
        prepared: the jobs of the paper that have run.
        skipped: a sentence on each job and data set that was not run.
        out: the folder of all results of the paper.

    Returns:
        The path of paper.md.

    Raises:
        OutputError: if a file cannot be written.
    """
    found = [line for job in prepared for line in lines(job)]
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow([one.name for one in fields(Line)])
    writer.writerows([_cell(value) for value in asdict(line).values()] for line in found)
    with replacing(out / TABLE) as file:
        file.write(table.getvalue().encode())
    with replacing(out / PAGE) as file:
        file.write(("\n".join(_page(paper, prepared, found, list(skipped))).rstrip() + "\n").encode())
    return out / PAGE


def _title(paper: Paper) -> str:
    return f"# {paper.title}"


def _beside(
    prepared: Prepared,
    variant: str,
    dataset: str,
    category: str,
    shots: int | str,
    metric: str,
    rows: Sequence[Row],
    categories: Sequence[str],
    marks: Sequence[str],
) -> Iterator[Line]:
    """The lines of a figure: a line for each published number, or a single line if there is no published number.

    No line if there is neither a figure nor a published number.
    """
    by_seed: dict[int, dict[str, float]] = {}
    for row in rows:
        value = getattr(row, metric)
        if row.category in categories and value is not None:
            by_seed.setdefault(row.seed, {})[row.category] = value
    values = [mean(of_seed.values()) for of_seed in by_seed.values() if len(of_seed) == len(categories)]
    ours = mean(values) if values else None
    job = prepared.job
    transductive = any(row.protocol.endswith(" transductive") for row in rows) and metric.startswith("image_")
    beside: list[Published | None] = [
        *_published(job, variant, dataset, category, shots, metric, transductive=transductive)
    ]
    if ours is None and not beside:
        return
    backbone = rows[0].backbone if rows else job.backbone.name
    for one in beside or [None]:
        said = [*marks, *(["no result"] if ours is None else [])]
        yield Line(
            run=job.name,
            dataset=dataset,
            category=category,
            variant=variant,
            shots=str(shots),
            metric=metric,
            backbone=backbone,
            ours=ours,
            spread=stdev(values) if len(values) > 1 else None,
            seeds=len(values),
            published=one.value if one else None,
            published_spread=one.spread if one else None,
            difference=ours - one.value if one and ours is not None and not said else None,
            tag=one.tag if one else "",
            source=one.source if one else "",
            mark="; ".join(said),
        )


def _published(
    job: Job, variant: str, dataset: str, category: str, shots: int | str, metric: str, *, transductive: bool
) -> list[Published]:
    """The published numbers of a figure; a number counts unless its source states another backbone or another size."""
    height, width = job.backbone.size
    whole, _, tag = job.backbone.name.partition(".")  # sources seldom state the weights of a network
    name = job.paper.variants[variant].published
    protocol = ("auxiliary-trained" if job.run.trained_on else "target-only") + " transductive" * transductive
    wanted = (name, dataset, category, metric, protocol)
    return [
        one
        for one in read_published()
        if (one.method, one.dataset, one.category, one.metric, one.protocol) == wanted
        and ("all" if one.shots is None else one.shots) == shots
        and one.backbone in ("", whole, f"{whole}.{tag}")
        and one.size in ("", f"{height}x{width}")
    ]


def _incomplete(dataset: str, category: str, categories: Sequence[str], missing: Sequence[str]) -> Iterator[str]:
    """The mark "incomplete data set" if the tested categories are not the official ones, or lack files."""
    official = OFFICIAL_CATEGORIES.get(dataset, categories)
    if (category == MEAN and {*categories} != {*official}) or differs(
        categories if category == MEAN else [category], missing
    ):
        yield "incomplete data set"


def _page(paper: Paper, prepared: Sequence[Prepared], found: Sequence[Line], skipped: Sequence[str]) -> Iterator[str]:
    yield from (_title(paper), "", f"{paper.authors}, {paper.venue}, {paper.year}: {paper.url}", "")
    yield from (f"Protocol: {paper.protocol}.", "", _READING, "")
    if skipped:
        yield from ("Not run:", "", *(f"- {sentence}" for sentence in skipped), "")
    for job in prepared:
        own = [line for line in found if line.run == job.job.name]
        yield from (f"## {job.job.name}", "", f"{own[0].backbone if own else job.job.backbone.name}.", "")
        yield from (f"- {name}: {variant.about}" for name, variant in job.job.variants.items())
        yield ""
        if job.marks:
            yield from (f"Not compared with the paper's numbers: {', '.join(job.marks)}.", "")
        shown = [line for line in own if line.published is not None or (line.category == MEAN and line.metric in SHOWN)]
        heads = ["data set", "category", "variant", "shots", "metric", "ours", "seeds", "published", "difference"]
        yield from markdown_table([*heads, "source", "mark"], [_cells(line) for line in shown])
        failed = [row for row in results.read(job.benchmark.out / results.RESULTS) if row.error]
        if failed:
            yield from (f"{len(failed)} cells failed; summary.md in {job.job.name} says why.", "")
    yield from ("## Departures from the paper", "", *(f"- {sentence}" for sentence in paper.departures), "")
    yield from ("## Settings that no source states", "")
    yield from (f"- `{place}`: {reason}" for place, reason in paper.assumed.items())


_READING = (
    "Percent. `±` is the sample standard deviation over seeds, of a published number as its source gives it. A mean is "
    "over the categories given. A figure that is marked must not be compared, and has no difference. `OFF`: the "
    "authors' paper or repository; `3P`: somebody else's table; `3P-note`: others' notes on a paper; `PLOT`: read off "
    "a figure. paper.csv holds every category."
)


def _cells(line: Line) -> list[str]:
    ours = "-" if line.ours is None else f"{line.ours:.1f}" + _plus_minus(line.spread)
    published = "-" if line.published is None else f"{line.published:.1f}" + _plus_minus(line.published_spread)
    difference = "-" if line.difference is None else f"{line.difference:+.1f}"
    source = f"{line.source} (`{line.tag}`)" if line.source else "-"
    named = [line.dataset, line.category, line.variant, line.shots, METRICS[line.metric], ours, str(line.seeds)]
    return [*named, published, difference, source, line.mark or "-"]


def _plus_minus(spread: float | None) -> str:
    return "" if spread is None else f" ± {spread:.1f}"


def _cell(value: str | float | None) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
