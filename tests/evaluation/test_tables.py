"""results.csv is read strictly; the summary's figures, marks and sections are those worked out by hand."""

import re

import polars as pl
import pytest

from handful.errors import InputError
from handful.evaluation import results as results_module
from handful.evaluation import tables
from handful.evaluation.published import MEAN, METRICS, OFFICIAL_CATEGORIES, Published
from handful.evaluation.results import COLUMNS, Row
from handful.evaluation.tables import over_categories, read_results, summary

SENTENCE = "Training must end with a finite loss, got nan | at step 12;\nlower the learning rate."


def row(category, seed, image_auroc, *, dataset="parts", method="patchcore", shots=4, **others):
    fixed = {"protocol": "target-only", "backbone": "resnet18", "weights_sha256": "ab" * 32, "size": "224x224"}
    named = {"dataset": dataset, "category": category, "method": method, "shots": shots, "seed": seed}
    return Row(**{**fixed, **named, "image_auroc": image_auroc, **others})


@pytest.fixture
def read(tmp_path):
    """Rows → the frame that comes back from the file that the benchmark writes of them."""

    def through_file(*rows):
        results_module.write(tmp_path / "results.csv", rows)
        return read_results(tmp_path / "results.csv")

    return through_file


def environment(results, *, missing=None, good=20, anomalous=40):
    sets = {}
    for dataset, category in results.select("dataset", "category").unique().iter_rows():
        sets.setdefault(dataset, {})[category] = {"good": good, "anomalous": anomalous, "masks": anomalous}
    return {
        "handful": "0.2.0",
        "commit": "0123abcdef",
        "command": "handful bench --shots 4",
        "torch": "2.13.0",
        "platform": "Linux",
        "cpu": "a processor",
        "cpu_cores": 2,
        "device": "cpu",
        "started": "2026-01-02T03:04:05+00:00",
        "false_alarm_rate": 0.01,
        "missing": missing or {},
        "test_sets": sets,
    }


def page(results, **options):
    return summary(results, environment(results, **options))


def table_after(text, heading, head):
    """The cells of the first table with that column in its head after a line that begins so."""
    below = re.split(rf"(?m)^{re.escape(heading)}", text, maxsplit=1)[1].splitlines()
    start = next(number for number, line in enumerate(below) if line.startswith("|") and f"| {head} |" in line)
    rows = []
    for line in below[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return [dict(zip(rows[0], cells, strict=True)) for cells in rows[2:]]


def test_columns_come_back_typed_with_null_for_no_figure_and_empty_text(read):
    results = read(row("a", 0, 91.234, threshold=0.5), row("b", 0, None, error=SENTENCE))
    assert tuple(results.columns) == COLUMNS
    assert results.schema["shots"] == results.schema["seed"] == pl.Int64
    assert {results.schema[name] for name in METRICS} == {pl.Float64}
    assert results["image_auroc"].to_list() == [91.23, None]
    assert results["error"].to_list() == ["", SENTENCE]


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [
        ("aupro", "pro", "aupro"),
        ("error", "error,colour", "colour"),
        ("patchcore", "", "method"),
        (",4,0,", ",four,0,", "shots"),
        (",91.00,", ",101.00,", "image_auroc"),
        (",91.00,", ",nan,", "image_auroc"),
        (",5.00,", ",-5.00,", "false_alarm_rate"),
        (",0.5,", ",high,", "threshold"),
    ],
)
def test_a_wrong_column_or_value_is_named(tmp_path, old, new, column):
    path = tmp_path / "results.csv"
    results_module.write(path, [row("a", 0, 91.0, threshold=0.5, false_alarm_rate=5.0)])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=rf"\b{column}\b"):
        read_results(path)


def test_a_file_without_rows_or_table_and_an_absent_one_are_refused(tmp_path):
    path = tmp_path / "results.csv"
    with pytest.raises(InputError, match=r"results\.csv"):
        read_results(path)
    for content in ("", ",".join(COLUMNS) + "\n", "a,b\n1,2,3\n"):
        path.write_text(content)
        with pytest.raises(InputError, match=r"results\.csv"):
            read_results(path)


def test_the_same_cell_twice_is_refused(tmp_path):
    path = tmp_path / "results.csv"
    results_module.write(path, [row("a", 0, 91.0), row("a", 0, 92.0)])
    with pytest.raises(InputError, match="parts, a, patchcore"):
        read_results(path)


def three_seeds(category, values, **options):
    return [row(category, seed, value, **options) for seed, value in enumerate(values)]


def test_spread_is_the_sample_deviation_over_seeds_of_each_ones_mean_over_categories(read):
    results = read(*three_seeds("a", (90, 92, 94)), *three_seeds("b", (80, 80, 86)))
    samples = over_categories(results, "image_auroc")
    assert samples["value"].to_list() == [85, 86, 90]
    assert samples["categories"].to_list() == [["a", "b"]] * 3
    text = page(results)
    cells = {line["category"]: line["image AUROC"] for line in table_after(text, "#### parts by", "image AUROC")}
    assert cells == {"a": "92.0 ± 2.0", "b": "82.0 ± 3.5"}  # √(4 + 4 + 16) / √2 = 3.46
    mean = table_after(text, "### parts", "image AUROC")[0]
    assert (mean["category"], mean["image AUROC"]) == ("**mean of 2**", "87.0 ± 2.6")  # √7 = 2.65
    assert table_after(text, "## target-only", "4 shots") == [
        {"data set": "parts, mean of 2", "method": "patchcore", "4 shots": "87.0 ± 2.6"}
    ]


def test_a_single_seed_has_no_spread(read):
    assert table_after(page(read(row("a", 7, 91.26))), "####", "image AUROC")[0]["image AUROC"] == "91.3"


def test_a_category_without_masks_shows_a_dash_and_the_mean_says_over_how_many(read):
    text = page(read(row("a", 0, 90.0, aupro=80.0, pixel_ap=30.0), row("b", 0, 80.0)))
    lines = table_after(text, "####", "AUPRO")
    assert [line["AUPRO"] for line in lines] == ["80.0", "-"]
    mean = table_after(text, "### parts", "AUPRO")[0]
    assert (mean["image AUROC"], mean["AUPRO"], mean["pixel AP"], mean["image AP"]) == (
        "85.0",
        "80.0 (1)",
        "30.0 (1)",
        "-",
    )


def test_a_category_that_fails_at_one_seed_leaves_the_mean_and_is_reported(read):
    cells = [*three_seeds("a", (90, 92, 94)), row("b", 0, 10.0), row("b", 1, None, error=SENTENCE), row("b", 2, 10.0)]
    text = page(read(*cells, row("d", 0, None, error=SENTENCE)))
    assert table_after(text, "## target-only", "4 shots")[0]["4 shots"] == "92.0 ± 2.0 (1)"
    names = [line["category"] for line in table_after(text, "####", "image AUROC")]
    assert names == ["a", "b (seeds 0, 2)", "d (failed)"]
    failed = table_after(text, "## Failed cells", "error")
    assert [(line["category"], line["seed"]) for line in failed] == [("b", "1"), ("d", "0")]
    assert failed[0]["error"] == SENTENCE.replace("|", "\\|").replace("\n", " ")


def test_nothing_failed_means_no_section_on_it(read):
    assert "Failed cells" not in page(read(row("a", 0, 90.0)))


def test_rates_stand_with_the_wilson_interval_of_one_seeds_pictures(read):
    rates = zip((5.0, 0.0, 10.0), (2.5, 2.5, 2.5), (30.0, 40.0, 62.5), strict=True)
    cells = [
        row("a", seed, 90.0, false_alarm_rate=false, miss_rate=miss, ms_per_image=time)
        for seed, (false, miss, time) in enumerate(rates)
    ]
    line = table_after(page(read(*cells)), "####", "misses")[0]
    # 1 of 20: centre (1 + 3.84 / 2) / 23.84 = 12.2 %, half √(3.84 (19 / 20 + 3.84 / 4)) / 23.84 = 11.4 %.
    assert line["false alarms"] == "5.0 ± 5.0 [0.9, 23.6]"
    # 1 of 40: centre 2.92 / 43.84 = 6.7 %, half √(3.84 (39 / 40 + 0.96)) / 43.84 = 6.2 %.
    assert line["misses"] == "2.5 ± 0.0 [0.4, 12.9]"
    assert line["ms per picture"] == "44.2"


def test_a_mean_of_rates_has_no_interval(read):
    text = page(read(row("a", 0, 90.0, false_alarm_rate=5.0), row("b", 0, 90.0, false_alarm_rate=10.0)))
    assert table_after(text, "### parts", "false alarms")[0]["false alarms"] == "7.5"


def test_a_rate_of_an_uncounted_test_set_is_refused(read):
    results = read(row("a", 0, 90.0, false_alarm_rate=5.0))
    without = {**environment(results), "test_sets": {}}
    with pytest.raises(InputError, match="got none for a"):
        summary(results, without)


def test_no_table_mixes_protocols_backbones_or_sizes(read):
    kinds = [
        {"method": "patchcore"},
        {"method": "resad", "protocol": "auxiliary-trained"},
        {"method": "fasl:paper_compat=true", "protocol": "auxiliary-trained transductive"},
        {"method": "coft", "backbone": "resnet18 (random weights)"},
        {"method": "reb", "size": "320x320"},
    ]
    text = page(read(*(row("a", 0, 90.0, **kind) for kind in kinds)))
    sections = re.split(r"(?m)^## ", text)[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "target-only: resnet18, 224x224",
        "target-only: resnet18, 320x320",
        "target-only: resnet18 (random weights), 224x224",
        "auxiliary-trained: resnet18, 224x224",
        "auxiliary-trained transductive: resnet18, 224x224",
    ]
    for section, method in zip(sections, ("patchcore", "reb", "coft", "resad", "fasl"), strict=True):
        methods = {line["method"].partition(":")[0] for line in table_after(section, section[:5], "image AUROC")}
        assert methods == {method}
        assert ("depends on the other test pictures" in section) == (method == "fasl")


def test_the_head_says_what_ran_on_what_and_how_the_test_sets_differ(read):
    missing = {"parts": ["a: 18 of 20 good test pictures."]}
    results = read(row("a", 0, 90.0), row("a", 3, 90.0), row("a", 0, 90.0, shots=1))
    head = page(results, missing=missing).partition("\n## ")[0]
    for fact in (
        "`handful bench --shots 4`",
        "handful 0.2.0 at 0123abcdef",
        "a processor, 2 cores, device cpu",
        "set to reject 1 % of good parts",
        "Seeds: 0, 3",
        "Shots: 1, 4",
        "resnet18, input 224x224, weights sha256 abababababab",
        "parts: a: 18 of 20 good test pictures.",
    ):
        assert fact in head
    assert "nothing was found missing" in page(results)


def one_published(**changes):
    known = {
        "method": "patchcore",
        "dataset": "btad",
        "category": "01",
        "shots": 4,
        "protocol": "target-only",
        "backbone": "resnet18",
        "size": "224x224",
        "metric": "image_auroc",
        "value": 88.8,
        "spread": 2.6,
        "tag": "OFF",
        "source": "a paper",
    }
    return Published(**{**known, **changes})


@pytest.mark.parametrize(
    ("ours", "published", "missing", "marks"),
    [
        ({}, {}, [], "same weights"),
        ({"method": "patchcore:neighbors=3"}, {}, [], "same weights"),
        ({"backbone": "resnet18 (random weights)"}, {}, [], "other weights"),
        ({"backbone": "resnet18 (weights file mine.safetensors)"}, {}, [], "other weights"),
        ({"size": "320x320"}, {}, [], "other weights"),
        ({}, {"size": ""}, [], "other weights"),
        ({}, {"backbone": "wide_resnet50_2"}, [], "other weights"),
        ({}, {}, ["01: 20 of 21 good test pictures."], "same weights, incomplete data set"),
        ({}, {}, ["02: 20 of 21 good test pictures.", "010: the category is absent."], "same weights"),
        ({}, {"shots": 2}, [], None),
        ({}, {"category": "02"}, [], None),
        ({}, {"dataset": "visa"}, [], None),
        ({}, {"method": "resad"}, [], None),
        ({}, {"protocol": "auxiliary-trained"}, [], None),
        ({}, {"metric": "aupro"}, [], None),
        ({}, {"category": MEAN}, [], None),  # one of three official categories is no mean
    ],
)
def test_a_published_number_stands_beside_ours_only_where_it_is_the_same_thing(
    read, monkeypatch, ours, published, missing, marks
):
    monkeypatch.setattr(tables, "read_published", lambda: (one_published(**published),))
    text = page(read(row("01", 0, 90.0, dataset="btad", **ours)), missing={"btad": missing})
    assert ("| marks |" in text) == (marks is not None)
    if marks is not None:
        line = table_after(text, "### btad", "marks")[0]
        assert (line["marks"], line["image AUROC"]) == (marks, "90.0 / 88.8 ± 2.6")
        assert f"- {line['source']} a paper (`OFF`)" in text


@pytest.mark.parametrize(("failing", "beside"), [(None, True), ("03", False)])
def test_a_published_mean_needs_all_official_categories(read, monkeypatch, failing, beside):
    monkeypatch.setattr(tables, "read_published", lambda: (one_published(category=MEAN),))
    cells = [
        row(name, 0, None, dataset="btad", error="It failed.")
        if name == failing
        else row(name, 0, 90.0, dataset="btad")
        for name in OFFICIAL_CATEGORIES["btad"]
    ]
    assert ("90.0 / 88.8" in page(read(*cells))) == beside


def test_other_methods_published_numbers_stay_in_a_table_of_their_own_with_their_protocol(read):
    names = OFFICIAL_CATEGORIES["btad"]
    ours = [row(name, 0, 90.0, dataset="btad", method="resad", protocol="auxiliary-trained") for name in names]
    text = page(read(*ours))
    lines = table_after(text, "## Published numbers of other methods, for context: btad", "protocol")
    by_method = {(line["method"], line["with"]): line for line in lines}
    assert not any(line["method"] == "resad" for line in lines)  # it stands beside ours
    assert by_method["regad", "224x224"]["protocol"] == "other-normals"
    assert by_method["patchcore", "224x224"]["4 shots"] == "84.0 / 89.4 / -"
    assert "84.0" not in text.partition("## Published numbers of other")[0]
    assert table_after(text, "### btad", "marks")[0]["image AUROC"].startswith("90.0 / ")


def test_every_table_is_rectangular_and_readable(read):
    every = dict.fromkeys(METRICS, 90.0) | {"false_alarm_rate": 5.0, "miss_rate": 5.0, "ms_per_image": 9.0}
    cells = [
        row(name, 0, every["image_auroc"], dataset="mvtec_ad", method=method, shots=shots, protocol=protocol, **rest)
        for rest in [{name: value for name, value in every.items() if name != "image_auroc"}]
        for name in OFFICIAL_CATEGORIES["mvtec_ad"]
        for method, protocol in (("patchcore", "target-only"), ("fasl", "auxiliary-trained transductive"))
        for shots in (1, 2, 4, 8)
    ]
    widths = []
    for block in re.findall(r"(?m)(?:^\|.*\n)+", page(read(*cells))):
        counts = {len(re.split(r"(?<!\\)\|", line)) - 2 for line in block.splitlines()}
        assert len(counts) == 1
        widths += counts
    assert len(widths) > 8
    assert max(widths) <= 12
