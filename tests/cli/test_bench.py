"""`handful bench`: options, rows on stdout, pages in the folder."""

import json

import pytest
from PIL import Image

QUICK = ("--size", "64", "--engine", "torch", "--device", "cpu")


@pytest.fixture
def tree(tmp_path, picture_factory):
    """One category in MVTec layout."""
    for part, seeds, defect in (("train/good", 3, False), ("test/good", 2, False), ("test/scratch", 2, True)):
        folder = tmp_path / "parts/disc" / part
        folder.mkdir(parents=True)
        for seed in range(seeds):
            Image.fromarray(picture_factory(10 * len(part) + seed, defect=defect)).save(folder / f"{seed}.png")
    return tmp_path / "parts"


def test_a_benchmark_writes_its_folder(command_line, ready_backbone, tree, tmp_path):
    out = tmp_path / "out"
    options = ("--methods", "patchcore", "fastrecon:lam=0.5", "--shots", "1", "2", "--seeds", "0", "1", "--json")
    code, lines, said = command_line("bench", "--data", f"parts:{tree}", *options, "--out", out, *QUICK)
    assert code == 0, said
    rows = [json.loads(line) for line in lines]
    assert {(row["method"], row["shots"], row["seed"]) for row in rows} == {
        (method, shots, seed) for method in ("patchcore", "fastrecon:lam=0.5") for shots in (1, 2) for seed in (0, 1)
    }
    assert said[0] == "8 cells"
    assert "target-only" in (out / "summary.md").read_text()
    environment = json.loads((out / "environment.json").read_text())
    assert environment["test_sets"] == {"parts": {"disc": {"good": 2, "anomalous": 2, "masks": 0}}}
    assert environment["command"].startswith("handful bench --data")
    assert list((out / "plots").glob("*.png"))
    sheets = sorted(path.name for path in (out / "sheets/parts").iterdir())
    assert sheets == ["disc-fastrecon_lam=0.5.png", "disc-patchcore.png"]
    assert len((out / "results.csv").read_text().splitlines()) == 9

    code, lines, said = command_line("bench", "--data", f"parts:{tree}", *options, "--out", out, *QUICK)
    assert (code, lines, said[0]) == (0, [], "8 cells, 8 done before")


def test_winclip_without_references_has_a_page_with_empty_thresholds(command_line, tree, tiny_clip, tmp_path):
    out = tmp_path / "out"
    options = ("--methods", "winclip", "--shots", "0", "1", "2", "--seeds", "0", "1", "--backbone", tiny_clip)
    quick = ("--weights", "random", "--device", "cpu", "--rate", "0.05")
    code, lines, said = command_line("bench", "--data", f"parts:{tree}", *options, *quick, "--out", out)
    assert code == 0, said
    assert said[0] == "5 cells"
    assert "parts disc  winclip  0 shots  seed 0  image AUROC" in lines[0]
    rows = (out / "results.csv").read_text().splitlines()
    assert sum(",winclip,target-only,clip:tiny-clip (random weights)," in row for row in rows) == 5
    summary = (out / "summary.md").read_text()
    assert "| 0 shots | 1 shot | 2 shots |" in summary and "| disc (seeds 0) | 0 | winclip |" in summary
    assert [path.name for path in (out / "sheets/parts").iterdir()] == ["disc-winclip.png"]
    assert list((out / "plots").glob("*.png"))


def test_bench_takes_no_size_that_is_yet_to_be_chosen(command_line, tree, tmp_path):
    code, _, said = command_line("bench", "--data", f"parts:{tree}", "--out", tmp_path / "out", "--size", "auto")
    assert code == 2 and "`--size` must be one number or WIDTHxHEIGHT here, got 'auto', which `fit` alone" in said[-1]


def test_a_failed_cell_is_said_and_ends_with_2(command_line, ready_backbone, tree, tmp_path):
    options = ("--methods", "patchcore", "--shots", "1", "9", "--seeds", "0", "--no-sheets")
    code, lines, said = command_line("bench", "--data", f"parts:{tree}", *options, "--out", tmp_path / "out", *QUICK)
    assert code == 2
    assert "FAILED: `shots` must be from 1 to the 3 pictures there are, got 9." in lines[0]
    assert "image AUROC" in lines[1]
    assert said[-1] == "handful: 1 of 2 cells failed; their column error says why."
    assert not (tmp_path / "out/sheets").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data", "{tree}"], "`--data` must be NAME:FOLDER"),
        (["--data", "a b:{tree}"], "`--data` must be NAME:FOLDER"),
        (["--data", "parts:{tree}", "parts:{tree}"], "got parts twice"),
        (["--data", "parts:{tree}/missing"], "A data set must exist"),
        (["--data", "parts:{tree}", "--categories", "plate"], "`--categories` must be among disc, got 'plate'"),
        (["--data", "parts:{tree}", "--layout", "magic"], "`layout` must be auto or one of"),
        (["--data", "parts:{tree}", "--methods", "magic"], "`method` must be one of"),
        (["--data", "parts:{tree}", "--methods", "fastrecon:lam"], "A setting must be NAME=VALUE"),
        (["--data", "parts:{tree}", "--shots", "few"], "`--shots` must be whole numbers from 0, or all, got 'few'"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(command_line, ready_backbone, tree, tmp_path, options, sentence):
    filled = [option.format(tree=tree) for option in options]
    code, lines, said = command_line("bench", *filled, "--out", tmp_path / "out", *QUICK)
    assert (code, lines, len(said)) == (2, [], 1)
    assert sentence in said[0]
