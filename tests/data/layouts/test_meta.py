"""meta.json is read and written as FASL and AnomalyCLIP do."""

import json
from dataclasses import replace

import pytest

from handful.data.layouts import meta, mvtec, tree, visa
from handful.errors import InputError, OutputError
from handful.types import Category, Dataset, Sample


@pytest.fixture
def bottle(tmp_path):
    """MVTec AD with one category."""
    for name in (
        *("train/good/001.png", "train/good/000.png", "test/good/000.png", "test/broken_small/000.png"),
        *("ground_truth/broken_small/000_mask.png",),
    ):
        (tmp_path / "bottle" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bottle" / name).touch()
    return tmp_path


@pytest.fixture
def candle(tmp_path):
    """VisA with one category."""
    rows = [
        *(
            "candle,train,normal,candle/Data/Images/Normal/2.JPG,",
            "candle,train,normal,candle/Data/Images/Normal/0.JPG,",
        ),
        "candle,test,normal,candle/Data/Images/Normal/1.JPG,",
        "candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png",
    ]
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text("\n".join(["object,split,label,image,mask", *rows]))
    for name in (name for row in rows for name in row.split(",")[3:] if name):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def picture(path, mask, specie, anomaly, *, category="bottle"):
    return {"img_path": path, "mask_path": mask, "cls_name": category, "specie_name": specie, "anomaly": anomaly}


def test_mvtec_is_written_as_the_family_writes_it(bottle):
    meta.write(mvtec.read(bottle), bottle / "meta.json")
    mask = "bottle/ground_truth/broken_small/000_mask.png"
    content = {
        "train": {
            "bottle": [
                picture("bottle/train/good/000.png", "", "good", 0),
                picture("bottle/train/good/001.png", "", "good", 0),
            ]
        },
        "test": {
            "bottle": [
                picture("bottle/test/broken_small/000.png", mask, "broken_small", 1),
                picture("bottle/test/good/000.png", "", "good", 0),
            ]
        },
    }
    assert (bottle / "meta.json").read_text() == json.dumps(content, indent=4) + "\n"


def test_visa_is_written_in_the_order_of_its_table_and_without_species(candle):
    meta.write(visa.read(candle), candle / "meta.json")
    content = json.loads((candle / "meta.json").read_text())
    images, mask = "candle/Data/Images", "candle/Data/Masks/Anomaly/0.png"
    assert content["train"]["candle"] == [
        picture(f"{images}/Normal/2.JPG", "", "", 0, category="candle"),
        picture(f"{images}/Normal/0.JPG", "", "", 0, category="candle"),
    ]
    assert content["test"]["candle"] == [
        picture(f"{images}/Normal/1.JPG", "", "", 0, category="candle"),
        picture(f"{images}/Anomaly/0.JPG", mask, "", 1, category="candle"),
    ]


@pytest.mark.parametrize("at", ["meta.json", "elsewhere/list.json"])
@pytest.mark.parametrize("layout", ["mvtec", "visa", "tree"])
def test_what_is_written_is_read_back(request, layout, at):
    root = request.getfixturevalue("candle" if layout == "visa" else "bottle")
    dataset = {"mvtec": mvtec, "visa": visa, "tree": tree}[layout].read(root)
    (root / at).parent.mkdir(exist_ok=True)
    meta.write(dataset, root / at)
    again = meta.read(root / at)
    assert again.categories == dataset.categories
    assert (again.layout, again.root, again.missing) == ("meta", str(root / at), ())


def test_a_folder_that_holds_it_is_detected_and_read(bottle):
    assert not meta.detect(bottle) and not meta.detect(bottle / "bottle/train/good/000.png")
    meta.write(mvtec.read(bottle), bottle / "meta.json")
    assert meta.detect(bottle) and meta.detect(bottle / "meta.json")
    assert meta.read(bottle).categories == mvtec.read(bottle).categories


def test_files_that_are_absent_and_defects_in_train_are_left_out_and_named(bottle):
    meta.write(mvtec.read(bottle), bottle / "meta.json")
    content = json.loads((bottle / "meta.json").read_text())
    content["train"]["bottle"].append(picture("bottle/test/broken_small/000.png", "", "broken_small", 1))
    (bottle / "meta.json").write_text(json.dumps(content))
    (bottle / "bottle/train/good/001.png").unlink()
    (bottle / "bottle/ground_truth/broken_small/000_mask.png").unlink()
    dataset = meta.read(bottle)
    assert dataset.categories[0].train == (str(bottle / "bottle/train/good/000.png"),)
    assert dataset.missing == (
        "bottle: meta.json lists pictures that are not there (1): bottle/train/good/001.png.",
        "bottle: meta.json has defects in train, left out (1): bottle/test/broken_small/000.png.",
        "bottle: there are no masks: image-level metrics only.",
    )


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"train": {}}', '{"train": [], "test": 3}', '{"train": {"a": null}, "test": {}}']
)
def test_a_damaged_file_is_refused_with_its_name(tmp_path, text):
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(InputError, match=r"meta\.json must be a readable meta\.json with train and test"):
        meta.read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"anomaly": 2}, {"anomaly": "1"}, {"img_path": None}, {"mask_path": 3}, {"specie_name": []}, None],
)
def test_a_damaged_picture_is_refused_with_file_and_category(bottle, change):
    meta.write(mvtec.read(bottle), bottle / "meta.json")
    content = json.loads((bottle / "meta.json").read_text())
    entries = content["test"]["bottle"]
    entries[0] = entries[0] | change if change else {"img_path": "a.png"}
    (bottle / "meta.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"Every picture of bottle in .*meta\.json must have img_path"):
        meta.read(bottle)


def test_pictures_that_it_cannot_hold_are_refused_and_nothing_is_written(tmp_path):
    for sample in (Sample("b.png", True, "dent", ("1.png", "2.png")), Sample("b.png", None, "dent")):
        dataset = Dataset("tree", str(tmp_path), (Category("gear", ("a.png",), (sample,)),))
        with pytest.raises(InputError, match=r"a label and at most one mask, got (2 masks|no label) for b\.png"):
            meta.write(dataset, tmp_path / "meta.json")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_refused(bottle):
    with pytest.raises(OutputError, match="meta.json must be writable"):
        meta.write(replace(mvtec.read(bottle), missing=()), bottle / "none/meta.json")
