"""The training of ResAD's head on labelled pictures of other products, for `handful.methods.resad.scoring`.

Departures in training:
- The default schedule is a CPU's: 1200 updates of 8 pictures at a learning rate of 2e-4, for 100 epochs of 32 at 1e-5;
  `handful train resad --full` is theirs as near as a count of updates can be. As theirs, the rate falls to a tenth
  after 70 and again after 90 % of it.
- Twelve made products (`handful.training.products`) are learnt from beside the data sets: with few source classes they
  help a little on other products (benchmarks/papers/decisive.md). `--full` leaves them out.
- The head has no constraintor unless `constraintor` is true: with few source classes the constraintor costs accuracy on
  other products, in the authors' training too (benchmarks/papers/decisive.md). `--full` trains the constraintor.
- The constraintor learns first and the flow then, on what the constraintor gives at scoring; in the paper both learn at
  once. No gradient passes between them in either case, and a flow that chases a constraintor at a CPU's learning rate
  diverges.
- The constraintor's convolution starts as the identity. From a random start a short training draws the anomalous places
  to 0, which is nearer to their residuals than anything random, and leaves the normal ones farther away.
- L_ml is -log σ(log p), as in the code: places that are likely already gain nothing more, as they would without bound
  where the constraintor has drawn them to one point. A little noise on what the flow learns from bounds its scales, and
  gradients longer than 1 are shortened.
- The flow sees `places` random places of each level in an update; the code goes through all of them in chunks.
- Half of the pictures are anomalous, and every class comes as often as any other, however many pictures it has.
- Each level is divided by the root mean square of its values on all references, so that levels of any backbone are
  alike in size.
- Losses are means over places. The paper's L_bgspp is a sum, whose weight would depend on their number.
- Left out of the code's variant: its codebook and the matching of distributions to it, its second Gaussian for
  anomalies with a focal loss, and its epochs without anomalies: they are ResAD++'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.methods.base import require
from handful.methods.base_training import HeadTraining
from handful.methods.resad.scoring import ResADHead
from handful.ops.residuals import Match, Residual, ResidualBank
from handful.types import AuxiliaryClass

Occ = Literal["invariant", "normal", "log_barrier"]

WEIGHT_DECAY = 5e-4
LONGEST_GRADIENT = 1.0
LARGEST_RADIUS, INNER = 0.4, 0.99  # largest outer radius of the log-barrier's shell; inner radius over outer radius
OUTSIDE = 0.1  # distance from the shell to which anomalies are pushed


@dataclass(kw_only=True, eq=False)
class ResidualTraining(HeadTraining):
    """ResAD's training.

    Attributes:
        updates: the number of updates of the optimiser.
        pictures: the number of pictures in each update.
        places: the number of places of each level on which the flow learns in an update.
        constrained: with a constraintor, share of the updates in which the constraintor learns; in the other updates
            the flow learns.
        shots: the number of references drawn for each picture of an update.
        lr: learning rate at the beginning.
        match: the distance by which the most similar patch is found: "euclidean" as in the paper, or "cosine" as in the
            code.
        residual: "signed" as in the paper; "squared" as in the code; "none" for an ablation.
        constraintor: whether the head has constraintors, as in the paper.
        occ: the loss of the constraintor: "invariant" as in the paper; "normal", without the paper's term for
            anomalies; "log_barrier" as in the code.
        blocks: the number of coupling blocks of each flow.
        condition: channels of the position code, a multiple of 4.
        margin: τ of L_bgspp, in nats per channel.
        boundary: β of L_bgspp, the share of normal places below the boundary.
        bgspp: λ, the weight of L_bgspp.
        noise: standard deviation of the noise added to the flow's inputs, for levels of root mean square 1.
    """

    name: ClassVar[str] = "resad"
    authors: ClassVar[dict[str, Any]] = {
        "updates": 15_000,
        "pictures": 32,
        "places": 8192,
        "lr": 1e-5,
        "products": 0,
        "constraintor": True,
    }
    quick: ClassVar[dict[str, Any]] = {
        "updates": 80,
        "pictures": 4,
        "places": 144,
        "lr": 3e-3,
        "blocks": 2,
        "condition": 8,
    }

    updates: int = 1200
    pictures: int = 8
    places: int = 2048
    constrained: float = 0.3
    shots: int = 4
    lr: float = 2e-4
    match: Match = "euclidean"
    residual: Residual = "signed"
    constraintor: bool = False
    occ: Occ = "invariant"
    blocks: int = 8
    condition: int = 256
    margin: float = 0.1
    boundary: float = 0.05
    bgspp: float = 1.0
    noise: float = 0.1

    _seed: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("updates", "places", "shots", "blocks"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.pictures >= 2, "pictures", "at least 2", self.pictures)
        require(self.lr > 0, "lr", "above 0", self.lr)
        require(self.condition >= 4 and self.condition % 4 == 0, "condition", "a multiple of 4", self.condition)
        for name in ("margin", "bgspp", "noise"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        require(0 <= self.constrained < 1, "constrained", "in [0, 1)", self.constrained)
        require(self.constraintor or self.occ == "invariant", "occ", "left out without `constraintor=true`", self.occ)
        require(0 < self.boundary < 1, "boundary", "in (0, 1)", self.boundary)

    def make_head(self, depths: tuple[int, ...], *, seed: int) -> ResADHead:
        return ResADHead(
            depths,
            match=self.match,
            residual=self.residual,
            constraintor=self.constraintor,
            blocks=self.blocks,
            condition=self.condition,
            seed=seed,
        )

    def start(self, classes: Sequence[AuxiliaryClass], *, seed: int, device: str) -> None:
        self._seed = seed
        head = self.make_head(classes[0].references.depths, seed=seed)
        for number in range(len(head.depths)):
            squares = torch.stack([one.references.levels[number].square().mean() for one in classes])
            head.scales[number] = squares.mean().sqrt()
        self.head_ = head.to(device)
        self.optimiser_ = torch.optim.Adam(self.head_.parameters(), lr=self.lr, weight_decay=WEIGHT_DECAY)

    def update(self, number: int, classes: Sequence[AuxiliaryClass]) -> float:
        generator = np.random.default_rng([self._seed, number])
        for group in self.optimiser_.param_groups:
            group["lr"] = self.lr * 0.1 ** sum(number >= share * self.updates for share in (0.7, 0.9))
        residuals, masks = self._batch(classes, generator)
        self.optimiser_.zero_grad(set_to_none=True)
        constraining = self.constraintor and number < self.constrained * self.updates
        loss = self._occ_loss(residuals, masks) if constraining else self._flow_loss(residuals, masks, generator)
        loss.backward()
        nn.utils.clip_grad_norm_(self.head_.parameters(), LONGEST_GRADIENT)
        self.optimiser_.step()
        return loss.item()

    def _occ_loss(self, residuals: tuple[Tensor, ...], masks: tuple[Tensor, ...]) -> Tensor:
        """The mean over levels of L_occ of residuals (B, h, w, D) and masks (B, h, w)."""
        head = self.head_.train()
        assert isinstance(head, ResADHead)
        losses = [
            occ_loss(constrained.flatten(0, 2), residual.flatten(0, 2), mask.flatten(), kind=self.occ)
            for constrained, residual, mask in zip(head.constrain(residuals), residuals, masks, strict=True)
        ]
        return torch.stack(losses).mean()

    def _flow_loss(
        self, residuals: tuple[Tensor, ...], masks: tuple[Tensor, ...], generator: np.random.Generator
    ) -> Tensor:
        """The mean over levels of L_ml + λ L_bgspp of residuals (B, h, w, D) and masks (B, h, w).

        The loss takes `places` random places of each level, and does not train the constraintor.
        """
        head = self.head_.eval()
        assert isinstance(head, ResADHead)
        with torch.no_grad():
            constrained = head.constrain(residuals)
        losses = []
        for level, mask, flow in zip(constrained, masks, head.flows, strict=True):
            rows, (height, width) = level.flatten(0, 2), level.shape[1:3]
            chosen = torch.from_numpy(generator.permutation(len(rows))[: self.places]).to(rows.device)
            noise = generator.standard_normal((len(chosen), rows.shape[1]), dtype=np.float32)
            blurred = rows[chosen] + self.noise * torch.from_numpy(noise).to(rows)
            likelihoods = flow(blurred, head.positions((height, width))[chosen % (height * width)])
            anomalous = mask.flatten()[chosen]
            losses.append(
                flow_loss(likelihoods, anomalous, boundary=self.boundary, margin=self.margin, weight=self.bgspp)
            )
        return torch.stack(losses).mean()

    def _batch(
        self, classes: Sequence[AuxiliaryClass], generator: np.random.Generator
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Residuals and masks of `pictures` queries, half of them anomalous if the classes have anomalous queries."""
        head = self.head_
        assert isinstance(head, ResADHead)
        rounds = [generator.permutation(len(classes)) for _ in range(-(-self.pictures // len(classes)))]
        drawn = [self._draw(classes[int(row)], generator) for row in np.concatenate(rounds)[: self.pictures]]
        residuals, masks = [], []
        for one, query, references in drawn:
            bank = ResidualBank(head.scaled(one.references[references]), match=self.match)
            residuals.append(bank.residuals(head.scaled(one.queries[[query]]), kind=self.residual))
            masks.append(tuple(mask[[query]].to(head.scales.device) for mask in one.masks))
        return tuple(map(torch.cat, zip(*residuals, strict=True))), tuple(map(torch.cat, zip(*masks, strict=True)))

    def _draw(self, one: AuxiliaryClass, generator: np.random.Generator) -> tuple[AuxiliaryClass, int, list[int]]:
        """The class, a random query of the class, and `shots` references that are not the query itself."""
        wanted = bool(generator.integers(2))
        rows = torch.nonzero(one.anomalous == wanted)[:, 0]
        rows = rows if len(rows) else torch.arange(len(one.anomalous))
        query = int(rows[generator.integers(len(rows))])
        others = np.delete(np.arange(len(one.references)), [own for own in (int(one.own[query]),) if own >= 0])
        return one, query, generator.permutation(others)[: self.shots].tolist()


def occ_loss(constrained: Tensor, residuals: Tensor, anomalous: Tensor, *, kind: Occ) -> Tensor:
    """The abnormal-invariant one-class loss L_occ, or a variant.

    "invariant" (section 3.3): the mean over places of √(|x'| + 1) - 1 for normal places and of |x' - r| for anomalous
    places. "normal": the mean of √(|x'| + 1) - 1 over normal places alone. "log_barrier" (the code): normal places are
    drawn to a shell just inside of all anomalous places, which keep their values and stay outside of the shell.

    x' and r are (N, D), `anomalous` is (N,) bool. → (), 0 without a place that the loss depends on.
    """
    radii: Tensor = (constrained.norm(dim=1) + 1).sqrt() - 1  # (N,)
    if kind == "log_barrier":
        return _log_barrier(radii, constrained[anomalous], residuals[anomalous], anomalous)
    loss: Tensor = radii[~anomalous].sum()
    if kind == "normal":
        return loss / max(1, int((~anomalous).sum()))
    loss = loss + (constrained - residuals)[anomalous].norm(dim=1).sum()
    return loss / len(radii)


def _log_barrier(radii: Tensor, kept: Tensor, residuals: Tensor, anomalous: Tensor) -> Tensor:
    """The "log_barrier" loss on radii (N,); `kept` and `residuals` (A, D) are x' and r of the anomalous places."""
    normal, others = radii[~anomalous], radii[anomalous]
    outer = min(0.9 * float(others.detach().min()), LARGEST_RADIUS) if len(others) else LARGEST_RADIUS
    loss = _pushed(normal - outer) + _pushed(INNER * outer - normal)
    if len(others):
        invariant = F.mse_loss(kept, residuals) + (1 - F.cosine_similarity(kept, residuals)).mean()
        loss = loss + invariant + _pushed(outer + OUTSIDE - others)
    return loss


def _pushed(excess: Tensor) -> Tensor:
    """The mean of exp(e) softplus(e) over excesses e above 0, no gradient through the first factor: (N,) → ()."""
    above = excess[excess > 0]
    return (above.detach().exp() * F.softplus(above)).sum() / max(1, len(above))


def flow_loss(likelihoods: Tensor, anomalous: Tensor, *, boundary: float, margin: float, weight: float) -> Tensor:
    """L_ml + λ L_bgspp (section 3.4): raises the likelihood of normal places, and lowers that of anomalous places.

    L_ml is the mean of -log σ(log p) over normal places. The boundary is the likelihood below which a share β of the
    normal places lies. Normal places below the boundary are pulled up, anomalous places above the boundary less the
    margin τ are pushed down.

    Likelihoods (N,) are logarithms per channel, `anomalous` (N,) is bool, `weight` is λ. → (), 0 if no place is normal.
    """
    normal, others = likelihoods[~anomalous], likelihoods[anomalous]
    if not len(normal):
        return likelihoods.sum() * 0
    edge = normal.detach().sort().values[int(boundary * len(normal))]
    pulled = (edge - normal).clamp_min(0).mean()
    pushed = (others - edge + margin).clamp_min(0).sum() / max(1, len(others))
    return -F.logsigmoid(normal).mean() + weight * (pulled + pushed)
