"""MVTec LOCO AD: structural and logical anomalies, with several masks a picture and a saturation of each defect.

A category has train/good, test/good, test/logical_anomalies, test/structural_anomalies, masks of each defect
ground_truth/KIND/NAME/000.png, 001.png, …, and defects_config.json. The folder validation is not used: references are
drawn from train alone. Copies with a single mask a picture, ground_truth/KIND/NAME_mask.png as in MVTec AD, are read
too, without saturation.

Source: Bergmann et al., Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
Localization, IJCV 130, 2022, table 1 and section 5.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from handful.data.layouts import tree
from handful.data.layouts.tree import Counts, MasksOf, Reading, holds_official, read_category, read_official
from handful.types import Saturation

OFFICIAL: dict[str, Counts] = {
    "breakfast_box": (351, 102, 173),
    "juice_bottle": (335, 94, 236),
    "pushpins": (372, 138, 172),
    "screw_bag": (360, 122, 219),
    "splicing_connectors": (354, 119, 193),
}
CONFIG = "defects_config.json"


def _read_one(root: Path) -> Reading:
    category, missing = read_category(root, find_masks=_one_for_each_defect)
    if any(Path(mask).parent.parent.name == "ground_truth" for sample in category.test for mask in sample.masks):
        missing.append(f"{category.name}: masks are merged into one a picture, so each of its parts counts by itself.")
        return category, missing
    try:
        entries = json.loads((root / CONFIG).read_text(encoding="utf-8"))
        return replace(category, saturation=tuple(map(_saturation, entries))), missing
    except FileNotFoundError:
        lacks = "is absent"
    except (OSError, ValueError, TypeError, KeyError) as error:  # JSON of another form than a list of objects
        lacks = f"cannot be used ({type(error).__name__}: {error})"
    missing.append(f"{category.name}: {CONFIG} {lacks}, so a defect counts as found only where all of it is.")
    return category, missing


def _one_for_each_defect(root: Path, kind: str) -> MasksOf:
    merged = tree.ground_truth(root, kind)
    several = root / "ground_truth" / kind
    return lambda picture: tuple(map(str, tree.pictures(several / picture.stem))) or merged(picture)


def _saturation(entry: Any) -> Saturation:
    """An entry of defects_config.json; raises ValueError, TypeError or KeyError for another form than MVTec's."""
    value, area, relative = entry["pixel_value"], entry["saturation_threshold"], entry["relative_saturation"]
    if not 1 <= value <= 255 or not area > 0 or not isinstance(relative, bool) or (relative and area > 1):
        raise ValueError(f"pixel_value {value}, saturation_threshold {area}, relative_saturation {relative}")
    return Saturation(int(value), float(area), relative)


detect = partial(holds_official, defects=dict.fromkeys(OFFICIAL, "logical_anomalies structural_anomalies"))
read = partial(read_official, "loco", official=OFFICIAL, read_one=_read_one)
