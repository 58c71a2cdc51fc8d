"""What every method in METHODS promises, and one of a stranger's: a new method is tested here by standing in that list.

Each is tested as it is, with turned copies of the references where it learns such, and with crops of each picture where
a setting makes it want them.
"""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import ClassVar, NamedTuple, get_args, get_type_hints

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from handful import Detector, Inspector
from handful.data.layouts.registry import open_dataset
from handful.errors import InputError, InspectorError, NotFittedError, SettingError
from handful.evaluation import results
from handful.evaluation.benchmark import Benchmark
from handful.fitting.calibration import join
from handful.fitting.reference_features import ReferenceFeatures
from handful.graphs.names import LEVEL_INPUT, SCORING_CONSTANTS_ENTRY, SCORING_ENTRY, STATE_INPUT
from handful.graphs.openvino import openvino
from handful.methods import HEAD_TRAININGS, METHODS, Method, describe, make
from handful.methods import create as create_by_name
from handful.ops.crops import starts
from handful.ops.maps import merge_levels, pixel_map
from handful.saved import scoring_graph
from handful.types import AuxiliaryClass, Crops, Features, Scores


@dataclass(kw_only=True, eq=False)
class MeanDistance(Method):
    """A stranger's method, which Handful's list does not hold: how far each patch is from the mean one of its place."""

    name: ClassVar[str] = "mean_distance"
    traceable: ClassVar[bool] = True

    sigma: float = 4.0

    mean_: Tensor = field(init=False, repr=False)

    def _fit(self, references: Features) -> None:
        self.mean_ = merge_levels(references.levels, mode="nearest").mean(0)

    def _score(self, queries: Features) -> Scores:
        patches = merge_levels(queries.levels, mode="nearest")
        distances = torch.linalg.vector_norm(patches - self.mean_, dim=3)
        return Scores(pixel_map(distances, queries.size, sigma=self.sigma), distances.amax((1, 2)))

    def state(self) -> dict[str, Tensor]:
        return {"depths": torch.tensor(self.depths_ or ()), "mean": self.mean_}

    def _restore(self, state: dict[str, Tensor]) -> None:
        self.mean_ = state["mean"]


KINDS = {**METHODS, MeanDistance.name: MeanDistance}


class Case(NamedTuple):
    """A method and a way in which it learns."""

    name: str
    settings: dict
    crops: Crops | None
    turned: bool

    @property
    def grid(self):
        return 16 if self.crops else 12  # patches of a side: no less than those of a crop


def cases():
    for name, kind in sorted(KINDS.items()):
        yield Case(name, {}, None, False)
        if kind().turn_wanted != "never":
            yield Case(name, {}, None, True)
        hints = get_type_hints(kind)
        choices = [(setting, value) for setting in kind.setting_names() for value in get_args(hints[setting])]
        for setting, value in choices:
            if isinstance(value, str) and (crops := kind(**{setting: value}).crops_wanted):
                yield Case(name, {setting: value}, crops, False)
                break


CASES = list(cases())


def head_for(name):
    """A head as an auxiliary-trained method needs it, trained a little; None for any other method."""
    if name not in HEAD_TRAININGS:
        return None
    training = HEAD_TRAININGS[name](**HEAD_TRAININGS[name].quick)
    pictures = [draw(4, seed=200), *(planted(row, column) for row, column in ((1, 1), (4, 6), (9, 3), (7, 9)))]
    queries = join(pictures)
    anomalous = torch.tensor([False] * 4 + [True] * 4)
    masks = tuple(((level - draw(1, seed=200).levels[n]).abs().amax(3) > 0.3) for n, level in enumerate(queries.levels))
    pixels = torch.nn.functional.interpolate(masks[0][:, None].float(), size=(96, 96))[:, 0] > 0
    none = torch.zeros(8, dtype=torch.bool)
    one = AuxiliaryClass("toy", draw(6, seed=201), queries, anomalous, masks, torch.full((8,), -1), pixels, none)
    training.start([one], seed=0, device="cpu")
    for number in range(training.updates):
        training.update(number, [one])
    return training.head_


HEADS = {}  # trained once for all tests


def create(name, settings):
    """The method, with a head where it needs one."""
    if name not in HEADS:
        HEADS[name] = head_for(name)
    return make(KINDS[name], settings).take_head(HEADS[name])


def new(case):
    return create(case.name, case.settings)


def draw(count, *, seed, case=CASES[0]):
    """Pictures of one product: a common structure and a little of their own.

    The second level is one of windows of 2 x 2 patches, and the prototypes are what good and planted ones are like.
    """
    generator = torch.Generator().manual_seed(7)
    common = [torch.rand(1, n, n, d, generator=generator) for n, d in ((case.grid, 10), (case.grid - 1, 14))]
    own = torch.Generator().manual_seed(seed)
    levels = tuple(level + 0.1 * torch.rand(count, *level.shape[1:], generator=own) for level in common)
    normal = common[1].mean((0, 1, 2))
    return whole(levels, torch.nn.functional.normalize(torch.stack([normal, normal + window_defect()])), case)


def whole(levels, text, case):
    """Features of two levels and two prototypes, with the crops that the case wants."""
    crops = None
    if case.crops:
        begin, side = starts(case.grid, case.crops), case.crops.size
        cut = [
            torch.stack([level[:, r : r + n, c : c + n] for r in begin for c in begin], 1)
            for level, n in zip(levels, (side, side - 1), strict=True)
        ]
        crops = Features(tuple(cut), (8 * side, 8 * side))
    return Features(levels, (8 * case.grid, 8 * case.grid), levels[1].mean((1, 2)), text, crops)


def window_defect():
    return 1.5 * torch.rand(14, generator=torch.Generator().manual_seed(4))


def planted(row, column, *, case=CASES[0]):
    """One picture with a defect at a patch of the fine grid."""
    picture = draw(1, seed=99, case=case)
    fine, coarse = (level.clone() for level in picture.levels)
    fine[0, row : row + 2, column : column + 2] += 1.5 * torch.rand(10, generator=torch.Generator().manual_seed(3))
    coarse[0, row - 1 : row + 2, column - 1 : column + 2] += window_defect()
    return whole((fine, coarse), picture.text, case)


def look(level, turns):
    """A level of pictures that are turned by so many quarters: other patches, at other places."""
    return torch.rot90(level.roll(turns, 3), turns, (1, 2))


def fit(method, references, case=CASES[0]):
    """Fit with as many variations of each reference, in the same ways, as the method wants, and with turned copies."""
    generator, augmented, turned = torch.Generator().manual_seed(5), None, None
    if method.views_wanted:
        varied = [
            level[:, None] + 0.1 * torch.rand(method.views_wanted, *level.shape[1:], generator=generator)
            for level in references.levels
        ]
        averaged = tuple(level.flatten(0, 1).mean((1, 2), keepdim=True) for level in varied)
        augmented = Features(averaged, references.size)
    if case.turned:
        copies = [
            torch.stack([look(level, turns).flatten(1, 2) for turns in (1, 2, 3)], 1) for level in references.levels
        ]
        turned = Features(tuple(copies), references.size)  # (B, 3, h·w, D) at every level
    return method.fit(references, augmented=augmented, turned=turned)


@pytest.fixture(params=sorted(KINDS))
def name(request):
    return request.param


@pytest.fixture(params=CASES, ids=lambda case: f"{case.name}{'-crops' * bool(case.crops)}{'-turned' * case.turned}")
def case(request):
    return request.param


def equal(one, other):
    return torch.equal(one.maps, other.maps) and torch.equal(one.image, other.image)


def test_fit_returns_self_and_forgets_earlier_fits(case):
    method, queries = new(case), draw(2, seed=50, case=case)
    assert fit(method, draw(3, seed=1, case=case), case) is method
    restored = new(case).load_state(method.state())
    expected = fit(new(case), draw(2, seed=2, case=case), case).score(queries)
    for fitted in (method, restored):
        assert equal(fit(fitted, draw(2, seed=2, case=case), case).score(queries), expected)


def test_shapes_and_types_are_as_promised(case):
    scores = fit(new(case), draw(2, seed=1, case=case), case).score(draw(3, seed=2, case=case))
    assert scores.maps.shape == (3, 8 * case.grid, 8 * case.grid)
    assert scores.image.shape == (3,)
    assert scores.maps.dtype == scores.image.dtype == torch.float32


def test_scoring_changes_nothing(case):
    method, queries = fit(new(case), draw(2, seed=1, case=case), case), draw(2, seed=2, case=case)
    before = {key: tensor.clone() for key, tensor in method.state().items()}
    copies = [level.clone() for level in queries.levels]
    first = method.score(queries)
    assert equal(first, method.score(queries))
    assert all(torch.equal(tensor, method.state()[key]) for key, tensor in before.items())
    assert all(torch.equal(level, copy) for level, copy in zip(queries.levels, copies, strict=True))


def test_a_batch_gives_what_its_pictures_give_alone_also_in_two_threads(case):
    method, queries = fit(new(case), draw(3, seed=1, case=case), case), draw(4, seed=2, case=case)
    together = method.score(queries)
    with ThreadPoolExecutor(2) as pool:
        alone = list(pool.map(lambda row: method.score(queries[[row]]), range(4)))
    assert torch.equal(together.image, torch.cat([scores.image for scores in alone]))
    assert torch.equal(together.maps, torch.cat([scores.maps for scores in alone]))


@pytest.mark.parametrize("references", [1, 4])
@pytest.mark.parametrize("place", [(2, 8), (8, 2)])
def test_a_planted_defect_scores_highest_at_its_place(case, references, place):
    method = fit(new(case), draw(references, seed=1, case=case), case)
    scores, good = method.score(planted(*place, case=case)), method.score(draw(5, seed=2, case=case))
    assert scores.image.item() > float(good.image.max())
    row, column = divmod(int(scores.maps[0].argmax()), 8 * case.grid)
    reach = 8 * method.reach
    assert abs(row - 8 * (place[0] + 1)) <= reach and abs(column - 8 * (place[1] + 1)) <= reach


def test_the_order_of_references_does_not_matter(case):
    if KINDS[case.name].order_matters:
        pytest.skip(f"{case.name} says that the order matters")
    references, queries = draw(4, seed=1, case=case), draw(2, seed=2, case=case)
    one = fit(new(case), references, case).score(queries)
    other = fit(new(case), references[[2, 0, 3, 1]], case).score(queries)
    assert torch.allclose(one.image, other.image, rtol=1e-5)  # sums in another order round otherwise
    assert torch.allclose(one.maps, other.maps, rtol=1e-4, atol=1e-6)


def test_saved_and_loaded_it_scores_bit_for_bit_equal(case):
    method, queries = fit(new(case), draw(3, seed=1, case=case), case), draw(2, seed=2, case=case)
    stored = safetensors.torch.load(safetensors.torch.save(method.state()))
    assert equal(new(case).load_state(stored).score(queries), method.score(queries))


@pytest.mark.parametrize(
    "case", [case for case in CASES if KINDS[case.name].traceable and not case.crops], ids=lambda case: f"{case[::3]}"
)
def test_its_graph_scores_as_the_method(case):
    references = draw(3, seed=1, case=case)
    method = fit(new(case), references, case)
    parts = scoring_graph.traced(method, ReferenceFeatures((references[[0]],)))
    core = openvino.Core()
    model = core.read_model(parts[SCORING_ENTRY], parts[SCORING_CONSTANTS_ENTRY])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inputs = {name for value in compiled.inputs for name in value.names}
    learnt = {f"{STATE_INPUT}{name}": tensor.numpy() for name, tensor in method.state().items()}
    for query in (draw(1, seed=2, case=case), planted(2, 8, case=case), planted(8, 2, case=case)):
        if case.turned:
            query = whole(tuple(look(level, 1) for level in query.levels), query.text, case)
        levels = {f"{LEVEL_INPUT}{number}": level.numpy() for number, level in enumerate(query.levels)}
        found = compiled({name: value for name, value in (learnt | levels).items() if name in inputs})
        expected = method.score(query)
        # sums of float32 in another order
        np.testing.assert_allclose(found["raw_score"], expected.image.numpy(), rtol=1e-4)
        np.testing.assert_allclose(found["raw_map"], expected.maps.numpy(), rtol=1e-3, atol=1e-5)


def test_a_single_reference_scores_against_itself_as_another_picture_does(case):
    reference = draw(1, seed=1, case=case)
    scores = fit(new(case), reference, case).score_against_itself(reference)
    if scores is not None:
        assert scores.maps.shape == (1, 8 * case.grid, 8 * case.grid) and scores.image.shape == (1,)
        assert scores.image.item() > 0 and scores.maps.isfinite().all()


def test_what_is_assumed_of_its_scores_makes_a_threshold(name):
    kind = KINDS[name]
    assert min(kind.good_spread, kind.single_widening, kind.single_spread, kind.reach) > 0
    assert min(kind.good_falling, kind.ample, kind.min_references) >= 0


def test_an_unfitted_method_says_so(name):
    with pytest.raises(NotFittedError, match="call `fit` first"):
        create(name, {}).score(draw(1, seed=1))


def test_other_channels_than_in_fit_are_refused(name):
    method, query = fit(create(name, {}), draw(1, seed=1)), draw(1, seed=2)
    narrow = Features(tuple(level[..., :5] for level in query.levels), (96, 96), query.image, query.text)
    with pytest.raises(InputError, match="same backbone"):
        method.score(narrow)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(name, value):
    bad = draw(1, seed=1)
    bad.levels[1][0, 2, 2, 0] = value
    with pytest.raises(InputError, match="level 1"):
        fit(create(name, {}), bad)
    with pytest.raises(InputError, match="level 1"):
        fit(create(name, {}), draw(1, seed=1)).score(bad)


def test_no_picture_is_refused(name):
    with pytest.raises(InputError, match="at least one picture"):
        create(name, {}).fit(Features((), (96, 96)))
    if KINDS[name].min_references:
        with pytest.raises(InputError, match="at least one picture"):
            create(name, {}).fit(draw(2, seed=1)[[]])
    with pytest.raises(InputError, match="at least one picture"):
        fit(create(name, {}), draw(2, seed=1)).score(draw(2, seed=1)[[]])


def test_unknown_settings_are_refused_with_the_known_ones(name):
    with pytest.raises(SettingError, match=rf"{KINDS[name].setting_names()[-1]}.*got 'colour'"):
        create(name, {"colour": 1})


def test_a_setting_of_the_wrong_type_is_refused(name):
    numbers = [setting.name for setting in fields(KINDS[name]) if isinstance(setting.default, float)]
    for number in numbers:
        for value in ("wide", True, None, float("nan"), [1]):
            with pytest.raises(SettingError, match=f"`{number}` must be a finite number, got"):
                create(name, {number: value})


def test_settings_are_told_as_they_are_read(name):
    settings = {"sigma": 2.5} if "sigma" in KINDS[name].setting_names() else {}
    method = create(name, settings)
    assert method.settings == KINDS[name]().settings | settings
    assert describe(method) == name + ":sigma=2.5" * bool(settings)


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(SettingError, match=f"one of {', '.join(sorted(METHODS))}, got 'magic'"):
        create_by_name("magic", {})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cpu_and_gpu_agree(name):
    method, queries = fit(create(name, {}), draw(3, seed=1)), draw(2, seed=2)
    on_cpu = method.score(queries)
    levels = tuple(level.cuda() for level in queries.levels)
    there = Features(levels, queries.size, queries.image.cuda(), queries.text.cuda())
    on_gpu = method.to("cuda").score(there)
    assert torch.allclose(on_cpu.image, on_gpu.image.cpu(), rtol=1e-4)  # another order of float32 sums
    assert torch.allclose(on_cpu.maps, on_gpu.maps.cpu(), rtol=1e-3, atol=1e-4)


# --- a stranger's method, through everything that a method of the list goes through


@pytest.fixture(scope="module")
def stranger(_good_pictures):
    """An inspector of a method that no list holds; do not change it."""
    torch.manual_seed(0)  # of the random weights
    small = {"backbone": "test_efficientnet", "weights": "random", "size": 64, "engine": "openvino", "device": "cpu"}
    return Detector(MeanDistance(sigma=2.0), **small).fit(_good_pictures)


@pytest.fixture
def parts(tmp_path, picture_factory):
    """A data set of one category: two training pictures, two good and two defective test pictures."""
    for number, (split, defect) in enumerate((("train/good", False), ("test/good", False), ("test/scratch", True))):
        (tmp_path / "parts/disc" / split).mkdir(parents=True)
        for row in range(2):
            picture = picture_factory(10 * number + row, defect=defect)
            Image.fromarray(picture).save(tmp_path / "parts/disc" / split / f"{row}.png")
    return open_dataset(tmp_path / "parts")


def test_an_inspector_of_a_strangers_method_is_loaded_with_the_class(stranger, picture_factory, tmp_path):
    path, pixels = tmp_path / "part.handful", picture_factory(9, defect=True)
    stranger.save(path)
    with pytest.raises(InspectorError, match=r"with the class of its method, mean_distance, got none; give the class"):
        Detector.load(path)
    with pytest.raises(InspectorError, match="mean_distance, got patchcore; give"):
        Detector.load(path, method=METHODS["patchcore"])
    (expected,) = stranger.inspect(pixels)
    loaded = Detector.load(path, method=MeanDistance, engine="torch")
    for inspector in (loaded, Inspector.load(path)):  # by torch, and by the graph, which needs no class
        assert inspector.inspect(pixels)[0].score == pytest.approx(expected.score, rel=1e-4)
    assert loaded.method.settings == {"sigma": 2.0}


def test_a_detector_of_a_strangers_method_is_pickled_and_corrected(stranger, picture_factory):
    unfitted = pickle.loads(pickle.dumps(Detector(MeanDistance(sigma=2.0), size=64)))
    assert type(unfitted.method) is MeanDistance and unfitted.method.settings == {"sigma": 2.0}
    again, pixels = pickle.loads(pickle.dumps(stranger)), picture_factory(9)
    before = stranger.inspect(pixels)[0].score
    assert again.inspect(pixels)[0].score == before
    again.teach_good(pixels)
    assert again.inspect(pixels)[0].score < before
    again.undo(1)
    assert again.inspect(pixels)[0].score == before


def test_an_inspector_of_a_strangers_method_is_exported(stranger, tmp_path):
    written = stranger.export(tmp_path / "out")
    assert all(max(one.score, one.map) < scoring_graph.TOLERANCE / 10 for one in written.agreements)


def test_a_strangers_method_stands_in_a_benchmark(stranger, parts, tmp_path):
    backbone = stranger._needed.backbone
    options = {"methods": [MeanDistance(sigma=2.0), "patchcore"], "shots": [2], "seeds": [0]}
    benchmark = Benchmark({"parts": parts}, backbone, tmp_path / "out", **options)
    rows = list(benchmark.run())
    assert [(row.method, row.error) for row in rows] == [("mean_distance:sigma=2", ""), ("patchcore", "")]
    category = parts.categories[0]
    detector = Detector(MeanDistance(sigma=2.0), backbone=backbone, size=64).fit(category.train)
    written = results.read_scores(results.scores_path(tmp_path / "out", rows[0]))
    assert [one.raw_score for one in written] == [detector.inspect(one.path)[0].raw_score for one in category.test]
    assert "disc-mean_distance" in " ".join(page.name for page in benchmark.write_pages())
    later = Benchmark({"parts": parts}, backbone, tmp_path / "out", **options | {"methods": ["patchcore"]})
    assert not later.unfinished and list(later.write_pages())  # the stranger's rows stay, without its class


def test_an_object_comes_with_its_settings_and_a_name_of_its_own():
    with pytest.raises(SettingError, match=r"`settings` must be left out .* got {'sigma': 1.0}; make the object with"):
        Detector(MeanDistance(), settings={"sigma": 1.0})
    for name in ("patchcore", "a:b", ""):
        namesake = type("Namesake", (MeanDistance,), {"name": name})
        with pytest.raises(SettingError, match=rf"must be unique, .* got '{name}' for Namesake; give the class"):
            Detector(namesake())


def test_an_object_stays_as_it_was_given(good_folder, stranger):
    given = METHODS["patchcore"](neighbours=2)
    detector = Detector(given, backbone=stranger._needed.backbone).fit(good_folder)
    assert given.depths_ is None and detector.method.settings == given.settings
    named = Detector("patchcore", settings={"neighbours": 2}, backbone=stranger._needed.backbone).fit(good_folder)
    assert detector.calibration == named.calibration
