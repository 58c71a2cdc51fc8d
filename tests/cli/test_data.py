"""`handful data`: what the verbs say of a data set, and the data sets that they write."""

import json
import shutil
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageFilter

import handful.data
from handful.data.layouts.registry import open_dataset


@pytest.fixture
def parts(tmp_path, picture_factory):
    """Two categories in MVTec layout, one defect of three with a mask."""
    for name, part in (("disc", "test/scratch/0"), ("disc", "test/scratch/1"), ("ring_9", "test/dent/0")):
        for number, place in enumerate(("train/good/0", "train/good/1", "test/good/0", part)):
            path = tmp_path / f"parts/{name}/{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture_factory(number + 10 * len(name), side=32)).save(path)
    mask = tmp_path / "parts/disc/ground_truth/scratch/0_mask.png"
    mask.parent.mkdir(parents=True)
    Image.new("L", (32, 32), 255).save(mask)
    return tmp_path / "parts"


@pytest.fixture
def run(command_line):
    """Call `handful data …`."""
    return partial(command_line, "data")


@pytest.mark.parametrize("verb", [[], ["check"], ["meta"], ["corrupt"], ["defects"]])
def test_help_goes_to_stdout_and_exits_0(run, verb):
    code, lines, said = run(*verb, "-h")
    assert (code, said) == (0, [])
    assert any("Usage: handful data" in line for line in lines)


def test_check_says_the_counts_and_what_is_missing(run, parts):
    assert run("check", parts) == (
        0,
        [
            "layout tree, 2 categories",
            "disc    train 2 good, test 1 good and 2 defects, 1 of them with masks",
            "ring_9  train 2 good, test 1 good and 1 defects, 0 of them with masks",
            "disc: no mask for 1 of 2 defect pictures: test/scratch/1.png.",
            "ring_9: there are no masks: image-level metrics only.",
        ],
        [],
    )


def test_check_prints_json(run, parts):
    code, lines, said = run("check", parts, "--json")
    assert (code, said) == (0, [])
    disc, ring, rest = map(json.loads, lines)
    assert disc == {"category": "disc", "train_good": 2, "test_good": 1, "test_defects": 2, "with_masks": 1}
    assert ring == {"category": "ring_9", "train_good": 2, "test_good": 1, "test_defects": 1, "with_masks": 0}
    assert (rest["layout"], len(rest["missing"]), rest["leaks"]) == ("tree", 2, [])


def test_check_names_masks_that_are_no_clean_labels(run, parts):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 255
    soft = Image.fromarray(mask).filter(ImageFilter.GaussianBlur(1))
    (parts / "disc/ground_truth/scratch/0_mask.png").unlink()
    soft.save(parts / "disc/ground_truth/scratch/0_mask.jpg")
    (parts / "ring_9/ground_truth/dent").mkdir(parents=True)
    (parts / "ring_9/ground_truth/dent/0.png").write_text("no picture")
    code, lines, said = run("check", parts)
    sentences = [
        "disc: masks with soft edges or noise count from half of their largest value (1): "
        "disc/ground_truth/scratch/0_mask.jpg.",
        "ring_9: masks that cannot be read (1): ring_9/ground_truth/dent/0.png.",
    ]
    assert (code, said) == (0, []) and lines[-2:] == sentences
    code, lines, _ = run("check", parts, "--json")
    assert (code, json.loads(lines[-1])["masks"]) == (0, sentences)


def test_check_counts_and_names_what_no_category_uses(run, parts):
    for name in ("disc/train/1.png", "disc/train/2.png", "readme.txt"):
        (parts / name).touch()
    code, lines, said = run("check", parts)
    assert (code, said) == (0, [])
    assert lines[-2:] == [
        "left out (1), no picture: readme.txt.",
        "left out (2), used by no category: disc/train/1.png, disc/train/2.png.",
    ]
    left_out = json.loads(run("check", parts, "--json")[1][-1])["left_out"]
    assert [one["path"] for one in left_out] == [
        f"{parts}/{name}" for name in ("disc/train/1.png", "disc/train/2.png", "readme.txt")
    ]


def test_check_fails_where_a_training_picture_is_tested(run, parts):
    shutil.copy(parts / "disc/train/good/1.png", parts / "disc/test/good/5.png")
    sentence = "disc: disc/test/good/5.png is the same file as the training picture disc/train/good/1.png: a leak."
    code, lines, said = run("check", parts)
    assert (code, lines[-1]) == (2, sentence)
    assert said == ["handful: No test picture may be a training picture too, got 1 of them; remove them from one half."]
    code, lines, _ = run("check", parts, "--json")
    assert (code, json.loads(lines[-1])["leaks"]) == (2, [sentence])


def test_check_fails_where_nothing_can_be_used(run, parts):
    code, lines, (said,) = run("check", parts / "disc/train/good")
    assert (code, lines) == (2, [])
    assert "must hold a data set in one of the layouts" in said


@pytest.mark.parametrize("verb", ["check", "meta", "corrupt"])
def test_the_layout_can_be_told(run, parts, tmp_path, verb):
    pytest.importorskip("kornia")
    code, lines, (said,) = run(verb, parts, "--layout", "btad", *(("-o", tmp_path / "o") if verb == "corrupt" else ()))
    assert (code, lines) == (2, [])
    assert "must hold a category with good training pictures and test pictures, got none" in said


def test_meta_writes_the_familys_list_into_the_data_set(run, parts):
    (parts / "meta.json").write_text("old")
    code, lines, said = run("meta", parts)
    assert (code, lines[0]) == (0, f"{parts}/meta.json: 2 categories")
    assert said == [f"handful: The data set lacks something; `handful data check {parts}` says what."]
    content = json.loads((parts / "meta.json").read_text())
    assert [entry["img_path"] for entry in content["train"]["disc"]] == [
        "disc/train/good/0.png",
        "disc/train/good/1.png",
    ]
    assert {entry["anomaly"] for entry in content["test"]["ring_9"]} == {0, 1}


def test_meta_writes_where_it_is_told(run, parts, tmp_path):
    code, lines, _ = run("meta", parts, "-o", tmp_path / "list.json", "--json")
    assert code == 0
    assert json.loads(lines[0])["path"] == str(tmp_path / "list.json")
    assert not (parts / "meta.json").exists()
    assert open_dataset(tmp_path / "list.json").categories == open_dataset(parts).categories


def test_corrupt_writes_a_task_and_takes_several_kinds_at_once(run, parts, tmp_path):
    pytest.importorskip("kornia")
    out = tmp_path / "task"
    code, lines, said = run("corrupt", parts, "-o", out, "--kinds", "jpeg", "contrast", "--severity", "5")
    assert (code, said) == (0, [])
    assert lines == [
        f"{out}: 2 categories",
        "disc    train 2 good, test 1 good and 2 defects, 0 of them with masks",
        "ring_9  train 2 good, test 1 good and 2 defects, 0 of them with masks",
    ]
    assert {path.name for path in (out / "disc/test").iterdir()} == {"good", "jpeg", "contrast"}


def test_corrupt_takes_every_kind_if_none_is_named(run, parts, tmp_path):
    pytest.importorskip("kornia")
    code, lines, _ = run("corrupt", parts, "-o", tmp_path / "task", "--json")
    assert code == 0
    assert [category["test_defects"] for category in json.loads(lines[0])["categories"]] == [7, 7]


def test_corrupt_passes_severity_and_seed_on(run, parts, tmp_path):
    pytest.importorskip("kornia")
    options = {"plain": (), "same": ("--seed", "0", "--severity", "3"), "seed": ("--seed", "1")}
    options["severity"] = ("--severity", "4")
    for name, chosen in options.items():
        assert run("corrupt", parts, "-o", tmp_path / name, "--kinds", "gaussian_noise", *chosen)[0] == 0
    made = {name: (tmp_path / name / "disc/test/gaussian_noise/0.png").read_bytes() for name in options}
    assert made["plain"] == made["same"]
    assert len(set(made.values())) == 3


@pytest.mark.parametrize(
    ("options", "saying"), [(("--kinds", "fog"), "got fog"), (("--severity", "9"), "from 1 to 5, got 9")]
)
def test_corrupt_refuses_what_it_does_not_know(run, parts, tmp_path, options, saying):
    pytest.importorskip("kornia")
    code, lines, (said,) = run("corrupt", parts, "-o", tmp_path / "task", *options)
    assert (code, lines) == (2, [])
    assert saying in said


def test_corrupt_without_kornia_names_the_extra(run, parts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.delitem(sys.modules, "handful.data.corruption", raising=False)
    monkeypatch.delattr(handful.data, "corruption", raising=False)
    code, lines, said = run("corrupt", parts, "-o", tmp_path / "task")
    assert (code, lines) == (2, [])
    assert said == ['handful: `handful data corrupt` needs kornia: pip install "handful[corrupt]".']
    assert not (tmp_path / "task").exists()


def test_defects_writes_a_data_set_from_good_pictures(run, good_folder, tmp_path):
    out = tmp_path / "made"
    code, lines, said = run("defects", good_folder, "-o", out, "--per-image", "3", "--seed", "1")
    assert (code, said) == (0, [])
    assert lines == [f"{out}: 1 category", "made  train 2 good, test 2 good and 6 defects, 6 of them with masks"]
    assert run("check", out)[0] == 0
    assert run("defects", good_folder, "-o", tmp_path / "other", "--per-image", "3")[0] == 0
    assert (out / "test/cut_blob/1_000.png").read_bytes() != (tmp_path / "other/test/cut_blob/1_000.png").read_bytes()


def test_defects_refuses_a_folder_that_is_not_empty(run, good_folder):
    code, lines, (said,) = run("defects", good_folder, "-o", good_folder)
    assert (code, lines) == (2, [])
    assert "must be new, or an empty folder, got a folder that is not empty" in said
