"""`handful train`: weights that `handful fit --weights` takes."""

import json

import pytest

from handful.cli.train import VERBS
from handful.methods import TUNINGS

SHORT = ("--set", "updates=2", "--set", "size=64", "--device", "cpu")
QUICK = (*SHORT, "--set", "sources=1")
SMALL = {"reb": "sources=1", "coft": "pictures=4"}


@pytest.mark.parametrize("name", sorted(VERBS))
def test_trained_weights_are_fitted_with(command_line, good_folder, tmp_path, name):
    weights = tmp_path / "tuned.safetensors"
    options = (*SHORT, "--set", SMALL[name], "--shots", "2", "--json")
    code, lines, _ = command_line("train", name, good_folder, "-o", weights, *options)
    assert code == 0
    answer = json.loads(lines[0])
    assert answer["path"] == str(weights)
    assert answer["settings"]["updates"] == 2 and answer["loss"] > 0
    inspector = tmp_path / "part.handful"
    fitted = ("--weights", weights, "--size", "64", "--engine", "torch", "--device", "cpu")
    assert command_line("fit", good_folder, "-o", inspector, *fitted)[0] == 0
    code, lines, _ = command_line("info", inspector)
    assert any(f"weights trained by {name} on 2 references" in line for line in lines)


def test_words_say_what_was_trained(command_line, good_folder, tmp_path):
    code, lines, _ = command_line("train", "reb", good_folder, "-o", tmp_path / "tuned.safetensors", *QUICK)
    assert code == 0
    assert "tf_efficientnet_lite0 trained by reb on 4 good pictures" in lines[0]


def test_every_training_has_its_verb_and_says_what_it_does(command_line):
    assert list(VERBS) == list(TUNINGS)
    for name, said in VERBS.items():
        code, lines, _ = command_line("train", name, "--help")
        assert code == 0
        text = " ".join(" ".join(lines).split())
        assert said.split(",")[0] in text and "NAME.safetensors.checkpoint holds how far it came" in text


def test_a_full_schedule_must_be_known(command_line, good_folder, tmp_path):
    code, lines, said = command_line("train", "coft", good_folder, "-o", tmp_path / "tuned.safetensors", "--full")
    assert (code, lines, len(said)) == (2, [], 1)
    assert "authors' schedule is known, got coft" in said[0]


def test_the_authors_schedule_is_taken_where_it_is_known(command_line, good_folder, tmp_path):
    short = ("--full", "--set", "updates=1", "--set", "sources=1", "--set", "size=64", "--device", "cpu", "--json")
    code, lines, _ = command_line("train", "reb", good_folder, "-o", tmp_path / "tuned.safetensors", *short)
    assert code == 0
    assert json.loads(lines[0])["settings"]["lr"] == 0.03


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--set", "magic=1"], "reb has the settings"),
        (["--set", "updates=0"], "`updates` must be at least 1"),
        (["--backbone", "magic"], "`backbone` must be a name that timm knows"),
        (["--shots", "9"], "`shots` must be from 1 to the 4 pictures"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(command_line, good_folder, tmp_path, options, sentence):
    code, lines, said = command_line("train", "reb", good_folder, "-o", tmp_path / "tuned.safetensors", *options)
    assert (code, lines, len(said)) == (2, [], 1)
    assert sentence in said[0]


def test_a_folder_that_is_not_there_is_said_before_training(command_line, good_folder, tmp_path):
    code, _, said = command_line("train", "reb", good_folder, "-o", tmp_path / "missing/tuned.safetensors", *QUICK)
    assert code == 2
    assert "The folder of the weights must exist" in said[0]
