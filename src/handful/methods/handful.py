"""Handful's default method: nearest good patches by two distance measures, at every level separately.

The method builds on PatchCore (Roth et al., CVPR 2022), without its pooling, and on AnomalyDINO's cosine distance (Damm
et al., WACV 2025). Their combination is our own, chosen by the ablation in benchmarks/default.md:

- Every level is searched separately on its own grid. With concatenated channels the level of the largest variance would
  choose the neighbour, and a coarse level resized to a fine grid would be searched four times as often as it has
  patches.
- Each patch has two distances at each level: the Euclidean distance, which also depends on the magnitude of features,
  and the distance between unit-length vectors, which depends on their direction alone. Their errors differ: faint
  colours show in the second, smooth dents in the first.
- The score of a place is the geometric mean of all its distances. Units cancel, so no distance needs a scale, and a
  level on which all parts differ (such as a level that responds to each part's grain) cannot dominate the others.
- Patches are not pooled over their neighbourhood, as pooling hides defects of a patch or two.
- Features at the picture's edge are disturbed by the backbone's padding. PatchCore's pooling over zeros damps such
  features; here each level's distances are damped as much along its edge: to two thirds, in corners to four ninths.
- Parts that lie at any angle are learnt in turned copies, see `handful.fitting.rotation`.

Single patches miss defects that are large, out of place or missing parts, which consist of patches that are each
normal. Two more kinds of evidence, called terms, therefore count unless turned copies are learnt. Both compare wide
patches by Euclidean distance: pooled 3 x 3 on each level's grid, scaled to length 1, and all levels joined on the
coarsest grid. The term "pooled" is the distance to the nearest wide patch of any good picture, the term "placed" to the
nearest within `NEAR` of the side around the same place. The units of the terms differ between products, so each is
measured by the leave-one-out scores of references: T for a term and S for single patches, as geometric means of picture
scores. A score t of a term then counts as S · (t / T) ^ `STEEP` times `LEAD`, and the picture's score is the largest of
the three; in the map, the factor is `MAP_LEAD`. `STEEP` is the ratio of the variation of good pictures' scores in
single patches to that in wide patches. With leads below 1, a term counts only if it stands out far more than single
patches; a term that varies between good pictures has a large T and seldom counts. If good parts do not lie still, T of
"placed" is more than `STILL` times T of "pooled", and neither term counts.

Both leads are multiplied by a gain that synthetic defects choose for each product. The defects are planted on the
references left out. The mean rise of the logarithm of these pictures' scores is computed for each of `GAINS`, and the
gain is the smallest whose rise is within `ALIKE` of the largest rise. If wide patches show the defects no better than
single patches, the gain is 1.

A single reference cannot be left out. T and S are then measured on its mild variations, with S times `ALONE`, as other
good parts differ more in wide patches too. Wide patches count only if the places of the reference are distinct from
each other: if the distance of a place from the rest of the picture, more than `ELSEWHERE` of the side away, is at least
`DISTINCT` times the distance from a mild variation. In a texture, or a crop of a board, places are not distinct. The
constants were chosen on the development categories in which parts do not turn; benchmarks/default/leave_out.md has
results on held-out data.

The lengths of good patches are rounded by at most 1 %, their directions are not, and every distance is at least 0.4 %
of the patch's length; `handful.ops.least` gives the reasons.

A `coreset_ratio` below 1 thins the learnt patches of each level by PatchCore's greedy k-centre selection, after which
every good patch is still near a kept patch. With both measures the selection uses the Euclidean distances of raw
patches. The selection begins with the patch farthest from the mean, so that the order of the references does not
matter.
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

EXCLUSION_RADIUS = 0.05  # share of the side
NEAR = 0.1  # share of the side, at least one patch
WIDE = 3  # patches: the side of the neighbourhood that wide patches are pooled over
WIDE_SHARE = 0.02  # share of the wide patches whose mean score is the picture's
STEEP = 0.75
LEAD, MAP_LEAD = 0.93, 0.8
GAINS, ALIKE = (1.0, 1.04, 1.08, 1.13), 0.01  # benchmarks/default/terms.md lists the alternatives tried
STILL = 1.2  # measured by product in benchmarks/default/leave_out.md: higher for crops of different places
ALONE = 1.075  # for a `LEAD` of 1
ELSEWHERE = 0.15  # share of the side
DISTINCT = 4.2  # measured: 4.5 to 5.2 for parts in their place, 2.0 to 4.0 for boards, cells, textures and long parts
Measures = Literal["both", "euclidean", "cosine"]


@dataclass(kw_only=True, eq=False)
class Handful(Method):
    """The geometric mean of the distances to the nearest good patches, by level and by measure.

    Attributes:
        turn: whether turned copies of the references are learnt too: "never", "always", or "auto" if the references
            show that parts turn.
        copies: the number of turned copies, of all references together, that the finer levels of a picture are compared
            with.
        measures: "both" distances, "euclidean" or "cosine".
        neighbourhood: side of the window that each patch is pooled over as in PatchCore, odd; 1 for no pooling. A side
            above 1 needs `turn` "never", as only single patches of turned copies are kept.
        damped: whether distances along the picture's edge are damped.
        wide: whether wide patches count too, unless turned copies are learnt.
        gain: factor of the scores of wide patches; 0 to choose the gain by synthetic defects on the references.
        coreset_ratio: share of the good patches kept at each level, and of the patches of each turned copy.
        share: share of the patches whose mean score is the picture's.
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

    rows_: tuple[Tensor, ...] = field(init=False, repr=False)  # (1, K, L, D) for each level: its patches in groups
    turned_: tuple[Tensor, ...] = field(init=False, repr=False)  # (C, K, L, D) for each level: C turned copies, or 0
    wide_: Tensor = field(init=False, repr=False)  # (B, h, w, D) of the references on the coarsest grid, B may be 0
    usual_: Tensor = field(init=False, repr=False)  # (4,) S, T of pooled and placed, the gain; (0,) before `weigh`

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
        """The patches of (N, D) that the coreset keeps."""
        if self.coreset_ratio == 1:
            return rows
        measured = self._measured(rows)[0]
        first = int(torch.linalg.vector_norm(measured - measured.mean(0), dim=1).argmax())
        return rows[greedy_coreset(measured, max(1, int(self.coreset_ratio * len(rows))), start=first)]

    @property
    def _measures(self) -> tuple[Measure, ...]:
        return ("euclidean", "cosine") if self.measures == "both" else (self.measures,)

    def _measured(self, patches: Tensor) -> tuple[Tensor, ...]:
        """Patches (…, D) for each measure: unchanged for "euclidean", at length 1 for "cosine" (zeros stay zeros)."""
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
        """The scores of a term, pooled (0) or placed (1), in the unit of single patches."""
        gain = self.usual_[3] if len(self.usual_) > 3 else 1.0  # files of older versions hold no gain
        return gain * self.usual_[0] * (scores / self.usual_[1 + number]).pow(STEEP)

    def _wide_one(self, query: Features) -> tuple[Tensor, Tensor]:
        """The distances of a picture's wide patches to the nearest good wide patch anywhere, and near the same place.

        Returns:
            (h, w) each, on the coarsest grid.
        """
        patches = _wide_patches(query)[0]
        height, width = patches.shape[:2]
        near = neighbourhoods(1, height, width, radius=max(1, round(NEAR * min(height, width)))).to(patches.device)
        rows = patches.flatten(0, 1)
        known = self.wide_.flatten(1, 2)
        cosines = reduce(torch.maximum, (rows @ one.T for one in known))  # (h·w, h·w), in the memory of one reference
        found = (cosines, cosines.gather(1, near))  # with all good patches, and with good patches near the place
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
        """The score of a single reference's wide patches against the rest of the picture, see `ELSEWHERE`."""
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
        """Score a single reference by comparing each of its patches with the rest of the picture.

        Each patch is compared with patches farther away than `EXCLUSION_RADIUS` of the side: such distances are about
        as large as distances from another good picture. Turned copies do not count, and all patches of the picture
        count, also patches that the coreset leaves out.
        """
        scores = self._score_one(reference, exclude_near=True)[None]
        return Scores(pixel_map(scores, reference.size, sigma=self.sigma), top_share(scores, share=self.share))

    def _score_one(self, query: Features, *, exclude_near: bool = False) -> Tensor:
        """The patch scores of one picture: → (h, w).

        Pictures are scored one by one, so that a picture gets the same scores alone and in a batch.
        """
        grid = query.levels[0].shape[1:3]
        product = query.levels[0].new_ones(grid)
        chosen: Tensor | None = None
        for number in reversed(range(len(query.levels))):  # the coarsest level comes first, as it chooses turned copies
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
        """The coarsest level's distances with all turned copies, and the numbers of the copies for the finer levels.

        The chosen copies hold the nearest patches, by either measure, of the most places. Of copies with equally many
        places the first are chosen, as libraries break ties differently.
        """
        turned = _by_slices(self.turned_[-1])
        votes = torch.zeros(len(turned), dtype=torch.int64, device=patches.device)
        distances = []
        by_copy = least_distances(turned, patches, self._measures)
        for found, before in zip(by_copy, upright, strict=True):
            nearest = found.amin(0)
            votes += ((found == nearest) & (nearest < before)).sum(1)
            distances.append(torch.minimum(nearest, before))
        ranks = votes * len(turned) - torch.arange(len(turned), device=votes.device)  # without ties
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
        self.wide_, self.usual_ = state.get("wide", none), state.get("usual", none)  # older files may hold neither


def _stacked(copies: list[Tensor]) -> Tensor:
    """Stack the groups (K, L, D) of copies, the last group repeated in copies of fewer groups: → (C, K, L, D)."""
    most = max(groups.shape[1] for groups in copies)
    return torch.stack(
        [torch.cat([groups, groups[:, -1:].expand(-1, most - groups.shape[1], -1)], 1) for groups in copies]
    )


def _by_slices(rows: Tensor) -> Tensor:
    """Learnt rows in the shape (P, K, L, D) of `least_distances`, also rows of files of versions without groups."""
    return rows if rows.ndim == 4 else rows.view(*(rows.shape[:-2] or (1,)), 1, *rows.shape[-2:])


def _around(height: int, width: int) -> Tensor:
    """The patches within `EXCLUSION_RADIUS` of each patch: (h·w, E)."""
    return neighbourhoods(1, height, width, radius=round(EXCLUSION_RADIUS * min(height, width)))


def _wide_patches(features: Features) -> Tensor:
    """The wide patches: levels pooled, at length 1 and joined on the coarsest grid: → (B, h, w, D) at length 1."""
    grid = features.levels[-1].shape[1:3]
    pooled = (pool_neighbourhood(level, size=WIDE) for level in features.levels)
    joined = [F.normalize(resize_grid(level, grid, mode="area"), dim=3) for level in pooled]
    return torch.cat(joined, 3) / math.sqrt(len(joined))


def edge_weights(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """The share of each patch's 3x3 neighbourhood that lies inside the grid: (h, w), 1 except along the edge."""
    down, across = (_within(length, device) for length in (height, width))
    return down[:, None] * across


def _within(length: int, device: torch.device | None) -> Tensor:
    """The share of each place's neighbourhood of three places that lies inside a row of `length` places: (length,)."""
    places = torch.arange(length, device=device)
    return ((places > 0).float() + 1 + (places < length - 1)) / 3
