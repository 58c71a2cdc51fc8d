"""Programs whose parts are measured one by one, each kept in a file of its own with its commit, and their page."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from handful.evaluation.environment import describe
from handful.files import replacing

Rows = list[dict[str, Any]]
Part = Callable[[argparse.Namespace, Path], Rows]  # options and a temporary folder → the figures


def measured(
    name: str,
    options: argparse.Namespace,
    parts: Mapping[str, Part],
    page: Callable[[Mapping[str, Mapping[str, Any]]], str],
) -> None:
    """Measure the parts that are asked for, and write the page of all that are kept.

    Args:
        name: of the program, for `scripts/bench`.
        options: with `data`, `category`, `parts` and `out`.
        parts: of the program, by name.
        page: makes the page from the records of the parts that are kept.
    """
    folders = {str(options.data): "DIR", str(options.out): "OUT"}
    said = " ".join([f"python3 scripts/bench {name}", *(folders.get(word, word) for word in sys.argv[1:])])
    for part in options.parts:
        begin, load = time.monotonic(), os.getloadavg()[0]
        record = describe(command=said, device="cpu", facts={"category": options.category})
        with tempfile.TemporaryDirectory() as folder:
            rows = parts[part](options, Path(folder))
        record |= {"seconds": time.monotonic() - begin, "load": [load, os.getloadavg()[0]], "rows": rows}
        print(f"{part}: {record['seconds']:.0f} s", file=sys.stderr, flush=True)
        with replacing(options.out / f"{part}.json", make_folder=True) as file:
            file.write(json.dumps(record, indent=1).encode() + b"\n")
    kept = {part: options.out / f"{part}.json" for part in parts}
    written = page({part: json.loads(file.read_text()) for part, file in kept.items() if file.exists()})
    options.out.with_suffix(".md").write_text(written, encoding="utf-8")
    print(written)
