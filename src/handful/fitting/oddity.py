"""References that do not belong: a picture among the good ones that is unlike the others.

Which signs speak against a picture, and how strong they must be: `handful.fitting.signs`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from handful.errors import InputError
from handful.fitting import signs
from handful.fitting.signs import WARN, Kind, Sign
from handful.inspection.gate import ReferenceStatistics
from handful.ops.frames import Placement
from handful.types import Features

MOST = 16  # pictures compared with each other; more are compared in groups
FAR = 2.0  # calibrated score of a picture that is learnt as good only if a person insists


@dataclass(frozen=True)
class Oddity:
    """What is odd about a reference.

    Attributes:
        picture: the reference's name.
        kind: of the sign, see the module.
        words: what is odd, the end of a sentence that begins with the picture's name.
        clear: whether a fit is refused for it.
        known: whether it is this picture that does not belong: two pictures, or two groups of as many, cannot show it.
        at: x, y of a strange place, in pixels of the picture; None for other signs.
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
    """Find the references that are unlike the others; one alone has nothing to be unlike.

    Args:
        names, sizes: of k pictures, (width, height) in pixels.
        features: of each picture.
        learnt: of all pictures.
        parts: of the frame that each picture fills.

    Returns:
        At most one for each picture, in their order.
    """
    count = len(names)
    groups = max(1, math.ceil(count / MOST))
    found: dict[int, Oddity] = {}
    for group in range(groups):
        rows = list(range(group, count, groups))
        for sign in signs.signs_of(signs.compare([features[row] for row in rows]), signs.rows_of(learnt, rows)):
            row = rows[sign.row]
            if sign.strength > WARN[sign.kind] and (
                row not in found or (signs.is_clear(sign) and not found[row].clear)
            ):
                found[row] = _oddity(sign, names[row], sizes[row], len(rows), placements[row])
    return tuple(found[row] for row in sorted(found))


def check(oddities: Sequence[Oddity]) -> None:
    """Check that references belong together.

    Raises:
        InputError: if some clearly do not, with the pictures' names and what is odd.
    """
    clear = [one for one in oddities if one.clear]
    if clear:
        raise InputError(
            f"References must all show the same product, good and taken alike, got {_listed(clear)}; look at "
            f"{'it' if len(clear) == 1 else 'them'}, and leave out what does not belong or accept odd references "
            f"(`--accept-odd`)."
        )


def check_near(names: Sequence[str], scores: Sequence[float], *, missed: int) -> None:
    """Check that pictures to learn as good are near what is known to be good.

    Args:
        names: of the pictures.
        scores: their calibrated scores.
        missed: how many recorded defects would be missed from then on.

    Raises:
        InputError: if some are not.
    """
    far = [(name, score) for name, score in zip(names, scores, strict=True) if score > FAR]
    if not far:
        return
    name, score = far[0]
    others = f" and {len(far) - 1} more" if len(far) > 1 else ""
    recorded = f", and {missed} recorded defect{'s' if missed > 1 else ''} would be missed" if missed else ""
    raise InputError(
        f"Pictures to learn as good must be near what is known to be good, got {name}{others}, which scores "
        f"{score:.2f}, where a typical good part scores 0 and the threshold is 1; whatever looks like it would pass "
        f"from then on{recorded}: look at it, and leave it out or accept odd ones (`--accept-odd`)."
    )


def sentences(oddities: Sequence[Oddity], *, references: int) -> tuple[str, ...]:
    """What a person should know of references that were learnt, one sentence for each odd one; of two, always one."""
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


def _listed(oddities: Sequence[Oddity]) -> str:
    """At most three pictures and what is odd about each."""
    shown = " and ".join(f"{one.picture}, which {one.words}" for one in oddities[:3])
    return shown + (f", and {len(oddities) - 3} more" if len(oddities) > 3 else "")
