"""The verbs threshold and teach on the command line."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from handful.saved import archive
from handful.saved.history import history_of


@pytest.fixture
def own(saved, tmp_path, ready_backbone):
    """An inspector that the test may change."""
    return shutil.copy(saved, tmp_path / "own.handful")


@pytest.fixture
def more(tmp_path, picture_factory):
    """A folder of five further good pictures."""
    folder = tmp_path / "more"
    folder.mkdir()
    for seed in range(50, 55):
        Image.fromarray(picture_factory(seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def odd(tmp_path, picture_factory):
    path = tmp_path / "odd.png"
    Image.fromarray(picture_factory(51, defect=True)).save(path)
    return path


def refused(ran, saying):
    code, out, (line,) = ran
    assert (code, out) == (2, []) and re.search(saying, line), ran


def test_threshold_alone_shows_what_it_rests_on_without_changing_the_file(command_line, own):
    before = own.read_bytes()
    code, out, err = command_line("threshold", own)
    assert (code, err) == (0, [])
    assert [line[:11].strip() for line in out] == ["threshold", "rejects", "range", "rests on"]
    assert "about 3 of 100 good parts, as 4 good pictures predict" in out[1]
    (answer,) = map(json.loads, command_line("threshold", own, "--json")[1])
    assert answer["low"] < answer["raw_threshold"] < answer["high"] and answer["pictures"] == 4 and not answer["edited"]
    assert own.read_bytes() == before


def test_threshold_says_that_it_was_edited(command_line, own, rezip):
    calibration = archive.read(own)[1] | {"threshold": 9.0}
    path = rezip(own, {"calibration.json": json.dumps(calibration).encode()})
    assert "by a person" in command_line("threshold", path)[1][-1]


def test_threshold_is_sharpened_and_set_anew(command_line, own, more):
    code, out, err = command_line("threshold", own, "--normals", more, "--rate", "0.02", "--accept-odd")
    assert (code, err) == (0, [])
    assert "revision 1, further good: " in out[0] and "and 2 more" in out[0] and "revision 2, rate 0.02" in out[1]
    assert re.match(r"threshold +[\d.]+ → [\d.]+ \(", out[2])
    assert "about 3 of 100 → about 2 of 100 good parts, as 9 good pictures predict" in out[3]
    assert archive.read(own)[1]["references"] == 9
    (line,) = command_line("threshold", own, "--set", "7", "--json")[1]
    assert json.loads(line)["after"]["raw_threshold"] == 7


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (("--set", "1", "--rate", "0.1"), "must stand alone"),
        (("--rate", "0.9"), "false-alarm rate"),
        (("--set", "0"), "above the score of a typical good part"),
        (("--normals", "nowhere.png"), "nowhere.png must be a readable picture"),
    ],
)
def test_threshold_refuses_in_a_sentence_and_leaves_the_file(command_line, own, arguments, saying):
    before = own.read_bytes()
    refused(command_line("threshold", own, *arguments), saying)
    assert own.read_bytes() == before


def test_a_false_alarm_is_taught_logged_and_undone(command_line, own, odd):
    assert command_line("inspect", own, odd)[0] == 1
    refused(command_line("teach", own, "--good", odd), r"which scores [\d.]+, .*--accept-odd")
    code, out, _ = command_line("teach", own, "--good", odd, "--accept-odd")
    assert code == 0
    assert re.search(r"revision 1, learnt as good: .*odd\.png, [\d.]+ s$", out[0])
    assert re.match(r"score [\d.]+ → -?[\d.]+ ", out[1]) and "as before" in out[2]
    assert command_line("inspect", own, odd)[0] == 0
    assert command_line("teach", own, "--undo", "1")[0] == 0
    assert command_line("inspect", own, odd)[0] == 1
    code, out, err = command_line("teach", own, "--log")
    assert (code, err) == (0, []) and len(out) == 2
    assert out[0].endswith("(undone)") and "undid 1" in out[1]
    first, second = (json.loads(line) for line in command_line("teach", own, "--log", "--json")[1])
    assert first["undone"] and not second["undone"] and first["pictures"][0]["sha256"]


def test_a_region_is_ignored(command_line, own, tmp_path):
    mask = np.zeros((30, 20), dtype=np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    code, out, _ = command_line("teach", own, "--ignore", tmp_path / "mask.png")
    assert code == 0 and re.search(r"ignores the region of .*mask\.png, 3[23] % of the frame", out[0])
    assert re.match(r"ignored now +3[23]\.\d % of the frame$", out[1])
    assert "ignored.safetensors" in archive.read(own)[2]


def test_a_missed_defect_is_taken_at_a_named_cost(command_line, own, odd):
    command_line("threshold", own, "--set", "50")
    refused(command_line("teach", own, "--defect", odd), "--accept-cost")
    assert command_line("teach", own, "--defect", odd, "--accept-cost")[0] == 0
    assert command_line("inspect", own, odd)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        ((), "none; see `handful teach --help`"),
        (("--log", "--undo", "1"), "2; do one after the other"),
        (("--good", "a.png", "--defect", "b.png"), "2; do one after the other"),
    ],
)
def test_teach_does_one_thing_at_a_time(command_line, own, arguments, got):
    refused(command_line("teach", own, *arguments), f"one of --good, --ignore.*, got {re.escape(got)}")


def test_teach_takes_several_pictures_after_one_option(command_line, own, more):
    command_line("teach", own, "--good", *sorted(more.iterdir())[:2], "--json")
    history = history_of(archive.read(own)[2])
    assert len(history.revisions[0].pictures) == 2


def test_info_tells_of_revisions(command_line, own, odd):
    assert any(re.match(r"revisions +none$", line) for line in command_line("info", own)[1])
    command_line("teach", own, "--good", odd, "--accept-odd")
    command_line("teach", own, "--undo", "1")
    assert any(re.match(r"revisions +2, 1 undone", line) for line in command_line("info", own)[1])
    (answer,) = map(json.loads, command_line("info", own, "--json")[1])
    assert [one["kind"] for one in answer["revisions"]] == ["good", "undo"] and answer["basis"]["pictures"] == 4


@pytest.mark.parametrize("verb", ["threshold", "teach"])
def test_help_needs_no_torch(verb):
    code = (
        f"import sys; sys.argv = ['handful', {verb!r}, '--help']\nfrom handful.cli import main\n"
        "try:\n    main.main()\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "False" and "Usage:" in ran.stdout
