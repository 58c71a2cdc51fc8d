"""After `fit` and `inspect` a person at a terminal reads which command comes next; programs and files do not."""

import shlex

import pytest
from PIL import Image

from handful.cli import output


@pytest.fixture
def terminals(monkeypatch):
    """Let either output be a terminal, or not."""

    def be(*, out: bool, err: bool) -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: out)
        monkeypatch.setattr("sys.stderr.isatty", lambda: err)
        monkeypatch.setenv("TERM", "dumb")

    return be


def suggested(lines):
    return [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]


def test_fit_names_inspect_which_names_the_report_and_teach(
    terminals, command_line, ready_backbone, good_folder, picture_factory, tmp_path
):
    terminals(out=True, err=True)
    place = tmp_path / "my parts"
    place.mkdir()
    Image.fromarray(picture_factory(9, defect=True)).save(place / "9.png")
    code, _, errors = command_line("fit", good_folder, "-o", place / "part.handful", "--size", "64")
    (following,) = suggested(errors)
    assert code == 0
    head, _, command = following.partition(": ")
    assert head == "inspect pictures"
    words = [
        {"PICTURES": str(place), "report": str(tmp_path / "report")}.get(word, word) for word in shlex.split(command)
    ]
    code, _, errors = command_line(*words[1:])
    assert code == 1
    opening, teaching = suggested(errors)
    assert opening == f"open {tmp_path / 'report' / 'index.html'} in a browser"
    head, _, command = teaching.partition(": ")
    assert head == f"if {place / '9.png'} is good"
    assert shlex.split(command) == ["handful", "teach", str(place / "part.handful"), "--good", str(place / "9.png")]
    _, said, _ = command_line(*shlex.split(command)[1:], "--accept-odd")  # it is a defect, after all
    assert "learnt as good" in said[0]


def test_inspect_without_a_report_names_the_report(terminals, command_line, saved, good_folder):
    terminals(out=True, err=True)
    _, _, errors = command_line("inspect", saved, good_folder / "0.png")
    assert suggested(errors) == ["see where the defects are: the same command with --report FOLDER"]


@pytest.mark.parametrize(("out", "err"), [(True, False), (False, True), (False, False)])
def test_nothing_is_suggested_to_programs(out, err, terminals, capsys):
    terminals(out=out, err=err)
    output.suggest("do that")
    assert capsys.readouterr() == ("", "")


def test_with_json_nothing_is_suggested(terminals, command_line, saved, good_folder):
    terminals(out=True, err=True)
    _, _, errors = command_line("inspect", saved, good_folder / "0.png", "--json")
    assert not suggested(errors)
