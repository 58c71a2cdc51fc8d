"""Whole methods beside their authors' code, from a picture's file to its score and map; tests/golden/*_whole.md."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from scipy.stats import spearmanr

from handful import backbones
from handful.backbones.timm import state_digest
from handful.data.images import read_picture
from handful.data.preprocessing import Preprocessing
from handful.detector import Detector
from handful.methods.fasl import FASL, ScoreLearning
from handful.methods.resad import ResAD, ResidualTraining
from handful.ops.seeding import seeded

DATA = Path(os.environ.get("HANDFUL_DATA", Path(__file__).parents[3] / "shared" / "data"))
CATEGORIES = ["bottle", "screw", "tile"]

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

    def scored(self, method, settings, *, size, bring):
        """Our scores (B,), maps (B, H, W) and the detector; `bring` reads a picture as the authors' code does."""
        detector = Detector(method, settings=settings, size=size, squeeze=True, engine="torch", device="cpu", gate=())
        detector.fit([bring(path) for path in self.references], accept_odd=True, try_defects=False)
        assert detector.backbone_spec.weights_sha256 == self.weights_sha256, "other weights than the authors' code had"
        inspections = detector.inspect([bring(path) for path in self.pictures])
        raw = detector.calibration.map_typical, detector.calibration.map_threshold
        maps = np.stack([inspection.heatmap.astype(float) for inspection in inspections]) * (raw[1] - raw[0]) + raw[0]
        return np.array([inspection.raw_score for inspection in inspections]), maps, detector

    def scored_over_set(self, method, backbone, *, bring):
        """Our scores (B,) and maps (B, H, W) with `paper_compat`, which looks at the pictures as a whole."""
        assert backbone.spec.weights_sha256 == self.weights_sha256, "other weights than the authors' code had"
        prepare = Preprocessing(backbone.spec.size, bits=8)

        def features(paths):
            images = [prepare(read_picture(bring(path), name=path.name)) for path in paths]
            return backbone(torch.from_numpy(np.stack(images)))

        parts = method.fit(features(self.references)).score(features(self.pictures)).parts
        pictures = [tuple(part[[row]] for part in parts) for row in range(len(self.pictures))]
        found = list(method.over_test_set(pictures))
        return [torch.cat([getattr(one, name) for one in found]).double().numpy() for name in ("image", "maps")]


def blocks(maps, *, pixels=16):
    """Means of blocks of so many pixels: (B, H, H) → (B, H / pixels, H / pixels)."""
    side = maps.shape[1] // pixels
    return maps.reshape(len(maps), side, pixels, side, pixels).mean((2, 4))


def assert_alike(ours, theirs):
    # Ranks as good as equal, and within 1e-3 of the range. Measured: 4e-5 at most, of float32 in another order, and
    # 7e-4 for FASL's scores, where two good patches may be equally like a patch.
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


def random_resad_head():
    """ResAD's head with random weights, small where residuals come in, so that likelihoods are of a usual size."""
    head = ResidualTraining(match="cosine", residual="squared", blocks=10).make_head((24, 40, 112), seed=0)
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
        theirs = golden.numbers[f"centres.{key}"]
        assert_alike(ours - ours.mean(), theirs - theirs.mean(dtype=float))
    # As the code is, maps are enlarged with corners on corners.
    assert spearmanr(scores, golden.numbers["corners.scores"]).statistic >= 0.98


def wide_clip(folder):
    """A CLIP with random weights whose vision transformer is as wide as FASL's code asks for, and otherwise small."""
    open_clip = pytest.importorskip("open_clip", reason="needs the extra clip")
    vision = {"image_size": 168, "layers": 12, "width": 1024, "patch_size": 14, "mlp_ratio": 0.5}
    text = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    (folder / "handful-wide.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return backbones.create("clip:handful-wide", levels=(3, 6, 9, 12), size=168, weights="random", device="cpu")


def random_fasl_head():
    """FASL's heads with random weights, as decided as trained ones: probabilities from 0 to 1."""
    head = ScoreLearning().make_head((1024,) * 4, seed=0)
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


@pytest.mark.parametrize("category", CATEGORIES)
def test_fasl_is_the_authors_on_random_heads(category, tmp_path):
    golden, head = Golden("fasl", category), random_fasl_head()
    assert state_digest(head.state_dict()) == golden.head_sha256, "other heads than the authors' code had"
    method = FASL(paper_compat=True).take_head(head)
    bring = partial(squeezed, side=168)
    scores, maps = golden.scored_over_set(method, wide_clip(tmp_path), bring=bring)
    assert_alike(scores, golden.numbers["centres.scores"])
    ours, theirs = blocks(maps, pixels=14), golden.numbers["centres.maps"]
    assert spearmanr(ours.ravel(), theirs.ravel()).statistic >= 0.999
    # Where two good patches are equally like a patch, rounding chooses: one of 9,216, seen in 9x9 around it.
    off = np.abs(ours - theirs) / np.ptp(theirs)
    assert off.max() <= 5e-3 and (off > 1e-3).mean() <= 0.01
    # As the code is, maps are enlarged with corners on corners.
    assert spearmanr(scores, golden.numbers["corners.scores"]).statistic >= 0.98
