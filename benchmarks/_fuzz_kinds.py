"""The kinds of input that `fuzz` changes: each writes its files and returns the question that is put with them."""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from _fuzz_commands import Command, arguments, ask
from _fuzz_mutations import (
    TEXTS,
    VALUES,
    changed_bytes,
    changed_json,
    changed_tensors,
    changed_text,
    changed_zip,
    drawn,
    json_bytes,
    redigested,
    zipped,
)
from _fuzz_seeds import DATASETS, INSPECTOR, PICTURES
from handful.data.images import Picture
from handful.data.layouts.registry import LAYOUTS, open_dataset
from handful.data.leaks import leaks
from handful.data.masks import read_ignored, read_regions
from handful.errors import ImageError
from handful.inspection.threshold import Calibration
from handful.inspector import Inspector
from handful.report.html import Report
from handful.report.result import Inspection
from handful.saved import archive
from handful.saved.history import history_of
from handful.types import Sample, Saturation

POOL = 400  # hostile values, drawn anew for so many inputs
SIZE = (64, 64)
FREE_PARTS = ("manifest.json", "manifest.sha256", "calibration.json")  # of an inspector, without a digest in it

Question = Callable[[], None]  # raises HandfulError for a refusal, WrongError for a wrong answer, else whatever broke


class WrongError(Exception):
    """An answer that is neither a whole one nor a refusal in one sentence."""


@dataclass
class Workshop:
    """What the kinds work with.

    Attributes:
        folder: where an input's files lie; emptied before each.
        seeds: the folder that `make_seeds` made.
        seed: of everything.
    """

    folder: Path
    seeds: Path
    seed: int
    saved: Path = field(init=False)
    pictures: dict[str, bytes] = field(init=False)
    inspector: Inspector = field(init=False)
    parts: dict[str, bytes] = field(init=False)
    _pools: dict[str, tuple[int, list[Any]]] = field(default_factory=dict)
    _block: int = 0

    def __post_init__(self) -> None:
        self.saved = self.seeds / INSPECTOR
        self.pictures = {path.name: path.read_bytes() for path in sorted((self.seeds / PICTURES).iterdir())}
        self.inspector = Inspector.load(self.saved)
        with zipfile.ZipFile(self.saved) as zipped:
            self.parts = {name: zipped.read(name) for name in zipped.namelist()}

    def prepare(self, kind: str, number: int) -> Question:
        """Write the files of one input; the question that it puts."""
        self._block = number // POOL
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return KINDS[kind](self, Random(f"{self.seed} {kind} {number}"))

    @property
    def values(self) -> list[Any]:
        """Hostile JSON values."""
        return self._pool("values", VALUES)

    @property
    def texts(self) -> list[str]:
        """Hostile texts."""
        return self._pool("texts", TEXTS)

    @property
    def commands(self) -> list[Command]:
        """Hostile command lines."""
        return self._pool("commands", arguments())

    def _pool(self, name: str, strategy: st.SearchStrategy[Any]) -> list[Any]:
        """Drawn once for every `POOL` inputs, and the same for the same inputs."""
        block, found = self._pools.get(name, (-1, []))
        if block != self._block:
            found = drawn(strategy, POOL, self.seed * 1_000_003 + self._block)
            self._pools[name] = self._block, found
        return found


def _picture(shop: Workshop, random: Random) -> Question:
    """A picture, read and inspected; one in ten is put into a report too."""
    name, data = random.choice(list(shop.pictures.items()))
    path = shop.folder / name
    path.write_bytes(changed_bytes(data, random))
    reported = random.random() < 0.1

    def question() -> None:
        inspection, picture = shop.inspector._inspect_source(path, name=str(path))
        check_inspection(inspection, picture)
        if reported:
            with Report(shop.folder / "report", {}, []) as report:
                report.add(inspection, picture)
        if picture is None:
            raise ImageError(str(inspection.reason))

    return question


def _mask(shop: Workshop, random: Random) -> Question:
    """A mask of a defect, or of a region to ignore."""
    name, data = random.choice(list(shop.pictures.items()))
    path = shop.folder / name
    path.write_bytes(changed_bytes(data, random))
    sample = Sample("defect.png", True, "scratch", (str(path),))
    saturation = random.choice(((), (), (Saturation(255, 0.5, True), Saturation(random.randrange(1, 255), 20, False))))

    def question() -> None:
        if random.random() < 0.3:
            region, _, _ = read_ignored(path, SIZE)
            expect(region.shape == SIZE, "a region of another size")
        else:
            for found in read_regions(sample, SIZE, saturation):
                expect(found.mask.shape == SIZE and bool(found.mask.any()), "a mask of another size")

    return question


def _inspector(shop: Workshop, random: Random) -> Question:
    """An inspector's file: read, described, and every fifth used, as that takes the longest."""
    path = shop.folder / "part.handful"
    way = random.choice(
        ("zip", "zip", "manifest", "manifest", "calibration", "revisions", "tensors", "tensors", "part")
    )
    path.write_bytes(_changed_inspector(shop, way, random))
    if random.random() < 0.2:
        return lambda: _use(shop, path)
    verb = random.choice((("info",), ("info", "--json"), ("threshold",), ("threshold", "--json"), ("teach", "--log")))

    def question() -> None:
        _, calibration, parts = archive.read(path)
        Calibration.from_dict(calibration)
        history_of(parts)
        ask([verb[0], str(path), *verb[1:]])

    return question


def _changed_inspector(shop: Workshop, way: str, random: Random) -> bytes:
    parts = {name: part for name, part in shop.parts.items() if name not in FREE_PARTS[:2]}
    manifest = json.loads(shop.parts["manifest.json"])
    if way == "zip":
        return changed_zip(shop.saved.read_bytes(), shop.parts, random)
    if way == "manifest":
        manifest = changed_json(manifest, random, shop.values)
    elif way in ("calibration", "revisions"):
        name = f"{way}.json"
        parts[name] = json_bytes(changed_json(json.loads(parts[name]), random, shop.values))
    elif way == "tensors":
        name = random.choice([name for name in parts if name.endswith(".safetensors")])
        parts[name] = changed_tensors(parts[name], random, shop.values)
    else:
        name = random.choice(list(parts))
        changed = changed_bytes(parts.pop(name), random)
        parts |= {} if random.random() < 0.2 else {name: changed}
    right = random.random() < 0.8  # else the digests tell
    return zipped(redigested(parts, manifest, FREE_PARTS) if right else {**shop.parts, **parts})


def _use(shop: Workshop, path: Path) -> None:
    inspector = Inspector.load(path)
    source = shop.folder / "good.png"
    source.write_bytes(shop.pictures["rgb.png"])
    inspection, picture = inspector._inspect_source(source, name="good.png")
    check_inspection(inspection, picture)


def _dataset(shop: Workshop, random: Random) -> Question:
    """A labelled data set whose table, list or settings are changed, or a file of it is."""
    layout = random.choice(list(DATASETS))
    tree = DATASETS[layout]
    changed = random.choice([name for name, content in tree.items() if isinstance(content, str)] or list(tree))
    for name, content in tree.items():
        path = shop.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else shop.pictures[content]
        if name == changed:
            data = _changed_file(name, data, shop, random)
        path.write_bytes(data)
    asked = random.choice((layout.split()[0], "auto", "auto", random.choice(list(LAYOUTS))))
    single = random.random() < 0.3 and isinstance(tree[changed], str)
    root = shop.folder / changed if single else shop.folder

    def question() -> None:
        dataset = open_dataset(root, layout=asked)
        for sentence in (*dataset.missing, *leaks(dataset)):
            check_sentence(sentence)
        for category in dataset.categories:
            for sample in category.test:
                read_regions(sample, SIZE, category.saturation)
        ask(["data", "meta", str(root), "--layout", asked, "-o", str(shop.folder / "written.json")])

    return question


def _changed_file(name: str, data: bytes, shop: Workshop, random: Random) -> bytes:
    if name.endswith(".json") and random.random() < 0.8:
        return json_bytes(changed_json(json.loads(data), random, shop.values))
    if name.endswith(".jsonl") and random.random() < 0.8:
        lines = [json.loads(line) for line in data.splitlines()]
        at = random.randrange(len(lines))
        lines[at] = changed_json(lines[at], random, shop.values)
        return b"\n".join(map(json_bytes, lines))
    return (
        changed_text(data.decode(), random, shop.texts)
        if name.endswith((".csv", ".jsonl"))
        else changed_bytes(data, random)
    )


def _command(shop: Workshop, random: Random) -> Question:
    """A command line, in this process."""
    names = {"rgb.png": shop.pictures["rgb.png"], "grey16.tiff": shop.pictures["grey16.tiff"]}
    names |= {"broken.png": changed_bytes(shop.pictures["rgb.png"], random), "list.csv": b"path,label,split\n"}
    names |= {"part.handful": shop.saved.read_bytes(), "broken.handful": b"PK\x03\x04"}
    (shop.folder / "empty").mkdir()
    (shop.folder / "good").mkdir()
    for name, data in {**names, "good/0.png": names["rgb.png"]}.items():
        (shop.folder / name).write_bytes(data)
    command = random.choice(shop.commands)
    return lambda: ask(command.inside(shop.folder))


KINDS: dict[str, Callable[[Workshop, Random], Question]] = {
    "picture": _picture,
    "mask": _mask,
    "inspector": _inspector,
    "data set": _dataset,
    "command line": _command,
}


def check_inspection(inspection: Inspection, picture: Picture | None) -> None:
    """Check that an answer is whole: a verdict with a finite score, or a reason in one sentence."""
    if picture is not None:
        expect(picture.pixels.ndim == 3 and picture.pixels.shape[2] == 3 and picture.pixels.size > 0, "no RGB")
        expect(picture.pixels.dtype in (np.uint8, np.uint16), f"pixels of {picture.pixels.dtype}")
    try:
        json.dumps(inspection.as_dict(), allow_nan=False)
    except ValueError as error:
        raise WrongError(f"{inspection.verdict} with numbers that are not finite") from error
    unread = picture is None or "must get finite scores" in (inspection.reason or "")
    expect(unread == (inspection.verdict == "ERROR"), f"{inspection.verdict} of an unread picture")
    for sentence in (inspection.reason, *inspection.notes):
        if sentence is not None:
            check_sentence(sentence)


def check_sentence(sentence: str) -> None:
    """Check that words for a person are one sentence without a program's innards."""
    odd = [word for word in ("Traceback", "object at 0x", "<class", "Error(") if word in sentence]
    expect(not odd and sentence.endswith("."), f"no sentence: {sentence[:300]!r}")


def expect(holds: bool, words: str) -> None:
    """Raise `WrongError` with these words where something does not hold."""
    if not holds:
        raise WrongError(words)
