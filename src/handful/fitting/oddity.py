"""Odd references: references that are unlike the other references.

`handful.fitting.signs` measures the signs of oddity and sets the bounds of their strengths.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from handful.errors import InputError, number_of
from handful.fitting import signs
from handful.fitting.signs import WARN, Kind, Sign
from handful.inspection.gate import ReferenceStatistics
from handful.ops.frames import Placement
from handful.types import Features

MOST = 16  # pictures compared with each other; more pictures are compared in groups
FAR = 2.0  # calibrated score above which a picture is learnt as good only with `accept_odd`


@dataclass(frozen=True)
class Oddity:
    """A sign that a reference does not belong among the others.

    Attributes:
        picture: the reference's name.
        kind: the kind of the sign, see `handful.fitting.signs`.
        words: the sign in words, the end of a sentence that begins with the picture's name.
        clear: whether `fit` refuses the references because of the sign.
        known: whether the sign tells that this picture is odd, and not the other of two pictures or of two groups.
        at: x, y of an odd place, in pixels of the picture; None for other signs.
    """

    picture: str
    kind: Kind
    words: str
    clear: bool
    known: bool
    at: tuple[int, int] | None = None


def find(
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    features: Sequence[Features],
    learnt: ReferenceStatistics,
    *,
    placements: Sequence[Placement],
) -> tuple[Oddity, ...]:
    """Find the references that are unlike the others, with at most one oddity for each, in the references' order.

    Args:
        names, sizes, features, placements: of k pictures each; sizes are width and height in pixels.
        learnt: the statistics of all k pictures.
    """
    count = len(names)
    groups = max(1, math.ceil(count / MOST))
    found: dict[int, Oddity] = {}
    for group in range(groups):
        rows = list(range(group, count, groups))
        for sign in signs.signs_of(signs.compare([features[row] for row in rows]), signs.rows_of(learnt, rows)):
            row = rows[sign.row]
            new = row not in found or (signs.is_clear(sign) and not found[row].clear)
            if new and sign.strength > WARN[sign.kind]:
                found[row] = _oddity(sign, names[row], sizes[row], len(rows), placements[row])
    return tuple(found[row] for row in sorted(found))


def check(oddities: Sequence[Oddity]) -> None:
    """Check that references belong together.

    Raises:
        InputError: for clearly odd references; the sentence describes at most three of them.
    """
    clear = [one for one in oddities if one.clear]
    if clear:
        listed = " and ".join(f"{one.picture}, which {one.words}" for one in clear[:3])
        more = f", and {len(clear) - 3} more" if len(clear) > 3 else ""
        raise InputError(
            f"References must all show the same product, good and taken alike, got {listed}{more}; look at "
            f"{'it' if len(clear) == 1 else 'them'}, and leave out pictures that do not belong or accept odd "
            f"references (`--accept-odd`)."
        )


def check_near(names: Sequence[str], scores: Sequence[float], *, missed: int) -> None:
    """Check that pictures to learn as good are near the learnt pictures.

    Args:
        names, scores: the pictures' names and calibrated scores.
        missed: the number of recorded defects that would be missed from then on.

    Raises:
        InputError: for a picture of a score above `FAR`.
    """
    far = [(name, score) for name, score in zip(names, scores, strict=True) if score > FAR]
    if not far:
        return
    name, score = far[0]
    others = f" and {len(far) - 1} more" if len(far) > 1 else ""
    recorded = f", and {number_of(missed, 'recorded defect')} would be missed" if missed else ""
    raise InputError(
        f"Pictures to learn as good must be near the known good pictures, got {name}{others}, which scores "
        f"{score:.2f}, where a typical good part scores 0 and the threshold is 1; every part like it would pass "
        f"from then on{recorded}: look at it, and leave it out or accept odd pictures (`--accept-odd`)."
    )


def sentences(oddities: Sequence[Oddity], *, references: int) -> tuple[str, ...]:
    """A sentence for each odd reference that was learnt; for two references without oddities, a general caution."""
    said = tuple(
        f"{one.picture} {one.words}; look at it, and if it does not belong, fit again without it." for one in oddities
    )
    if references == 2 and not said:
        return ("Two references cannot show which of them does not belong, if one does not; look at both, or add one.",)
    return said


def _oddity(sign: Sign, name: str, size: tuple[int, int], count: int, placement: Placement) -> Oddity:
    x, y = placement.in_picture(sign.at) if sign.at else (0.0, 0.0)
    at = (int(x * size[0]), int(y * size[1])) if sign.at else None
    rest = "the other reference" if count == 2 else "the other references"
    words = {
        "uniform": "is almost uniform",
        "darker": f"is {sign.factor:.1f} times darker than {rest}",
        "brighter": f"is {sign.factor:.1f} times brighter than {rest}",
        "softer": f"is softer than {rest}, with {sign.factor:.0%} of the fine detail",
        "product": f"looks like another product than {rest}",
        "place": f"has a strange place at {at}, as a defect would be",
    }[sign.kind]
    if not sign.known:
        words += f" ({'two' if count == 2 else 'as many'} references cannot show which one does not belong)"
    return Oddity(name, sign.kind, words, signs.is_clear(sign), sign.known, at)
