"""What an inspection may cost, counted and not timed: how often it computes what, and its arithmetic."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from handful.backbones.torch_engine import TorchBackbone
from handful.data.images import Picture, read_picture
from handful.detector import Detector
from handful.graphs.names import SCORING_CONSTANTS_ENTRY, SCORING_ENTRY
from handful.graphs.openvino import openvino
from handful.inspection import evidence
from handful.methods.handful import Handful
from handful.ops import least
from handful.saved import archive
from handful.saved.state import InspectorState

SIDE = 160
PATCHES = (SIDE // 8) ** 2  # of the finest level
COUNTED = ((TorchBackbone, "__call__"), (least, "_least"))


@dataclass(frozen=True)
class Costs:
    """What one inspection took.

    Attributes:
        verdict: that came out.
        passes: of the backbone.
        searches: the numbers of what was searched, each time.
        arithmetic: multiplications and additions, in multiples of one pass of the backbone.
    """

    verdict: str
    passes: int
    searches: list[int]
    arithmetic: float


@pytest.fixture(scope="module")
def detector(picture_factory):
    """Of four parts that do not turn."""
    references = [picture_factory(seed, side=SIDE) for seed in range(4)]
    return Detector(settings={"turn": "never"}, size=SIDE, engine="torch", device="cpu").fit(references)


@pytest.fixture
def good(picture_factory):
    return read_picture(picture_factory(4, side=SIDE), name="good")


@pytest.fixture
def defect(picture_factory):
    return read_picture(picture_factory(4, side=SIDE, defect=True), name="defect")


def costs_of(detector: Detector, picture: Picture) -> Costs:
    """Of an inspection that is not the first: what serves all is made by then."""
    detector._inspector = None  # so that what is patched is what looks
    detector(picture)
    with pytest.MonkeyPatch.context() as patch:
        passes, searches = (counted(patch, *method) for method in COUNTED)
        with FlopCounterMode(display=False) as whole:
            verdict = detector(picture).verdict
    with FlopCounterMode(display=False) as alone:
        detector._needed.backbone(torch.zeros(1, 3, SIDE, SIDE))
    return Costs(verdict, len(passes), searches, whole.get_total_flops() / alone.get_total_flops())


def counted(patch: pytest.MonkeyPatch, of: object, name: str) -> list[int]:
    """A list that grows by the number of the first argument, of a method its object, with every call."""
    calls: list[int] = []
    original = getattr(of, name)

    def count(self, *arguments, **named):
        calls.append(id(self))
        return original(self, *arguments, **named)

    patch.setattr(of, name, count)
    return calls


def assert_lean_on_a_good_part(costs: Costs) -> None:
    assert costs.verdict == "OK"
    assert costs.passes == 1, "the backbone's pass is most of what an inspection costs"
    assert len(costs.searches) == len(set(costs.searches)) == 2, "two levels, each searched once for both measures"
    assert costs.arithmetic < 1.35  # 1.25, and 2.0 at 320 pixels: searches grow with the square of the patches


def test_an_inspection_of_a_good_part_computes_everything_once(detector, good):
    assert_lean_on_a_good_part(costs_of(detector, good))


def test_a_defects_evidence_compares_few_patches(detector, defect):
    """Fewer than all of the picture with all of a good one would be."""
    with pytest.MonkeyPatch.context() as patch:
        detector(defect)
        comparisons = []
        products = evidence.Rows._products
        patch.setattr(
            evidence.Rows,
            "_products",
            lambda rows, queries: comparisons.append(len(rows._rows) * len(queries)) or products(rows, queries),
        )
        assert detector(defect).verdict == "DEFECT"
    assert len(comparisons) == 5
    # 0.74; the places of defects, the likest picture, twice in it, and once the place that is found
    assert sum(comparisons) < 0.8 * PATCHES**2
    costs = costs_of(detector, defect)
    assert costs.passes == 1 and len(costs.searches) == 2


def looks_twice(patch):
    look = InspectorState.forward
    patch.setattr(InspectorState, "forward", lambda *given: (look(*given), look(*given))[1])


def scores_twice(patch):
    score = Handful._score
    patch.setattr(Handful, "_score", lambda *given: score(*given) and score(*given))


def compares_twice(patch):
    """In as many searches among as many banks: the arithmetic alone tells."""
    search = least._least
    patch.setattr(least, "_least", lambda *given: (search(*given), search(*given))[1])


@pytest.mark.parametrize("regression", [looks_twice, scores_twice, compares_twice])
def test_what_is_done_twice_is_noticed(detector, good, monkeypatch, regression):
    regression(monkeypatch)
    with pytest.raises(AssertionError):
        assert_lean_on_a_good_part(costs_of(detector, good))


def test_a_saved_inspectors_graph_multiplies_each_patch_with_each_good_one_once(picture_factory, tmp_path):
    references = [picture_factory(seed, side=64) for seed in range(3)]
    detector = Detector(settings={"turn": "never"}, size=64, engine="openvino").fit(references)
    detector.save(tmp_path / "part.handful")
    _, _, parts = archive.read(tmp_path / "part.handful")
    graph = openvino.Core().read_model(parts[SCORING_ENTRY], parts[SCORING_CONSTANTS_ENTRY])
    multiplied = 0
    for node in graph.get_ops():
        out = math.prod(node.output(0).shape)
        if node.get_type_name() == "MatMul":
            multiplied += out * node.input_value(0).shape[-1]
        elif node.get_type_name() == "Convolution":  # (O, I, h, w): as which searches are written
            multiplied += out * math.prod(list(node.input_value(1).shape)[1:])
    levels = detector._needed.features.good.levels
    searched = sum(
        rows.shape[1] * least.WIDE * math.ceil(rows.shape[2] / least.WIDE) * level.shape[1:].numel()
        for rows, level in zip(detector.method.rows_, levels, strict=True)
    )
    pictures, *grid, depth = detector.method.wide_.shape
    searched += pictures * math.prod(grid) ** 2 * depth  # wide patches
    height, width = levels[0].shape[1:3]
    map_alone = 64 * height * width + 64 * width * 64  # bringing the scores to pixels, down and across
    assert multiplied == searched + map_alone
