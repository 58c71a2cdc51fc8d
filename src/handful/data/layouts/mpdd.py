"""MPDD: six kinds of painted metal parts, each in the layout of `handful.data.layouts.tree`.

Source: Jezek et al., Deep learning-based defect detection of metal parts, ICUMT 2021, table 1.
"""

from functools import partial

from handful.data.layouts.tree import Counts, holds_official, read_official

OFFICIAL: dict[str, Counts] = {
    "bracket_black": (289, 32, 47),
    "bracket_brown": (185, 26, 51),
    "bracket_white": (110, 30, 30),
    "connector": (128, 30, 14),
    "metal_plate": (54, 26, 71),
    "tubes": (122, 32, 69),
}
DEFECTS = {
    "bracket_black": "hole scratches",
    "bracket_brown": "bend_and_parts_mismatch parts_mismatch",
    "bracket_white": "defective_painting scratches",
    "connector": "parts_mismatch",
    "metal_plate": "major_rust scratches total_rust",
    "tubes": "flattening anomalous",
}

detect = partial(holds_official, defects=DEFECTS)
read = partial(read_official, "mpdd", official=OFFICIAL)
