"""The gate: recognises pictures that were badly taken, so that a person takes them again.

The bounds rest on the references and their mild variations alone. A doubt of the gate never hides a score: a picture
whose score is above the threshold is a DEFECT in any case. Below the threshold, a doubt about a defective part sends
the part back to the camera, so every bound is wide, and each check looks for an effect that no defect has, however
large: a fault of the camera changes every place of the picture, a defect leaves some places unchanged. If the
references share a layout (a single reference always does), a picture of the same layout certainly shows the part;
without a shared layout a defect may fill the picture, and the bounds are wider still. docs/capture.md explains each
check and its limits.

The factors below are priors: the least effect of a camera's fault, argued from photography, and the differences between
good pictures, which few references cannot tell. benchmarks/capture.md measures them on each half of the development
sets.
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

# Blank: contrast below BLANK of the references' contrast, and a range of values smaller than the references' contrast.
BLANK = 0.1
# Exposure: the least factor of brightness beyond the references' range. One stop is a factor of 2 in light; the factor
# for bright pictures is smaller, as bright parts soon burn out. The factors ..._ANYWHERE hold if the picture does not
# show the references' layout: a part that should shine may be dark all over, three stops. The factors ..._ALONE hold
# for a single reference, which does not tell how much light varies.
DARKER, DARKER_ALONE, DARKER_ANYWHERE = 2.0, 3.0, 8.0
BRIGHTER, BRIGHTER_ALONE, BRIGHTER_ANYWHERE = 1.5, 3.0, 3.0
BLACK, WHITE, BURNT = 0.05, 0.9, 0.98  # brightness too low to fall far, too high to rise far, and saturated
ROOM = 3  # the least number of quantiles with room to rise; with fewer, no picture is called too bright
STAYED = 0.1  # share of the layout's cells that may be as bright as in the references: light changes every place
# Blur: the log ratio of fine to coarse detail must fall below every variation of the references by BLUR (a factor of
# about one half) plus BLUR_UNKNOWN / sqrt(k), as k references leave the spread between good pictures uncertain. The
# finest cell of the picture must lie below a reference's cell of rank FINE (the finest cell has rank 0) by that margin.
BLUR, BLUR_UNKNOWN = 0.7, 0.5
FINE = 3
# Shift: layouts count as equal from a correlation of AGREEMENT on. A part has moved if a displacement of at least FAR
# of the side leaves at most EXPLAINED of the difference from the references, and correlates by at least MATCH.
AGREEMENT, FAR, EXPLAINED, MATCH = 0.9, 0.08, 0.25, 0.8
# Product: the largest distance of the mean patch from the nearest reference's mean patch, in standard deviations of
# that reference's patches, and in multiples of the distances between references. Pictures without a shared layout
# differ more. A single reference does not tell how much good pictures differ, so its bound is the widest.
PRODUCT, PRODUCT_ANYWHERE, PRODUCT_ALONE, PRODUCT_FACTOR = 0.4, 0.8, 1.3, 2.0
# Another product is unlike good pictures at each of PLACES x PLACES places: no place is nearer to a good picture than
# EVENLY of the mean patch's distance, nor than the oddest place of a good picture is to the other good pictures.
# Patches of a coarser grid see much of the picture each, so there the bound is PRODUCT_ALONE at least.
EVENLY, PLACES = 0.75, 10
MOST_COMPARED = 8  # good pictures whose oddest place is searched: more cost time and hardly change the bound

# Measures of a whole picture are taken on its blocks: the mean of its channels at half the size of the input. Finer
# detail is noise, or interpolation in an enlarged small picture.
BLOCK = 2  # pixels a side of a block
COARSE = 4  # blocks a side of the squares whose Laplacian is the coarse detail
CELLS = 5  # cells a side in which sharpness is measured
FLAT = 1e-5  # mean square of the coarse Laplacian below which a cell is flat: neither sharp nor blurred
ROUNDING = 20 / (12 * 255**2 * BLOCK**2)  # mean square of the fine Laplacian that 8-bit rounding alone gives
NO_DETAIL = 1e-9
SHARPEST = 0.25  # share of the cells that are not flat whose sharpness counts
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LAYOUT = 32  # cells a side of a layout
FURTHEST = 12  # cells: the largest displacement searched, in each direction

Levels = Sequence[NDArray[np.float32]]  # of one picture, (h, w, D) each


def check_names(checks: Sequence[str] | str) -> tuple[str, ...]:
    """The named checks in the order of `CHECKS`; raises SettingError for a name that is not in `CHECKS`."""
    names = (checks,) if isinstance(checks, str) else tuple(checks)
    for name in names:
        if name not in CHECKS:
            raise SettingError(f"`gate` must name checks among {', '.join(CHECKS)}, got {name!r}.")
    return tuple(name for name in CHECKS if name in names)


@dataclass(frozen=True, eq=False)
class ReferenceStatistics:
    """Statistics of k references, a row each, that the gate compares a picture with.

    Attributes:
        contrast: (k,) standard deviation of the values in [0, 1].
        sharpness: (k, 2) the sharpness of the unchanged reference, and the lowest of its mild variations.
        detail: (k,) the fine detail of the cell of rank `FINE`, the lowest of the mild variations.
        brightness: (k, 3, 5) brightness quantiles of the unchanged reference, and the lowest and highest of its mild
            variations.
        layout: (k, 32, 32) the mean brightness in each cell of the unchanged reference.
        mean: (k, sum of D) the mean patch, all levels in a row.
        spread: (k, levels) the length of the patches' standard deviation at each level.
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
        """The statistics by name, for the saved file; no `detail` for a file of an earlier version that kept none."""
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
    """Measure the references' exposure, sharpness, layout and features.

    Args:
        views: for each reference its mild variations, (3, H, W) in [0, 1], the unchanged picture first.
        levels: for each reference the features of its unchanged picture, (h, w, D) each.
        fine: for each reference the blocks of mild variations at a higher resolution, the unchanged picture first;
            sharpness is then measured on these blocks.
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
    """Says which pictures are doubtful, and why.

    Attributes:
        checks: the names of the checks that run, from `CHECKS`.
        statistics: of the references.
    """

    checks: tuple[str, ...]
    statistics: ReferenceStatistics

    def refuse_image(
        self, image: NDArray[np.float32], fine: NDArray[np.float32] | NDArray[np.uint8] | None = None
    ) -> str | None:
        """The reason why the pixels of a picture (3, H, W) in [0, 1] make the picture doubtful; None without a doubt.

        The reason is the end of a sentence that begins with the picture's name. `fine` is the picture at the resolution
        of the `fine` blocks that `learn_statistics` was given, None if it was given none.
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
        """The reason why the features of a picture make the picture doubtful; None without a doubt.

        Args:
            levels: of the picture, (h, w, D) each.
            good: the levels of each learnt good picture; without good pictures there is no doubt.
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
        """A reason if every brightness quantile has moved in the same direction: a stain leaves some places as bright.

        None if the exposure is in bounds.
        """
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
        """Whether places are as bright as in some reference, or as dark with `dark`, if the references share a layout.

        A fault of exposure changes every place, a defect does not.
        """
        if not self._have_a_layout:
            return False
        layout, low, high = layout_of(blocks), self.statistics.layout.min(0), self.statistics.layout.max(0)
        telling = (high > BLACK) & (high < WHITE) if dark else low > BLACK
        as_before = layout <= high if dark else layout >= low
        return bool(telling.any()) and float(as_before[telling].mean()) > STAYED

    @cached_property
    def _brightness(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Lowest and highest quantiles of the references' variations, and a factor for their spread: (5,) each."""
        own, low, high = self.statistics.brightness.swapaxes(0, 1)
        differ = np.sqrt((own.max(0) + 0.02) / (own.min(0) + 0.02))  # a good picture may lie half the range outside
        return low.min(0), high.max(0), differ

    def _blur(self, blocks: NDArray[np.float32]) -> str | None:
        """A reason if even the sharper places are softer than in any variation of a reference, and none is as fine.

        A defect does not fail both checks: a broken, covered or wet place brings edges that replace its lost detail,
        and a soft place without edges leaves the detail of the rest of the part. None if the sharpness is in bounds.
        """
        own, lowest = self.statistics.sharpness.T
        margin = BLUR + BLUR_UNKNOWN / math.sqrt(len(own)) + 0.5 * float(own.max() - own.min())
        value = sharpness(blocks)
        if not value < float(lowest.min()) - margin:  # no doubt for NaN, the sharpness of a flat picture
            return None
        if not float(finest(blocks)[0]) < float(self.statistics.detail.min()) - margin:
            return None
        share = math.exp(value - float(own.min()))
        return f"must be as sharp as the references, got {share:.0%} of their fine detail; focus and take it again."

    def _shift(self, blocks: NDArray[np.float32], here: float) -> str | None:
        """A reason if the layout matches the references' much better displaced than in place, as no defect does.

        None if the part has not moved. `here` is the correlation in place.
        """
        if not self._lies_still or here >= AGREEMENT:
            return None
        found = correlations(self.statistics.layout.mean(0), layout_of(blocks), furthest=FURTHEST)
        best, (down, right) = float(found.max()), divmod(int(found.argmax()), len(found))
        down, right = down - FURTHEST, right - FURTHEST
        far = max(abs(down), abs(right)) >= FAR * LAYOUT
        if not (far and best >= MATCH and 1 - best <= EXPLAINED * (1 - here)):
            return None
        # The overlap of the displaced layouts must match badly in place: beside a defect, it matches in place.
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
        """Whether two or more references show that parts always lie in the same place."""
        layouts = self.statistics.layout
        return len(layouts) > 1 and bool((np.corrcoef(layouts.reshape(len(layouts), -1)) >= AGREEMENT).all())

    def _shows_a_good_place(self, levels: Levels, good: Sequence[Levels], *, distance: float) -> bool:
        """Whether any place of a picture is as near to a good picture as the oddest place of good pictures is.

        A place nearer than `EVENLY` of `distance`, the distance of the picture's mean patch, counts too.
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
        """Whether the references share a layout; a single reference has its own."""
        return len(self.statistics.layout) == 1 or self._lies_still

    def _likeness(self, blocks: NDArray[np.float32]) -> float:
        """The correlation of a picture's layout with the references' mean layout."""
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
    """The cells along an axis that a layout and the layout displaced by `displaced` cells both cover."""
    return slice(max(0, displaced), LAYOUT + min(0, displaced))


def _direction(layout: NDArray[np.float32]) -> NDArray[np.float32]:
    """A layout minus its mean, scaled to length 1: the dot product of two directions is the layouts' correlation."""
    differs: NDArray[np.float32] = layout - layout.mean()
    differs /= max(float(np.linalg.norm(differs)), 1e-6)  # a uniform picture correlates with no layout
    return differs


def _middle(values: NDArray[np.floating[Any]]) -> float:
    """The median; of an even number of values, the lower of the two in the middle."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def _mean_patch(levels: Levels) -> NDArray[np.float32]:
    """The mean of one picture's patches, all levels in a row: (sum of D,)."""
    return np.concatenate([np.einsum("hwd->d", level) / np.float32(level[..., 0].size) for level in levels])


def _spread(levels: Levels) -> NDArray[np.float32]:
    """The length of one picture's standard deviation over its patches, at each level: (levels,)."""
    return np.array([np.linalg.norm(level.std((0, 1))) for level in levels])


def _distances(mean: NDArray[np.float32], statistics: ReferenceStatistics) -> NDArray[np.float32]:
    """Distances of a mean patch from each reference's mean patch, mean over levels: (k,).

    The unit at each level is the length of the standard deviation of the reference's patches.
    """
    squares = np.add.reduceat(
        np.square(mean - statistics.mean), np.cumsum(statistics.depths) - statistics.depths, axis=1
    )
    distances: NDArray[np.float32] = (np.sqrt(squares) / np.maximum(statistics.spread, 1e-6)).mean(1)
    return distances


def between(statistics: ReferenceStatistics) -> NDArray[np.float32]:
    """Distances of each reference's mean patch from each reference's mean patch: (k, k), see `_distances`."""
    return np.array([_distances(mean, statistics) for mean in statistics.mean])


def blocks_of(image: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """The blocks of a picture in [0, 1]: (3, H, W), in [0, 1] or of 8 bits → (H / 2, W / 2), rounded down."""
    if image.dtype == np.uint8:  # summed as integers, which take less memory
        return _averaged(image[0] + image[1].astype(np.uint16) + image[2], BLOCK) / np.float32(3 * 255)
    return _averaged(image[0] + image[1] + image[2], BLOCK) / np.float32(3)  # in a third of the time of image.mean(0)


def _averaged(values: NDArray[Any], side: int) -> NDArray[np.float32]:
    """The mean of each square of `side` x `side` values, incomplete squares left out: (h, w) → (h / side, w / side)."""
    height, width = (length - length % side for length in values.shape)
    rows: NDArray[Any] = reduce(np.add, [values[start:height:side] for start in range(side)])
    squares: NDArray[Any] = reduce(np.add, [rows[:, start:width:side] for start in range(side)])
    averaged: NDArray[np.float32] = np.divide(squares, np.float32(side**2), dtype=np.float32)
    return averaged


def sharpness(blocks: NDArray[np.float32]) -> float:
    """The ratio of fine to coarse detail as a natural logarithm; higher is sharper, NaN if every cell is flat.

    In each cell, the ratio is the energy of the blocks' Laplacian over the energy of the Laplacian of squares of
    `COARSE` blocks; light and contrast do not change the ratio. The sharpness is the ratio that the sharpest quarter of
    the cells that are not flat reaches: a quarter by number (a soft stain may hold most of the energy) or by coarse
    energy (a small part may fill few cells), whichever gives the higher ratio. A stain or a smear leaves the places
    beside it sharp; a blurred picture has no sharp place.
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
    """The fine detail of the cells as natural logarithms, in descending order: (h, w) → (CELLS²,).

    More light, more contrast and new edges, as of a broken, covered or wet place, raise the detail.
    """
    fine = np.sort(_detail(blocks))[::-1]
    values: NDArray[np.float32] = np.log(np.maximum(fine - ROUNDING, NO_DETAIL)).astype(np.float32)
    return values


def _detail(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean square of the Laplacian in each cell: (h, w) → (CELLS²,)."""
    around = blocks[:-2, 1:-1] + blocks[2:, 1:-1] + blocks[1:-1, :-2] + blocks[1:-1, 2:]
    return cell_means(np.square(4 * blocks[1:-1, 1:-1] - around), (CELLS, CELLS)).ravel()


def brightness(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The `QUANTILES` of brightness, averaged over squares of 2 x 2 blocks to suppress specks: (h, w) → (5,)."""
    values = np.sort(_averaged(blocks, 2), axis=None)  # np.quantile takes four times as long
    return np.interp(np.multiply(QUANTILES, len(values) - 1), np.arange(len(values)), values).astype(np.float32)


def layout_of(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The layout of a picture, its mean brightness in each cell: (h, w) → (LAYOUT, LAYOUT)."""
    return cell_means(blocks, (LAYOUT, LAYOUT))


def cell_means(values: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """The mean in each cell: (h, w) → grid.

    Without a matrix product, whose rounding differs with the number of NumPy's threads.
    """
    for cells in grid:  # rows first, then columns
        rows, shares = _rows(len(values), cells)
        values = np.einsum("ck,ckw->wc", shares, values[rows])
    return values


@lru_cache(maxsize=64)
def _rows(length: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The row numbers of each cell, and the rows' shares in the cell's mean: (cells, most) each.

    `most` is the number of rows of the largest cell; a smaller cell repeats its last row with a share of 0.
    """
    numbers = np.arange(cells)
    first, end = numbers * length // cells, -(-(numbers + 1) * length // cells)
    rows = first[:, None] + np.arange(np.max(end - first))
    inside = rows < end[:, None]
    return np.minimum(rows, end[:, None] - 1), inside / inside.sum(1, dtype=np.float32, keepdims=True)
