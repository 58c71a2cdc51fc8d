"""The metrics of an evaluation, from labels and scores; no verdict depends on them.

At the image level every picture has a score. At the pixel level `PixelCounts` takes the maps in turn and keeps only
counts, so its memory depends on the range of the maps' values and not on the number of pictures.

AUROC, average precision and F1 over pictures are scikit-learn's. Over pixels they follow from two descending
histograms: the numbers of normal and of anomalous pixels in each bin of scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, stats
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from handful.errors import InputError, SettingError
from handful.types import TrueRegion

Counts = NDArray[np.int64]
Indices = NDArray[np.intp]

COARSE = 9  # a bin holds 2^9 neighbouring float32 values, which span 2^-14 of the value, outside of the fine zone
FINE_ZONE = 2**24  # the number of float32 values of greatest magnitude, spanning two powers of two, with finer bins
FINE_BINS = 2**19  # the largest number of bins in the fine zone, which sets their width
OCTAVE = 23  # the fine zone begins at a power of two, so that bins move rarely (2^23 values lie between two powers)
BLOCK = 2**18  # bins are allocated in blocks of this number, so that allocation is rare; unused bins take no memory
WHOLE = 2**40  # the integer weight of a whole region: integer sums are exact in every order of pictures
INFINITY = 0x7F800000  # the key of infinity; the keys of NaN lie beyond


def image_auroc(anomalous: ArrayLike, scores: ArrayLike, *, names: Sequence[str] | None = None) -> float:
    """The area under the ROC curve over pictures, 0 to 1.

    The AUROC is the probability that an anomalous picture scores above a normal picture, ties counted half
    (Mann-Whitney).

    Args:
        anomalous: (N,) truth values.
        scores: (N,), higher is more anomalous.
        names: (N,) names of the pictures, for error messages.

    Raises:
        InputError: without at least one normal and one anomalous picture, or with a score that is not finite.
    """
    return float(roc_auc_score(*_checked(anomalous, scores, names, "AUROC")))


def image_ap(anomalous: ArrayLike, scores: ArrayLike, *, names: Sequence[str] | None = None) -> float:
    """The average precision over pictures: the precision at each score, weighted by the increase of recall.

    The value is scikit-learn's `average_precision_score`, without interpolation; equal scores share a threshold. For
    arguments, range and errors see `image_auroc`.
    """
    return float(average_precision_score(*_checked(anomalous, scores, names, "Average precision")))


def image_f1_max(anomalous: ArrayLike, scores: ArrayLike, *, names: Sequence[str] | None = None) -> float:
    """The oracle F1 over pictures, at the best of all thresholds, which is chosen on the test labels.

    No inspector can know that threshold. For arguments, range and errors see `image_auroc`.
    """
    precision, recall, _ = precision_recall_curve(*_checked(anomalous, scores, names, "F1"))
    return float((2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)).max())


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval, 0 to 1, for a rate such as the false-alarm rate.

    Source: E. B. Wilson, 1927, JASA 22, 209-212.

    Raises:
        InputError: without trials, or with successes outside 0 to trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        got = f"{successes} of {trials}"
        raise InputError(f"A rate needs trials and at most as many successes, got {got}; count again.")
    interval = stats.binomtest(successes, trials).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True, eq=False)
class PixelTruth:
    """The true regions of a picture in the form for `PixelCounts`, made by `pixel_truth`. Pixels are flat indices.

    Attributes:
        size: (H, W) of the maps.
        anomalous: (A,) the pixels of any region, each once.
        whole: (P,) the pixels of the regions without saturation, region by region.
        weights: (P,) the weight of each of these pixels, a part of `WHOLE`; a region's weights sum to about `WHOLE`.
        saturated: for each region with saturation its pixels, and the number of pixels that must be found.
    """

    size: tuple[int, int]
    anomalous: Indices
    whole: Indices
    weights: Counts
    saturated: tuple[tuple[Indices, int], ...]


def pixel_truth(regions: Sequence[TrueRegion], size: tuple[int, int], *, name: str = "a picture") -> PixelTruth:
    """Prepare the truth of a picture, once for all maps of the picture.

    Every connected component (8 neighbours) of a region without saturation counts as a region. A region with saturation
    stays a single region (MVTec LOCO).

    Args:
        regions: empty for a normal picture. A pixel of overlapping regions counts for each region in PRO, and once in
            all other metrics.
        size: (H, W) of the maps.
        name: the picture's name, for error messages.

    Raises:
        InputError: with a mask of another size or without a pixel, or a saturation outside (0, 1].
    """
    union = np.zeros(size, dtype=bool)
    whole, weights, saturated = [np.zeros(0, np.intp)], [np.zeros(0, np.int64)], []
    for region in regions:
        mask = np.asarray(region.mask, dtype=bool)
        if mask.shape != tuple(size):
            raise InputError(f"The masks of {name} must be {size}, as its map is, got {mask.shape}; resize them.")
        if not mask.any():
            raise InputError(f"A true region must have a pixel, got none in one of {name}; leave that region out.")
        if region.saturation is not None and not 0 < region.saturation <= 1:
            raise InputError(f"The saturations of {name} must be in (0, 1], got {region.saturation}; set a share.")
        union |= mask
        pixels = np.flatnonzero(mask)
        if region.saturation is not None:
            saturated.append((pixels, max(1, round(region.saturation * len(pixels)))))
        else:
            labels = ndimage.label(mask, structure=np.ones((3, 3)))[0].ravel()[pixels]
            whole.append(pixels)
            weights.append(np.rint(WHOLE / np.bincount(labels)[labels]).astype(np.int64))
    anomalous = np.flatnonzero(union)
    return PixelTruth((size[0], size[1]), anomalous, np.concatenate(whole), np.concatenate(weights), tuple(saturated))


class PixelCounts:
    """Counts of normal and anomalous pixels by their score, from which the pixel metrics follow.

    Pixels of all pictures share a threshold. Counts are integers in bins of float32 values, so that the order of
    pictures does not change a bit of the result.

    Scores in the same bin count as ties. A bin is never wider than 2^-14 of its scores, at any scale and sign. Among
    the greatest magnitudes, down to a quarter of the greatest, a bin spans at most 2^-18 of its scores, for scores that
    crowd below an upper end as probabilities do; and if all scores lie close together, a bin is a single float32 value.
    So noise of 0.01 around an offset of 1000 is counted exactly (float32 itself steps by 6e-5 there); if there are
    scores near 0 too, the steps are 0.002, and if there are scores above 4096, the steps are 0.03 and noise of 0.01 is
    lost.

    A picture with an unmarked defect must not be added, as it would count as normal without regions.
    """

    def __init__(self) -> None:
        self._range: tuple[int, int] | None = None  # keys of the least and the greatest score
        self._layout = _Layout(0, 0)
        self._first = 0  # the bin that column 0 counts
        self._tallies = np.zeros((3, 0), np.int64)  # normal pixels, anomalous pixels, parts of `WHOLE`

    def add(self, anomaly_map: NDArray[np.float32], truth: PixelTruth, *, name: str) -> None:
        """Count the pixels of a picture.

        Args:
            anomaly_map: (H, W), converted to float32, higher is more anomalous.
            truth: of the picture.
            name: the picture's name, for error messages.

        Raises:
            InputError: if the map has another size than the truth or is not finite everywhere; nothing is then counted.
        """
        values = np.ascontiguousarray(anomaly_map, dtype=np.float32)
        if values.shape != truth.size:
            raise InputError(f"The map of {name} must be {truth.size}, as its truth is, got {values.shape}; resize it.")
        keys = _keys(values.ravel())
        lowest, highest = int(keys.min()), int(keys.max())
        if lowest <= -INFINITY or highest >= INFINITY:
            raise InputError(f"The map of {name} must be finite, got NaN or infinity in it; look at that picture.")
        self._widen(lowest, highest)
        columns = self._layout.bins(keys) - self._first
        normal, anomalous, found = self._tallies
        np.add.at(normal, columns, 1)
        if len(truth.anomalous):
            np.subtract.at(normal, columns[truth.anomalous], 1)
            np.add.at(anomalous, columns[truth.anomalous], 1)
            np.add.at(found, columns[truth.whole], truth.weights)
        for pixels, enough in truth.saturated:
            highest_columns = np.partition(columns[pixels], len(pixels) - enough)[len(pixels) - enough :]
            np.add.at(found, highest_columns, round(WHOLE / enough))

    def auroc(self) -> float:
        """The area under the ROC curve over pixels, 0 to 1; ties count half.

        Raises:
            InputError: without a normal or without an anomalous pixel.
        """
        normal, anomalous, _ = self._descending("AUROC")
        beaten = np.cumsum(anomalous) - anomalous / 2  # anomalous pixels above each normal pixel, ties half
        return float(normal @ beaten / (float(normal.sum()) * float(anomalous.sum())))

    def average_precision(self) -> float:
        """The average precision over pixels, 0 to 1, see `image_ap`; for errors see `auroc`."""
        normal, anomalous, _ = self._descending("Average precision")
        found = np.cumsum(anomalous)
        return float(anomalous @ (found / (found + np.cumsum(normal))) / anomalous.sum())

    def f1_max(self) -> float:
        """The oracle F1 over pixels, 0 to 1, at the best threshold, see `image_f1_max`; for errors see `auroc`."""
        normal, anomalous, _ = self._descending("F1")
        found = np.cumsum(anomalous)
        return float((2 * found / (found + np.cumsum(normal) + anomalous.sum())).max())

    def aupro(self, *, limit: float = 0.3) -> float:
        """The normalised area under the PRO curve, 0 to 1, from no false positives to a rate of `limit`.

        With saturated regions the area is that under the sPRO curve (Bergmann et al., 2022, "Beyond Dents and
        Scratches", section 5). The curve is straight between thresholds, and cut off at the limit.

        Raises:
            InputError: without a normal or without an anomalous pixel.
            SettingError: with a limit outside (0, 1].
        """
        if not 0 < limit <= 1:
            raise SettingError(f"`limit` must be in (0, 1], got {limit}.")
        rates, overlaps = self.pro_curve()
        inside = np.searchsorted(rates, limit, side="right")
        overlaps = np.append(overlaps[:inside], np.interp(limit, rates, overlaps))
        return float(np.trapezoid(overlaps, np.append(rates[:inside], limit))) / limit

    def pro_curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The PRO curve: the mean share of a region that is found, against the share of normal pixels above threshold.

        The share of a saturated region is relative to the number of pixels that must be found, and at most 1 (sPRO).

        Returns:
            (T,) rates of false positives and (T,) overlaps, both rising from 0 to 1.

        Raises:
            InputError: without a normal or without an anomalous pixel.
        """
        normal, _, found = (np.cumsum(tally) for tally in self._descending("PRO"))
        return np.append(0, normal / normal[-1]), np.append(0, found / found[-1])

    def _descending(self, metric: str) -> Counts:
        """The three tallies (3, T) of the bins that are not empty, the greatest scores first."""
        tallies = self._tallies.take(self._occupied()[::-1], axis=1)
        _require_both(metric, tallies[0], tallies[1], "pixel")
        return tallies

    def _occupied(self) -> Indices:
        """The columns (T,) of the bins that are not empty, ascending."""
        return np.flatnonzero(self._tallies[:2].any(axis=0))

    def _contents(self) -> tuple[Counts, Counts]:
        """The least key (T,) of every bin that is not empty, and the bins' tallies (3, T)."""
        columns = self._occupied()
        return self._layout.keys(columns + self._first), self._tallies.take(columns, axis=1)

    def _pour(self, keys: Counts, tallies: Counts) -> None:
        """Add tallies (3, T) to the bins of keys (T,)."""
        columns = self._layout.bins(keys) - self._first
        for mine, theirs in zip(self._tallies, tallies, strict=True):
            np.add.at(mine, columns, theirs)

    def _widen(self, lowest: int, highest: int) -> None:
        """Extend the bins to the keys from `lowest` to `highest`."""
        seen = self._range or (lowest, highest)
        self._range = min(seen[0], lowest), max(seen[1], highest)
        layout = _layout(*self._range)
        first, last = (int(end) // BLOCK * BLOCK for end in layout.bins(np.array(self._range)))
        if layout != self._layout or first < self._first or last >= self._first + self._tallies.shape[1]:
            contents = self._contents()
            self._layout, self._first = layout, first
            self._tallies = np.zeros((3, last + BLOCK - first), np.int64)
            self._pour(*contents)


@dataclass(frozen=True)
class _Layout:
    """The layout of bins over keys.

    Attributes:
        fine: the number of lower bits of a key that are dropped beyond ± `limit`.
        limit: a key, a multiple of 2^COARSE; within ± `limit`, COARSE bits are dropped.
    """

    fine: int
    limit: int

    def bins(self, keys: NDArray[np.signedinteger]) -> Indices:
        """The bins of keys: (T,), rising with the keys."""
        within = np.clip(keys, -self.limit, self.limit)
        bins: Indices = ((within >> COARSE) + ((keys - within) >> self.fine)).astype(np.intp)
        return bins

    def keys(self, bins: Indices) -> Counts:
        """The least key of each bin: (T,)."""
        within = np.clip(bins, -(self.limit >> COARSE), self.limit >> COARSE)
        return (within << COARSE) + ((bins - within) << self.fine)


def _layout(lowest: int, highest: int) -> _Layout:
    """The layout for keys from `lowest` to `highest`; a wider range only merges bins of a narrower range."""
    fine = (min(highest - lowest, FINE_ZONE - 1) // FINE_BINS).bit_length()
    return _Layout(fine, max(0, max(-lowest, highest) - FINE_ZONE) >> OCTAVE << OCTAVE)


def _keys(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """Integers in the order of the values: the values' bits, negated for negative values; the key of -0 is 0."""
    bits = values.view(np.int32)
    if bits.min() >= 0:
        return bits
    sign = bits >> 31  # 0, or -1 for a negative value
    return ((bits & 0x7FFFFFFF) ^ sign) - sign


def _checked(
    anomalous: ArrayLike, scores: ArrayLike, names: Sequence[str] | None, metric: str
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The truth and the scores of pictures (N,) each, checked; for errors see `image_auroc`."""
    truth, values = np.asarray(anomalous), np.asarray(scores, dtype=np.float64)
    if truth.shape != values.shape or truth.ndim != 1:
        raise InputError(f"Every picture needs one label and one score, got shapes {truth.shape} and {values.shape}.")
    if not np.isin(truth, (False, True)).all():
        raise InputError(
            f"{metric} needs labels that are True or False, got other labels; leave out pictures without a label."
        )
    truth = truth.astype(bool)
    _require_both(metric, ~truth, truth, "picture")
    if not np.isfinite(values).all():
        worst = int(np.flatnonzero(~np.isfinite(values))[0])
        which = f" of {names[worst]}" if names is not None else ""
        raise InputError(f"Scores must be finite, got {values[worst]}{which}; look at that picture.")
    return truth, values


def _require_both(metric: str, normal: NDArray[np.generic], anomalous: NDArray[np.generic], unit: str) -> None:
    counted = int(normal.sum()), int(anomalous.sum())
    if not all(counted):
        got = f"{counted[0]} and {counted[1]}"
        raise InputError(f"{metric} needs at least one normal and one anomalous {unit}, got {got}.")
