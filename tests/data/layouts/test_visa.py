"""VisA is read as published, by its table of the split, and as its authors' script lays it out."""

import pytest

from handful.data.layouts.visa import OFFICIAL, detect, published_order, read
from handful.errors import InputError
from handful.types import Sample

ROWS = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0002.JPG,
candle,train,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0001.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,candle/Data/Masks/Anomaly/001.png
pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,
"""


@pytest.fixture
def published(tmp_path):
    return write(tmp_path, ROWS)


def write(root, rows):
    """The table and every file that it names."""
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv/1cls.csv").write_text(rows)
    for name in (name for line in rows.splitlines()[1:] for name in line.split(",")[3:]):
        if name.startswith("candle"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    return root


def test_the_official_set_has_as_many_pictures_as_the_table_of_the_split():
    assert [sum(counts) for counts in zip(*OFFICIAL.values(), strict=True)] == [8659, 962, 1200]


def test_the_published_layout_is_split_by_its_table(published):
    assert detect(published)
    dataset = read(published)
    images, masks = published / "candle/Data/Images", published / "candle/Data/Masks"
    (candle,) = dataset.categories
    assert candle.train == (str(images / "Normal/0000.JPG"), str(images / "Normal/0002.JPG"))
    assert candle.test == (
        Sample(str(images / "Anomaly/000.JPG"), True, "anomaly", (str(masks / "Anomaly/000.png"),)),
        Sample(str(images / "Anomaly/001.JPG"), True, "anomaly", (str(masks / "Anomaly/001.png"),)),
        Sample(str(images / "Normal/0001.JPG"), False, "good"),
    )
    assert "candle: 2 of 900 training pictures." in dataset.missing
    assert "pcb1: the category is absent." in dataset.missing


def test_listed_pictures_that_are_absent_are_left_out_and_named(published):
    (published / "candle/Data/Images/Normal/0002.JPG").unlink()
    (published / "candle/Data/Masks/Anomaly/001.png").unlink()
    dataset = read(published)
    assert len(dataset.categories[0].train) == 1 and dataset.categories[0].test[1].masks == ()
    assert dataset.missing[-2:] == (
        "candle: split_csv/1cls.csv lists pictures that are not there (1): candle/Data/Images/Normal/0002.JPG.",
        "candle: no mask for 1 of 2 defect pictures: candle/Data/Images/Anomaly/001.JPG.",
    )


def test_the_order_of_the_table_is_known(published):
    order = published_order(published)
    names = [path.rpartition("/")[2] for path in sorted(order, key=order.__getitem__)]
    assert names[:3] == ["0002.JPG", "0000.JPG", "0001.JPG"]
    assert published_order(published / "candle") == {}


def test_a_table_that_is_absent_or_damaged_is_refused_with_its_name(published):
    write(published, ROWS.replace("object,split", "object,set"))
    with pytest.raises(InputError, match=r"1cls\.csv must have the columns.*got no split"):
        read(published)
    write(published, ROWS.replace("train,normal", "train,anomaly", 1))
    with pytest.raises(InputError, match=r"Line 2 of .*1cls\.csv must have normal.* column label, got 'anomaly'"):
        read(published)
    write(published, ROWS.replace("test,normal", "val,normal", 1))
    with pytest.raises(InputError, match=r"Line 4 of .* column split, got 'val'"):
        read(published)
    (published / "split_csv/1cls.csv").unlink()
    assert detect(published)
    with pytest.raises(InputError, match=r"1cls\.csv must be readable"):
        read(published)


def test_the_laid_out_folders_are_read_too(tmp_path):
    root = tmp_path / "fryum"
    for name in ("train/good/000.JPG", "test/good/001.JPG", "test/bad/002.JPG", "ground_truth/bad/002.png"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    assert detect(tmp_path)
    dataset = read(tmp_path)
    assert dataset.layout == "visa"
    mask = str(root / "ground_truth/bad/002.png")
    assert dataset.categories[0].test[0] == Sample(str(root / "test/bad/002.JPG"), True, "bad", (mask,))
    (root / "test/scratch").mkdir()
    assert not detect(tmp_path)
