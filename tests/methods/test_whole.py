"""Whole methods beside their authors' code, from a picture's file to its score and map; tests/golden/*_whole.md."""

import itertools
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from scipy.stats import spearmanr

from handful import backbones
from handful.backbones import prompts, timm
from handful.backbones.crops import with_crops
from handful.backbones.timm import state_digest
from handful.data.images import read_picture
from handful.data.preprocessing import Preprocessing
from handful.detector import Detector
from handful.methods.fasl import FASL, ScoreLearning, scoring
from handful.methods.reb import DefectClassification
from handful.methods.resad import ResAD, ResidualTraining
from handful.methods.winclip import WinCLIP
from handful.ops.crops import overlap_mean
from handful.ops.maps import pixel_map
from handful.ops.seeding import seeded

DATA = Path(os.environ.get("HANDFUL_DATA", Path(__file__).parents[3] / "shared" / "data"))
CATEGORIES = ["bottle", "screw", "tile"]
EQUAL = 1e-6  # difference of two cosines that float32 and other code for features turn round; seen up to 6e-7

pytestmark = [
    pytest.mark.dataset,
    pytest.mark.skipif(not (DATA / "mvtec_ad").is_dir(), reason=f"needs real pictures in {DATA} (or HANDFUL_DATA)"),
]


class Golden:
    """What the authors' code made of the pictures of one category."""

    def __init__(self, name, category):
        path = Path(__file__).parents[1] / "golden" / f"{name}_whole.safetensors"
        with safe_open(path, "numpy") as file:
            self.numbers = {key.removeprefix(f"{category}."): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        self.references = [DATA / name for name in json.loads(metadata[f"{category}.references"])]
        self.pictures = [DATA / name for name in json.loads(metadata[f"{category}.pictures"])]
        self.weights_sha256, self.head_sha256 = metadata["weights_sha256"], metadata.get("head_sha256")

    def scored(self, method, settings, *, size, bring, weights="auto"):
        """Our scores (B,), maps (B, H, W) and the detector; `bring` reads a picture as the authors' code does."""
        options = {"size": size, "squeeze": True, "engine": "torch", "device": "cpu", "weights": weights}
        detector = Detector(method, settings=settings, gate=(), **options)
        detector.fit([bring(path) for path in self.references], accept_odd=True, try_defects=False)
        other = detector.backbone_spec.weights_sha256 != self.weights_sha256
        assert other == (weights != "auto"), "other weights than the authors' code had"
        inspections = detector.inspect([bring(path) for path in self.pictures])
        raw = detector.calibration.map_typical, detector.calibration.map_threshold
        maps = np.stack([inspection.heatmap.astype(float) for inspection in inspections]) * (raw[1] - raw[0]) + raw[0]
        return np.array([inspection.raw_score for inspection in inspections]), maps, detector

    def features(self, backbone, *, bring):
        """What a backbone makes of the references, and of the pictures."""
        assert backbone.spec.weights_sha256 == self.weights_sha256, "other weights than the authors' code had"
        prepare = Preprocessing(backbone.spec.size, bits=8)
        for paths in (self.references, self.pictures):
            images = [prepare(read_picture(bring(path), name=path.name)) for path in paths]
            yield backbone(torch.from_numpy(np.stack(images)))

    def scored_over_set(self, method, backbone, *, bring):
        """Our scores (B,) and maps (B, H, W) with `paper_compat`, which looks at the pictures as a whole."""
        return over_set(method, *self.features(backbone, bring=bring))


def over_set(method, references, pictures):
    """Scores (B,) and maps (B, H, W) with `paper_compat`."""
    parts = method.fit(references).score(pictures).parts
    found = list(method.over_test_set([tuple(part[[row]] for part in parts) for row in range(len(pictures))]))
    return [torch.cat([getattr(one, name) for one in found]).double().numpy() for name in ("image", "maps")]


def blocks(maps, *, pixels=16):
    """Means of blocks of so many pixels: (B, H, H) → (B, H / pixels, H / pixels)."""
    side = maps.shape[1] // pixels
    return maps.reshape(len(maps), side, pixels, side, pixels).mean((2, 4))


def assert_alike(ours, theirs):
    # Ranks as good as equal, and within 1e-3 of the range. Measured: 4e-5 at most, of float32 in another order.
    assert spearmanr(ours.ravel(), theirs.ravel()).statistic >= 0.999
    assert np.abs(ours - theirs).max() <= 1e-3 * np.ptp(theirs)


def cut(picture, side):
    left, top = (round((length - side) / 2) for length in picture.size)
    return np.asarray(picture.crop((left, top, left + side, top + side)))


def squeezed(path, *, side=256):
    return np.asarray(Image.open(path).convert("RGB").resize((side, side)))


def shorter_side(path, *, side, resampling):
    picture = Image.open(path).convert("RGB")
    size = [int(side * length / min(picture.size)) for length in picture.size]
    return cut(picture.resize(size, resampling), 224)


def shorter_side_256(path):
    return shorter_side(path, side=256, resampling=Image.Resampling.BILINEAR)


def shorter_side_224(path):
    return shorter_side(path, side=224, resampling=Image.Resampling.BICUBIC)


def squeezed_256(path):
    return cut(Image.open(path).convert("RGB").resize((256, 256), Image.Resampling.LANCZOS), 224)


AS_PATCHCORE = {"dimensions": 1024, "level_weights": "raw", "squared": True, "image_score": "max"}


@pytest.mark.parametrize("category", CATEGORIES)
def test_patchcore_is_the_authors(category):
    golden = Golden("patchcore", category)
    scores, maps, _ = golden.scored("patchcore", AS_PATCHCORE, size=224, bring=shorter_side_256)
    assert_alike(scores**2, golden.numbers["scores"])
    assert_alike(blocks(maps**2), golden.numbers["maps"])


@pytest.mark.parametrize("category", CATEGORIES)
def test_patchcore_with_a_coreset_is_as_near_to_the_authors_as_their_seeds_to_each_other(category):
    golden = Golden("patchcore", category)
    settings = AS_PATCHCORE | {"coreset_ratio": 0.1}
    scores, _, _ = golden.scored("patchcore", settings, size=224, bring=shorter_side_256)
    one, other = golden.numbers["coreset_0.scores"], golden.numbers["coreset_1.scores"]
    among = spearmanr(one, other).statistic
    assert spearmanr(scores, one).statistic >= among - 0.02 and spearmanr(scores, other).statistic >= among - 0.02


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize(("lam", "key"), [(2.0, "lam2"), (0.5, "lam05")])
def test_fastrecon_is_the_authors(category, lam, key):
    golden = Golden("fastrecon", category)
    scores, maps, _ = golden.scored("fastrecon", {"lam": lam}, size=224, bring=squeezed_256)
    assert_alike(scores, golden.numbers[f"{key}.scores"])
    assert_alike(blocks(maps), golden.numbers[f"{key}.maps"])


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize(("neighbours", "alpha", "key"), [(9, 1.0, "k9"), (3, 0.5, "k3")])
def test_ldknn_is_the_authors(category, neighbours, alpha, key):
    golden = Golden("reb", category)
    settings = {"dimensions": 512, "level_weights": "raw", "exclude_radius": 0, "image_score": "authors"}
    settings |= {"neighbours": neighbours, "alpha": alpha}
    scores, maps, detector = golden.scored("reb", settings, size=256, bring=squeezed)
    offset = detector._needed.method.offset_.item()  # ours are moved up by it, and roots
    assert_alike(scores**2 - offset, golden.numbers[f"{key}.scores"])
    assert_alike(blocks(maps**2) - offset, golden.numbers[f"{key}.maps"])
    if key == "k9":  # with faiss as it comes, where 40 % of the rows are their own neighbours
        assert spearmanr(scores, golden.numbers["products.scores"]).statistic >= 0.98


def simple_variants(pictures, number):
    """A batch of three times seven pictures for REB's training: bars on references, larger from class to class."""
    variants = []
    for source in range(3):
        picture = pictures[(3 * number + source) % len(pictures)]
        for kind in range(7):
            variant, top = picture.copy(), 10 + (13 * number + 5 * source) % 40
            variant[top : top + 8 * kind, 20 + 9 * kind : 24 + 14 * kind] = 30 * kind
            variants.append(variant)
    return torch.from_numpy(np.stack(variants)).permute(0, 3, 1, 2).float() / 255


def reb_training(golden):
    """Our training as the authors' code was run, and its references; their batches come in place of drawn ones."""
    trunk = timm.trunk("tf_efficientnet_lite0", size=128, weights="auto")
    assert timm.digest(trunk) == golden.weights_sha256, "other weights than the authors' code had"
    tuning = DefectClassification(updates=300, warmup=3 / 300, sources=3, accumulate=2, size=128, frozen_stride=0)
    references = [squeezed(path, side=128) for path in golden.references]
    tuning.start(trunk, references, seed=0)
    head = state_digest(tuning.learnt_["head"].state_dict())
    assert head == golden.head_sha256, "another head than the authors' code had"
    numbers = itertools.count()
    tuning._batch = lambda _: simple_variants(references, next(numbers))
    return tuning


@pytest.mark.parametrize("category", CATEGORIES)
def test_reb_trains_as_the_authors_code(category):
    golden = Golden("reb_training", category)
    tuning = reb_training(golden)
    modules = (tuning.learnt_["trunk"].model, tuning.learnt_["head"])
    before = [clones(module) for module in modules]
    losses = [tuning.update(number) for number in range(4)]
    changes = [
        (tensor.float() - known[name].float()).norm().item()
        for module, known in zip(modules, before, strict=True)
        for name, tensor in sorted(module.state_dict().items())
    ]
    losses.append(tuning.update(4))
    # The first three updates leave the trunk alone. From the fourth on, rounding grows up to a thousand times in each.
    assert losses == pytest.approx(golden.numbers["losses"].tolist(), rel=1e-5)
    assert changes == pytest.approx(golden.numbers["changes"].tolist(), rel=1e-3, abs=1e-5)


def test_after_reb_has_trained_ldknn_scores_as_the_authors_code(tmp_path):
    golden = Golden("reb_training", "bottle")
    tuning = reb_training(golden)
    for number in range(4):
        tuning.update(number)
    weights = tmp_path / "tuned.safetensors"
    safetensors.torch.save_file(clones(tuning.learnt_["trunk"].model), weights)
    settings = {"dimensions": 512, "level_weights": "raw", "exclude_radius": 0, "image_score": "authors", "alpha": 1.0}
    scores, maps, detector = golden.scored("reb", settings, size=256, bring=squeezed, weights=str(weights))
    offset = detector._needed.method.offset_.item()
    assert_alike(scores**2 - offset, golden.numbers["scores"])
    assert_alike(blocks(maps**2) - offset, golden.numbers["maps"])


def clones(module):
    return {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}


def random_resad_head():
    """ResAD's head with random weights, small where residuals come in, so that likelihoods are of a usual size."""
    head = ResidualTraining(match="cosine", residual="squared", constraintor=True, blocks=10).make_head(
        (24, 40, 112), seed=0
    )
    with seeded(0), torch.no_grad():
        for (convolution, norm, _), share in zip(head.constraintors, (0.002, 0.002, 0.004), strict=True):
            convolution.weight.mul_(share).add_(share / 10 * torch.randn(convolution.weight.shape))
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.1)
    return head.eval()


@pytest.mark.parametrize("category", CATEGORIES)
def test_resad_is_the_authors_on_a_random_head(category):
    golden, head = Golden("resad", category), random_resad_head()
    drawn = {name: weight for name, weight in head.state_dict().items() if "w_perm" not in name}
    assert state_digest(drawn) == golden.head_sha256, "another head than the authors' code had"
    levels = ("blocks.1", "blocks.2", "blocks.4")
    backbone = backbones.create(levels=levels, size=224, engine="torch", device="cpu")
    method = ResAD(paper_compat=True).take_head(head)
    scores, maps = golden.scored_over_set(method, backbone, bring=shorter_side_224)
    # The code subtracts likelihoods from their highest sum, ours from the number of levels.
    for ours, key in ((scores, "scores"), (blocks(maps), "maps")):
        theirs = golden.numbers[f"corners.{key}"]
        assert_alike(ours - ours.mean(), theirs - theirs.mean(dtype=float))


def wide_clip(folder, *, layers=12):
    """A CLIP with random weights whose vision transformer is as wide as FASL's code asks for, and otherwise small."""
    open_clip = pytest.importorskip("open_clip", reason="needs the extra clip")
    vision = {"image_size": 168, "layers": layers, "width": 1024, "patch_size": 14, "mlp_ratio": 0.5}
    text = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    (folder / "handful-wide.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return backbones.create(
        "clip:handful-wide",
        levels=[layers * quarter // 4 for quarter in (1, 2, 3, 4)],
        size=168,
        weights="random",
        device="cpu",
    )


def window_clip(folder, object_name, *, levels=None):
    """A small CLIP with random weights, with the pictures, patches and words of the one that WinCLIP takes."""
    open_clip = pytest.importorskip("open_clip", reason="needs the extra clip")
    vision = {"image_size": 240, "layers": 3, "width": 128, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    config = {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}
    (folder / "handful-windows.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    options = {"weights": "random", "object_name": object_name, "levels": levels, "device": "cpu"}
    return backbones.create("clip:handful-windows", **options)


def random_fasl_head():
    """FASL's heads with random weights, as decided as trained ones: probabilities from 0 to 1."""
    head = ScoreLearning(nam=True).make_head((1024,) * 4, seed=0)
    with seeded(0), torch.no_grad():
        for asl in head.asl:
            for norm in asl:
                if isinstance(norm, torch.nn.BatchNorm1d):
                    norm.running_mean.normal_(0, 0.1)
                    norm.running_var.uniform_(0.5, 2)
                    norm.weight.uniform_(0.5, 1.5)
                    norm.bias.normal_(0, 0.1)
            asl[0].running_mean.fill_(0.0043)
            asl[0].running_var.fill_(3.5e-5)
            asl[-1].weight.mul_(20)
        head.nam.layers[0].weight.mul_(4)
        head.nam.layers[2].weight.mul_(4)
    return head.eval()


def undecided(pictures, references):
    """Where two good patches are equally like a patch at any level, and rounding chooses: (N, h, w, D)s → (N, h, w)."""
    found = torch.zeros(pictures[0].shape[:3], dtype=torch.bool)
    for level, good in zip(pictures, references, strict=True):
        directions = F.normalize(level.double(), dim=3)
        bank = torch.unique(F.normalize(good.flatten(0, -2).double(), dim=1), dim=0)  # a picture may be drawn twice
        highest = torch.stack([(one @ bank.T).topk(2).values for one in directions.flatten(1, 2)])  # (N, h·w, 2)
        found |= (highest.diff(dim=2)[..., 0] > -EQUAL).unflatten(1, level.shape[1:3])
    return found


def assert_alike_where_decided(ours, theirs, known, *, reach, most, share):
    """As `assert_alike` for scores and maps, but for what lies within reach of a patch that rounding decides.

    There scores and maps may differ by `most` of their range, and a share of the blocks by more than 1e-3 of it;
    elsewhere differences of 1e-6 were seen.
    """
    spread = F.max_pool2d(known.float()[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0] > 0
    of_pictures = known.flatten(1).any(1)
    for one, other, excused, bound in zip(ours, theirs, (of_pictures, spread), most, strict=True):
        off = np.abs(one - other) / np.ptp(other)
        assert spearmanr(one.ravel(), other.ravel()).statistic >= 0.999
        assert off[~excused.numpy()].max(initial=0) <= 1e-3
        assert off.max() <= bound
    assert (off > 1e-3).mean() <= share  # of the maps' blocks


@pytest.mark.parametrize("category", CATEGORIES)
def test_fasl_is_the_authors_on_random_heads(category, tmp_path):
    golden, head = Golden("fasl", category), random_fasl_head()
    assert state_digest(head.state_dict()) == golden.head_sha256, "other heads than the authors' code had"
    references, pictures = golden.features(wide_clip(tmp_path), bring=partial(squeezed, side=168))
    scores, maps = over_set(FASL(paper_compat=True).take_head(head), references, pictures)
    theirs = golden.numbers["corners.scores"], golden.numbers["corners.maps"]
    known = undecided(pictures.levels, references.levels)
    assert_alike_where_decided((scores, blocks(maps, pixels=14)), theirs, known, reach=5, most=(1e-3, 5e-3), share=0.01)


@pytest.mark.parametrize("category", CATEGORIES)
def test_fasl_with_crops_is_the_authors_on_random_heads(category, tmp_path, monkeypatch):
    # Their maps were enlarged with pixel centres half a step in for these numbers.
    monkeypatch.setattr(scoring, "pixel_map", lambda *of, corners, **options: pixel_map(*of, **options))
    golden, head = Golden("fasl_windows", category), random_fasl_head()
    assert state_digest(head.state_dict()) == golden.head_sha256, "other heads than the authors' code had"
    windows = {"win_size": 8, "win_stride": 4, "paper_compat": True}
    method = FASL(winmode="mul", win_index=0, **windows)
    backbone = with_crops(wide_clip(tmp_path, layers=4), method.crops_wanted)
    seen = list(golden.features(backbone, bring=partial(squeezed, side=168)))

    def scored(**settings):
        scores, maps = over_set(FASL(**windows, **settings).take_head(head), *seen)
        return scores, blocks(maps, pixels=14)

    references, pictures = ([level.flatten(0, 1) for level in some.crops.levels] for some in seen)  # (B·W, h, w, D)
    of_crops = undecided(pictures, references).float().unflatten(0, (len(golden.pictures), -1))
    in_crops = torch.stack([overlap_mean(one, (12, 12), method.crops_wanted) for one in of_crops]) > 0
    known = in_crops | undecided(seen[1].levels, seen[0].levels)
    for key, settings, patches, reach in (  # NAM reaches 4 patches, and 1 lies between centres
        ("nam.mul", {"winmode": "mul", "win_index": 0}, known, 5),
        ("asl.only", {"winmode": "only", "win_index": 0, "nam": False}, in_crops, 1),
    ):
        theirs = golden.numbers[f"{key}.scores"], golden.numbers[f"{key}.maps"]
        assert_alike_where_decided(scored(**settings), theirs, patches, reach=reach, most=(2e-3, 5e-2), share=0.02)
    assert in_crops.float().mean() <= 0.1  # else hardly anything is compared
    # The code's index takes one crop of the references for each, by the class token, and then looks in all of them.
    scores, _ = scored(winmode="mul", win_index=4)
    assert spearmanr(scores, golden.numbers["index.mul.scores"]).statistic >= 0.6


def public_prototypes(backbone, object_name):
    """The prototypes of the public implementations: a template less, another twice, and lengths left as they come."""
    without, twice = "a cropped photo of a {}.", "a jpeg corrupted photo of {} {{}}."
    templates = [one for one in prompts.TEMPLATES if one != without]
    templates[templates.index(twice.format("a"))] = twice.format("the")
    tower, means = backbone._texts, []
    for states in (prompts.NORMAL_STATES, prompts.ANOMALOUS_STATES):
        texts = [template.format(state.format(object_name)) for state in states for template in templates]
        with torch.inference_mode():
            means.append(tower._model.encode_text(tower._tokenizer(texts)).mean(0))
    return F.normalize(torch.stack(means))


@pytest.mark.parametrize("category", CATEGORIES)
def test_winclip_is_that_of_public_implementations(category, tmp_path):
    golden = Golden("winclip", category)
    backbone = window_clip(tmp_path, category, levels=("block3", "tokens", "windows2", "windows3"))
    seen = list(golden.features(backbone, bring=partial(squeezed, side=240)))
    text = public_prototypes(backbone, category)
    for patches, public in enumerate(("zqhang", "anomalib")):  # zqhang's are the last block's, anomalib's the tokens
        references, pictures = (
            replace(some, levels=(some.levels[patches], *some.levels[2:]), text=text) for some in seen
        )
        for known, key in ((references[[]], "zero"), (references, "few")):
            scores = WinCLIP().fit(known).score(pictures)
            # zqhang adds the two maps of which ours and anomalib's is the mean.
            maps = (2 if (public, key) == ("zqhang", "few") else 1) * scores.maps
            assert_alike(scores.image.double().numpy(), golden.numbers[f"{public}.{key}.scores"])
            assert_alike(blocks(maps.double().numpy()), golden.numbers[f"{public}.{key}.maps"])
