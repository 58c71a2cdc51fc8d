"""The gate: doubts a picture that cannot be judged, for a reason, so that a person takes the picture again.

What is normal comes from the references and their mild variations alone. A doubt never hides a score: a picture whose
score is beyond the threshold is a DEFECT whatever the gate says. Below the threshold a doubt about a defect sends the
part back to the camera, so every bound is wide, and each check asks for what a defect, however large, does not do: a
fault of the camera changes every place of the picture, a defect leaves some places as they are. Where the references
have one layout in common (one reference: its own), a picture proves by it that it shows the part; elsewhere a defect
may fill it, and the bounds are wider still. How each check works, and what it misses: docs/capture.md.

The factors below are priors: what a camera's fault is at least, argued from photography, and how much good pictures
differ where few references cannot tell. benchmarks/capture.md has what each half of the development sets makes of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handful.errors import SettingError
from handful.ops.places import nearest_distances, place_means
from handful.ops.registration import correlation, correlations

CHECKS = ("blank", "exposure", "blur", "shift", "product")

# Blank: less than BLANK of the references' contrast, and nothing in it that stands out by as much as their contrast.
BLANK = 0.1
# Exposure: the factor beyond the references' range. One stop is a factor of 2 in light, and there is less room above
# than below before bright parts are burnt out. A part that should shine may be dead all over: without a layout, three.
# One reference does not tell how much light differs: then the middle ones.
DARKER, DARKER_ALONE, DARKER_ANYWHERE = 2.0, 3.0, 8.0
BRIGHTER, BRIGHTER_ALONE, BRIGHTER_ANYWHERE = 1.5, 3.0, 3.0
BLACK, WHITE, BURNT = 0.05, 0.9, 0.98  # brightness that cannot fall far, that cannot rise far, and the end of the scale
ROOM = 3  # quantiles that must have room to rise before a picture can be called too bright
STAYED = 0.1  # share of the layout's cells that may be as bright as in the references: light changes every place
# Blur: how far the log of fine over coarse detail may fall below every variation of the references: to one half, and
# BLUR_UNKNOWN / sqrt(k) further for how much k references leave unknown of how good pictures differ. The finest detail
# anywhere in the picture must lie as far below that of a reference's cell of rank FINE, the finest having rank 0.
BLUR, BLUR_UNKNOWN = 0.7, 0.5
FINE = 3
# Shift: layouts are the same where they correlate by AGREEMENT. A part has moved where a displacement by FAR of the
# side or more explains most of the difference: it leaves no more than EXPLAINED of it, and correlates by MATCH.
AGREEMENT, FAR, EXPLAINED, MATCH = 0.9, 0.08, 0.25, 0.8
# Product: how far the mean patch may lie from the nearest reference's, in standard deviations of that one's patches,
# and in multiples of how far the references lie from each other. Pictures without a common layout differ more,
# and one reference does not tell how much: it refuses only what has hardly anything in common with it.
PRODUCT, PRODUCT_ANYWHERE, PRODUCT_ALONE, PRODUCT_FACTOR = 0.4, 0.8, 1.3, 2.0
# Another product is strange at each of PLACES x PLACES places: none is nearer to a good picture than EVENLY of the mean
# patch's distance, nor than the oddest place of a good picture is to the other good pictures. Where a level has fewer
# patches a side, each has seen much of the picture: the bound is then that of a single reference.
EVENLY, PLACES = 0.75, 10
MOST_COMPARED = 8  # good pictures whose oddest place is looked for: more cost time and tell little more

# Measures of a whole picture are taken on its blocks, the mean of its channels at half the size of the input. Finer
# detail is noise, and interpolation where a small picture was enlarged.
BLOCK = 2  # pixels a side of a block
COARSE = 4  # blocks a side of the places whose detail the fine detail is compared with
CELLS = 5  # sharpness is measured in this many cells a side
FLAT = 1e-5  # mean square of the coarse Laplacian below which a cell shows nothing to be sharp or blurred
ROUNDING = 20 / (12 * 255**2 * BLOCK**2)  # mean square of the fine Laplacian of 8-bit rounding alone
NO_DETAIL = 1e-9
SHARPEST = 0.25  # the share of what shows that must be sharp
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LAYOUT = 32  # cells a side of a layout
FURTHEST = 12  # cells that a displacement is looked for either way

Levels = Sequence[NDArray[np.float32]]  # of one picture, (h, w, D) each


def check_names(checks: Sequence[str] | str) -> tuple[str, ...]:
    """The checks in their own order, one name standing for itself; raises SettingError for a name not in `CHECKS`."""
    names = (checks,) if isinstance(checks, str) else tuple(checks)
    for name in names:
        if name not in CHECKS:
            raise SettingError(f"`gate` must name checks among {', '.join(CHECKS)}, got {name!r}.")
    return tuple(name for name in CHECKS if name in names)


@dataclass(frozen=True, eq=False)
class ReferenceStatistics:
    """Statistics of k references, a row each, by which the gate judges a picture.

    Attributes:
        contrast: (k,) standard deviation of the values in [0, 1].
        sharpness: (k, 2) of the picture itself, and the lowest of its mild variations.
        detail: (k,) the lowest fine detail of its mild variations, of each that of the cell of rank `FINE`.
        brightness: (k, 3, 5) quantiles of the picture itself, and the lowest and highest of its mild variations.
        layout: (k, 32, 32).
        mean: (k, sum of D) of its patches, all levels in a row.
        spread: (k, levels) the length of their standard deviation at each level.
        depths: (levels,) D of each level.
    """

    contrast: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    detail: NDArray[np.float32]
    brightness: NDArray[np.float32]
    layout: NDArray[np.float32]
    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    depths: NDArray[np.int64]

    def as_dict(self) -> dict[str, NDArray[Any]]:
        """Ready to be saved; without the finest detail where an earlier version did not keep it."""
        kept = {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}
        if np.isposinf(self.detail).all():
            del kept["detail"]
        return kept


def learn_statistics(
    views: Sequence[Sequence[NDArray[np.float32]]],
    levels: Sequence[Levels],
    *,
    fine: Sequence[Sequence[NDArray[np.float32]]] | None = None,
) -> ReferenceStatistics:
    """Learn how good pictures are taken.

    Args:
        views: of each reference its mild variations, (3, H, W) in [0, 1], the picture itself first.
        levels: of each reference's picture itself, (h, w, D) each.
        fine: of each reference the blocks of mild variations with more pixels, the picture itself first: how sharp it
            is is then told by these.
    """
    blocks = [[blocks_of(view) for view in of_one] for of_one in views]
    fine = blocks if fine is None else fine
    sharp = np.array([[sharpness(view) for view in of_one] for of_one in fine], np.float32)  # (k, V)
    bright = np.array([[brightness(view) for view in of_one] for of_one in blocks])  # (k, V, 5)
    return ReferenceStatistics(
        contrast=np.array([_contrast(of_one[0]) for of_one in views], np.float32),
        sharpness=np.stack([sharp[:, 0], sharp.min(1)], 1),
        detail=np.array([min(finest(view)[FINE] for view in of_one) for of_one in fine], np.float32),
        brightness=np.stack([bright[:, 0], bright.min(1), bright.max(1)], 1),
        layout=np.array([layout_of(of_one[0]) for of_one in blocks]),
        mean=np.array([_mean_patch(of_one) for of_one in levels]),
        spread=np.array([_spread(of_one) for of_one in levels]),
        depths=np.array([level.shape[2] for level in levels[0]]),
    )


@dataclass(frozen=True, eq=False)
class Gate:
    """Says which pictures cannot be judged, and why.

    Attributes:
        checks: those that run, names in `CHECKS`.
    """

    checks: tuple[str, ...]
    statistics: ReferenceStatistics

    def refuse_image(
        self, image: NDArray[np.float32], fine: NDArray[np.float32] | NDArray[np.uint8] | None = None
    ) -> str | None:
        """Why a picture (3, H, W) in [0, 1] is doubtful before its features are known; None where it is not.

        The answer is the end of a sentence that begins with the picture's name. `fine` is the same picture with more
        pixels, where `learn_statistics` was given such.
        """
        blocks = blocks_of(image)
        if "blank" in self.checks and self._blank(image, blocks):
            return "must show the part, got an almost uniform picture; take it again."
        alike = self._likeness(blocks) if {"exposure", "shift"} & set(self.checks) and self._have_a_layout else None
        shows_layout = alike is not None and alike >= MATCH
        if "exposure" in self.checks and (wrong := self._exposure(blocks, shows_layout=shows_layout)):
            return wrong
        if "blur" in self.checks and (wrong := self._blur(blocks if fine is None else blocks_of(fine))):
            return wrong
        return self._shift(blocks, alike) if "shift" in self.checks and alike is not None else None

    def refuse_features(self, levels: Levels, good: Sequence[Levels]) -> str | None:
        """Why a picture is doubtful by its features, as another product; None where it is not.

        Args:
            levels: of the picture, (h, w, D) each.
            good: of each good picture that was learnt; none, and nothing is called another product.
        """
        if "product" not in self.checks:
            return None
        distance = float(_distances(_mean_patch(levels), self.statistics).min())
        local = min(min(level.shape[:2]) for level in levels) >= PLACES
        if not distance > (self._product_bound if local else max(self._product_bound, PRODUCT_ALONE)):
            return None
        if not good or self._shows_a_good_place(levels, good, distance=distance):
            return None
        return (
            "must show the product of the references, got a picture unlike all of them; check the part and the camera, "
            "and take it again."
        )

    def _blank(self, image: NDArray[np.float32], blocks: NDArray[np.float32]) -> bool:
        contrast = float(self.statistics.contrast.min())
        return float(blocks.max() - blocks.min()) < contrast and _contrast(image) < BLANK * contrast

    def _exposure(self, blocks: NDArray[np.float32], *, shows_layout: bool) -> str | None:
        """Whether every quantile has gone the same way: a dark stain leaves the bright places bright."""
        values = brightness(blocks)
        low, high, differ = self._brightness
        can_fall, can_rise = low > BLACK, (high > BLACK) & (high < WHITE)
        dark, bright = DARKER_ANYWHERE, BRIGHTER_ANYWHERE
        if shows_layout:
            dark, bright = (DARKER, BRIGHTER) if self._lies_still else (DARKER_ALONE, BRIGHTER_ALONE)
        said = None
        if can_fall.any() and (values * dark * differ < low)[can_fall].all() and not self._stays(blocks, dark=False):
            said = f"{_middle((low / np.maximum(values, 1e-3))[can_fall]):.1f} times darker; add light"
        risen = values >= np.minimum(high * bright * differ, BURNT)
        if int(can_rise.sum()) >= ROOM and risen[high > BLACK].all() and not self._stays(blocks, dark=True):
            said = f"{_middle((values / high)[can_rise]):.1f} times brighter; take light away"
        return f"must be as bright as the references, got one {said} and take it again." if said else None

    def _stays(self, blocks: NDArray[np.float32], *, dark: bool) -> bool:
        """Whether places are as bright, or as dark, as in some reference, where the references have one layout."""
        if not self._have_a_layout:
            return False
        layout, low, high = layout_of(blocks), self.statistics.layout.min(0), self.statistics.layout.max(0)
        telling = (high > BLACK) & (high < WHITE) if dark else low > BLACK
        as_before = layout <= high if dark else layout >= low
        return bool(telling.any()) and float(as_before[telling].mean()) > STAYED

    @cached_property
    def _brightness(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Lowest and highest quantiles of the references' variations, and a factor for how they differ: (5,) each."""
        own, low, high = self.statistics.brightness.swapaxes(0, 1)
        differ = np.sqrt((own.max(0) + 0.02) / (own.min(0) + 0.02))  # the next one may lie half as far outside
        return low.min(0), high.max(0), differ

    def _blur(self, blocks: NDArray[np.float32]) -> str | None:
        """Whether even the sharper places are softer than any variation of a reference, and no place is as fine.

        The edges of a broken, covered or wet place make up for the detail that is lost with it; where a soft place has
        none, the rest of the part has kept its own.
        """
        own, lowest = self.statistics.sharpness.T
        margin = BLUR + BLUR_UNKNOWN / math.sqrt(len(own)) + 0.5 * float(own.max() - own.min())
        value = sharpness(blocks)
        if not value < float(lowest.min()) - margin:  # NaN, which says nothing, is no less
            return None
        if not float(finest(blocks)[0]) < float(self.statistics.detail.min()) - margin:
            return None
        share = math.exp(value - float(own.min()))
        return f"must be as sharp as the references, got {share:.0%} of their fine detail; focus and take it again."

    def _shift(self, blocks: NDArray[np.float32], here: float) -> str | None:
        """Whether the same part lies elsewhere: a defect does not match better at another place than it does here."""
        if not self._lies_still or here >= AGREEMENT:
            return None
        found = correlations(self.statistics.layout.mean(0), layout_of(blocks), furthest=FURTHEST)
        best, (down, right) = float(found.max()), divmod(int(found.argmax()), len(found))
        down, right = down - FURTHEST, right - FURTHEST
        far = max(abs(down), abs(right)) >= FAR * LAYOUT
        if not (far and best >= MATCH and 1 - best <= EXPLAINED * (1 - here)):
            return None
        # What the displaced layouts share must not lie as in the references: beside a defect it does.
        overlap = _overlap(down), _overlap(right)
        beside = correlation(self.statistics.layout.mean(0)[overlap], layout_of(blocks)[overlap])
        if 1 - best > EXPLAINED * (1 - beside):
            return None
        ways = [
            f"{abs(cells) / LAYOUT:.0%} of the picture {after if cells > 0 else before}"
            for cells, before, after in ((right, "to the left", "to the right"), (down, "up", "down"))
            if cells
        ]
        said = f"got it moved by {' and '.join(ways)}"
        return f"must show the part where the references do, {said}; put it in its place and take it again."

    @cached_property
    def _lies_still(self) -> bool:
        """Whether the references show that parts always lie in the same place; one reference cannot."""
        layouts = self.statistics.layout
        return len(layouts) > 1 and bool((np.corrcoef(layouts.reshape(len(layouts), -1)) >= AGREEMENT).all())

    def _shows_a_good_place(self, levels: Levels, good: Sequence[Levels], *, distance: float) -> bool:
        """Whether any place of a picture is as near to a good picture as the oddest place of good pictures is.

        A place much nearer than `distance`, that of the picture's mean patch, counts, too.
        """
        depths = self.statistics.depths
        places = [(place_means(of_one, PLACES), _spread(of_one)) for of_one in good]
        to_others = [
            nearest_distances(of_one, places[:number] + places[number + 1 :], depths)
            for number, (of_one, _) in enumerate(places[:MOST_COMPARED])
            if len(places) > 1
        ]
        oddest = float(np.max(to_others)) if to_others else 0.0
        nearest = nearest_distances(place_means(levels, PLACES), places, depths)
        return float(nearest.min()) < max(EVENLY * distance, oddest)

    @property
    def _have_a_layout(self) -> bool:
        """Whether the references have a layout in common that a picture may have too."""
        return len(self.statistics.layout) == 1 or self._lies_still

    def _likeness(self, blocks: NDArray[np.float32]) -> float:
        """The correlation of a picture's layout with the references' mean."""
        return float(np.vdot(self._layout_direction, _direction(layout_of(blocks))))

    @cached_property
    def _layout_direction(self) -> NDArray[np.float32]:
        """The direction of the references' mean layout: (LAYOUT, LAYOUT)."""
        return _direction(self.statistics.layout.mean(0))

    @cached_property
    def _product_bound(self) -> float:
        if len(self.statistics.mean) == 1:
            return PRODUCT_ALONE
        floor = PRODUCT if self._lies_still else PRODUCT_ANYWHERE
        distances = between(self.statistics)  # (k, k)
        np.fill_diagonal(distances, np.inf)
        return max(floor, PRODUCT_FACTOR * float(distances.min(1).max()))


def _contrast(image: NDArray[np.float32]) -> float:
    return float(image.std(ddof=1))


def _overlap(displaced: int) -> slice:
    """The cells of a layout that a layout displaced by so many cells covers too."""
    return slice(max(0, displaced), LAYOUT + min(0, displaced))


def _direction(layout: NDArray[np.float32]) -> NDArray[np.float32]:
    """How a layout differs from its mean, at length 1: the product of two is their correlation."""
    differs: NDArray[np.float32] = layout - layout.mean()
    differs /= max(float(np.linalg.norm(differs)), 1e-6)  # an even picture is like no layout
    return differs


def _middle(values: NDArray[np.floating[Any]]) -> float:
    """The median, of an even number the lower of the two in the middle."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def _mean_patch(levels: Levels) -> NDArray[np.float32]:
    """The mean of one picture's patches, all levels in a row: (sum of D,)."""
    return np.concatenate([np.einsum("hwd->d", level) / np.float32(level[..., 0].size) for level in levels])


def _spread(levels: Levels) -> NDArray[np.float32]:
    """The length of one picture's standard deviation over its patches, at each level: (levels,)."""
    return np.array([np.linalg.norm(level.std((0, 1))) for level in levels])


def _distances(mean: NDArray[np.float32], statistics: ReferenceStatistics) -> NDArray[np.float32]:
    """How far a mean patch lies from every reference's, in standard deviations of its patches: (k,), mean of levels."""
    squares = np.add.reduceat(
        np.square(mean - statistics.mean), np.cumsum(statistics.depths) - statistics.depths, axis=1
    )
    distances: NDArray[np.float32] = (np.sqrt(squares) / np.maximum(statistics.spread, 1e-6)).mean(1)
    return distances


def between(statistics: ReferenceStatistics) -> NDArray[np.float32]:
    """How far the mean patch of each reference lies from that of each other one: (k, k), see `_distances`."""
    return np.array([_distances(mean, statistics) for mean in statistics.mean])


def blocks_of(image: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """A picture's blocks: (3, H, W), in [0, 1] or of 8 bits → (H / 2, W / 2), rounded down."""
    if image.dtype == np.uint8:  # summed as whole numbers, which take less memory
        return _averaged(image[0] + image[1].astype(np.uint16) + image[2], BLOCK) / np.float32(3 * 255)
    return _averaged(image[0] + image[1] + image[2], BLOCK) / np.float32(3)  # a third of the time of their mean


def _averaged(values: NDArray[Any], side: int) -> NDArray[np.float32]:
    """The mean of each square of so many a side; what is left over at the end is dropped: (h, w) → (h / side, …)."""
    height, width = (length - length % side for length in values.shape)
    rows: NDArray[Any] = reduce(np.add, [values[start:height:side] for start in range(side)])
    squares: NDArray[Any] = reduce(np.add, [rows[:, start:width:side] for start in range(side)])
    averaged: NDArray[np.float32] = np.divide(squares, np.float32(side**2), dtype=np.float32)
    return averaged


def sharpness(blocks: NDArray[np.float32]) -> float:
    """How much fine detail comes with the coarse, as a natural logarithm; higher is sharper, NaN where nothing shows.

    In each cell the energy of the Laplacian of the blocks over that at `COARSE` blocks, which light and contrast leave
    as it is. Of the cells that are not flat, the value that the sharpest quarter reaches: a quarter by number (a soft
    stain may outweigh all else) or by coarse energy (what is left of a small part counts), whichever is higher. A stain
    or a smear leaves the places beside it sharp; a blurred picture has no sharp place.
    """
    fine, coarse = _detail(blocks), _detail(_averaged(blocks, COARSE))
    shown = coarse > FLAT
    if not shown.any():
        return math.nan
    ratios = np.log(np.maximum(fine[shown] - ROUNDING, NO_DETAIL) / coarse[shown])
    order = np.argsort(-ratios)
    energy = coarse[shown][order].cumsum()
    by_number, by_energy = int(SHARPEST * (len(ratios) - 1)), int((energy < SHARPEST * energy[-1]).sum())
    return float(ratios[order[min(by_number, by_energy)]])


def finest(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much fine detail each cell shows, as natural logarithms, the most first: (h, w) → (CELLS²,).

    More light or contrast raises the detail; new edges, as a broken, covered or wet place has, raise it too.
    """
    fine = np.sort(_detail(blocks))[::-1]
    values: NDArray[np.float32] = np.log(np.maximum(fine - ROUNDING, NO_DETAIL)).astype(np.float32)
    return values


def _detail(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean square of the Laplacian in each cell: (h, w) → (CELLS²,)."""
    around = blocks[:-2, 1:-1] + blocks[2:, 1:-1] + blocks[1:-1, :-2] + blocks[1:-1, 2:]
    return cell_means(np.square(4 * blocks[1:-1, 1:-1] - around), (CELLS, CELLS)).ravel()


def brightness(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The `QUANTILES` of the brightness of places of two blocks a side, so that specks are none: (h, w) → (5,)."""
    values = np.sort(_averaged(blocks, 2), axis=None)  # np.quantile takes four times as long
    return np.interp(np.multiply(QUANTILES, len(values) - 1), np.arange(len(values)), values).astype(np.float32)


def layout_of(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where what lies, coarsely: (h, w) → (LAYOUT, LAYOUT)."""
    return cell_means(blocks, (LAYOUT, LAYOUT))


def cell_means(values: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """The mean in each cell: (h, w) → grid."""
    for cells in grid:  # rows first, then columns
        rows, shares = _rows(len(values), cells)
        values = np.ascontiguousarray((shares[:, None] @ values[rows])[:, 0].T)
    return values


@lru_cache(maxsize=64)
def _rows(length: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of each cell, the last repeated where another has one more; and their shares: (cells, most) each."""
    numbers = np.arange(cells)
    first, end = numbers * length // cells, -(-(numbers + 1) * length // cells)
    rows = first[:, None] + np.arange(np.max(end - first))
    inside = rows < end[:, None]
    return np.minimum(rows, end[:, None] - 1), inside / inside.sum(1, dtype=np.float32, keepdims=True)
