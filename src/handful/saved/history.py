"""The history of an inspector as JSON: the scores of the references and all revisions. This module needs no torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from handful.errors import HandfulError, InspectorError
from handful.fitting.revisions import History, Kind, PictureRecord, Revision
from handful.inspection.threshold import LARGEST, PATCHCORE, Calibration, Prior, check_rate

HISTORY_ENTRY = "revisions.json"


def history_entry(history: History) -> bytes:
    """The history as the bytes of its entry in the saved file."""
    return json.dumps(asdict(history), indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")


def history_of(entries: Mapping[str, bytes]) -> History:
    """The history of a saved inspector; raises InspectorError if the entry is missing or cannot be read."""
    try:
        return _history(json.loads(entries[HISTORY_ENTRY]))
    except (HandfulError, KeyError, TypeError, ValueError, RecursionError) as error:
        said = str(error).rstrip(".")
        raise InspectorError(
            f"{HISTORY_ENTRY} must hold an inspector's revisions, got: {said}; fit it again."
        ) from error


def _history(values: Mapping[str, Any]) -> History:
    """The history; raises KeyError, TypeError, ValueError or a HandfulError for values of another form."""
    rows, peaks = (_rectangle(values[name], 2) for name in ("image_scores", "map_peaks"))
    factors = [_rectangle(values[name], 1) for name in ("image_factors", "map_factors")]
    if rows.shape != peaks.shape or any(factor.shape != rows.shape[:1] for factor in factors):
        raise ValueError("scores of different numbers of pictures")
    return History(
        rate=_rate(values["rate"]),
        image_scores=tuple(map(tuple, rows.tolist())),
        map_peaks=tuple(map(tuple, peaks.tolist())),
        image_factors=tuple(factors[0].tolist()),
        map_factors=tuple(factors[1].tolist()),
        written=dict(values["written"]),
        revisions=tuple(_revision(one) for one in values["revisions"]),
        prior=_prior(values["prior"]) if "prior" in values else PATCHCORE,  # files of older versions hold no prior
    )


def _revision(values: Any) -> Revision:
    """A revision; raises KeyError, TypeError, ValueError or a HandfulError for values of another form."""
    if not isinstance(values, dict) or set(values) != {field.name for field in fields(Revision)}:
        raise ValueError("a revision of other fields")
    if values["kind"] not in get_args(Kind) or not isinstance(values["date"], str):
        raise ValueError(f"an unknown revision {values['number']}")
    needed = values["kind"] in ("rate", "undo")  # "ignore" has no value in files of versions that did not save it
    if values["kind"] != "ignore" and needed != (values["value"] is not None):
        raise ValueError(f"a revision {values['number']} that must have a value, or must not")
    if values["kind"] == "rate":
        _rate(values["value"])
    if (calibration := values["calibration"]) is not None:
        Calibration.from_dict(calibration)
    checked = {
        "number": _whole(values["number"]),
        "before": _number(values["before"]),
        "after": _number(values["after"]),
        "pictures": tuple(map(_given, values["pictures"])),
        "value": values["value"] if values["value"] is None else _number(values["value"]),
        "ignoring": tuple(map(_whole, values["ignoring"])),
    }
    return Revision(**{**values, **checked})


def _given(values: Any) -> PictureRecord:
    # In files of older versions the raw score is named `score`.
    given = PictureRecord(**{"raw_score" if name == "score" else name: value for name, value in values.items()})
    if not isinstance(given.name, str) or not isinstance(given.sha256, str):
        raise ValueError("a picture whose name or digest is no text")
    score, peak = (None if value is None else _number(value) for value in (given.raw_score, given.map_peak))
    return replace(given, raw_score=score, map_peak=peak)


def _rate(value: Any) -> float:
    rate = _number(value)
    check_rate(rate)
    return rate


def _prior(values: Any) -> Prior:
    prior = Prior(**values)
    positive = [_number(value) for value in (prior.spread, prior.widening, prior.widening_spread)]
    if not all(1e-6 <= value <= 1e3 for value in positive) or not abs(_number(prior.falling)) <= 10:
        raise ValueError("a prior out of bounds")
    return replace(prior, among_places=bool(prior.among_places), ample=_whole(prior.ample))


def _number(value: Any) -> float:
    """A number of magnitude at most `LARGEST`; raises ValueError for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise ValueError(f"{str(value)[:50]!r} instead of a number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not abs(value) <= LARGEST:
        raise ValueError(f"{str(value)[:50]!r} instead of a whole number")
    return value


def _rectangle(values: Any, axes: int) -> NDArray[np.float64]:
    """An array of one or two axes without negative numbers; raises ValueError for any other value."""
    rows = [[_number(value) for value in row] for row in (values if axes == 2 else [values])]
    if not rows or not rows[0] or len({len(row) for row in rows}) > 1 or min(map(min, rows)) < 0:
        raise ValueError("scores that are no rectangle of numbers from 0")
    return np.array(rows if axes == 2 else rows[0])
