"""A labelled data set from good pictures alone, with synthetic defects and masks, in the layout of `layouts.tree`.

Sorted by name, the first, third and further odd pictures go to train/good. The others go to test/good, and their
defects to test/RECIPE, so that no test picture is learnt from. A single picture goes to train/good, and the test
pictures are its defects alone, which then only illustrate defects. Some defects are faint, for example a cut that looks
like the place that it covers; faint defects are kept.
"""

from pathlib import Path

import numpy as np

from handful.data.images import list_pictures
from handful.data.layouts import tree
from handful.data.progress import Track, quietly
from handful.data.writing import depth_of, new_folder, plan, read_eight_bits, seed_of, write_png
from handful.errors import SettingError
from handful.ops.defects import RECIPES, make_defect
from handful.ops.foreground import foreground
from handful.types import Dataset


def write_defects(good: Path, out: Path, *, per_image: int, seed: int, track: Track = quietly) -> Dataset:
    """Write good pictures and copies with a synthetic defect each, and read the folder back.

    OUT/train/good and OUT/test/good hold the good pictures, OUT/test/RECIPE/NAME_NNN.png the defects, and
    OUT/ground_truth/RECIPE/NAME_NNN_mask.png their masks, 255 in the defect. All files are 8-bit PNG in the pictures'
    own resolution; 16-bit pictures are scaled by their depth. Defects lie on the foreground if a foreground is found,
    and a cut is taken from the same picture.

    Args:
        good: a folder of good pictures.
        out: a new or empty folder.
        per_image: the number of defects of each test picture, 1 to 999; the six recipes take turns across pictures.
        seed: with the picture's name and the defect's number, the seed of all random draws.
        track: shows progress.

    Raises:
        SettingError: if `per_image` is not from 1 to 999.
        InputError: if the folder holds no pictures, or a picture cannot be read.
        OutputError: if `out` is not empty or cannot be written; no file is then left.
    """
    if not 1 <= per_image <= 999:
        raise SettingError(f"`per_image` must be from 1 to 999, got {per_image}.")
    found = list_pictures(good, recursive=False)
    train, test = (plan(found[first::2], category="", split=split) for first, split in ((0, "train"), (1, "test")))
    turn, bits = 0, depth_of([*train, *test])
    with new_folder(out) as folder:
        for picture in track([*train, *test], "making defects"):
            pixels = read_eight_bits(picture.source, bits)
            write_png(folder / picture.split / "good" / f"{picture.name}.png", pixels)
            if test and picture.split == "train":
                continue
            where = foreground(pixels)
            for number in range(per_image):
                recipe = RECIPES[turn % len(RECIPES)]
                generator = np.random.default_rng(seed_of(seed, picture.name, number))
                made, mask = make_defect(pixels, where, recipe=recipe, generator=generator)
                kind, name = recipe.name.replace(" ", "_"), f"{picture.name}_{number:03d}"
                write_png(folder / "test" / kind / f"{name}.png", made)
                write_png(folder / "ground_truth" / kind / f"{name}_mask.png", np.uint8(255) * mask)
                turn += 1
    return tree.read(out)
