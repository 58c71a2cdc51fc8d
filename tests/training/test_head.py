"""Training a head on labelled data sets, its file, and an inspector on it."""

import json
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from handful import backbones
from handful.data.layouts.registry import open_dataset
from handful.detector import Detector
from handful.errors import InputError, InspectorError, SettingError, WeightsError
from handful.evaluation.results import file_name
from handful.methods import HEAD_TRAININGS, create_head_training
from handful.training import head_file
from handful.training.head import HeadTrainer
from handful.training.products import DEFECTIVE, GOOD, REFERENCES

QUICK = {"updates": 4, "pictures": 2, "places": 20, "blocks": 1, "condition": 8, "shots": 2, "products": 0}


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path, picture_factory):
    """Three classes of 3 references, 2 good and 2 anomalous test pictures; the last has no masks."""
    for number, name in enumerate(("disc", "plate", "ring")):
        root = tmp_path / "data" / name
        for seed in range(3):
            write(root / f"train/good/{seed}.png", picture_factory(100 * number + seed, side=64))
        for seed in range(2):
            write(root / f"test/good/{seed}.png", picture_factory(100 * number + 10 + seed, side=64))
            write(root / f"test/scratch/{seed}.png", picture_factory(100 * number + 20 + seed, side=64, defect=True))
            if name != "ring":
                mask = np.zeros((64, 64), np.uint8)
                mask[34:45, 34:45] = 255
                write(root / f"ground_truth/scratch/{seed}_mask.png", mask)
    return tmp_path / "data"


@pytest.fixture
def backbone(fitted):
    return fitted._needed.backbone


@pytest.fixture
def begin(data, backbone):
    def start(checkpoint=None, *, seed=0, **settings):
        training = create_head_training("resad", {**QUICK, **settings})
        return HeadTrainer(training, {"toy": open_dataset(data)}, backbone, seed=seed, checkpoint=checkpoint)

    return start


@pytest.fixture
def head(begin, tmp_path):
    training = begin()
    list(training.run())
    training.save(tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


def test_classes_held_out_are_not_learnt_from(begin):
    for seed in range(4):
        training = begin(seed=seed)
        learnt, chosen_by = ([one.name for one in classes] for classes in (training._classes, training._validated))
        assert chosen_by == training.held_out and len(chosen_by) == 1
        assert sorted([*learnt, *chosen_by]) == ["toy/disc", "toy/plate", "toy/ring"]


def test_a_place_is_anomalous_where_a_pixel_of_it_is(begin):
    training = next(t for t in (begin(seed=seed) for seed in range(8)) if "toy/disc" not in t.held_out)
    disc = next(one for one in training._classes if one.name == "toy/disc")
    assert disc.anomalous.tolist() == [False, False, True, True, False, False, False]  # and the references
    assert disc.own.tolist() == [-1, -1, -1, -1, 0, 1, 2]
    fine = disc.masks[0]  # 8 pixels a place: 34 to 44 are places 4 and 5
    assert fine.shape == (7, 8, 8)
    assert not fine[~disc.anomalous].any()
    assert fine[2].nonzero().tolist() == [[4, 4], [4, 5], [5, 4], [5, 5]]


def test_without_masks_synthetic_defects_are_learnt_from(begin):
    training = next(t for t in (begin(seed=seed) for seed in range(8)) if "toy/ring" not in t.held_out)
    ring = next(one for one in training._classes if one.name == "toy/ring")
    assert ring.anomalous.tolist() == [False, False, True, True, True, False, False, False]
    assert ring.masks[0][ring.anomalous].flatten(1).any(1).all()


def test_made_products_are_learnt_from_and_never_held_out(begin, tmp_path):
    training = begin(products=2)
    assert [one.name for one in training._classes[-2:]] == ["made product 0", "made product 1"]
    assert len(training.held_out) == 1 and training.held_out == begin().held_out
    for one in training._classes[-2:]:
        assert len(one.references) == REFERENCES
        assert one.anomalous.tolist() == [False] * GOOD + [True] * DEFECTIVE + [False] * REFERENCES
        assert one.masks[0].flatten(1).any(1).tolist() == one.anomalous.tolist()
        assert one.own.tolist() == [-1] * (GOOD + DEFECTIVE) + list(range(REFERENCES))
    list(training.run())
    training.save(tmp_path / "head.safetensors")
    record = head_file.read(tmp_path / "head.safetensors").record
    assert record.settings["products"] == 2 and record.classes == ("toy/disc", "toy/plate", "toy/ring")
    assert record.pictures == tuple(sorted(begin()._pictures))


@pytest.mark.parametrize("name", sorted(HEAD_TRAININGS))
def test_trainings_learn_from_made_products_unless_they_are_the_authors(name):
    assert create_head_training(name, {}).products == 12
    assert create_head_training(name, dict(HEAD_TRAININGS[name].authors)).products == 0
    with pytest.raises(SettingError, match="`products` must be at least 0, got -1"):
        create_head_training(name, {"products": -1})


def test_the_head_kept_is_the_last_of_the_best_on_the_held_out_classes(begin, monkeypatch, tmp_path):
    training = begin()
    values = iter([0.6, 0.9, 0.9, 0.8])
    monkeypatch.setattr(training, "_auroc", lambda one: next(values))
    states = []
    for _ in training.run():
        states.append({name: tensor.clone() for name, tensor in training.training.head_.state_dict().items()})
    training.save(tmp_path / "head.safetensors")
    kept = head_file.read(tmp_path / "head.safetensors")
    assert kept.record.validation == {"1": 60, "2": 90, "3": 90, "4": 80}
    assert all(torch.equal(tensor, states[2][name]) for name, tensor in kept.module.state_dict().items())
    assert not all(torch.equal(tensor, states[3][name]) for name, tensor in kept.module.state_dict().items())
    assert not all(torch.equal(tensor, states[1][name]) for name, tensor in kept.module.state_dict().items())


def test_a_stopped_training_goes_on_as_if_it_had_not_been(begin, tmp_path):
    whole, stopped = begin(), begin(tmp_path / "checkpoint")
    list(whole.run())
    steps = stopped.run()
    for _ in range(2):
        next(steps)
    steps.close()
    resumed = begin(tmp_path / "checkpoint")
    assert [step.number for step in resumed.run()] == [3, 4]
    whole.save(tmp_path / "whole.safetensors")
    resumed.save(tmp_path / "resumed.safetensors")
    assert (
        head_file.read(tmp_path / "whole.safetensors").sha256 == head_file.read(tmp_path / "resumed.safetensors").sha256
    )
    assert not (tmp_path / "checkpoint").exists()


def test_a_checkpoint_of_another_training_is_refused(begin, tmp_path):
    steps = begin(tmp_path / "checkpoint").run()
    next(steps)
    steps.close()
    with pytest.raises(InputError, match="must be of this training, got a checkpoint of other settings"):
        next(begin(tmp_path / "checkpoint", lr=0.5).run())


def test_one_class_is_too_few(data, backbone):
    training = create_head_training("resad", QUICK)
    with pytest.raises(InputError, match="A head needs two classes"):
        HeadTrainer(training, {"toy": open_dataset(data / "disc")}, backbone)


def test_an_inspector_names_its_head_and_finds_it_beside_itself(head, backbone, good_folder, tmp_path, picture_factory):
    detector = Detector("resad", backbone=backbone, head=head).fit(good_folder)
    inspector = tmp_path / "part.handful"
    detector.save(inspector)
    with zipfile.ZipFile(inspector) as archive:
        assert set(safetensors.torch.load(archive.read("method.safetensors"))) == {"depths", "rows.0", "rows.1"}
        assert json.loads(archive.read("manifest.json"))["head"]["sha256"] == head_file.read(head).sha256
    pixels = picture_factory(50, side=64)
    expected = detector.inspect(pixels)[0].raw_score
    for given in (None, head, head_file.read(head)):
        loaded = Detector.load(inspector, engine="torch", device="cpu", head=given)
        assert loaded.inspect(pixels)[0].raw_score == expected


def test_many_inspectors_share_one_head_in_memory(head, backbone, good_folder):
    shared = head_file.read(head)
    one, other = (Detector("resad", backbone=backbone, head=shared).fit(good_folder) for _ in range(2))
    assert one.method.head_ is other.method.head_ is shared.module


def test_an_inspector_without_its_head_is_refused(head, backbone, good_folder, tmp_path, begin):
    Detector("resad", backbone=backbone, head=head).fit(good_folder).save(tmp_path / "part.handful")
    other = tmp_path / "other.safetensors"
    training = begin(seed=1)
    next(training.run())
    training.save(other)
    with pytest.raises(InspectorError, match="must be given the head that it was fitted with, head.safetensors"):
        Detector.load(tmp_path / "part.handful", head=other)
    head.unlink()
    with pytest.raises(WeightsError, match="A head must be a whole file written by `handful train`"):
        Detector.load(tmp_path / "part.handful")


def test_a_head_is_refused_on_another_backbone(head, good_folder):
    other = backbones.create(size=(96, 96), engine="torch", device="cpu")
    with pytest.raises(SettingError, match="that of the training of .*, with size"):
        Detector("resad", backbone=other, head=head).fit(good_folder)


@pytest.mark.parametrize("content", [b"half a head", None])
def test_what_is_no_head_is_refused(tmp_path, content, begin):
    path = tmp_path / "head.safetensors"
    if content is None:
        content = safetensors.torch.save({"weight": torch.zeros(1)})
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="A head must be a whole file"):
        head_file.read(path)


def test_the_command_line_trains_fits_and_inspects(command_line, ready_backbone, data, good_folder, tmp_path):
    head, inspector = tmp_path / "h.safetensors", tmp_path / "part.handful"
    options = [option for name, value in QUICK.items() for option in ("--set", f"{name}={value}")]
    code, lines, _ = command_line("train", "resad", "--data", f"toy:{data}", "-o", head, *options)
    assert code == 0
    assert "a head of resad on tf_efficientnet_lite0" in lines[0] and "image AUROC" in lines[0]
    assert command_line("fit", good_folder, "-o", inspector, "--method", "resad", "--head", head)[0] == 0
    code, lines, _ = command_line("info", inspector)
    assert any(line.startswith("head") and "h.safetensors, sha256" in line for line in lines)
    code, lines, _ = command_line("inspect", inspector, good_folder, "--json")
    assert code in (0, 1)
    assert len(lines) == 5 and json.loads(lines[0])["raw_score"] > 0  # four pictures, and the last line counts them


def test_the_benchmark_refuses_what_the_head_has_seen(command_line, ready_backbone, head, data, tmp_path):
    def errors(folder, out):
        options = ("--methods", f"resad@{head}", "--shots", "2", "--seeds", "0", "--no-sheets", "--json")
        _, lines, _ = command_line("bench", "--data", f"other:{folder}", *options, "--out", tmp_path / out)
        return [json.loads(line) for line in lines]

    rows = errors(data, "same")
    assert len(rows) == 3 and all(
        "A head must not be tested on categories of its training" in row["error"] for row in rows
    )
    renamed = data.rename(data.with_name("renamed"))
    for number, folder in enumerate(sorted(renamed.iterdir())):
        folder.rename(folder.with_name(f"class{number}"))
    rows = errors(renamed, "renamed-out")
    assert any("which head.safetensors was trained" in row["error"] and ".png" in row["error"] for row in rows)


def test_the_benchmark_runs_a_head_on_another_data_set(
    command_line, ready_backbone, head, data, tmp_path, picture_factory
):
    root = tmp_path / "new" / "wheel"
    for seed in range(3):
        write(root / f"train/good/{seed}.png", picture_factory(900 + seed, side=64))
        write(root / f"test/good/{seed}.png", picture_factory(910 + seed, side=64))
        write(root / f"test/scratch/{seed}.png", picture_factory(920 + seed, side=64, defect=True))
    options = ("--methods", f"resad@{head}", "patchcore", "--shots", "2", "--seeds", "0", "--no-sheets", "--json")
    code, lines, _ = command_line("bench", "--data", f"new:{root.parent}", *options, "--out", tmp_path / "out")
    assert code == 0
    rows = [json.loads(line) for line in lines]
    assert {row["protocol"] for row in rows} == {"auxiliary-trained", "target-only"}
    assert all(0 <= row["image_auroc"] <= 100 for row in rows)


def test_augmented_pictures_are_made_of_a_class_and_learnt_from(data, backbone):
    training = create_head_training("fasl", {"updates": 2, "pictures": 2, "shots": 2, "pool": 3, "products": 0})
    auxiliary = HeadTrainer(training, {"toy": open_dataset(data)}, backbone, seed=0)
    for one in auxiliary._classes:
        assert int(one.augmented.sum()) == 3
        assert one.pixels.shape == (len(one.own), 64, 64)
        assert torch.equal(one.pixels.flatten(1).any(1), one.masks[0].flatten(1).any(1))
        made = one.queries.levels[0][one.augmented]
        assert not any(torch.equal(picture, other) for picture in made for other in one.queries.levels[0][:4])
    assert not any(one.augmented.any() for one in auxiliary._validated)


def test_a_head_of_fasl_is_trained_and_benchmarked(
    command_line, ready_backbone, data, good_folder, tmp_path, picture_factory
):
    head, inspector = tmp_path / "h.safetensors", tmp_path / "part.handful"
    quick = {"updates": 2, "pictures": 2, "shots": 2, "pool": 2, "products": 1}
    options = [option for name, value in quick.items() for option in ("--set", f"{name}={value}")]
    code, lines, _ = command_line("train", "fasl", "--data", f"toy:{data}", "-o", head, *options)
    assert code == 0 and "a head of fasl on tf_efficientnet_lite0" in lines[0]
    assert command_line("fit", good_folder, "-o", inspector, "--method", "fasl", "--head", head)[0] == 0
    root = tmp_path / "new" / "wheel"
    for seed in range(3):
        write(root / f"train/good/{seed}.png", picture_factory(900 + seed, side=64))
        write(root / f"test/good/{seed}.png", picture_factory(910 + seed, side=64))
        write(root / f"test/scratch/{seed}.png", picture_factory(920 + seed, side=64, defect=True))
    crops = [f"fasl:winmode=mul,win_size={size}@{head}" for size in (4, 13)]
    options = ("--methods", f"fasl@{head}", f"fasl:paper_compat=true@{head}", *crops, "--shots", "2", "--seeds", "0")
    out = tmp_path / "out"
    _, lines, _ = command_line("bench", "--data", f"new:{root.parent}", *options, "--json", "--out", out)
    rows = {row["method"].partition("@")[0]: row for row in map(json.loads, lines)}
    assert len(rows) == 4
    assert "`win_size` must be at most the 8 patches" in rows.pop("fasl:winmode=mul").pop("error")  # 13, the default
    assert all(0 <= row["image_auroc"] <= 100 for row in rows.values())
    assert rows["fasl:paper_compat=true"]["protocol"] == "auxiliary-trained transductive"
    assert rows["fasl:winmode=mul,win_size=4"]["protocol"] == rows["fasl"]["protocol"] == "auxiliary-trained"
    ours = {f"wheel-{file_name(f'{name}@{head}')}.png" for name in ("fasl", "fasl:winmode=mul,win_size=4")}
    assert {path.name for path in (out / "sheets/new").iterdir()} == ours  # without a threshold there is none


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(
    ("name", "settings"), [("resad", QUICK), ("fasl", {"updates": 2, "pictures": 2, "shots": 2, "products": 1})]
)
def test_a_head_trained_on_cuda_serves_on_the_cpu(data, backbone, tmp_path, name, settings):
    there = backbones.load(backbone.spec, backbone.entries, engine="torch", device="cuda")
    training = HeadTrainer(create_head_training(name, settings), {"toy": open_dataset(data)}, there)
    list(training.run())
    training.save(tmp_path / "head.safetensors")
    detectors = [
        Detector(name, backbone=one, head=tmp_path / "head.safetensors").fit(data / "disc/train/good")
        for one in (there, backbone)
    ]
    on_gpu, on_cpu = (detector.inspect(data / "disc/test/good/0.png")[0].raw_score for detector in detectors)
    assert on_cpu == pytest.approx(on_gpu, rel=5e-3)  # cuDNN may take TF32's shorter mantissa
