"""Whether answers can be trusted, wherever they are asked for and whatever comes in: writes trust.md beside itself.

    python3 scripts/bench trust --data DIR

DIR holds DATASET/CATEGORY folders in the MVTec AD layout. The figures of each part are kept as JSON in trust/, with the
commit that they were measured at; `--parts` measures some parts anew and keeps the others.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _trust_decode
import _trust_gate
import _trust_hostile
import _trust_labels
import _trust_odd
import _trust_speed
import _trust_threads
from handful.evaluation.environment import commit

PARTS: dict[str, tuple[Callable[[Path], dict[str, Any]], Callable[[dict[str, Any]], list[str]]]] = {
    "hostile": (_trust_hostile.measure, _trust_hostile.page),
    "speed": (_trust_speed.measure, _trust_speed.page),
    "threads": (_trust_threads.measure, _trust_threads.page),
    "decode": (_trust_decode.measure, _trust_decode.page),
    "odd": (_trust_odd.measure, _trust_odd.page),
    "gate": (_trust_gate.measure, _trust_gate.page),
    "labels": (_trust_labels.measure, _trust_labels.page),
}
OUT = Path(__file__).with_suffix(".md")
KEPT = Path(__file__).with_suffix("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    KEPT.mkdir(exist_ok=True)
    measured_at = commit()  # before the first file is written
    for name in options.parts:
        begin = time.perf_counter()
        found = PARTS[name][0](options.data)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        kept = {"commit": measured_at, "found": found}
        (KEPT / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    OUT.write_text("\n\n".join(_page()) + "\n", "utf-8")


def _page() -> list[str]:
    """All parts that have been measured."""
    said = ["# Trust", "`python3 scripts/bench trust --data DIR`; each part names the commit that it was measured at."]
    for name, (_, page) in PARTS.items():
        file = KEPT / f"{name}.json"
        if file.exists():
            kept = json.loads(file.read_text("utf-8"))
            heading, *rest = page(kept["found"])
            said += [heading, f"At {kept['commit']}.", *rest]
    return said


if __name__ == "__main__":
    main()
