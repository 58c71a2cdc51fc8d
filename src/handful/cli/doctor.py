"""The verb `doctor`: describe this computer, and test a saved inspector on this computer."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handful.cli.options import JsonOption
from handful.cli.output import FAILED, complain, pictures_of, print_json, say
from handful.errors import HandfulError, SettingError, install_command

if TYPE_CHECKING:
    from handful.evaluation.selftest import SelfTest

BEGIN = "----- for a bug report: names no people, files, folders or computers -----"
END = "----- end -----"


def doctor(
    inspector: Annotated[Path | None, typer.Argument(help="A saved inspector to test, NAME.handful.")] = None,
    references: Annotated[
        list[Path] | None,
        typer.Option(help="The pictures that it was fitted on, or their folder; default: the thumbnails in its file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what this computer has, and test a saved inspector on its own references.

    An inspector's file is checked against its digests, its references are scored, and their features are compared with
    those in the file. Exit code 0 if all is well, 2 if not.
    """
    if references and inspector is None:
        raise SettingError("`--references` must come with the inspector that was fitted on them, got none; name it.")
    from handful.evaluation import machine

    described = machine.describe()
    problems, said, tested, broken = list(described.problems), list(described.problems), None, None
    if inspector is not None:
        try:
            tested = _tested(inspector, references)
            problems, said = problems + list(tested.problems), said + list(tested.problems)
        except HandfulError as error:
            broken = type(error).__name__
            problems.append(f"The inspector cannot be used: {broken}.")
            said.append(str(error))  # may name files
        except ModuleNotFoundError as error:
            broken = type(error).__name__
            said.append(f"{inspector} needs {error.name} to inspect, got none; run: {install_command('fit')}.")
            problems.append(f"The inspector needs {error.name}, which is not installed.")
    if as_json:
        print_json(
            {
                "well": not problems,
                "machine": described.facts,
                "inspector": {"error": broken} if broken else tested and asdict(tested),
                "problems": problems,
            }
        )
    else:
        for line in (BEGIN, *_machine_lines(described.facts), *_inspector_lines(tested), *_closing(problems), END):
            say(line)
    for sentence in said:
        complain(sentence)
    if problems:
        raise typer.Exit(FAILED)


def _tested(inspector: Path, references: list[Path] | None) -> "SelfTest":
    from handful.evaluation.selftest import self_test

    if not references:
        return self_test(inspector)
    found = pictures_of(references, recursive=True).sources
    return self_test(inspector, [source for source, _ in found if isinstance(source, Path)])


def _machine_lines(facts: dict[str, Any]) -> Iterator[str]:
    cores, memory, engines = facts["cores"], facts["memory"], facts["engines"]
    yield _row("handful", facts["handful"])
    yield _row("python", facts["python"])
    yield _row("system", facts["system"])
    granted = f", {cores['granted']:g} granted" if cores["granted"] else ""
    yield _row("cpu", f"{facts['cpu']}; {cores['usable']} of {cores['there']} cores usable{granted}")
    sizes = [f"{memory[name]:.1f} GB {name}" for name in ("there", "free", "granted") if memory[name] is not None]
    yield _row("memory", ", ".join(sizes) or "unknown")
    yield _row("threads", ", ".join(f"{name}={value}" for name, value in facts["settings"].items()) or "as by default")
    if openvino := engines["openvino"]:
        threads = f", {openvino['threads']} threads" if openvino["threads"] else ""
        yield _row("openvino", f"{openvino['version']}: {', '.join(openvino['precisions']) or 'does not run'}{threads}")
    else:
        yield _row("openvino", "not installed")
    if torch := engines["torch"]:
        yield _row("torch", f"{torch['version']}, {torch['threads']} threads, CUDA {torch['cuda'] or 'none'}")
        gpus = ", ".join(f"{gpu['name']}, {gpu['gigabytes']:.0f} GB" for gpu in torch["gpus"])
        yield _row("gpu", gpus or "none that torch finds")
    else:
        yield _row("torch", "not installed: inspecting works where an inspector holds its graph")
        yield _row(
            "gpu", f"driver {facts['nvidia driver']}, for which torch is needed" if facts["nvidia driver"] else "none"
        )
    yield _row("packages", _versions(facts["packages"]))
    for extra, found in facts["extras"].items():
        lacking = "" if found["whole"] else f"; for all of it: {install_command(extra)}"
        yield _row(f"[{extra}]", _versions(found["packages"]) + lacking)
    weights = facts["weights"]
    cached = f"; in the hub's cache: {', '.join(weights['cached'])}" if weights["cached"] else ""
    yield _row("weights", f"on board: {', '.join(weights['on board']) or 'none'}{cached}")


def _versions(packages: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'missing'}" for name, version in packages.items()) or "unknown"


def _inspector_lines(tested: "SelfTest | None") -> Iterator[str]:
    if tested is None:
        return
    facts = tested.facts
    height, width = facts["input"]
    yield _row(
        "inspector",
        f"digest {tested.digest}, {facts['bytes'] / 1e6:.1f} MB, format {facts['format']}, by handful "
        f"{facts['saved by']}; every entry as it was saved",
    )
    yield _row(
        "method",
        f"{facts['method']} on {facts['backbone']}, {width} x {height}, {facts['engine']} {facts['precision']}",
    )
    for test in tested.references:
        score = "" if test.score is None else f" {test.score:.2f}"
        yield _row(
            f"reference {test.number}",
            f"{test.verdict}{score}, features {test.difference:.2g} of their length off, by its {test.picture}",
        )
    if saved := facts["graph as saved"]:
        here = f"by {max(tested.graph):.1g} here" if tested.graph else "not compared here, where torch is not installed"
        there = f"by {max(saved):.1g} where it was fitted"
        yield _row("graph", f"off its method in torch, as a share of the threshold's score: {here}, {there}")
    else:
        yield _row("graph", "none: inspecting needs torch")


def _closing(problems: list[str]) -> Iterator[str]:
    for sentence in problems:
        yield _row("problem", sentence)
    if not problems:
        yield _row("problems", "none")


def _row(label: str, value: str) -> str:
    return f"{label:<11} {value}"
