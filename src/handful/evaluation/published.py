"""Published numbers of few-shot inspection: a data file in which every number has its source and the way of reading.

The numbers mix protocols, references, resolutions and backbones. They stand beside Handful's results for orientation;
a comparison needs both methods run by Handful, on the same references.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

METRICS = {  # columns of the results, and the metrics' names for people
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_oracle": "image F1 (oracle)",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1_oracle": "pixel F1 (oracle)",
    "aupro": "AUPRO",
}
MEAN = "mean"  # instead of a category's name: the mean over all official categories
OFFICIAL_CATEGORIES = {  # the categories of a published mean
    dataset: tuple(names.split())
    for dataset, names in {
        "mvtec_ad": "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor "
        "wood zipper",
        "visa": "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum",
        "btad": "01 02 03",
        "mvtec_3d": "bagel cable_gland carrot cookie dowel foam peach potato rope tire",
        "mpdd": "bracket_black bracket_brown bracket_white connector metal_plate tubes",
        "mvtec_loco": "breakfast_box juice_bottle pushpins screw_bag splicing_connectors",
    }.items()
}


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        method: the name of the method in small letters; `winclip` with references is WinCLIP+ in its paper.
        dataset: the short name of the data set, equal to the key in `OFFICIAL_CATEGORIES` if there is such a key.
        category: the category, or "mean" for the mean over all official categories.
        shots: the number of references for each category; None for all good training pictures, 0 for the transductive
            zero-shot methods.
        protocol: "target-only"; "auxiliary-trained" (on labelled defects of other data); either of both followed by
            " transductive" (a score depends on the other test pictures); "other-normals" (trained on good pictures of
            other categories); "transductive zero-shot"; or "not stated".
        backbone: timm's name for a network that Handful can run, else the source's name; empty if not stated.
        size: the size of the input, height first: "224x224"; empty if not stated.
        metric: a key of `METRICS`; F1 is at the best threshold on the test labels, AUPRO is up to a false-positive rate
            of 0.3.
        value: the number, in percent.
        spread: the standard deviation over draws of references, in percent points; None if not given.
        tag: the origin of the number: "OFF" for the authors' paper or repository, "3P" for somebody else's table,
            "OFF/3P" for both, "3P-note" for others' notes on a paper (indicative only), "PLOT" for a figure read by
            eye.
        source: the paper or repository, with the table or figure, in words.
    """

    method: str
    dataset: str
    category: str
    shots: int | None
    protocol: str
    backbone: str
    size: str
    metric: str
    value: float
    spread: float | None
    tag: str
    source: str

    def __str__(self) -> str:
        return f"{self.value:.1f}" + (f" ± {self.spread:.1f}" if self.spread is not None else "")

    @property
    def network(self) -> str:
        """Backbone and input size, as far as they are stated; `-` if neither is stated."""
        return ", ".join(filter(None, (self.backbone, self.size))) or "-"


@cache
def read_published() -> tuple[Published, ...]:
    """All numbers of published.csv, in the order of the file: by method, data set and source."""
    file = resources.files("handful.evaluation") / "published.csv"
    with file.open(encoding="utf-8") as lines:
        rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    for row in rows:
        row["shots"] = None if row["shots"] == "all" else int(row["shots"])
        row["value"] = float(row["value"])
        row["spread"] = float(row["spread"]) if row["spread"] else None
    return tuple(Published(**row) for row in rows)
