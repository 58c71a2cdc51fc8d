"""Large pictures in tiles: a common bank of patches for all tiles, each tile scored alone.

A picture is resized to a frame as large as its detail, and equal tiles, each of the size of an input, cover the frame
(`handful.ops.tiles`). Memory holds a single tile's features at a time. The bank keeps a fixed number of patches of each
learnt picture, so that time grows in proportion to area.

The kept patches are chosen by PatchCore's greedy k-centre selection from a random draw of all tiles' patches, so that
rare good places are kept too; k-centre selection from all patches, a million of them, would take hours. Thinning raises
the scores of good places and, as much, the leave-one-out scores of references, from which the threshold follows.

The score of a picture is the highest peak of its tiles' maps. The score of a single input, a mean of the highest
places, would hardly rise with a defect of a patch or two.

A single reference cannot be left out. Its scores are geometric means of the scores of its mild variations and of its
score against itself: each tile is compared with the patches kept outside of the tile.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful import methods
from handful.backbones.base import Backbone
from handful.data.images import Picture
from handful.data.preprocessing import Preprocessing
from handful.data.progress import Track, quietly
from handful.fitting import calibration
from handful.fitting.calibration import blind_methods, halfway, join
from handful.inspection.gate import blocks_of
from handful.inspection.threshold import Prior
from handful.ops.coreset import greedy_coreset
from handful.ops.tiles import Tiles
from handful.ops.views import mild_views
from handful.types import Features, Scores

KEPT = 2048  # patches kept of each picture at the finest level; coarser levels keep in proportion to their grids
DRAWN = 4  # times `KEPT` patches are drawn at random from all tiles before the selection
VIEWS, VIEWS_ALONE = 2, 3  # scored variations of each reference, and of a single reference; the unchanged one included
EXCLUSION_RADIUS = 16  # pixels around a tile whose patches are not compared with the tile

Image = NDArray[np.uint8] | NDArray[np.float32]  # in the frame of tiles, see `Preprocessing.in_detail`


@dataclass(frozen=True, eq=False)
class Kept:
    """The patches kept of a picture's tiles.

    Attributes:
        features: (1, 1, N, D) at every level.
        at: for each level (N, 2), down and across: the patches' centres in pixels of the frame of tiles.
    """

    features: Features
    at: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Tiling:
    """Scores and learns pictures in tiles.

    Attributes:
        backbone: the backbone at the size of a tile.
        preprocessing: a preprocessing with tiles.
    """

    backbone: Backbone
    preprocessing: Preprocessing

    @property
    def _tiles(self) -> Tiles:
        assert self.preprocessing.tiles is not None
        return self.preprocessing.tiles

    def features(self, image: Image) -> Iterator[Features]:
        """The features of a picture's tiles, in turn."""
        for tile in self.preprocessing.inputs(image):
            yield self.backbone(torch.from_numpy(tile)[None])

    def kept(self, picture: Picture) -> Kept:
        """The patches kept of a picture to be learnt; the selection depends on the picture alone."""
        tiles = self._tiles
        generator = torch.Generator().manual_seed(0)
        drawn: list[list[tuple[Tensor, Tensor]]] = []  # of each level the patches of each tile, and their middles
        for start, features in zip(tiles.places, self.features(self.preprocessing.in_detail(picture)), strict=True):
            finest = features.levels[0][0, ..., 0].numel()
            drawn = drawn or [[] for _ in features.levels]
            for level, of_level in zip(features.levels, drawn, strict=True):
                height, width = level.shape[1:3]
                wanted = -(-DRAWN * KEPT * height * width // (finest * len(tiles)))
                chosen = torch.randperm(height * width, generator=generator)[:wanted]
                steps = torch.tensor([tiles.tile[0] / height, tiles.tile[1] / width])
                inside = torch.stack([chosen // width, chosen % width], 1) + 0.5
                rows = level.flatten(0, 2)[chosen.to(level.device)]
                of_level.append((rows, torch.tensor(start) + inside * steps))
        levels, at_levels = [], []
        for of_level in drawn:
            pool, at = (torch.cat(parts) for parts in zip(*of_level, strict=True))
            first = int(torch.linalg.vector_norm(pool - pool.mean(0), dim=1).argmax())
            chosen = greedy_coreset(pool, -(-len(pool) // DRAWN), start=first)
            levels.append(pool[chosen][None, None])
            at_levels.append(at[chosen.cpu()])
        return Kept(Features(tuple(levels), tiles.tile), tuple(at_levels))

    def blocks(self, picture: Picture) -> list[NDArray[np.float32]]:
        """The `fine` blocks of a reference for `handful.inspection.gate.learn_statistics`."""
        return [blocks_of(view) for view in self._views(picture, VIEWS)]

    def score(self, method: methods.Method, image: Image) -> tuple[Scores, Features]:
        """Score a picture in the frame of tiles by a fitted method.

        Returns:
            Scores: the map of the whole frame, and the highest peak of the tiles' maps as image score. Then the
            features of the tile with that peak.
        """
        return self._joined((method, features) for features in self.features(image))

    def score_against_itself(self, method: methods.Method, picture: Picture, kept: Kept) -> Scores:
        """Score the only learnt picture by comparing each tile with the patches kept outside of the tile."""
        tiles = self._tiles
        found = self.features(self.preprocessing.in_detail(picture))
        others = (method.unfitted().fit(_outside(kept, start, tiles.tile)) for start in tiles.places)
        return self._joined(zip(others, found, strict=True))[0]

    def _joined(self, tiles: Iterator[tuple[methods.Method, Features]]) -> tuple[Scores, Features]:
        """The scores of a picture from pairs of a method and the features of the tile that the method scores."""
        peaks: list[float] = []
        strangest: list[Features] = []

        def maps() -> Iterator[NDArray[np.float32]]:
            for method, features in tiles:
                found = method.score(features).maps[0].cpu().numpy()
                if not peaks or float(found.max()) > max(peaks):
                    strangest[:] = [features]
                peaks.append(float(found.max()))
                yield found

        joined = torch.from_numpy(self._tiles.joined(maps()))
        return Scores(joined[None], torch.tensor([float(np.max(peaks))])), strangest[0]

    def middles(self, picture: Picture, *, alone: bool) -> list[Tensor]:
        """The middle tile of a picture, on which defects are planted; for a single reference, of its variations too."""
        tiles = self._tiles
        (top, left), (height, width) = tiles.places[len(tiles) // 2], tiles.tile
        views = self._views(picture, VIEWS_ALONE if alone else 1)
        return [_in_unit(view[:, top : top + height, left : left + width]) for view in views]

    def shown(self, picture: Picture) -> tuple[int, int]:
        """The numbers of a picture's original pixels that a tile shows across and down."""
        placement = self.preprocessing.fine_placement(picture.size)
        height, width = self._tiles.tile
        return round(width * picture.size[0] / placement.width), round(height * picture.size[1] / placement.height)

    def fit(
        self,
        method: methods.Method,
        pictures: Sequence[Picture],
        *,
        planted: Sequence[tuple[int, int, Features]] = (),
        track: Track = quietly,
    ) -> tuple[list[Features], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], Prior]:
        """Fit a method that takes loose patches to references in tiles, in place.

        Args:
            method: the method to fit.
            pictures: the references.
            planted: the row of a reference, the number of its view, and the features of the view's middle tile with a
                defect; see `handful.fitting.calibration.fit_and_try`.
            track: shows progress.

        Returns:
            The features kept of each reference; the three arrays of `handful.fitting.calibration.fit_and_try`, where
            the score of a view with a defect is the higher of the view's score and the peak of the tile with the
            defect; the prior of the method's scores.
        """
        kept = [self.kept(picture) for picture in track(pictures, description="tiles")]
        learnt = [[one.features] for one in kept]
        method.fit(join([one.features for one in kept]))
        against_itself = None
        tried = np.zeros((len(planted), 2))

        def try_planted(row: int, scorer: methods.Method, of_views: Sequence[Scores]) -> None:
            for number, (of_row, view, features) in enumerate(planted):
                if of_row == row:
                    clean = float(of_views[view].image[0])
                    tried[number] = clean, max(clean, float(scorer.score(features).maps.max()))

        if len(pictures) > 1:
            rows: dict[int, list[Scores]] = {}
            for left_out, blind in blind_methods(method, learnt, (), (), track=track):
                for row in left_out:
                    rows[row] = [self.score(blind, view)[0] for view in self._views(pictures[row], VIEWS)]
                    try_planted(row, blind, rows[row])
            scores = [rows[row] for row in range(len(pictures))]
        else:
            against_itself = self.score_against_itself(method, pictures[0], kept[0])
            varied = [self.score(method, view)[0] for view in list(self._views(pictures[0], VIEWS_ALONE))[1:]]
            try_planted(0, method, [against_itself, *varied])
            scores = [[halfway(one, against_itself) for one in varied]]
        image = np.array([[float(one.image[0]) for one in row] for row in scores])
        peaks = np.array([[float(one.maps.max()) for one in row] for row in scores])
        return [one.features for one in kept], image, peaks, tried, calibration.prior_of(method, against_itself)

    def _views(self, picture: Picture, count: int) -> Iterator[Image]:
        """The unchanged picture and mild variations, in the frame of tiles."""
        image = self.preprocessing.in_detail(picture)
        yield image
        for view in mild_views(_in_unit(image), count)[1:]:
            yield view.numpy()


def _in_unit(image: Image) -> Tensor:
    """A picture as a tensor with values in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image / np.float32(255) if image.dtype == np.uint8 else image))


def _outside(kept: Kept, start: tuple[int, int], tile: tuple[int, int]) -> Features:
    """The kept patches that lie more than `EXCLUSION_RADIUS` outside of a tile."""
    low = torch.tensor(start) - EXCLUSION_RADIUS
    high = torch.tensor(start) + torch.tensor(tile) + EXCLUSION_RADIUS
    levels = tuple(
        level[:, :, ~((at > low) & (at < high)).all(1)] for level, at in zip(kept.features.levels, kept.at, strict=True)
    )
    return Features(levels, kept.features.size)
