"""The features of a category's pictures, computed once for all cells that share them."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from handful import backbones, metrics
from handful.backbones.base import Backbone
from handful.backbones.crops import with_crops
from handful.data import images
from handful.data.images import Picture
from handful.data.masks import read_regions
from handful.data.preprocessing import Preprocessing
from handful.fitting import rotation
from handful.fitting.calibration import averaged
from handful.methods import Turn
from handful.ops.frames import Placement
from handful.ops.planting import plan
from handful.ops.views import mild_views, random_views
from handful.types import Category, Crops, Features, Sample


class LabelledPicture(NamedTuple):
    """A test picture with features and truth, ready to be scored in any cell."""

    sample: Sample
    digest: str
    placement: Placement  # the rectangle of the frame that the picture fills
    features: dict[Crops | None, Features]  # the features by the crops that methods want
    truth: metrics.PixelTruth | None  # None for a defect that no mask marks
    seconds: dict[Crops | None, float]  # the time from the file to the features, by the crops


class CategoryFeatures:
    """The features of references, their variations and test pictures; all but the test pictures' features are kept.

    The backbone is resized once for each size of a preprocessing.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._pictures: dict[str, tuple[Picture, str, float]] = {}
        self._views: dict[tuple[str, Preprocessing, Crops | None, bool, int], tuple[Features, float]] = {}
        self._turnings: dict[tuple[Turn, tuple[str, ...], Preprocessing], tuple[bool, float]] = {}
        self._turned: dict[tuple[str, Preprocessing], tuple[Features, float]] = {}
        self._backbones: dict[tuple[tuple[int, int], Crops | None], Backbone] = {}
        self._sizes: dict[tuple[tuple[int, int], Crops | None], int] = {}

    def picture(self, path: str) -> tuple[Picture, str, float]:
        """A reference, its digest, and the seconds of reading."""
        if path not in self._pictures:
            begin = time.perf_counter()
            picture = images.read_picture(path, detail=max(self.backbone.spec.size))
            seconds = time.perf_counter() - begin
            self._pictures[path] = picture, images.digest(path, picture), seconds
        return self._pictures[path]

    def backbone_for(self, size: tuple[int, int], crops: Crops | None = None) -> Backbone:
        """The backbone for pictures of a size (H, W) that also computes features of the pictures' crops."""
        if (size, crops) not in self._backbones:
            made = with_crops(self.backbone_for(size), crops) if crops else backbones.at_size(self.backbone, size)
            self._backbones[size, crops] = made
        return self._backbones[size, crops]

    def held_bytes(self, size: tuple[int, int], crops: Crops | None) -> int:
        """The bytes of the features of a picture of a size (H, W) and of its crops.

        Raises:
            SettingError: if the backbone cannot take crops of this size.
        """
        if (size, crops) not in self._sizes:
            features = self.backbone_for(size, crops)(torch.zeros(1, 3, *size))
            of_crops = () if features.crops is None else features.crops.levels
            self._sizes[size, crops] = sum(level.nbytes for level in (*features.levels, *of_crops))
        return self._sizes[size, crops]

    def views(
        self, path: str, preprocessing: Preprocessing, count: int, crops: Crops | None, *, random: bool = False
    ) -> tuple[list[Features], float]:
        """The features of a reference's first `count` mild variations, and the seconds from the pixels to the features.

        If `random`, the averaged features of its first `count` random views instead.
        """
        keys = [(path, preprocessing, crops, random, number) for number in range(count)]
        missing = [number for number, key in enumerate(keys) if key not in self._views]
        if missing:
            begin = time.perf_counter()
            image = torch.from_numpy(preprocessing(self.picture(path)[0]))
            inputs = random_views(image, count) if random else mild_views(image, count)
            made = time.perf_counter() - begin
            for number in missing:
                begin = time.perf_counter()
                features = self.backbone_for(preprocessing.size, crops)(inputs[number][None])
                kept = averaged(features) if random else features
                self._views[keys[number]] = kept, time.perf_counter() - begin + made / count
        found = [self._views[key] for key in keys]
        return [features for features, _ in found], sum(seconds for _, seconds in found)

    def turned(self, wanted: Turn, paths: Sequence[str], preprocessing: Preprocessing) -> tuple[list[Features], float]:
        """For each reference the patches of its turned copies, and the seconds of deciding and computing.

        The list is empty if the method wants no turned copies, or the references decide against them, see
        `handful.fitting.rotation.decide`.
        """
        if wanted == "never":
            return [], 0.0
        pictures = [self.picture(path)[0] for path in paths]
        images = [torch.from_numpy(preprocessing(picture)) for picture in pictures]
        upright = [self.views(path, preprocessing, 1, None)[0][0] for path in paths]
        key, backbone = (wanted, tuple(paths), preprocessing), self.backbone_for(preprocessing.size)
        if key not in self._turnings:
            begin = time.perf_counter()
            aspects = [preprocessing.aspect(picture) for picture in pictures]
            found = rotation.decide(wanted, images, upright, backbone, aspects=aspects)
            self._turnings[key] = found.turned, time.perf_counter() - begin
        turned, seconds = self._turnings[key]
        if not turned:
            return [], seconds
        for path, picture, image, features in zip(paths, pictures, images, upright, strict=True):
            if (path, preprocessing) not in self._turned:
                begin = time.perf_counter()
                learnt = rotation.turned_patches(image, features, backbone, aspect=preprocessing.aspect(picture))
                self._turned[path, preprocessing] = learnt, time.perf_counter() - begin
        kept = [self._turned[path, preprocessing] for path in paths]
        return [features for features, _ in kept], seconds + sum(seconds for _, seconds in kept)

    def defects(self, paths: Sequence[str], preprocessing: Preprocessing) -> tuple[list[tuple[int, Features]], float]:
        """The row and features of each reference with a synthetic defect, for `Method.weigh`, and the seconds taken."""
        begin = time.perf_counter()
        pictures, digests = zip(*(self.picture(path)[:2] for path in paths), strict=True)
        images = [torch.from_numpy(preprocessing(picture)) for picture in pictures]
        backbone, (upright,) = self.backbone_for(preprocessing.size), self.views(paths[0], preprocessing, 1, None)[0]
        planned = plan(
            images,
            sorted(range(len(paths)), key=digests.__getitem__),
            [preprocessing.placement(picture.size) for picture in pictures],
            [picture.size for picture in pictures],
            views=1,
            patch=preprocessing.size[0] / upright.levels[0].shape[1],
            spots=False,
        )
        made = [(one.row, backbone(one.draw(images[one.row])[None])) for one in planned]
        return made, time.perf_counter() - begin

    def blank(self, preprocessing: Preprocessing) -> Features:
        """The features of a black picture."""
        return self.backbone_for(preprocessing.size)(torch.zeros(1, 3, *preprocessing.size))

    def see(
        self, sample: Sample, category: Category, preprocessing: Preprocessing, wanted: set[Crops | None]
    ) -> LabelledPicture:
        """Read a test picture and compute its features for each kind of crops wanted."""
        begin = time.perf_counter()
        picture = preprocessing.read(sample.path)
        image = torch.from_numpy(preprocessing(picture))[None]
        read = time.perf_counter() - begin
        features: dict[Crops | None, Features] = {}
        seconds: dict[Crops | None, float] = {}
        for crops in wanted:
            begin = time.perf_counter()
            features[crops] = self.backbone_for(preprocessing.size, crops)(image)
            seconds[crops] = read + time.perf_counter() - begin
        placement = preprocessing.placement(picture.size)
        regions = read_regions(sample, placement.size, category.saturation)
        truth = None if sample.anomalous and not regions else metrics.pixel_truth(regions, placement.size)
        return LabelledPicture(sample, images.digest(sample.path, picture), placement, features, truth, seconds)
