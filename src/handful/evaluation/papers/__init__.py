"""The papers whose tables `handful bench --paper NAME` makes again: for each paper a file NAME.toml in this folder.

A file holds the paper's backbones, levels, sizes, data sets, shots, seeds, settings and trainings. A setting that no
source states has the comment `assumed`, and the table `assumed` gives the reason for its value. Reading needs no torch.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any, Literal, TypeVar

from handful.errors import InputError, SettingError

PAPERS = ("fastrecon", "reb", "coft-ad", "resad", "fasl", "patchcore", "winclip")
DATASETS = "datasets.toml"

Shots = int | Literal["all"]
Settings = dict[str, Any]
Made = TypeVar("Made")


@dataclass(frozen=True)
class PaperBackbone:
    """A backbone with a paper's levels and input size.

    Attributes:
        name: the name for `handful.backbones.create`, with the tag of the weights.
        levels: the modules of the levels; empty for the method's default levels.
        size: (H, W) of the input.
        repository: the hub's repository that has the weights.
        gflop: counted operations of the pass of a picture, in 10⁹; only for the plan's hours.
        grids, channels: for each level the side of its grid and its number of channels; only for the plan's hours.
    """

    name: str
    levels: tuple[str, ...]
    size: tuple[int, int]
    repository: str
    gflop: float
    grids: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class HeadTrainingPlan:
    """The training of a head.

    Attributes:
        training: the settings of the method's training, and the method's `name`.
        gflop: the operations of an update, in 10⁹, counted by hand; only for the plan's hours.
    """

    training: Settings
    gflop: float


@dataclass(frozen=True)
class Variant:
    """A method with settings.

    Attributes:
        about: a description of the variant, in words.
        method: the settings of the method, and its `name`.
        published: the method's name in published.csv; empty if no published number stands beside the variant.
        tuning: the settings of the backbone's training on the references, and the training's `name`; empty for none.
        head: the name of one of the paper's heads; empty for none.
        figure: whether a figure of query, truth and map is drawn.
    """

    about: str
    method: Settings
    published: str
    tuning: Settings = field(default_factory=dict)
    head: str = ""
    figure: bool = False


@dataclass(frozen=True)
class PaperRun:
    """Cells that share a protocol: data sets × categories × shots × seeds × variants, on each backbone.

    Attributes:
        backbones, variants: names of the paper's backbones and variants.
        datasets: the names of the data sets for tests.
        shots: the numbers of references of a draw; "all" for all good training pictures.
        seeds: the seeds of the draws.
        trained_on: the name of the data set on which heads are trained; empty without heads.
    """

    backbones: tuple[str, ...]
    datasets: tuple[str, ...]
    shots: tuple[Shots, ...]
    seeds: tuple[int, ...]
    variants: tuple[str, ...]
    trained_on: str = ""


@dataclass(frozen=True)
class MadeDataset:
    """A data set made by `handful data corrupt` from the good pictures of another data set."""

    source: str
    kinds: tuple[str, ...]
    severity: int


@dataclass(frozen=True)
class DatasetSource:
    """The source of a data set.

    Attributes:
        title: the full name of the data set.
        layout: the name of its reader in `handful.data.layouts.registry`.
        source: its paper and its web page.
        categories: the number of categories if the reader has no official numbers, else 0.
    """

    title: str
    layout: str
    source: str
    categories: int = 0


@dataclass(frozen=True)
class Paper:
    """A paper's protocol.

    Attributes:
        title, authors, venue, year, url: the paper's data for a citation.
        protocol: the protocol in words.
        departures: a sentence on each difference between the runs and the paper.
        assumed: for each setting that no source states, its place in the file and the reason for its value.
        backbones, variants, runs: the paper's backbones, variants and runs, by their names in the file.
        heads: the trainings of heads, by their names in the file.
        made: the data sets made from other data sets, by their names in the file.
        name: the name of the file, without .toml.
    """

    title: str
    authors: str
    venue: str
    year: int
    url: str
    protocol: str
    departures: tuple[str, ...]
    assumed: dict[str, str]
    backbones: dict[str, PaperBackbone]
    variants: dict[str, Variant]
    runs: dict[str, PaperRun]
    heads: dict[str, HeadTrainingPlan] = field(default_factory=dict)
    made: dict[str, MadeDataset] = field(default_factory=dict)
    name: str = ""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets that a person must give, in the file's order; for a made data set its source."""
        named = [name for run in self.runs.values() for name in (run.trained_on, *run.datasets) if name]
        return tuple(dict.fromkeys(self.made[name].source if name in self.made else name for name in named))


@cache
def read_paper(name: str) -> Paper:
    """Read a paper by the name of its file.

        from handful.evaluation.papers import read_paper

        paper = read_paper("resad")
        print(paper.title, paper.datasets)

    Raises:
        SettingError: for an unknown name.
        InputError: if the file does not match the classes of this module.
    """
    if name not in PAPERS:
        raise SettingError(f"`--paper` must be one of {', '.join(PAPERS)}, got {name!r}.")
    return parse_paper(_text(f"{name}.toml"), name)


@cache
def read_datasets() -> dict[str, DatasetSource]:
    """The sources of the data sets of all papers, by name.

    Raises:
        InputError: if datasets.toml does not match `DatasetSource`.
    """
    tables = _tables(_text(DATASETS), DATASETS)
    return {name: _make(DatasetSource, table, f"{DATASETS}: {name}") for name, table in tables.items()}


def parse_paper(text: str, name: str) -> Paper:
    """Make a paper from the text of its file.

    Raises:
        InputError: for a key that is missing, unknown or of another type, and for a name that the file does not define;
            the message gives the place in the file.
    """
    file = f"{name}.toml"
    tables = _tables(text, file)
    parts: Mapping[str, type[Any]] = {
        "backbones": PaperBackbone,
        "variants": Variant,
        "runs": PaperRun,
        "heads": HeadTrainingPlan,
        "made": MadeDataset,
    }
    filled: dict[str, Any] = {**tables, "name": name}
    for part, kind in parts.items():
        entries = tables.get(part, {})
        if not isinstance(entries, dict):
            raise InputError(f"{file}: {part} must be a table, got {entries!r}; correct it.")
        filled[part] = {key: _make(kind, entry, f"{file}: {part}.{key}") for key, entry in entries.items()}
    paper = _make(Paper, filled, file)
    _check_names(paper, file)
    for place in paper.assumed:
        _check_place(tables, place, file)
    return paper


def _check_names(paper: Paper, file: str) -> None:
    """Raise InputError for a name that is not defined, and for a run with heads but no `trained_on`, or the reverse."""
    datasets = {*read_datasets(), *paper.made}
    wanted: list[tuple[str, set[str], Mapping[str, object]]]
    wanted = [(f"variants.{key}.head", {variant.head} - {""}, paper.heads) for key, variant in paper.variants.items()]
    wanted += [(f"made.{key}.source", {made.source}, read_datasets()) for key, made in paper.made.items()]
    for key, run in paper.runs.items():
        wanted += [
            (f"runs.{key}.backbones", {*run.backbones}, paper.backbones),
            (f"runs.{key}.variants", {*run.variants}, paper.variants),
            (f"runs.{key}.datasets", {*run.datasets}, dict.fromkeys(datasets)),
            (f"runs.{key}.trained_on", {run.trained_on} - {""}, read_datasets()),
        ]
    for place, names, known in wanted:
        if unknown := sorted(names - {*known}):
            raise InputError(f"{file}: {place} must be among {', '.join(known) or 'none'}, got {unknown[0]!r}.")
    for key, run in paper.runs.items():
        if any(paper.variants[name].head for name in run.variants) != bool(run.trained_on):
            raise InputError(
                f"{file}: runs.{key}.trained_on must be given where a variant has a head, and only there, got "
                f"{run.trained_on!r}."
            )


def _check_place(tables: Mapping[str, Any], place: str, file: str) -> None:
    """Raise InputError unless the file has a value at a place such as `runs.few.seeds`."""
    inside: Any = tables
    for part in place.split("."):
        if not isinstance(inside, dict) or part not in inside:
            raise InputError(f"{file}: assumed must name settings of the file, got {place!r}; correct it.")
        inside = inside[part]


def _text(file: str) -> str:
    return (resources.files("handful.evaluation.papers") / file).read_text(encoding="utf-8")


def _tables(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file} must be TOML, got: {error}; correct it.") from error


def _make(kind: type[Made], entry: Any, place: str) -> Made:
    """Make a dataclass of this module from a table; raises InputError for other keys and types than the class's."""
    if not isinstance(entry, dict):
        raise InputError(f"{place} must be a table, got {entry!r}; correct it.")
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]  # all are dataclasses
    for key in entry:
        if key not in known:
            raise InputError(f"{place} must have the keys {', '.join(known)} alone, got {key!r}; correct it.")
    for key, one in known.items():
        if key not in entry and one.default is MISSING and one.default_factory is MISSING:
            raise InputError(f"{place} must have the key {key}, got none; add it.")
    return kind(**{key: _checked(value, known[key].type, f"{place}.{key}") for key, value in entry.items()})


_RULES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Settings: "a table of settings",
    dict[str, str]: "a table of texts",
    tuple[str, ...]: "a list of texts",
    tuple[int, ...]: "a list of whole numbers",
    tuple[int, int]: "two whole numbers, height and width",
    tuple[Shots, ...]: 'a list of whole numbers from 0, or "all"',
}


def _checked(value: Any, kind: Any, place: str) -> Any:
    """The value, a list as a tuple; raises InputError for a value of another type."""
    if kind not in _RULES:  # tables of dataclasses that are checked already
        return value
    rule = _RULES[kind]
    if isinstance(value, list):
        value = tuple(value)
    whole = isinstance(value, tuple) and all(type(one) is int and one >= 0 for one in value)
    fits = {
        str: isinstance(value, str),
        int: type(value) is int,
        float: type(value) in (int, float),
        bool: isinstance(value, bool),
        Settings: isinstance(value, dict) and (not value or isinstance(value.get("name"), str)),
        dict[str, str]: isinstance(value, dict) and all(isinstance(one, str) for one in value.values()),
        tuple[str, ...]: isinstance(value, tuple) and all(isinstance(one, str) for one in value),
        tuple[int, ...]: whole,
        tuple[int, int]: whole and len(value) == 2,
        tuple[Shots, ...]: isinstance(value, tuple)
        and all(one == "all" or (type(one) is int and one >= 0) for one in value),
    }[kind]
    if not fits:
        raise InputError(f"{place} must be {rule}, got {value!r}; correct it.")
    return value
