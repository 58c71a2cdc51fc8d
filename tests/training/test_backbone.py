"""A training goes on after a stop as if it had not been, and its weights serve as a backbone's."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import safetensors.torch
import torch
from torch import nn

from handful import backbones
from handful.backbones import timm
from handful.errors import ImageError, InputError, SettingError
from handful.methods.base_training import Tuning
from handful.training.backbone import BackboneTrainer


@dataclass(kw_only=True, eq=False)
class Toy(Tuning):
    """Trains one layer towards a number drawn for each update."""

    name: ClassVar[str] = "toy"

    updates: int = 6
    size: int = 32
    lr: float = 0.1

    seen: list = field(default_factory=list, init=False)

    def start(self, trunk, pictures, *, seed):
        self.pictures, self.seed = pictures, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = nn.Linear(2, 1)
        self.learnt_ = nn.ModuleDict({"trunk": trunk, "head": head})
        self.optimiser_ = torch.optim.Adam([*trunk.model.parameters(), *head.parameters()], lr=self.lr)

    def update(self, number):
        self.seen.append(number)
        generator = torch.Generator().manual_seed(1000 * self.seed + number)
        self.optimiser_.zero_grad()
        inputs = torch.rand(4, 2, generator=generator)
        loss = (self.learnt_["head"](inputs + self.learnt_["trunk"].model.weight) - 3).square().mean()
        loss.backward()
        self.optimiser_.step()
        return loss.item()


class ToyTrunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.weight = nn.Parameter(torch.zeros(2))


@pytest.fixture
def toy(monkeypatch, good_folder):
    """Begin a toy training."""
    monkeypatch.setattr(timm, "trunk", lambda *_, **__: ToyTrunk())

    def begin(checkpoint=None, *, seed=0, **settings):
        return BackboneTrainer(Toy(**settings), good_folder, seed=seed, device="cpu", checkpoint=checkpoint)

    return begin


def weights(training):
    return {name: tensor.clone() for name, tensor in training.tuning.learnt_.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_progress_counts_the_updates_and_tells_the_loss(toy):
    steps = list(toy().run())
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1].loss < steps[0].loss
    assert steps[-1].seconds_left == 0


def test_pictures_arrive_at_the_trainings_size(toy):
    pictures = toy().tuning.pictures
    assert [picture.shape for picture in pictures] == [(32, 32, 3)] * 4
    assert pictures[0].dtype == "uint8" and pictures[0].max() > 100


@pytest.mark.parametrize("stop_after", [1, 4])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(toy, tmp_path, stop_after):
    whole = toy()
    list(whole.run())
    stopped = toy(tmp_path / "checkpoint")
    running = stopped.run()
    for _ in range(stop_after):
        next(running)
    running.close()
    resumed = toy(tmp_path / "checkpoint")
    assert [step.number for step in resumed.run()] == list(range(stop_after + 1, 7))
    assert resumed.tuning.seen == list(range(stop_after, 6))
    assert equal(weights(resumed), weights(whole))


def test_a_killed_training_goes_on_from_its_last_checkpoint(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("handful.training.backbone.SAVE_EVERY", 0.0)
    whole, killed = toy(), toy(tmp_path / "checkpoint")
    list(whole.run())
    running = killed.run()
    for _ in range(3):
        next(running)
    kept = (tmp_path / "checkpoint").read_bytes()  # nothing more is written
    running.close()
    (tmp_path / "checkpoint").write_bytes(kept)
    resumed = toy(tmp_path / "checkpoint")
    list(resumed.run())
    assert resumed.tuning.seen == [3, 4, 5]
    assert equal(weights(resumed), weights(whole))


def test_an_interruption_leaves_a_checkpoint_and_the_end_none(toy, tmp_path):
    interrupted = toy(tmp_path / "checkpoint")

    def interrupt(number):
        raise KeyboardInterrupt

    interrupted.tuning.update = interrupt
    with pytest.raises(KeyboardInterrupt):
        list(interrupted.run())
    assert (tmp_path / "checkpoint").exists()
    finished = toy(tmp_path / "checkpoint")
    list(finished.run())
    finished.save(tmp_path / "tuned.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "tuned.safetensors"]


@pytest.mark.parametrize(
    ("change", "other"), [({"seed": 1}, "seed"), ({"lr": 0.2}, "settings"), ({"updates": 7}, "settings")]
)
def test_a_checkpoint_of_another_training_is_refused(toy, tmp_path, change, other):
    running = toy(tmp_path / "checkpoint").run()
    next(running)
    running.close()
    with pytest.raises(InputError, match=f"got a checkpoint of other {other}; remove it"):
        next(toy(tmp_path / "checkpoint", **change).run())


def test_a_damaged_checkpoint_is_refused(toy, tmp_path):
    (tmp_path / "checkpoint").write_bytes(b"half a checkpoint")
    with pytest.raises(InputError, match="must be a whole checkpoint"):
        next(toy(tmp_path / "checkpoint").run())


def test_a_loss_that_is_not_finite_ends_the_training(toy):
    begun = toy()
    begun.tuning.update = lambda number: float("nan")
    with pytest.raises(SettingError, match="got nan at update 1; lower `lr`"):
        list(begun.run())


def test_seeds_give_other_weights_and_the_same_seed_the_same(toy):
    runs = [toy(seed=seed) for seed in (0, 0, 1)]
    for run in runs:
        list(run.run())
    assert equal(weights(runs[0]), weights(runs[1]))
    assert not equal(weights(runs[0]), weights(runs[2]))


def test_unreadable_references_are_refused(toy, good_folder):
    (good_folder / "0.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="0.png"):
        toy()


def test_trained_weights_serve_as_a_backbones(good_folder, tmp_path):
    trained = BackboneTrainer(Toy(updates=1), good_folder, device="cpu")  # on the weights on board
    with torch.no_grad():
        trained.trunk.model.conv_stem.weight.mul_(2)
    trained.save(tmp_path / "tuned.safetensors")
    backbone = backbones.create(
        size=(64, 64), weights=str(tmp_path / "tuned.safetensors"), engine="torch", device="cpu"
    )
    assert backbone.spec.weights == "trained by toy on 4 references"
    stem = trained.trunk.model.conv_stem.weight
    assert torch.equal(safetensors.torch.load(backbone.entries["backbone.safetensors"])["conv_stem.weight"], stem)
    with safetensors.safe_open(tmp_path / "tuned.safetensors", framework="pt") as file:
        assert "classifier.weight" not in file.keys()  # noqa: SIM118 - it is no mapping


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_trunk_gives_one_vector_a_picture_and_keeps_no_classifier(name):
    trunk = timm.trunk(name, size=64, weights="random")
    assert trunk(torch.rand(2, 3, 64, 64)).shape == (2, {"resnet18": 512}.get(name, 192))
    assert sum(weight.numel() for weight in trunk.parameters()) < 12_000_000
