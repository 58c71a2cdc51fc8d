"""A manifest says what each picture is; what is wrong in it is named by file, line and column."""

import json

import pytest

from handful.data.layouts.manifest import detect, read
from handful.errors import InputError
from handful.types import Sample

ROWS = [
    {"path": "a/1.png", "label": "0", "split": "train"},
    {"path": "a/2.png", "label": "OK", "split": "test"},
    {"path": "a/3.png", "label": "bad", "split": "test", "mask": "m/3.png|m/3b.png", "kind": "dent"},
    {"path": "a/4.png", "label": "1", "split": "test"},
]


@pytest.fixture
def place(tmp_path):
    """Every file that the rows name."""
    for name in ("a/1.png", "a/2.png", "a/3.png", "a/4.png", "m/3.png", "m/3b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def csv(rows, columns=("path", "label", "split", "mask", "kind", "category", "remark")):
    return "\n".join([",".join(columns), *(",".join(row.get(column, "") for column in columns) for row in rows)])


def jsonl(rows):
    return "\n".join(json.dumps(row) for row in rows) + "\n\n"


def write(place, rows, *, name="manifest.csv"):
    (place / name).write_text(csv(rows) if name.endswith("csv") else jsonl(rows))
    return place / name


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.jsonl"])
@pytest.mark.parametrize("by_folder", [True, False])
def test_rows_become_samples(place, name, by_folder):
    path = write(place, ROWS, name=name)
    assert detect(place) and detect(path)
    dataset = read(place if by_folder else path)
    (category,) = dataset.categories
    assert (dataset.layout, category.name) == ("manifest", "manifest")
    assert category.train == (str(place / "a/1.png"),)
    assert category.test == (
        Sample(str(place / "a/2.png"), False, "good"),
        Sample(str(place / "a/3.png"), True, "dent", (str(place / "m/3.png"), str(place / "m/3b.png"))),
        Sample(str(place / "a/4.png"), True, "defect"),
    )
    assert dataset.missing == ("manifest: no mask for 1 of 2 defect pictures: a/4.png.",)


def test_json_may_say_numbers_and_nothing(place):
    rows = [{**row, "label": int(row["label"])} if row["label"] in "01" else row for row in ROWS]
    rows[3] |= {"mask": None, "category": None}
    assert read(write(place, rows, name="manifest.jsonl")) == read(write(place, ROWS, name="manifest.jsonl"))


def test_categories_are_told_apart_and_else_called_as_the_file(place):
    rows = [{**ROWS[0], "category": "z"}, {**ROWS[1], "category": "z"}, {**ROWS[2], "split": "test"}]
    rows += [{**ROWS[3], "label": "good", "split": "train"}]
    dataset = read(write(place, rows, name="gears.csv"))
    assert [category.name for category in dataset.categories] == ["gears", "z"]


def test_marks_at_the_file_s_start_and_blanks_are_passed_over(place):
    (place / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + csv(ROWS).replace(",", " ,  ").encode())
    with pytest.raises(InputError, match="got no path"):  # a header is taken as it is
        read(place)
    text = csv(ROWS).partition("\n")
    (place / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + (text[0] + "\r\n" + text[2].replace(",", " , ")).encode())
    assert len(read(place).categories[0].test) == 3


def test_files_that_are_absent_are_left_out_and_named(place):
    write(place, ROWS)
    (place / "a/2.png").unlink()
    (place / "m/3b.png").unlink()
    dataset = read(place)
    assert [sample.masks for sample in dataset.categories[0].test] == [(str(place / "m/3.png"),), ()]
    assert dataset.missing[:2] == (
        "manifest: manifest.csv lists pictures that are not there (1): a/2.png.",
        "manifest: manifest.csv lists masks that are not there (1): m/3b.png.",
    )


def test_defects_are_refused_as_references(place):
    dataset = read(write(place, [*ROWS[:3], {**ROWS[3], "split": "train"}]))
    assert len(dataset.categories[0].train) == 1
    assert dataset.missing == (
        "manifest: manifest.csv labels training pictures as anomalous (column label), left out (1): line 5.",
    )


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.jsonl"])
@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("label", "dent", "one of 0, good, ok"),
        ("label", "", "one of 0"),
        ("split", "val", "one of train, test"),
        ("path", "", "a picture's path"),
        ("path", "a/1.png", "another picture than line 1|another picture than line 2"),
    ],
)
def test_a_wrong_cell_is_named_by_file_line_and_column(place, name, column, value, expected):
    path = write(place, [*ROWS[:2], {**ROWS[2], column: value}], name=name)
    line = 4 if name.endswith("csv") else 3
    with pytest.raises(InputError, match=rf"Line {line} of .*{name} must have ({expected}).* column {column}, got"):
        read(path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("manifest.csv", "", "columns path, label, split in line 1, got no path"),
        ("manifest.csv", "path,label\na,0\n", "got no split"),
        ("manifest.csv", 'path,label,split\na,"0,train\n', "must be CSV"),
        ("manifest.csv", "path,label,split\na/1.png,0,train,x\n", "Line 2 of .* no more cells than line 1"),
        ("manifest.csv", b"path,label,split\n\xff,0,train\n", "readable text in UTF-8"),
        ("manifest.jsonl", "{", "Line 1 of .* JSON object"),
        ("manifest.jsonl", "\n[]", "Line 2 of .* JSON object, got list"),
        ("manifest.jsonl", '{"path": "a", "label": 0}', "Line 1 of .* column split"),
        ("manifest.jsonl", '{"path": "a", "label": 0, "split": "test", "mask": ["b"]}', "text in column mask"),
        ("manifest.jsonl", '{"path": "a", "label": true, "split": "test"}', "column label, got 'True'"),
    ],
)
def test_a_damaged_manifest_is_refused_with_its_name(place, name, text, said):
    (place / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=said) as caught:
        read(place)
    assert name in str(caught.value)


def test_a_folder_without_a_manifest_is_refused(place):
    assert not detect(place) and not detect(place / "a/1.png")
    with pytest.raises(InputError, match=r"manifest\.csv or manifest\.jsonl"):
        read(place)
