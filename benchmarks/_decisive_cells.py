"""Training our heads for `decisive` on cached features, and scoring a head of either code by our code."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from _decisive_cache import SIZE, Cached
from handful import metrics
from handful.data.shots import draw
from handful.methods import METHODS, create_head_training
from handful.methods.base import Method
from handful.methods.fasl.scoring import NAM
from handful.types import TrueRegion

SHOTS = 4
UPDATES = 300  # of ResAD
FASL_UPDATES = 120
IDENTITY = "NAM begins as the identity"
CHECKS = 5  # how often a head is kept on the way


@dataclass(frozen=True)
class Run:
    """A training: whose code it was, in which form, of which row of the ablation, from which seed."""

    method: str
    code: str
    form: str
    row: str
    seed: int

    @property
    def stem(self) -> str:
        """What its files are called."""
        return "-".join([self.method, self.code, self.form, self.row.replace(" ", "_"), str(self.seed)])


@dataclass(frozen=True)
class Cell:
    """What a head, or no head, makes of one class; metrics in percent, pixel metrics None without masks."""

    method: str
    code: str
    form: str
    row: str
    seed: int
    update: int
    evaluation: str
    target: str
    image_auroc: float
    pixel_ap: float | None
    aupro: float | None


@dataclass(frozen=True)
class Loss:
    """The mean loss of a few updates, `update` being the last of them."""

    method: str
    code: str
    form: str
    row: str
    seed: int
    part: str
    update: int
    loss: float


def train(
    run: Run, settings: Mapping[str, Any], sources: Sequence[Cached], folder: Path, *, checks: int = CHECKS
) -> list[Loss]:
    """Train a head of ours, keep it a few times on the way, and return its losses, means of ten updates."""
    training = create_head_training(run.method, settings)
    classes = [one.auxiliary(augmented=training.augmented_wanted > 0) for one in sources]
    training.start(classes, seed=run.seed, device="cpu")
    if run.form == IDENTITY:
        begin_as_identity(training.head_.nam)  # type: ignore[arg-type]
    losses: list[Loss] = []
    recent: dict[str, list[float]] = {}
    for number in range(training.updates):
        part = _part(training, number)
        recent.setdefault(part, []).append(training.update(number, classes))
        if (number + 1) % 10 == 0 or number + 1 == training.updates:
            losses += [
                Loss(**asdict(run), part=one, update=number + 1, loss=sum(v) / len(v)) for one, v in recent.items()
            ]
            recent = {}
        if (number + 1) % (training.updates // checks) == 0:
            facts = json.dumps({"method": run.method, "settings": training.settings, "depths": training.head_.depths})
            state = {key: value.contiguous() for key, value in training.head_.state_dict().items()}
            save_file(state, folder / f"{run.stem}-{number + 1}.safetensors", {"facts": facts})
    return losses


@torch.no_grad()
def begin_as_identity(nam: NAM) -> None:
    """Let NAM pass each probability p on as σ(8 p - 4), in p's order, with a tenth of its random weights beside."""
    first, last = nam.layers[0], nam.layers[2]
    assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
    middle = first.weight.shape[2] // 2
    for layer in (first, last):
        layer.weight.mul_(0.1)
        if layer.bias is not None:
            layer.bias.zero_()
    for channel in (0, 1):  # normal, anomalous
        first.weight[channel, channel, middle, middle] += 1
        last.weight[channel, channel, middle, middle] += 4


def _part(training: Any, number: int) -> str:
    if training.name != "resad":
        return "maps"
    return "constraintor" if training.constraintor and number < training.constrained * training.updates else "flow"


def head_of(file: Path) -> Any:
    """A head that `train`, or the authors' code by way of a conversion, has left."""
    with safe_open(file, "pt") as opened:
        facts = json.loads(opened.metadata()["facts"])
        state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    head = create_head_training(facts["method"], facts["settings"]).make_head(tuple(facts["depths"]), seed=0)
    head.load_state_dict(state)
    return head.eval()


def judge(method: Method, target: Cached, *, seed: int) -> dict[str, float | None]:
    """Image AUROC, pixel AP and AUPRO of a method on a class, in percent."""
    rows = draw(range(len(target.references)), shots=SHOTS, seed=seed)
    fitted = method.fit(target.references[list(rows)])
    with torch.no_grad():
        found = [fitted.score(target.queries[[row]]) for row in range(target.tests)]
    return measures(target, [float(one.image[0]) for one in found], [one.maps[0].numpy() for one in found])


def measures(target: Cached, scores: Sequence[float], maps: Sequence[Any]) -> dict[str, float | None]:
    """The metrics of scores and maps (H, W) of the test pictures of a class."""
    truth = target.anomalous[: target.tests].tolist()
    image = 100 * metrics.image_auroc(truth, scores)
    counts, marked = metrics.PixelCounts(), False
    for row, one in enumerate(maps):
        if not bool(target.known[row]):
            continue
        regions = [TrueRegion(target.pixels[row].numpy())] if truth[row] else []
        marked |= bool(regions)
        counts.add(one, metrics.pixel_truth(regions, (SIZE, SIZE)), name=str(row))
    pixel = (100 * counts.average_precision(), 100 * counts.aupro()) if marked else (None, None)
    return {"image_auroc": image, "pixel_ap": pixel[0], "aupro": pixel[1]}


def scored(run: Run, targets: Sequence[Cached], folder: Path, *, updates: Iterable[int]) -> list[Cell]:
    """The cells of a training's heads, as they were after some numbers of updates."""
    evaluations: dict[str, dict[str, Any]] = {"ours": {}}
    if run.row == "with NAM":
        evaluations["ours, NAM left out"] = {"nam": False}
    return [
        Cell(**asdict(run), update=update, evaluation=evaluation, target=target.name, **found)  # type: ignore[arg-type]
        for update in updates
        for evaluation, settings in evaluations.items()
        for target in targets
        for found in [judge(_method(folder / f"{run.stem}-{update}.safetensors", settings), target, seed=run.seed)]
    ]


def _method(file: Path, settings: Mapping[str, Any]) -> Method:
    head = head_of(file)
    return METHODS[head.method](**settings).take_head(head)


def append(path: Path, rows: Sequence[Any]) -> None:
    """Add rows, all of one dataclass, to a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        if new:
            writer.writeheader()
        for row in rows:
            rounded = {
                key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(row).items()
            }
            writer.writerow(rounded)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
