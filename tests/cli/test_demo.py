"""`handful demo`, and what `handful` says to somebody who has just installed it."""

import json
import webbrowser
from importlib.util import find_spec
from pathlib import Path

import pytest

from handful import errors
from handful.cli import demo as demo_module
from handful.cli import main as main_module
from handful.cli import output
from handful.metrics import image_auroc


@pytest.fixture
def few(monkeypatch):
    """Few drawn pictures: drawing one takes half a second."""
    monkeypatch.setattr(demo_module, "DRAWN", {"references": 2, "good": 1, "defective": 6})


@pytest.fixture
def opened(monkeypatch):
    """The addresses that were opened in a browser."""
    addresses = []
    monkeypatch.setattr(webbrowser, "open", addresses.append)
    return addresses


def test_the_demo_of_drawn_pictures_finds_defects_and_writes_the_report(few, opened, command_line, tmp_path):
    out = tmp_path / "made" / "demo"
    code, said, _ = command_line("demo", "--drawn", "--out", out)
    assert code == 0
    assert "drawn by this program, so the verdicts say nothing about real parts" in said[0]
    commands = [line for line in said if line.startswith("$ handful ")]
    assert [line.split()[2] for line in commands] == ["fit", "inspect"]
    verdicts = {line.split()[2]: line.split()[0] for line in said if line.startswith(("OK", "DEFECT"))}
    assert len(verdicts) == 7
    assert verdicts["good/000.png"] == "OK"
    assert verdicts["defective/005_chipped_edge.png"] == "DEFECT"
    assert any(line.endswith("of 6 defective parts rejected, 0 of 1 good ones; image AUROC 100.0 %") for line in said)
    assert said[-1] == f"report: {out / 'report' / 'index.html'}"
    assert "chipped_edge" in (out / "report" / "index.html").read_text()
    assert (out / "part.handful").is_file()
    assert not opened  # without a terminal no browser

    before = sorted(out.rglob("*"))
    code, said, (sentence,) = command_line("demo", "--drawn", "--out", out)
    assert (code, said) == (2, [])
    assert sentence.endswith(
        "must be new, or an empty folder, got a folder that is not empty; choose another with --out FOLDER."
    )
    assert sorted(out.rglob("*")) == before


@pytest.fixture
def quick_verbs(monkeypatch):
    """Verbs that answer without work, so that only the demo itself is under test."""
    answer = {"verdict": "OK", "score": 0.5}

    def inspect(inspector, pictures, **options):
        for name in ("good/1.png", "defective/2.png"):
            output.print_json({**answer, "path": f"incoming/{name}"})
        output.print_json({"pictures": 2})
        raise demo_module.typer.Exit(1)

    def fit(good, output, **options):
        Path(output).touch()
        if options["as_json"]:
            demo_module.print_json({"seconds": 1.0})

    monkeypatch.setattr(demo_module, "fit", fit)
    monkeypatch.setattr(demo_module, "inspect", inspect)


@pytest.mark.skipif(find_spec("elpv_dataset") is None, reason="needs the extra demo")
def test_the_demo_takes_solar_cells_where_they_are_installed(quick_verbs, command_line, tmp_path):
    code, (line,), _ = command_line("demo", "--out", tmp_path / "demo", "--json")
    assert code == 0
    said = json.loads(line)
    assert said["pictures"] == "solar cells"
    assert (said["good"], said["defective"], said["image_auroc"]) == (1, 1, 50)
    counts = {place: len(list((tmp_path / "demo" / place).iterdir())) for place in ("good", "incoming/good")}
    assert counts == {"good": 4, "incoming/good": 40}
    assert len(list((tmp_path / "demo" / "incoming" / "defective").iterdir())) == 40


def test_the_demo_draws_where_there_are_no_solar_cells(quick_verbs, few, command_line, monkeypatch, tmp_path):
    monkeypatch.setattr(demo_module, "_cells", lambda: None)
    code, (line,), _ = command_line("demo", "--out", tmp_path / "demo", "--json")
    assert code == 0
    assert json.loads(line)["pictures"] == "drawn"
    assert len(list((tmp_path / "demo" / "good").iterdir())) == 2


@pytest.mark.parametrize(
    ("terminal", "screen", "flags", "opens"),
    [(True, True, (), 1), (True, True, ("--no-open",), 0), (True, False, (), 0), (False, True, (), 0)],
)
def test_a_browser_opens_where_a_person_sits(
    terminal, screen, flags, opens, quick_verbs, few, opened, command_line, monkeypatch, tmp_path
):
    monkeypatch.setattr(demo_module, "_has_screen", lambda: screen)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    code, _, _ = command_line("demo", "--drawn", "--out", tmp_path / "demo", *flags)
    assert code == 0
    assert len(opened) == opens
    assert all(address == (tmp_path / "demo" / "report" / "index.html").as_uri() for address in opened)


def test_the_auroc_is_that_of_the_metrics():
    scores = {"good": [0.1, 0.4, 0.4], "defective": [0.4, 0.9, 0.2]}
    inspections = [
        {"path": f"incoming/{kind}/{score}.png", "verdict": "DEFECT" if score > 0.3 else "OK", "score": score}
        for kind, values in scores.items()
        for score in values
    ]
    found = demo_module._found(inspections)
    assert found["image_auroc"] == pytest.approx(
        100 * image_auroc([0, 0, 0, 1, 1, 1], [*scores["good"], *scores["defective"]])
    )
    assert (found["defective_rejected"], found["good_rejected"]) == (2, 2)


def test_without_torch_one_sentence_says_how_to_get_it(command_line, monkeypatch, tmp_path):
    find = errors.find_spec
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "torch" else find(name))
    code, said, (sentence,) = command_line("demo", "--out", tmp_path / "demo")
    assert (code, said) == (2, [])
    assert 'pip install "handful[fit]"' in sentence
    assert not (tmp_path / "demo").exists()


def test_handful_alone_names_the_first_commands(command_line):
    code, said, on_stderr = command_line()
    assert (code, on_stderr) == (0, [])
    assert said == main_module.FIRST.splitlines()
    named = {line.split("  handful ")[1].split()[0] for line in said if "  handful " in line}
    assert named - {"--help"} <= {command.callback.__name__ for command in main_module.app.registered_commands}
    assert {"demo", "fit", "inspect", "teach", "doctor"} <= named


def test_handful_alone_says_what_its_first_commands_need(command_line, monkeypatch):
    find = errors.find_spec
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "torch" else find(name))
    code, said, on_stderr = command_line()
    assert (code, on_stderr, said[:-1]) == (0, [], main_module.FIRST.splitlines())
    assert "the demo" in said[-1] and said[-1].endswith(': pip install "handful[fit]"')


def test_a_command_line_to_copy_is_quoted():
    assert output.command_of("fit", "my parts", "-o", "a.handful") == "handful fit 'my parts' -o a.handful"
