"""An inspector within limits of size and time: good patches are left out until the limits hold.

Leaving out patches raises the scores of good parts, and the threshold with them. References left out measure the rise,
not the loss of accuracy, which benchmarks/default/budget.md gives on labelled pictures. A single reference cannot be
left out: the threshold would follow from its mild variations, which lie far from a thinned bank, and be far too high.
All patches of a single reference are therefore kept.
"""

import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from handful import methods
from handful.data import images
from handful.data.images import Pictures
from handful.detector import Detector
from handful.errors import SettingError
from handful.inspector import Inspector
from handful.saved import archive
from handful.saved.archive import LEARNT_ENTRY, STATE_ENTRY

SETTING = "coreset_ratio"
SHARES = (1.0, 0.5, 0.25, 0.1, 0.05)
INSPECTIONS = 9


@dataclass(frozen=True)
class Budget:
    """The limits of an inspector; None for no limit.

    Attributes:
        max_mb: the size of the saved file, in millions of bytes.
        latency_ms: the milliseconds of an inspection on this computer, from the pixels of a picture to verdict and map:
            the median of `INSPECTIONS` inspections of the first reference.

    Raises:
        SettingError: if a limit is not above 0.
    """

    max_mb: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and not limit > 0:
                raise SettingError(f"`{name}` must be above 0, got {limit:g}.")


@dataclass(frozen=True)
class Kept:
    """The patches, size and time of an inspector within a budget.

    Attributes:
        share: the share of the good patches that is kept, in (0, 1].
        megabytes: the size of the saved file, in millions of bytes; None if the budget does not limit the size.
        milliseconds: the median time of an inspection; None if the budget does not limit the time.
        rise: the rise of a good part's typical score, as a share of the distance from the typical score to the
            threshold with all patches of the method's own share; 0 if no patches were left out.
    """

    share: float
    megabytes: float | None
    milliseconds: float | None
    rise: float


def fit(
    detector: Detector, references: Pictures, budget: Budget, *, accept_odd: bool = False, progress: bool = False
) -> Kept:
    """Fit a detector with as many of its method's good patches as a budget allows.

    The method's own share is tried first, then, with two or more references, the smaller `SHARES`.

    Args:
        detector: the detector, fitted in place; its method must have the setting `SETTING`.
        references, accept_odd: see `Detector.fit`.
        progress: whether to show a progress bar for each share.

    Raises:
        SettingError: for a method without the setting, and if the least share exceeds the budget.
        HandfulError: see `Detector.fit`.
    """
    asked = detector.method
    if SETTING not in asked.settings:
        able = ", ".join(name for name, method in methods.METHODS.items() if SETTING in method.setting_names())
        raise SettingError(
            f"The method of an inspector with a budget must be one of {able}, got {asked.name}; choose one of these, "
            f"or leave the budget out."
        )
    whole = asked.settings[SETTING]
    alone = len(images.gather(references, recursive=False)) == 1
    for share in (whole, *(less for less in SHARES if less < whole and not alone)):
        detector.method = type(asked)(**{**asked.settings, SETTING: share}).take_head(asked.head_)
        detector.fit(references, accept_odd=accept_odd, progress=progress)
        if share == whole:
            before = detector.calibration
        parts = None if budget.max_mb is None else _megabytes(detector)
        milliseconds = None if budget.latency_ms is None else _milliseconds(detector, references)
        megabytes = None if parts is None else parts["file"]
        if (megabytes or 0) <= (budget.max_mb or math.inf) and (milliseconds or 0) <= (budget.latency_ms or math.inf):
            return Kept(share, megabytes, milliseconds, before.calibrated(detector.calibration.typical))
    raise SettingError(_unmet(budget, share, parts=parts, milliseconds=milliseconds, alone=alone))


def _megabytes(detector: Detector) -> dict[str, float]:
    """The megabytes of the saved inspector, under the key "file", and of its largest parts."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "part.handful")
        detector.save(path)
        sizes = {name: len(part) / 1e6 for name, part in archive.read(path)[2].items()}
        return {
            "file": path.stat().st_size / 1e6,
            "backbone": sum(size for name, size in sizes.items() if name.startswith("backbone.")),
            "patches": sizes[STATE_ENTRY],
            "features for teaching": sizes[LEARNT_ENTRY],
        }


def _milliseconds(detector: Detector, references: Pictures) -> float:
    """The median milliseconds of an inspection of the first reference by the saved inspector, after a first run."""
    source, name = images.gather(references, recursive=False)[0]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "part.handful")
        detector.save(path)
        inspector = Inspector._load_graph(path) or detector.inspector
    picture = inspector.preprocessing.read(source, name)
    seconds = []
    for _ in range(INSPECTIONS + 1):
        begin = time.perf_counter()
        inspector(picture)
        seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds[1:])


def _unmet(
    budget: Budget, share: float, *, parts: dict[str, float] | None, milliseconds: float | None, alone: bool
) -> str:
    """The error message for a budget that the least share exceeds."""
    wanted, got = [], []
    if parts is not None:
        filled = ", ".join(f"{name} {size:.1f}" for name, size in parts.items() if name != "file")
        wanted.append(f"{budget.max_mb:g} MB")
        got.append(f"{parts['file']:.1f} MB ({filled})")
    if milliseconds is not None:
        wanted.append(f"{budget.latency_ms:g} ms")
        got.append(f"{milliseconds:.0f} ms")
    remedy = "give a second reference, as a single one cannot be thinned" if alone else "use fewer references"
    return (
        f"An inspector must keep within its budget of {' and '.join(wanted)}, got {' and '.join(got)} with "
        f"{100 * share:g} % of the patches; {remedy}, a smaller input, another backbone or method, or a larger budget."
    )
