"""The random draw of references."""

from collections.abc import Sequence
from typing import TypeVar

import torch

from handful.errors import SettingError

Item = TypeVar("Item")


def draw(pictures: Sequence[Item], *, shots: int, seed: int) -> list[Item]:
    """Draw `shots` distinct pictures from a list sorted by name: the first of a seeded permutation.

    Raises:
        SettingError: if `shots` is not 1 to the number of pictures, or `seed` does not fit 63 bits.
    """
    if not 1 <= shots <= len(pictures):
        raise SettingError(f"`shots` must be from 1 to the {len(pictures)} pictures there are, got {shots}.")
    if not 0 <= seed < 2**63:
        raise SettingError(f"`seed` must be from 0 to 2**63 - 1, got {seed}.")
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    return [pictures[row] for row in order[:shots].tolist()]
