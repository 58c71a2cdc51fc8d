"""Set up `.venv` beside the code; needs Python 3.11 or newer and nothing else."""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def ensure(*extras: str) -> Path:
    """Make `.venv` hold Handful with these extras at the versions of constraints.txt; the path of its python.

    A second call with nothing changed takes no time: a stamp in `.venv` tells what it holds.
    """
    if sys.version_info < (3, 11):
        sys.exit(f"Handful needs Python 3.11 or newer, got {sys.version.split()[0]}; run this with a newer python3.")
    folder = ROOT / ".venv"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    recipe = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    stamp = folder / f"handful-{hashlib.sha256(recipe + ','.join(extras).encode()).hexdigest()[:16]}"
    if not stamp.exists():
        print(
            f"Setting up {folder} with {', '.join(extras)}: some minutes the first time …", file=sys.stderr, flush=True
        )
        if not python.exists():
            _create(folder)
        target = f"{ROOT}[{','.join(extras)}]"
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), "--editable", target], check=True)
        stamp.touch()
    return python


def run(python: Path, *arguments: str) -> int:
    """Run python with these arguments in the project's folder; its exit code."""
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # as handful.cli does, and for the same reason
    return subprocess.run([python, *arguments], cwd=ROOT, env=environment).returncode


def _create(folder: Path) -> None:
    try:
        venv.create(folder, with_pip=True)
    except subprocess.CalledProcessError:
        sys.exit("This Python cannot make virtual environments; install its venv package (Debian: python3-venv).")
