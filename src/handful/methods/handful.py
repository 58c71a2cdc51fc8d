"""Handful's own method, and its default: patches are compared with good ones in two measures and at every level.

The parts are PatchCore's (Roth et al., CVPR 2022) without its pooling, and AnomalyDINO's cosine distance (Damm et al.,
WACV 2025); how they are joined is our own, and chosen by the ablation in benchmarks/default.md:

- Every level is searched on its own grid by itself. Joined channels let the level with the larger variance choose the
  neighbour; a coarse level brought to a fine grid is searched four times as often as it has patches.
- Each patch has two distances at each level: Euclidean, which sees how strong a feature is, and that of unit-length
  vectors, which sees what it is. They err differently: faint colours show in the second, smooth dents in the first.
- The score of a place is the geometric mean of all its distances. Their units cancel: no term must be scaled, and a
  term on which everything differs (a level that sees each part's own grain) cannot drown the others.
- Patches are not pooled over their neighbourhood: that hides defects of a patch or two.
- Features at the picture's edge are strange for what the backbone made up beyond it. PatchCore's pooling counts zeros
  there, which damps them; here each level's distances are damped by as much along its own edge: to two thirds, and in
  corners to four ninths. A coarse level's edge reaches further in.
- Parts that turn are learnt in turned copies, see `handful.fitting.rotation`.

Single patches miss what is large, out of place or missing: it is made of patches each of which is usual. So two more
kinds of evidence count where parts are not learnt in turned copies. Both compare wide patches, pooled 3 x 3 on each
level's grid at length 1, all levels joined on the coarsest grid, by Euclidean distance: "pooled" with any good one,
"placed" with those within `NEAR` of the side of the same place. Their units differ from product to product, so each is
measured by what it makes of references that were left out: T for a term and S for single patches, as geometric means
of picture scores. A score t of a term then counts as S · (t / T) ^ `STEEP` times `LEAD`, and the picture's score is
the largest of all three; likewise in the map, times `MAP_LEAD`. `STEEP` is how much less good pictures vary in single
patches than in wide ones; below 1 the leads favour single patches, so that a term counts only where it is the stranger
by far: a term that varies with good pictures has a large T and seldom counts. Where good parts do not lie still,
"placed" T is more than `STILL` times "pooled" T, and neither counts.

Both leads are multiplied by a gain that synthetic defects choose for each product. The defects are planted on the
references left out. The mean rise of the logarithm of these pictures' scores is computed for each of `GAINS`, and the
gain is the smallest whose rise is within `ALIKE` of the largest rise. Where wide patches see the defects no better than
single patches, the gain is 1.

One reference cannot be left out. There T and S are those of its mild variations, S times `ALONE`, as other good parts
are stranger in wide patches too. Whether its places have an order at all shows in how strange each is to the rest of
the picture, more than `ELSEWHERE` of the side away: for a texture, or a crop of a board, not much stranger than to a
mild variation. Unless it is `DISTINCT` times as strange or more, wide patches do not count. The constants were chosen
on the development categories without the turning ones; how they do on data left out: benchmarks/default/leave_out.md.

The lengths of good patches are rounded by 1 % at most, their directions not, and no distance counts as less than 0.4 %
of the patch's length: `handful.ops.least` says what for.

`coreset_ratio` below 1 thins what was learnt by PatchCore's greedy k-centre choice, at each level by itself: what is
kept leaves no good patch far from all of it. Distances are those of raw patches where both measures count. It begins
with the patch farthest from the mean, so that the order of the references does not matter.
"""

import math
from dataclasses import dataclass, field
from functools import reduce
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.methods.base import Method, Turn, require
from handful.ops.coreset import greedy_coreset
from handful.ops.least import CANCELLED, Measure, in_groups, least_distances
from handful.ops.maps import pixel_map, pool_neighbourhood, resize_grid, top_share
from handful.ops.neighbors import Bank, neighbourhoods
from handful.types import Features, Scores

EXCLUSION_RADIUS = 0.05  # of the side
NEAR = 0.1  # of the side, and one patch at least
WIDE = 3  # patches, the side of the neighbourhood that wide patches are pooled over
WIDE_SHARE = 0.02  # of the wide patches, whose mean score is the picture's
STEEP = 0.75
LEAD, MAP_LEAD = 0.93, 0.8
GAINS, ALIKE = (1.0, 1.04, 1.08, 1.13), 0.01  # benchmarks/default/terms.md has what else was tried
STILL = 1.2  # measured by product in benchmarks/default/leave_out.md: more for crops that show another place each
ALONE = 1.075  # with `LEAD` 1
ELSEWHERE = 0.15  # of the side
DISTINCT = 4.2  # measured: 4.5 to 5.2 for parts in their place, 2.0 to 4.0 for boards, cells, textures and long parts
Measures = Literal["both", "euclidean", "cosine"]


@dataclass(kw_only=True, eq=False)
class Handful(Method):
    """The geometric mean of the distances to the nearest good patches, by level and by measure.

    Attributes:
        turn: whether the references are learnt in turned copies too: "never", "always", or "auto" where they show that
            parts turn.
        copies: into how many turned copies, of all references together, the finer levels look for each picture.
        measures: both distances, or one alone.
        neighbourhood: side of the window that each patch is pooled over as in PatchCore, odd; 1 for none. More does not
            go with turned copies, of which single patches are kept: `turn` must be "never".
        damped: whether distances along the picture's edge are.
        wide: whether wide patches count too, where parts are not learnt in turned copies.
        gain: factor of the scores of wide patches; 0 to choose it by synthetic defects on the references.
        coreset_ratio: share of the good patches kept at each level, and of those of each turned copy.
        share: of the patches, whose mean score is the picture's.
        sigma: of the map's Gaussian blur, in model-input pixels.
    """

    name: ClassVar[str] = "handful"
    good_spread: ClassVar[float] = 0.03
    single_widening: ClassVar[float] = 1.18
    single_spread: ClassVar[float] = 0.02
    good_falling: ClassVar[float] = 0.04
    ample: ClassVar[int] = 10
    traceable: ClassVar[bool] = True

    turn: Turn = "auto"
    copies: int = 4
    measures: Measures = "both"
    neighbourhood: int = 1
    damped: bool = True
    wide: bool = True
    gain: float = 0.0
    coreset_ratio: float = 1.0
    share: float = 0.005
    sigma: float = 4.0

    rows_: tuple[Tensor, ...] = field(init=False, repr=False)  # (1, K, L, D) of each level: its patches in groups
    turned_: tuple[Tensor, ...] = field(init=False, repr=False)  # (C, K, L, D) of each level: C turned copies, or none
    wide_: Tensor = field(init=False, repr=False)  # (B, h, w, D) of the references on the coarsest grid, or none
    usual_: Tensor = field(init=False, repr=False)  # (4,) S, T of pooled and placed, the gain; none before `weigh`

    def __post_init__(self) -> None:
        super().__post_init__()
        side = self.neighbourhood
        require(side >= 1 and side % 2 == 1, "neighbourhood", "odd, from 1", side)
        require(side == 1 or self.turn == "never", "neighbourhood", "1 unless `turn` is never", side)
        require(0 < self.coreset_ratio <= 1, "coreset_ratio", "in (0, 1]", self.coreset_ratio)
        require(self.copies >= 1, "copies", "at least 1", self.copies)
        require(0 <= self.share <= 1, "share", "in [0, 1]", self.share)
        require(self.gain >= 0, "gain", "at least 0", self.gain)
        require(self.sigma >= 0, "sigma", "at least 0", self.sigma)

    @property
    def turn_wanted(self) -> Turn:
        return self.turn

    @property
    def weighs_defects(self) -> bool:
        return self.wide and self.gain == 0

    @property
    def takes_loose_patches(self) -> bool:
        return self.neighbourhood == 1 and self.turn != "always"

    def _fit(self, references: Features) -> None:
        pooled = (pool_neighbourhood(level, size=self.neighbourhood) for level in references.levels)
        self.rows_ = tuple(in_groups(self._thinned(level.flatten(0, 2)), self._measures)[None] for level in pooled)
        self.turned_ = tuple(rows[:0] for rows in self.rows_)
        self.wide_ = _wide_patches(references) if self.wide else references.levels[-1][:0]
        self.usual_ = self.wide_.new_empty(0)

    def _fit_turned(self, references: Features, turned: Features) -> None:
        self.wide_ = self.wide_[:0]
        by_level = ([self._thinned(copy) for copy in level.flatten(0, 1)] for level in turned.levels)
        self.turned_ = tuple(_stacked([in_groups(copy, self._measures) for copy in copies]) for copies in by_level)

    def _thinned(self, rows: Tensor) -> Tensor:
        """The share of patches (N, D) that is kept."""
        if self.coreset_ratio == 1:
            return rows
        measured = self._measured(rows)[0]
        first = int(torch.linalg.vector_norm(measured - measured.mean(0), dim=1).argmax())
        return rows[greedy_coreset(measured, max(1, int(self.coreset_ratio * len(rows))), start=first)]

    @property
    def _measures(self) -> tuple[Measure, ...]:
        return ("euclidean", "cosine") if self.measures == "both" else (self.measures,)

    def _measured(self, patches: Tensor) -> tuple[Tensor, ...]:
        """Patches (…, D) as each measure sees them; those of zeros stay."""
        return tuple(patches if one == "euclidean" else F.normalize(patches, dim=-1) for one in self._measures)

    def _score(self, queries: Features) -> Scores:
        scores = torch.stack([self._score_one(queries[[row]]) for row in range(len(queries))])  # (B, h, w)
        image = top_share(scores, share=self.share)
        if len(self.wide_) and len(self.usual_):
            by_picture = [torch.stack(self._wide_one(queries[[row]])) for row in range(len(queries))]
            for number, wide in enumerate(torch.stack(by_picture, 1)):  # (B, h, w) each
                image = torch.maximum(image, LEAD * self._weighed(top_share(wide, share=WIDE_SHARE), number))
                weighed = MAP_LEAD * self._weighed(wide, number)
                finest = resize_grid(weighed[..., None], scores.shape[1:], mode="bilinear")[..., 0]
                scores = torch.maximum(scores, finest)
        return Scores(pixel_map(scores, queries.size, sigma=self.sigma), image)

    def _weighed(self, scores: Tensor, number: int) -> Tensor:
        """The scores of a term, pooled or placed, in the unit of single patches."""
        gain = self.usual_[3] if len(self.usual_) > 3 else 1.0  # none where saved before there was
        return gain * self.usual_[0] * (scores / self.usual_[1 + number]).pow(STEEP)

    def _wide_one(self, query: Features) -> tuple[Tensor, Tensor]:
        """Of one picture's wide patches, the distance to the nearest good one, and to the nearest in its place.

        Returns:
            (h, w) each, on the coarsest grid.
        """
        patches = _wide_patches(query)[0]
        height, width = patches.shape[:2]
        near = neighbourhoods(1, height, width, radius=max(1, round(NEAR * min(height, width)))).to(patches.device)
        rows = patches.flatten(0, 1)
        known = self.wide_.flatten(1, 2)
        cosines = reduce(torch.maximum, (rows @ one.T for one in known))  # (h·w, h·w), never those of all at once
        found = (cosines, cosines.gather(1, near))  # of each patch with all good ones, with those near its place
        distances = [(2 - 2 * one.amax(1)).clamp_min(CANCELLED).sqrt().reshape(height, width) for one in found]
        weights = edge_weights(height, width, device=patches.device)
        return distances[0] * weights, distances[1] * weights

    @property
    def evidence(self) -> str:
        if len(self.wide_) and len(self.usual_):
            gain = float(self.usual_[3]) if len(self.usual_) > 3 else 1.0
            why = "chosen by synthetic defects on the references" if self.weighs_defects else "as asked for"
            more = f", with a gain of {gain:.3g}, {why}" if gain != 1 else ""
            return f"single patches; wide patches, compared anywhere and in their place{more}"
        if len(self.usual_):
            return "single patches; wide ones do not count, as the references do not lie still"
        if not self.wide:
            return "single patches; wide ones are switched off"
        if len(self.turned_[0]):
            return "single patches; wide ones do not count, as the part turns"
        return "single patches; with one reference wide ones count only where its places differ enough"

    def terms(self, queries: Features) -> Tensor | None:
        if not len(self.wide_):
            return None
        return torch.cat([self._terms_one(queries[[row]]) for row in range(len(queries))])

    def _terms_one(self, query: Features) -> Tensor:
        single = top_share(self._score_one(query)[None], share=self.share)
        wide = [top_share(one[None], share=WIDE_SHARE) for one in self._wide_one(query)]
        return torch.stack([single, *wide], 1)

    def weigh(self, terms: Tensor, planted: Tensor | None = None) -> None:
        usual = terms.clamp_min(torch.finfo(terms.dtype).tiny).log().mean(0).exp()
        self.usual_ = torch.cat([usual, usual.new_tensor([self.gain or 1.0])])
        if usual[2] > STILL * usual[1]:
            self.wide_ = self.wide_[:0]
        elif self.weighs_defects and planted is not None:
            self.usual_[3] = self._best_gain(planted)

    def _best_gain(self, planted: Tensor) -> float:
        """The gain by the terms (N, 2, T) of pictures without and with a synthetic defect, see the module."""
        planted = planted.clamp_min(torch.finfo(planted.dtype).tiny)
        wide = LEAD * torch.stack([self._weighed(planted[..., 1 + number], number) for number in range(2)]).amax(0)
        rises = []
        for gain in GAINS:
            without, found = torch.maximum(planted[..., 0], gain * wide).log().unbind(1)
            rises.append(float((found - without).mean()))
        enough = max(rises) - ALIKE * abs(max(rises))
        return next(gain for gain, rise in zip(GAINS, rises, strict=True) if rise >= enough)

    def weigh_alone(self, terms: Tensor) -> None:
        usual = terms.clamp_min(torch.finfo(terms.dtype).tiny).log().mean(0).exp()
        if self._wide_apart() < DISTINCT * usual[1]:
            self.wide_ = self.wide_[:0]
        else:
            self.usual_ = torch.cat([ALONE * usual[:1], usual[1:], usual.new_tensor([self.gain or 1.0])])

    def _wide_apart(self) -> Tensor:
        """How strange the wide patches of the single picture that `fit` has seen are to the rest of it, as a score."""
        height, width = self.wide_.shape[1:3]
        rows = self.wide_.flatten(0, 2)
        around = neighbourhoods(1, height, width, radius=max(1, round(ELSEWHERE * min(height, width)))).to(rows.device)
        cosines = (rows @ rows.T).scatter(1, around, -1.0)
        distances = (2 - 2 * cosines.amax(1)).clamp_min(CANCELLED).sqrt().reshape(1, height, width)
        return top_share(distances * edge_weights(height, width, device=rows.device), share=WIDE_SHARE)[0]

    def weighed_as(self, other: Self) -> Self:
        self.usual_ = other.usual_
        if not len(other.wide_):
            self.wide_ = self.wide_[:0]
        return self

    def score_against_itself(self, reference: Features) -> Scores:
        """Score the single picture that `fit` has seen by comparing its places with one another.

        Each patch is compared with patches farther away than `EXCLUSION_RADIUS` of the side: how strange a place is to
        the rest of its picture is about how strange it is to another picture. Turned copies are left aside, and
        all places of the picture count, whatever share of them is kept.
        """
        scores = self._score_one(reference, exclude_near=True)[None]
        return Scores(pixel_map(scores, reference.size, sigma=self.sigma), top_share(scores, share=self.share))

    def _score_one(self, query: Features, *, exclude_near: bool = False) -> Tensor:
        """One picture at a time, so that a batch gives what its pictures give alone: → (h, w)."""
        grid = query.levels[0].shape[1:3]
        product = query.levels[0].new_ones(grid)
        chosen: Tensor | None = None
        for number in reversed(range(len(query.levels))):  # the coarsest first: it says which turned copies suit
            level = query.levels[number]
            patches = pool_neighbourhood(level, size=self.neighbourhood).flatten(0, 2)
            if exclude_near:
                excluded = _around(*level.shape[1:3]).to(level.device)
                measured = (Bank(rows) for rows in self._measured(patches))
                distances = [bank.nearest(bank.rows, excluded=excluded)[0][:, 0] for bank in measured]
            else:
                distances = [
                    found[0] for found in least_distances(_by_slices(self.rows_[number]), patches, self._measures)
                ]
                if chosen is not None:
                    turned = _by_slices(self.turned_[number])
                    nearer = least_distances(turned, patches, self._measures, among=chosen)
                    distances = [torch.minimum(one, other[0]) for one, other in zip(distances, nearer, strict=True)]
                elif len(self.turned_[number]):
                    distances, chosen = self._among_turned(patches, distances)
            of_level = torch.stack(distances).prod(0).pow(1 / len(distances)).reshape(level.shape[1:3])
            if self.damped:
                of_level = of_level * edge_weights(*level.shape[1:3], device=level.device)
            product = product * resize_grid(of_level[None, ..., None], grid, mode="bilinear")[0, ..., 0]
        return product.pow(1 / len(query.levels))

    def _among_turned(self, patches: Tensor, upright: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The coarsest level's distances among all turned copies too, and the copies that finer levels look into.

        These are the `copies` that hold a nearest patch, by either measure, of the most places; of copies with as many
        the first, as libraries differ in what they make of equals.
        """
        turned = _by_slices(self.turned_[-1])
        votes = torch.zeros(len(turned), dtype=torch.int64, device=patches.device)
        distances = []
        by_copy = least_distances(turned, patches, self._measures)
        for found, before in zip(by_copy, upright, strict=True):
            nearest = found.amin(0)
            votes += ((found == nearest) & (nearest < before)).sum(1)
            distances.append(torch.minimum(nearest, before))
        ranks = votes * len(turned) - torch.arange(len(turned), device=votes.device)  # no two alike
        return distances, ranks.topk(min(self.copies, len(turned))).indices

    def state(self) -> dict[str, Tensor]:
        rows = {f"rows.{level}": rows for level, rows in enumerate(self.rows_)}
        turned = {f"turned.{level}": copies for level, copies in enumerate(self.turned_)}
        wide = {"wide": self.wide_ if len(self.usual_) else self.wide_[:0], "usual": self.usual_}
        return {"depths": torch.tensor(self.depths_ or ()), **rows, **turned, **wide}

    def _restore(self, state: dict[str, Tensor]) -> None:
        levels = range(len(self.depths_ or ()))
        self.rows_ = tuple(state[f"rows.{level}"] for level in levels)
        self.turned_ = tuple(state[f"turned.{level}"] for level in levels)
        none = self.rows_[0].new_empty(0)
        self.wide_, self.usual_ = state.get("wide", none), state.get("usual", none)  # none where saved before they were


def _stacked(copies: list[Tensor]) -> Tensor:
    """Groups (K, L, D) of copies that may have more and fewer, the last ones again: → (C, K, L, D)."""
    most = max(groups.shape[1] for groups in copies)
    return torch.stack(
        [torch.cat([groups, groups[:, -1:].expand(-1, most - groups.shape[1], -1)], 1) for groups in copies]
    )


def _by_slices(rows: Tensor) -> Tensor:
    """What was learnt as `least_distances` takes it; an inspector saved before there were groups has none of those."""
    return rows if rows.ndim == 4 else rows.view(*(rows.shape[:-2] or (1,)), 1, *rows.shape[-2:])


def _around(height: int, width: int) -> Tensor:
    """The patches that do not lie apart from each: (h·w, E)."""
    return neighbourhoods(1, height, width, radius=round(EXCLUSION_RADIUS * min(height, width)))


def _wide_patches(features: Features) -> Tensor:
    """Pooled patches of all levels at length 1, joined on the coarsest grid: → (B, h, w, D) at length 1."""
    grid = features.levels[-1].shape[1:3]
    pooled = (pool_neighbourhood(level, size=WIDE) for level in features.levels)
    joined = [F.normalize(resize_grid(level, grid, mode="area"), dim=3) for level in pooled]
    return torch.cat(joined, 3) / math.sqrt(len(joined))


def edge_weights(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """The share of a patch's 3x3 neighbourhood that lies inside the grid: (h, w), 1 but for the outermost patches."""
    down, across = (_within(length, device) for length in (height, width))
    return down[:, None] * across


def _within(length: int, device: torch.device | None) -> Tensor:
    """The share of three places in a row that are among so many: (length,)."""
    places = torch.arange(length, device=device)
    return ((places > 0).float() + 1 + (places < length - 1)) / 3
