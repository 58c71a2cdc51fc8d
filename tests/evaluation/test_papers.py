"""The papers' files say what the code can run, and results stand beside published numbers only where they may."""

import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from handful import backbones
from handful.errors import InputError, SettingError
from handful.evaluation import results
from handful.evaluation.papers import PAPERS, parse_paper, read_datasets, read_paper
from handful.evaluation.papers.estimate import Estimate, estimate, reference_passes
from handful.evaluation.papers.plan import Overrides, cell_count, counts, jobs, missing
from handful.evaluation.papers.run import Prepared
from handful.evaluation.papers.tables import lines, write
from handful.evaluation.published import METRICS, OFFICIAL_CATEGORIES, read_published
from handful.evaluation.results import Row
from handful.fitting.calibration import view_count
from handful.methods import HEAD_TRAININGS, TUNINGS, create, create_head_training, create_tuning
from handful.types import Category, Dataset, Sample

LEFT_OUT = {  # the setting by which a head of an ablation departs from the authors' schedule
    ("resad", "no-constraintor"): {"constraintor": False},
    ("fasl", "plain"): {"nam": False},
}
ALL = [pytest.param(read_paper(name), id=name) for name in PAPERS]


def text_of(name):
    return (resources.files("handful.evaluation.papers") / f"{name}.toml").read_text(encoding="utf-8")


def without_name(settings):
    return {key: value for key, value in settings.items() if key != "name"}


@pytest.mark.parametrize("paper", ALL)
def test_every_setting_is_one_that_the_methods_and_trainings_have(paper):
    published = {one.method for one in read_published()}
    for variant in paper.variants.values():
        method = create(variant.method["name"], without_name(variant.method))
        assert (method.protocol == "auxiliary-trained") == bool(variant.head)
        if variant.tuning:
            create_tuning(variant.tuning["name"], without_name(variant.tuning))
        assert variant.published in published | {"", "coft"}  # of COFT-AD no number could be read
    for name, head in paper.heads.items():
        training = create_head_training(head.training["name"], without_name(head.training))
        authors = dict(HEAD_TRAININGS[training.name].authors) | LEFT_OUT.get((training.name, name), {})
        assert {setting: training.settings[setting] for setting in authors} == authors
    for backbone in paper.backbones.values():
        assert len(backbone.grids) == len(backbone.channels) and len(backbone.levels) in (0, len(backbone.grids))
        assert backbone.grids == tuple(sorted(backbone.grids, reverse=True))


def test_the_schedules_of_reb_are_its_authors():
    few = without_name(read_paper("reb").variants["few"].tuning)
    assert few == dict(TUNINGS["reb"].authors)


@pytest.mark.parametrize("paper", ALL)
def test_an_assumed_setting_says_so_beside_its_value(paper):
    """Every line with the comment stands in a table of which `assumed` names a setting, and the other way round."""
    table, commented = "", set()
    for line in text_of(paper.name).splitlines():
        if found := re.match(r"\[(.+)\]", line):
            table = found[1]
        if "assumed" in line.partition("#")[2] and table != "assumed":
            key = "" if line.startswith("[") else line.partition(" ")[0]
            commented.add(".".join(filter(None, (table, key))))
    named = set(paper.assumed)
    assert all(any(place.startswith(beside) for beside in commented) for place in named), named
    assert all(any(place.startswith(beside) for place in named) for beside in commented), commented


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("year = 2023", "year = 2023\nmagic = 1", "fastrecon.toml must have the keys title, authors,"),
        ("year = 2023", "", "fastrecon.toml must have the key year, got none; add it."),
        ("year = 2023", 'year = "2023"', "fastrecon.toml.year must be a whole number, got '2023'; correct it."),
        ("year = 2023", "year = ", "fastrecon.toml must be TOML, got: "),
        (
            "shots = [2, 4, 8]",
            "shots = [2, -4]",
            'runs.few.shots must be a list of whole numbers from 0, or "all", got',
        ),
        (
            "size = [224, 224]",
            "size = [224]",
            "size must be two whole numbers, height and width, got (224,); correct it.",
        ),
        ('variants = ["fastrecon"]', 'variants = ["magic"]', "runs.few.variants must be among fastrecon, got 'magic'."),
        ('"mpdd"]', '"magic"]', "runs.few.datasets must be among "),
        (
            "seeds = [0, 1, 2]",
            'trained_on = "visa"\nseeds = [0, 1, 2]',
            "trained_on must be given where a variant has a",
        ),
        ('"runs.few.seeds" =', '"runs.few.magic" =', "assumed must name settings of the file, got 'runs.few.magic'"),
        ('method = { name = "fastrecon",', "method = {", "variants.fastrecon.method must be a table of settings, got"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(old, new, sentence):
    text = text_of("fastrecon")
    assert text.count(old) == 1
    with pytest.raises(InputError) as refused:
        parse_paper(text.replace(old, new), "fastrecon")
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_cells_and_pictures_are_counted_from_the_official_numbers():
    (job,) = jobs(read_paper("winclip"), {}, Overrides(), out=None)
    assert cell_count(job) == (15 + 12) * (1 + 3 * 5)  # 0 shots have one seed alone
    assert (
        sum(train for train, _ in counts(job, "visa")) == 8659 and sum(test for _, test in counts(job, "visa")) == 2162
    )
    full = next(job for job in jobs(read_paper("reb"), {}, Overrides(), out=None) if job.name == "mvtec-resnet18")
    assert cell_count(full) == 15
    corrupted = jobs(read_paper("coft-ad"), {}, Overrides(runs=("corrupted",)), out=None)[0]
    assert counts(corrupted, "mvtec_ad_noise")[0] == (209, 40)  # bottle: 20 clean and the same corrupted
    assert corrupted.missing_datasets == ("mvtec_ad",)


def test_what_is_asked_for_stands_in_place_of_the_papers_own():
    asked = Overrides(backbone="test_resnet", shots=(1, 2), seeds=(7,), training={"updates": 1})
    (job,) = jobs(read_paper("reb"), {}, asked, out=None)  # one backbone once, and no run on all pictures
    assert (job.name, job.run.shots, job.run.seeds, job.weights_missing) == ("few", (1, 2), (7,), False)
    assert asked.changed == ("other backbone", "other training")
    assert Overrides(weights="auto", shots=(1,), seeds=(3,)).changed == ()
    assert Overrides(weights="w.pth", size="64", levels="layer2", precision="bf16").changed == (
        "other levels", "other weights", "other size", "other precision"
    )  # fmt: skip
    with pytest.raises(SettingError, match="`--heads` must have the names of resad's: mvtec_ad-full, "):
        jobs(read_paper("resad"), {}, Overrides(heads={"visa-magic": None}), out=None)


def test_only_what_nobody_gave_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    given = {name: Dataset("tree", "", (category(name),)) for name in ("mvtec_ad", "visa")}
    of_paper = jobs(read_paper("resad"), given, Overrides(), out=None)
    said = list(missing(of_paper))
    named = [f"data set {name}" for name in ("btad", "mvtec_3d", "brats", "shanghaitech")]
    assert [sentence.partition(" (")[0] for sentence in said[:4]] == named
    assert said[4].startswith("weights wide_resnet50_2.racm_in1k: timm/wide_resnet50_2.racm_in1k") and len(said) == 5
    assert not any(job.can_run for job in of_paper)
    random = jobs(read_paper("resad"), given, Overrides(weights="random"), out=None)
    assert all(job.can_run for job in random) and not any("weights" in sentence for sentence in missing(random))
    without_source = jobs(read_paper("resad"), {"visa": given["visa"]}, Overrides(weights="random"), out=None)
    assert [job.can_run for job in without_source] == [False, False, False]
    for job in without_source:
        assert "mvtec_ad" in job.missing_datasets


def test_an_estimate_counts_what_grows():
    def gflop(name, **asked):
        return sum(estimate(job).gflop for job in jobs(read_paper(name), {}, Overrides(**asked), out=None))

    assert gflop("fastrecon", seeds=(0,)) < gflop("fastrecon", seeds=(0, 1)) < gflop("fastrecon", seeds=(0, 1, 2))
    passes = 18.4 * (1725 + 15 * 14 + 458 + 6 * 14)  # test pictures, and 7 views of 2 references
    assert gflop("fastrecon", seeds=(0,), shots=(2,)) == pytest.approx(passes, rel=0.01)  # its search is small
    assert gflop("reb", runs=("few",), shots=(1,)) > 20 * gflop("patchcore", runs=("few",), shots=(1,))  # it trains
    assert Estimate(3600.0 * 0.65, 0, ()).hours(2.0) == pytest.approx(0.5)
    assert [reference_passes(shots) for shots in (1, 8, 30, 200)] == [k * view_count(k) for k in (1, 8, 30, 200)]
    (job,) = jobs(read_paper("resad"), {}, Overrides(runs=("from-mvtec",)), out=None)
    assert estimate(job).unknown == ("brats", "shanghaitech") and 10 < estimate(job).gigabytes < 30


def test_a_papers_file_counts_the_operations_and_levels_of_its_backbone():
    one = read_paper("reb").backbones["resnet18"]
    network = backbones.create(
        one.name, levels=one.levels, size=one.size, weights="random", engine="torch", device="cpu"
    )
    with FlopCounterMode(display=False) as counter:
        features = network(torch.rand(1, 3, *one.size))
    assert counter.get_total_flops() / 1e9 == pytest.approx(one.gflop, rel=0.02)
    assert tuple(level.shape[1] for level in features.levels) == one.grids and features.depths == one.channels


def category(name, *, train=8):
    test = (Sample(f"{name}-good.png", False, "good"), Sample(f"{name}-bad.png", True, "bad"))
    return Category(name, tuple(f"{name}-{number}.png" for number in range(train)), test)


def prepared(paper, run, folder, rows, *, marks=(), missing=(), dataset="mvtec_ad", names=None):
    """A job with finished cells."""
    job = next(job for job in jobs(read_paper(paper), {}, Overrides(weights="auto"), out=None) if job.name == run)
    categories = tuple(category(name) for name in names or OFFICIAL_CATEGORIES[dataset])
    datasets = {dataset: Dataset("tree", "", categories, tuple(missing))}
    results.write(folder / run / results.RESULTS, rows)
    benchmark = SimpleNamespace(out=folder / run, datasets=datasets)
    return Prepared(job, benchmark, {name: name for name in job.variants}, tuple(marks))


def row(category, variant, shots, seed, *, dataset="mvtec_ad", protocol="target-only", **figures):
    start = Row(dataset, category, variant, protocol, "network", "0" * 64, "224x224", shots, seed)
    return replace(start, **figures)


def fastrecon_rows(shots=4, seeds=(0, 1)):
    return [
        row(name, "fastrecon", shots, seed, image_auroc=90.0 + 2 * seed + number / 7 - 1, pixel_auroc=96.0)
        for number, name in enumerate(OFFICIAL_CATEGORIES["mvtec_ad"])
        for seed in seeds
    ]


def of(found, **wanted):
    return [line for line in found if all(getattr(line, name) == value for name, value in wanted.items())]


def test_a_mean_stands_beside_the_published_one_with_difference_and_spread(tmp_path):
    job = prepared("fastrecon", "few", tmp_path, fastrecon_rows())
    (line,) = of(lines(job), category="mean", metric="image_auroc")
    assert (line.ours, line.seeds, line.published, line.mark) == (pytest.approx(91.0), 2, 94.2, "")  # 90 and 92
    assert line.spread == pytest.approx(2**0.5) and line.difference == pytest.approx(-3.2) and line.tag == "3P"
    (bottle,) = of(lines(job), category="bottle", metric="image_auroc")
    assert (bottle.ours, bottle.published, bottle.difference) == (pytest.approx(90.0), None, None)
    page = write(job.job.paper, [job], ["few, mpdd: the data set was not given."], tmp_path).read_text()
    assert "| mvtec_ad | mean | fastrecon | 4 | image AUROC | 91.0 ± 1.4 | 2 | 94.2 | -3.2 | MuSc repository" in page
    assert "- few, mpdd: the data set was not given." in page
    assert (
        "mvtec_ad,mean,fastrecon,4,image_auroc,network,91.00,1.41,2,94.20,,-3.20,3P"
        in (tmp_path / "paper.csv").read_text()
    )


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({"marks": ["other weights"]}, "other weights"),
        ({"missing": ["tile: 229 of 230 training pictures."]}, "incomplete data set"),
        ({"names": ["bottle", "tile"]}, "incomplete data set"),
    ],
)
def test_a_marked_figure_is_not_compared(tmp_path, changes, mark):
    (line,) = of(
        lines(prepared("fastrecon", "few", tmp_path, fastrecon_rows(), **changes)),
        category="mean",
        metric="image_auroc",
    )
    assert (line.mark, line.difference, line.published) == (mark, None, 94.2) and line.ours is not None


def test_a_seed_without_every_category_does_not_count_and_nothing_at_all_is_said(tmp_path):
    rows = fastrecon_rows()
    rows[-1] = replace(rows[-1], image_auroc=None, error="lost")
    (line,) = of(lines(prepared("fastrecon", "few", tmp_path, rows)), category="mean", metric="image_auroc")
    assert (line.ours, line.seeds, line.spread) == (pytest.approx(90.0), 1, None)
    (line,) = of(lines(prepared("fastrecon", "few", tmp_path, [])), metric="image_auroc")
    assert (line.shots, line.ours, line.difference, line.mark) == ("4", None, None, "no result")


def test_all_good_pictures_are_one_number_of_shots_whatever_a_category_has(tmp_path):
    rows = [row(name, "mvtec", 8, 0, image_auroc=99.0) for name in OFFICIAL_CATEGORIES["mvtec_ad"]]
    found = of(lines(prepared("reb", "mvtec-resnet18", tmp_path, rows)), category="mean", metric="image_auroc")
    assert [(line.shots, line.published, line.difference) for line in found] == [("all", 99.5, pytest.approx(-0.5))]


def test_image_scores_scaled_over_the_test_set_stand_beside_such_numbers_alone(tmp_path):
    protocol = "auxiliary-trained transductive"
    rows = [
        row(name, "mul-nam", 1, 0, protocol=protocol, image_auroc=94.0, pixel_auroc=96.0)
        for name in OFFICIAL_CATEGORIES["mvtec_ad"]
    ]
    found = of(lines(prepared("fasl", "from-visa", tmp_path, rows)), category="mean", shots="1", variant="mul-nam")
    beside = {line.metric: (line.published, line.difference) for line in found if line.ours is not None}
    assert beside["image_auroc"] == (94.4, pytest.approx(-0.4)) and beside["pixel_auroc"] == (96.8, pytest.approx(-0.8))
    plain = [replace(one, protocol="auxiliary-trained") for one in rows]
    found = of(lines(prepared("fasl", "from-visa", tmp_path, plain)), category="mean", shots="1", metric="image_auroc")
    assert [line.published for line in found] == [None]


def test_every_number_of_resads_own_table_has_its_cell(tmp_path):
    found = {}
    for run in ("from-mvtec", "from-visa", "ablation"):
        job = next(job for job in jobs(read_paper("resad"), {}, Overrides(), out=None) if job.name == run)
        for dataset in job.run.datasets:
            names = OFFICIAL_CATEGORIES.get(dataset, ("01",))
            for line in lines(prepared("resad", run, tmp_path, [], dataset=dataset, names=names)):
                if line.tag == "OFF":
                    found[line.variant, line.dataset, line.shots, line.metric, line.source] = line.published
    own = [
        one
        for one in read_published()
        if one.method.startswith("resad") and one.tag == "OFF" and one.backbone in ("", "wide_resnet50_2")
    ]
    assert len(found) == len(own) > 30 and set(found.values()) == {one.value for one in own}


def test_the_pages_name_papers_that_are_there():
    root = Path(__file__).parents[2]
    pages = [root / "README.md", *(root / "docs").rglob("*.md"), *(root / "benchmarks").rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"--paper ([a-z][\w-]*)", page.read_text())}
    assert named == {*PAPERS}


def test_data_sets_say_where_they_come_from():
    used = {name for paper in PAPERS for name in read_paper(paper).datasets}
    assert used == set(read_datasets())
    assert set(METRICS) >= {one.metric for one in read_published()}
