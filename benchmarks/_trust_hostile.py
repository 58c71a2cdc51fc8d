"""The part of the trust page about hostile input and kills: `fuzz.py` in processes of its own, which keeps its logs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fuzz import kills_page
from fuzz import page as inputs_page

HERE = Path(__file__).parent
INPUTS, KILLS = 100_000, 220


def measure(data: Path) -> dict[str, Any]:
    """Put the inputs, then kill the verbs; trust/fuzz.md and trust/kills.md are written.

    Args:
        data: is not used; every input is made.
    """
    return {
        "inputs": _run("--count", INPUTS, HERE / "trust" / "fuzz.md"),
        "kills": _run("--kills", KILLS, HERE / "trust" / "kills.md"),
    }


def _run(option: str, count: int, log: Path) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "fuzz.py"), option, str(count), "--log", str(log)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL)  # its page is in the log
    if done.returncode not in (0, 1):  # 1 where there are findings
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(log.with_suffix(".json").read_bytes())
    return found


def page(found: dict[str, Any]) -> list[str]:
    """The section of the page."""
    return [
        "## Hostile input",
        f"{found['inputs']['count']} pictures, masks, inspectors, data sets and command lines with hostile changes; "
        "[fuzz.md](trust/fuzz.md) says how they are judged. Bounds: 0 findings, 3 s, 500 MB.",
        "\n".join(inputs_page(found["inputs"])),
        f"{found['kills']['count']} verbs ended at random moments, [kills.md](trust/kills.md). Bound: 0 wrong.",
        "\n".join(kills_page(found["kills"])),
    ]
