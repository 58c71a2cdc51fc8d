"""Every published number is well formed, stands once, and is what its source says."""

from collections import defaultdict
from statistics import fmean

import pytest

from handful.data.layouts import mvtec
from handful.evaluation.published import MEAN, METRICS, OFFICIAL_CATEGORIES, Published, read_published

PUBLISHED = read_published()
PROTOCOLS = {
    "target-only",
    "auxiliary-trained",
    "auxiliary-trained transductive",
    "other-normals",
    "transductive zero-shot",
    "not stated",
}
DATASETS = {*OFFICIAL_CATEGORIES, "brats", "shanghaitech", "real_iad", "real_iad_variety"}


def test_numbers_are_in_range_and_in_known_terms():
    for one in PUBLISHED:
        assert one.metric in METRICS, one
        assert one.protocol in PROTOCOLS, one
        assert one.dataset in DATASETS, one
        assert one.tag in {"OFF", "3P", "OFF/3P", "3P-note", "PLOT"}, one
        assert 0 < one.value <= 100, one
        assert one.spread is None or 0 < one.spread < 5, one
        assert one.category == MEAN or one.category in OFFICIAL_CATEGORIES[one.dataset], one
        assert one.shots is None or one.shots in range(17), one
        assert (one.shots == 0) == (one.protocol == "transductive zero-shot"), one
        assert one.method == one.method.lower(), one
        assert one.source == one.source.strip() != "", one
        assert one.size == "" or all(side.isdigit() for side in one.size.split("x", 1)), one


def test_no_number_stands_twice():
    what = [
        (one.method, one.dataset, one.category, one.shots, one.metric, one.backbone, one.size, one.source)
        for one in PUBLISHED
    ]
    assert len(set(what)) == len(what) > 1000


@pytest.mark.parametrize(
    ("method", "dataset", "category", "shots", "metric", "source", "value", "spread"),
    [  # compared by hand with the collected sources
        ("fastrecon", "mvtec_ad", MEAN, 4, "image_auroc", "MuSc", 94.2, None),
        ("fastrecon", "mvtec_ad", MEAN, 4, "pixel_auroc", "MuSc", 97.0, None),
        ("fastrecon", "mpdd", MEAN, 2, "image_auroc", "FastRef", 76.4, None),
        ("patchcore", "mvtec_ad", MEAN, 4, "image_auroc", "WinCLIP protocol", 88.8, 2.6),
        ("patchcore", "mvtec_ad", MEAN, 4, "image_auroc", "PCSNet", 89.5, None),
        ("patchcore", "mvtec_ad", MEAN, 4, "image_auroc", "ResAD", 80.6, None),
        ("patchcore", "mvtec_ad", MEAN, 1, "aupro", "WinCLIP protocol", 79.7, None),
        ("patchcore", "mpdd", MEAN, 2, "image_auroc", "FastRef", 71.4, None),
        ("patchcore", "mvtec_ad", MEAN, None, "pixel_auroc", "anomalib", 98.0, None),
        ("fasl", "mvtec_ad", MEAN, 1, "image_auroc", "FASL", 94.4, 0.5),
        ("fasl", "mvtec_ad", MEAN, 1, "image_f1_oracle", "FASL", 95.1, None),
        ("fasl", "mvtec_ad", MEAN, 1, "pixel_f1_oracle", "FASL", 58.6, None),
        ("fasl", "mvtec_ad", MEAN, 1, "image_ap", "FASL", 97.2, None),
        ("fasl", "visa", MEAN, 4, "pixel_ap", "FASL", 44.7, None),
        ("resad", "btad", MEAN, 4, "pixel_auroc", "three draws", 97.6, None),
        ("resad", "mvtec_3d", MEAN, 4, "image_auroc", "README", 72.0, None),
        ("winclip", "mvtec_ad", "capsule", 2, "image_auroc", "Accurate", 66.0, None),
        ("winclip", "mvtec_ad", "pill", 4, "pixel_ap", "Accurate", 34.4, None),
        ("winclip", "visa", "pcb2", 4, "aupro", "Accurate", 65.4, None),
        ("winclip", "visa", MEAN, 8, "aupro", "Accurate", 81.6, None),
        ("regad", "mvtec_ad", "zipper", 8, "pixel_auroc", "the paper's values", 97.4, None),
        ("regad", "mvtec_ad", MEAN, 2, "image_auroc", "authors' re-implementation", 85.5, None),
        ("anomalydino", "visa", MEAN, 8, "aupro", "AnomalyDINO", 94.8, None),
        ("musc", "btad", "02", 0, "aupro", "MuSc", 68.64, None),
        ("pcsnet", "mpdd", MEAN, 8, "image_auroc", "PCSNet", 80.2, 1.2),
    ],
)
def test_number_is_as_published(method, dataset, category, shots, metric, source, value, spread):
    what = (method, dataset, category, shots, metric)
    found = [
        one
        for one in PUBLISHED
        if (one.method, one.dataset, one.category, one.shots, one.metric) == what and source in one.source
    ]
    assert (value, spread) in [(one.value, one.spread) for one in found]


def test_means_are_those_of_their_categories():
    tables = defaultdict(dict)
    for one in PUBLISHED:
        tables[one.method, one.dataset, one.shots, one.metric, one.source][one.category] = one.value
    complete = {key: table for key, table in tables.items() if len(table) > 1}
    assert len(complete) > 20
    for (method, dataset, shots, metric, _), table in complete.items():
        printed = table.pop(MEAN)
        assert set(table) == set(OFFICIAL_CATEGORIES[dataset])
        # Two sources print a mean that is 0.13 off their own columns; everything else agrees to the rounding, 0.06.
        assert fmean(table.values()) == pytest.approx(printed, abs=0.15), (method, dataset, shots, metric)


def test_official_categories_are_those_of_the_reader():
    assert set(OFFICIAL_CATEGORIES["mvtec_ad"]) == set(mvtec.OFFICIAL)


def test_a_number_shows_its_spread_and_network_where_stated():
    stated = Published("m", "d", MEAN, 1, "target-only", "resnet18", "224x224", "aupro", 88.8, 2.64, "OFF", "somewhere")
    bare = Published("m", "d", MEAN, 1, "target-only", "", "", "aupro", 88.0, None, "OFF", "somewhere")
    assert (str(stated), stated.network) == ("88.8 ± 2.6", "resnet18, 224x224")
    assert (str(bare), bare.network) == ("88.0", "-")
