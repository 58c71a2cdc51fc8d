"""The charts show the seeds' means and ranges worked out by hand, one line for each method, no protocols mixed."""

from itertools import pairwise

import matplotlib
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from handful.errors import OutputError
from handful.evaluation import results as results_module
from handful.evaluation.plots import Chart, Point, charts, draw, plot_shots, spread_out
from handful.evaluation.results import Row
from handful.evaluation.tables import read_results

SETUP = ("target-only", "resnet18", "224x224")


def row(category, shots, seed, image_auroc, *, dataset="parts", method="patchcore", **others):
    protocol, backbone, size = SETUP
    fixed = {"protocol": protocol, "backbone": backbone, "weights_sha256": "", "size": size}
    named = {"dataset": dataset, "category": category, "method": method, "shots": shots, "seed": seed}
    return Row(**{**fixed, **named, "image_auroc": image_auroc, **others})


@pytest.fixture
def read(tmp_path):
    def through_file(rows):
        results_module.write(tmp_path / "results.csv", rows)
        return read_results(tmp_path / "results.csv")

    return through_file


def chart(methods, *, shots=(1, 2, 4, 8), whole=True):
    lines = {
        method: tuple(Point(k, (80.0 + number + k, 82.0 + number + k), whole) for k in shots)
        for number, method in enumerate(methods)
    }
    return Chart("parts", "image_auroc", SETUP, "mean of 2 categories", tuple(methods), lines)


def test_a_point_is_each_seeds_mean_over_categories(read):
    cells = [
        row(name, k, seed, 80 + 2 * seed + k + high)
        for name, high in (("a", 0), ("b", 4))
        for k in (1, 4)
        for seed in (0, 1)
    ]
    (only,) = charts(read(cells))
    assert (only.dataset, only.metric, only.setup, only.over) == ("parts", "image_auroc", SETUP, "mean of 2 categories")
    assert only.lines == {"patchcore": (Point(1, (83, 85), True), Point(4, (86, 88), True))}
    assert only.lines["patchcore"][0].mean == 84


def test_a_point_over_fewer_categories_is_not_whole(read):
    cells = [row("a", k, 0, 90.0) for k in (1, 2)] + [row("b", 1, 0, 80.0), row("b", 2, 0, None, error="It failed.")]
    (only,) = charts(read(cells))
    assert only.lines["patchcore"] == (Point(1, (85.0,), True), Point(2, (90.0,), False))


def test_overall_weighs_data_sets_alike_and_leaves_out_points_that_lack_one(read):
    cells = [row(name, k, 0, 90.0) for name in "abc" for k in (1, 2, 4)]
    cells += [row("z", k, 0, 70.0, dataset="wood") for k in (1, 2)]
    overall = charts(read(cells))[0]
    assert (overall.dataset, overall.over) == ("overall", "mean of parts, wood")
    assert overall.lines == {"patchcore": (Point(1, (80.0,), True), Point(2, (80.0,), True))}


def test_overall_is_whole_only_where_every_data_set_is(read):
    cells = [row(name, k, 0, 90.0, dataset=name) for name in ("wood", "metal") for k in (1, 2)]
    cells += [row("knot", 1, 0, 90.0, dataset="wood"), row("knot", 2, 0, None, dataset="wood", error="It failed.")]
    assert [point.whole for point in charts(read(cells))[0].lines["patchcore"]] == [True, False]


def test_protocols_backbones_and_sizes_have_pictures_of_their_own(read):
    kinds = [{}, {"protocol": "auxiliary-trained"}, {"backbone": "resnet18 (random weights)"}, {"size": "320x320"}]
    cells = [row("a", k, 0, 90.0, method=f"m{n}", **kind) for n, kind in enumerate(kinds) for k in (1, 2)]
    found = charts(read(cells))
    assert len(found) == len({one.name for one in found}) == 4
    assert sorted(method for one in found for method in one.lines) == ["m0", "m1", "m2", "m3"]


def test_metrics_that_nothing_has_and_single_numbers_of_shots_make_no_chart(read):
    cells = [row("a", k, 0, 90.0, aupro=80.0 if k == 1 else None) for k in (1, 2)]
    assert [one.metric for one in charts(read(cells))] == ["image_auroc"]


def test_the_axes_carry_shots_units_and_what_the_chart_is_about():
    figure = draw(chart(["patchcore", "reb"]))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.xaxis.get_transform().base == 2
    assert list(axes.get_xticks()) == [1, 2, 4, 8]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4", "8"]
    assert axes.get_xlabel() == "shots (references for each category)"
    assert axes.get_ylabel() == "image AUROC, %"
    for word in ("parts", "mean of 2 categories", *SETUP):
        assert word in axes.get_title(loc="left")
    assert "mean over 2 seeds" in figure.texts[0].get_text()


def test_lines_are_means_and_bars_the_seeds_range():
    axes = draw(chart(["patchcore"])).axes[0]
    (line,) = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert list(line.get_ydata()) == [82, 83, 85, 89]
    bars = axes.collections[0].get_segments()
    assert [(low[1], high[1]) for low, high in bars] == [(81, 83), (82, 84), (84, 86), (88, 90)]


@pytest.mark.parametrize("whole", [True, False])
def test_points_that_lack_categories_are_hollow_and_explained(whole):
    figure = draw(chart(["patchcore"], whole=whole))
    faces = {to_hex(line.get_markerfacecolor()) for line in figure.axes[0].lines if len(line.get_xdata()) == 1}
    assert ("#ffffff" in faces) == (not whole)
    assert ("hollow" in figure.texts[0].get_text()) == (not whole)


def test_up_to_eight_methods_are_named_at_their_lines_in_their_colours():
    methods = [f"m{number}:lam=0.{number}" for number in range(8)]
    axes = draw(chart(methods)).axes[0]
    assert axes.get_legend() is None
    assert [text.get_text() for text in axes.texts] == [method.replace(":", "\n") for method in methods]
    drawn = [line.get_color() for line in axes.lines if len(line.get_xdata()) == 4]
    assert [text.get_color() for text in axes.texts] == drawn
    assert len(set(drawn)) == 8


def test_more_methods_have_a_legend_best_first_and_lines_that_can_be_told_apart():
    methods = [f"m{number}" for number in range(12)]
    axes = draw(chart(methods)).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == methods[::-1]
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines if len(line.get_xdata()) == 4}
    assert len(looks) == 12


def test_a_method_keeps_its_colour_where_another_is_absent():
    both = chart(["coft", "patchcore"])
    alone = Chart(both.dataset, "aupro", SETUP, both.over, both.methods, {"patchcore": both.lines["patchcore"]})
    (first,), (_, second) = (
        [line.get_color() for line in draw(one).axes[0].lines if len(line.get_xdata()) == 4] for one in (alone, both)
    )
    assert first == second == draw(alone).axes[0].texts[0].get_color()


def test_nothing_above_a_hundred_percent_is_offered():
    points = tuple(Point(k, (100.0, 99.9), True) for k in (1, 2))
    axes = draw(Chart("parts", "image_auroc", SETUP, "a", ("m",), {"m": points})).axes[0]
    low, high = axes.get_ylim()
    assert 100 < high < 100.2
    assert high - low >= 2 - 1e-9  # float rounding


@pytest.mark.parametrize(
    "wanted", [[50.0, 50.0, 50.0], [0.0, 1.0, 2.0], [99.0, 100.0, 98.5], [10.0, 90.0, 50.0], [52.0, 51.0, 50.0]]
)
def test_labels_do_not_overlap_nor_leave_the_column_nor_change_order(wanted):
    heights = [4.0, 8.0, 4.0]
    places = spread_out(wanted, heights, low=0, high=100)
    order = sorted(range(3), key=lambda number: wanted[number])
    edges = [(places[number] - heights[number] / 2, places[number] + heights[number] / 2) for number in order]
    assert edges[0][0] >= 0
    assert edges[-1][1] <= 100
    assert all(below[1] <= above[0] + 1e-9 for below, above in pairwise(edges))  # float rounding


def test_labels_with_room_stay_where_they_are():
    assert spread_out([10.0, 90.0, 50.0], [4.0, 4.0, 4.0], low=0, high=100) == [10.0, 90.0, 50.0]


def test_pictures_are_written_whole_and_leave_no_global_state(read, tmp_path):
    before = dict.copy(matplotlib.rcParams)  # as it is: asking for the backend would choose one
    folder = tmp_path / "deep" / "plots"
    paths = plot_shots(read([row("a", k, 0, 90.0 + k, aupro=80.0, dataset="a/b") for k in (1, 2)]), folder)
    assert [path.name for path in paths] == [
        f"a_b-{metric}-target-only-resnet18-224x224.png" for metric in ("aupro", "image_auroc")
    ]
    assert sorted(folder.iterdir()) == sorted(paths)
    with Image.open(paths[0]) as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 720))
    assert dict.copy(matplotlib.rcParams) == before


def test_a_folder_that_cannot_be_made_is_said(read, tmp_path):
    (tmp_path / "plots").write_text("a file")
    with pytest.raises(OutputError, match="plots"):
        plot_shots(read([row("a", k, 0, 90.0) for k in (1, 2)]), tmp_path / "plots")
