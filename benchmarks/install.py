"""What an installation takes, extra by extra: writes install.md beside itself.

    python3 scripts/bench install
    python3 scripts/bench install --extras fit bench --pythons python3.12 python3.13

Wheel and source distribution are built, and the wheel is installed into a clean environment for each extra, at the
versions of constraints.txt. pip's cache is as it is found: the command downloads what is missing there.
"""

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(__file__).with_suffix(".md")
CONSTRAINTS = ROOT / "constraints.txt"
BASE = "base"  # the installation without any extra
EXTRAS = (BASE, "scale", "fit", "sklearn", "train", "bench", "demo", "corrupt", "export", "clip", "ray", "all")
MOST_MEGABYTES = 300  # of the base installation's files, without byte-code; the tests hold it

MEASURE = """
import json
from importlib.metadata import distributions
files, code, names = 0, 0, []
for found in distributions():
    if found.name in ("pip", "setuptools"):
        continue  # venv's own
    names.append(found.name)
    for file in found.files or ():
        path = found.locate_file(file)
        if path.is_file():
            files += path.stat().st_size * (path.suffix != ".pyc")
            code += path.stat().st_size * (path.suffix == ".pyc")
print(json.dumps([files / 1e6, code / 1e6, len(names)]))
"""


@dataclass(frozen=True)
class Installed:
    """An extra in a clean environment: MB (10^6 bytes) of the packages' files and of Python's byte-code of them."""

    extra: str
    python: str
    megabytes: float
    bytecode: float
    packages: int
    seconds: float


def build(folder: Path) -> tuple[Path, Path]:
    """Build wheel and source distribution of the checkout into a folder, as for a release: their paths."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def new_environment(folder: Path, python: str = sys.executable) -> Path:
    """Make an environment that holds pip alone: its python."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(python: Path, wheel: Path, extra: str, *options: str) -> None:
    """Install the wheel with an extra into an environment; a Handful that PYTHONPATH leads to does not count."""
    target = str(wheel) if extra == BASE else f"{wheel}[{extra}]"
    pip = [str(python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, "--constraint", str(CONSTRAINTS), target], check=True)


def size(python: Path) -> tuple[float, float, int]:
    """MB of the files of an environment's packages, MB of their byte-code, and how many packages there are."""
    files, code, count = json.loads(
        subprocess.run([python, "-I", "-c", MEASURE], check=True, capture_output=True).stdout
    )
    return files, code, count


def measured(wheel: Path, extra: str, python: str) -> Installed:
    """Install an extra into a clean environment, and remove it again."""
    with tempfile.TemporaryDirectory() as scratch:
        inside = new_environment(Path(scratch), python)
        begin = time.perf_counter()
        install(inside, wheel, extra)
        seconds = time.perf_counter() - begin
        said = subprocess.run([inside, "--version"], check=True, capture_output=True, text=True).stdout
        return Installed(extra, said.split()[1], *size(inside), seconds)


def without_wheel(version: str) -> list[str]:
    """The packages of pyproject.toml, development aside, that have no wheel for a version of Python on this platform.

    pip resolves them without their dependencies, and names the first that it has no wheel for, until none is left.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: found for name, found in project["optional-dependencies"].items() if name not in ("dev", "peers")}
    wanted = {*project["dependencies"], *(one for found in extras.values() for one in found)}
    left = {re.split("[<>=]", one)[0]: one for one in sorted(wanted) if not one.startswith("handful[")}
    missing: list[str] = []
    options = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:", "--target", "nowhere"]
    pip = [sys.executable, "-I", "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS), *options]
    while True:
        run = subprocess.run([*pip, "--python-version", version, *left.values()], capture_output=True, text=True)
        if run.returncode == 0:
            return missing
        errors = re.findall(r"^ERROR: (?:No matching distribution found for|Cannot install) ([\w-]+)", run.stderr, re.M)
        name = next((one for one in left if one in errors), None)
        if name is None:
            raise RuntimeError(run.stderr)
        missing.append(name)
        del left[name]


def page(
    rows: Sequence[Installed], wheels: dict[str, list[str]], dist: tuple[Path, Path], *, command: str, code: str
) -> str:
    """The page for people."""
    lines = [
        "# What an installation takes",
        "",
        f"`{command}`, code of {code}, {platform.system()} {platform.machine()}. The wheel "
        f"({dist[0].stat().st_size / 1e6:.2f} MB) is installed into a clean environment for each extra, at the "
        "versions of constraints.txt, torch in its CPU build. MB are 10^6 bytes of the packages' own files; Python "
        "writes their byte-code beside them. pip and setuptools do not count. Seconds are of one installation each, "
        "beside other work, with what pip's cache held.",
        "",
        f"The base installation is held to {MOST_MEGABYTES} MB of files without byte-code. It takes "
        f"{rows[0].megabytes:.0f} MB, and {rows[0].megabytes + rows[0].bytecode:.0f} MB with the byte-code, which pip "
        "compiles unless it is called with `--no-compile`.",
        "",
        "| | Python | MB | with byte-code | packages | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for one in rows:
        command = "`pip install handful`" if one.extra == BASE else f'`pip install "handful[{one.extra}]"`'
        whole = one.megabytes + one.bytecode
        lines.append(
            f"| {command} | {one.python} | {one.megabytes:.0f} | {whole:.0f} | {one.packages} | {one.seconds:.0f} |"
        )
    for version, missing in wheels.items():
        said = f"for all packages but {', '.join(missing)}, which pip builds" if missing else "for all packages"
        lines += ["", f"Wheels for Python {version} on this platform: {said}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", nargs="*", choices=EXTRAS, default=EXTRAS, help="besides the base installation")
    parser.add_argument("--pythons", nargs="*", default=[], help="other interpreters, for the base installation")
    parser.add_argument("--wheels", nargs="*", default=["3.12", "3.13"], help="versions to look for wheels for")
    options = parser.parse_args()
    from handful.evaluation.environment import commit

    command = " ".join(["python3 scripts/bench install", *sys.argv[1:]])
    code = commit()  # before the page is written, which is a change in the checkout
    dist = Path(tempfile.mkdtemp())
    try:
        built = build(dist)
        wheels: dict[str, list[str]] = {}
        rows: list[Installed] = []
        for extra, python in [(BASE, p) for p in (sys.executable, *options.pythons)] + [
            (extra, sys.executable) for extra in options.extras if extra != BASE
        ]:
            rows.append(measured(built[0], extra, python))
            print(rows[-1], file=sys.stderr, flush=True)
            OUT.write_text(page(rows, wheels, built, command=command, code=code))
        for version in options.wheels:
            wheels[version] = without_wheel(version)
            OUT.write_text(page(rows, wheels, built, command=command, code=code))
    finally:
        shutil.rmtree(dist)


if __name__ == "__main__":
    main()
