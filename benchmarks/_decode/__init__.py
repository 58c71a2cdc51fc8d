"""The decode matrix: picture files of every make-up beside the pixels that were written into them."""

from collections.abc import Iterator

from _decode.bmp import bmp_cells
from _decode.cell import Cell, Outcome, judge
from _decode.others import gif_cells, jpeg2000_cells, jpeg_cells, pnm_cells, webp_cells
from _decode.png import png_cells
from _decode.tiff import tiff_cells

__all__ = ["Cell", "Outcome", "cells", "judge"]


def cells() -> Iterator[Cell]:
    """Every cell, format by format."""
    for make in (
        png_cells,
        tiff_cells,
        bmp_cells,
        jpeg_cells,
        jpeg2000_cells,
        webp_cells,
        pnm_cells,
        gif_cells,
    ):
        yield from make()
