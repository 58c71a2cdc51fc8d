"""Kills for `fuzz`: a verb is ended at a random moment, and leaves the old or the new; after the next, nothing else."""

import json
import multiprocessing
import os
import random as random_
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from _fuzz_seeds import drawing
from handful.errors import HandfulError
from handful.evaluation import results
from handful.saved import archive

SMALL = ("--backbone", "test_efficientnet", "--weights", "random", "--size", "64")
PRELOADED = [
    "handful.training.head",
    "handful.backbones.timm",
    "handful.evaluation.benchmark",
    "handful.data.corruption",
]
LONGEST = 120.0  # seconds that a verb may take
SIGNALS = (signal.SIGKILL, signal.SIGTERM)

TRIES = 3  # at a moment that comes too late

Contents = dict[str, bytes]  # by a file's path in the target


@dataclass(frozen=True)
class Verb:
    """A command line that writes, and where.

    Attributes:
        words: of the command line, in a folder that holds `inputs`.
        target: the file or folder that it writes, from there.
        whole: raises if a file of it, by path and bytes, is none that the verb writes.
        together: whether all of its files appear at once.
    """

    words: tuple[str, ...]
    target: str
    whole: Callable[[Path], None]
    together: bool = False


def _inspector(path: Path) -> None:
    archive.read(path)


def _picture(path: Path) -> None:
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.name == "index.html" and not path.read_text("utf-8").rstrip().endswith("</html>"):
        raise ValueError("half a page")


def _result(path: Path) -> None:
    if path.name == "results.csv":
        results.read(path)
    elif path.parent.parent.parent.name == "scores":
        results.read_scores(path)
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    else:
        _picture(path)


def _weights(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        file.keys()


def _any(path: Path) -> None:
    """Nothing to be wrong: the files appear all at once."""


VERBS = {
    "fit": Verb(("fit", "good", "-o", "part.handful", *SMALL, "--gate", "none"), "part.handful", _inspector),
    "teach": Verb(("teach", "part.handful", "--good", "more/0.png"), "part.handful", _inspector),
    "threshold": Verb(("threshold", "part.handful", "--rate", "0.05"), "part.handful", _inspector),
    "inspect --report": Verb(("inspect", "part.handful", "more", "--report", "report"), "report", _picture),
    "inspect --heatmaps": Verb(("inspect", "part.handful", "more", "--heatmaps", "maps"), "maps", _picture),
    "export": Verb(("export", "part.handful", "-o", "exported"), "exported", _any, together=True),
    "data defects": Verb(("data", "defects", "good", "-o", "made"), "made", _any, together=True),
    "data corrupt": Verb(("data", "corrupt", "more", "-o", "made", "--kinds", "contrast"), "made", _any, together=True),
    "data meta": Verb(("data", "meta", "nut", "-o", "meta.json"), "meta.json", _result),
    "bench": Verb(
        (
            "bench",
            "--data",
            "nut:nut",
            "--out",
            "results",
            *SMALL,
            "--methods",
            "patchcore",
            "--shots",
            "1",
            "2",
            "--seeds",
            "0",
        ),
        "results",
        _result,
    ),
    "train reb": Verb(
        ("train", "reb", "good", "-o", "trained.safetensors", *SMALL[:4], "--set", "updates=6", "--set", "size=64"),
        "trained.safetensors",
        _weights,
    ),
}


def _inputs(folder: Path) -> None:
    """The files that the verbs read, with an inspector, a report and heatmaps as an earlier run left them."""
    for name, count in (("good", 3), ("more", 6), ("nut/train/good", 3), ("nut/test/good", 2), ("nut/test/cut", 2)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = drawing(len(name) * 10 + number, side=96)
            pixels[40:44, 20:60] = 255 if name.endswith("cut") else pixels[40:44, 20:60]
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def _run(words: tuple[str, ...], folder: Path) -> None:
    """Be the process of a command line."""
    os.chdir(folder)
    out = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    import torch

    from handful.cli.main import main

    torch.set_num_threads(1)
    sys.argv = ["handful", *words]
    main()


class Kills:
    """A folder of inputs, and the processes that are started and ended in copies of it.

    Args:
        folder: empty.
        verbs: names in `VERBS`.
    """

    def __init__(self, folder: Path, verbs: list[str]) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)  # so that a kill falls into the work, not the imports
        self.folder, self.inputs = folder, folder / "inputs"
        self.inputs.mkdir()
        _inputs(self.inputs)
        for words in (
            ("fit", "good", "-o", "part.handful", *SMALL),
            ("inspect", "part.handful", "good", "--report", "report", "--heatmaps", "maps"),
        ):
            self._finish(words, self.inputs)
        self.seconds, self.expected = dict[str, float](), dict[str, Contents]()
        for name in verbs:
            place = self._copy()
            begin = time.monotonic()
            self._finish(VERBS[name].words, place)
            self.seconds[name] = time.monotonic() - begin
            self.expected[name] = _contents(place / VERBS[name].target)

    def _copy(self) -> Path:
        place = self.folder / "round"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.inputs, place)
        return place

    def _start(self, words: tuple[str, ...], place: Path) -> Any:
        process = self.context.Process(target=_run, args=(words, place))
        process.start()
        return process

    def _finish(self, words: tuple[str, ...], place: Path) -> None:
        process = self._start(words, place)
        process.join(LONGEST)
        if process.exitcode not in (0, 1, 2) or "Traceback" in (place / "said.txt").read_text():
            raise RuntimeError(f"{words} ended with {process.exitcode}: {(place / 'said.txt').read_text()[-500:]}")

    def round(self, name: str, number: signal.Signals, share: float) -> str:
        """Start a verb, end it by a signal, look, and start it again.

        Args:
            name: of the verb.
            number: the signal.
            share: of the verb's own time, after which it is sent.

        Returns:
            How it ended: killed, or done before the signal came; a sentence on what is wrong begins with "wrong".
        """
        verb, place = VERBS[name], self._copy()
        old = _contents(place / verb.target)
        process = self._start(verb.words, place)
        time.sleep(share * self.seconds[name])
        killed = process.exitcode is None
        if killed:
            os.kill(process.pid, number)
        # Other programs run beside: how long the verb takes here is learnt as it goes.
        self.seconds[name] *= (1.15 if share > 0.8 else 1.0) if killed else 0.8
        process.join(LONGEST)
        if process.exitcode is None:
            process.kill()
            return f"wrong: {name} went on after {number.name}"
        wrong = self._look(name, place, old)
        if number == signal.SIGTERM and killed and _left(place):
            wrong = wrong or f"SIGTERM left {_left(place)[0]}"
        if wrong is None:
            self._again(verb, place)
            left, said = _left(place), self._look(name, place, old)
            wrong = f"the next start left {left[0]}" if left else said
        return f"wrong: {name}, {number.name} at {share:.2f}: {wrong}" if wrong else "killed" if killed else "done"

    def _again(self, verb: Verb, place: Path) -> None:
        if verb.together and (place / verb.target).exists():
            self._finish(verb.words, place)  # refused: the folder is there
            shutil.rmtree(place / verb.target)
        self._finish(verb.words, place)

    def _look(self, name: str, place: Path, old: Contents) -> str | None:
        """What is wrong with what a verb has left; None where every file is the old one or a whole new one."""
        verb = VERBS[name]
        found = _contents(place / verb.target)
        if verb.together and found and found.keys() != self.expected[name].keys():
            return f"{len(found)} of {len(self.expected[name])} files"
        for path, data in found.items():
            try:
                if data != old.get(path):
                    verb.whole(place / path)
            except (HandfulError, OSError, ValueError, KeyError) as error:
                return f"{path} is neither the old nor the new: {error}"
        gone = old.keys() - found.keys()
        return f"{sorted(gone)[0]} is gone" if gone else None


def _contents(target: Path) -> Contents:
    """The visible files of a file or folder, by their paths from its parent."""
    files = [target] if target.is_file() else sorted(path for path in target.rglob("*") if path.is_file())
    return {
        path.relative_to(target.parent).as_posix(): path.read_bytes() for path in files if not path.name.startswith(".")
    }


def _left(place: Path) -> list[str]:
    """Temporary files and folders."""
    return [path.relative_to(place).as_posix() for path in place.rglob("*") if path.name.endswith(".part")]


def kills(count: int, *, seed: int, verbs: list[str] | None = None) -> dict[str, Any]:
    """So many kills at random moments, the verbs and signals in turn.

    Returns:
        By verb how many were killed and how many were done before, and what was wrong; ready for JSON.
    """
    names, random = verbs or list(VERBS), random_.Random(seed)
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in names}
    wrong: list[str] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Kills(Path(folder), names)
        for number in range(count):
            name = names[number % len(names)]
            sent = SIGNALS[(number // len(names)) % 2]
            share = random.choice((random.random(), random.uniform(0.8, 1.05)))  # files are written late
            outcome = next(
                (said for _ in range(TRIES) if (said := place.round(name, sent, share)) != "done"),
                "done before it came",
            )
            outcomes[name][f"{sent.name} {outcome}" if not outcome.startswith("wrong") else "wrong"] += 1
            wrong += [outcome] if outcome.startswith("wrong") else []
    return {
        "count": count,
        "seed": seed,
        "minutes": (time.monotonic() - begin) / 60,
        "verbs": {name: dict(counter) for name, counter in outcomes.items()},
        "wrong": wrong,
    }
