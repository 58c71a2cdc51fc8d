from itertools import pairwise

import numpy as np
import pytest

from handful.ops.tiles import BLIND, OVERLAP, Tiles

FRAMES = [((320, 320), (320, 320)), ((320, 1000), (320, 320)), ((1536, 2048), (288, 352)), ((641, 333), (320, 320))]


@pytest.mark.parametrize(("frame", "tile"), FRAMES)
def test_tiles_cover_the_frame_and_overlap(frame, tile):
    tiles = Tiles(frame, tile)
    covered = np.zeros(frame, int)
    for top, left in tiles.places:
        assert 0 <= top <= frame[0] - tile[0] and 0 <= left <= frame[1] - tile[1]
        covered[top : top + tile[0], left : left + tile[1]] += 1
    assert covered.min() == 1 and len(tiles) == len(tiles.places)
    for axis in (0, 1):
        starts = sorted({place[axis] for place in tiles.places})
        assert all(after - before <= tile[axis] - OVERLAP for before, after in pairwise(starts))


@pytest.mark.parametrize("side", [1344, 2688, 5376])
def test_their_number_is_in_proportion_to_the_area(side):
    new = 320 - OVERLAP  # pixels a side that a tile adds
    assert side**2 / new**2 * 0.85 < len(Tiles((side, side), (320, 320))) < (side / new + 1) ** 2


def test_one_tile_for_a_frame_of_its_size():
    tiles = Tiles((320, 352), (320, 352))
    found = np.random.default_rng(0).normal(size=(320, 352)).astype(np.float32)
    assert len(tiles) == 1 and np.array_equal(tiles.joined([found]), found)


@pytest.mark.parametrize(("frame", "tile"), FRAMES)
def test_cut_and_joined_again_a_picture_is_as_before(frame, tile):
    image = np.random.default_rng(0).random((3, *frame), dtype=np.float32)
    tiles = Tiles(frame, tile)
    joined = tiles.joined(cut[1] for cut in tiles.cuts(image))
    assert np.allclose(joined, image[1], atol=1e-6)  # weights in float32 add up to 1


def test_neighbours_that_differ_are_joined_without_a_step():
    tiles = Tiles((320, 1000), (320, 320))
    row = tiles.joined(np.full((320, 320), float(number), np.float32) for number in range(len(tiles)))[100]
    assert row[0] == 0 and row[-1] == len(tiles) - 1
    assert np.abs(np.diff(row)).max() <= 1.01 / (OVERLAP - 2 * BLIND)


def test_beside_its_inner_edges_a_tile_does_not_count():
    tiles = Tiles((320, 576), (320, 320))
    left = tiles.joined([np.ones((320, 320), np.float32), np.zeros((320, 320), np.float32)])[0]
    assert (left[: 320 - OVERLAP + BLIND] == 1).all() and (left[320 - BLIND :] == 0).all()


def test_a_missing_map_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        Tiles((320, 576), (320, 320)).joined([np.zeros((320, 320), np.float32)])
