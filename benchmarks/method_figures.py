"""Draw the figures of docs/methods: each stage of each method on a real picture, written into docs/methods/figures.

    python3 scripts/bench method_figures --data DIR

DIR holds the data set `piped` in the MVTec AD layout (Bianconi, Ceccarelli, Fernandez, Saetta, Computers in Industry
65(2), 2014, CC BY 4.0): papers with impurities. `--only` draws some of the figures, `--out` writes into another folder.
The same data and library versions draw the same bytes.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation
from torch import Tensor

from handful import backbones
from handful.backbones.base import Backbone
from handful.data.images import read_picture
from handful.data.layouts.tree import read_category
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.detector import Detector
from handful.fitting.calibration import averaged, join
from handful.methods.coft import COFT
from handful.methods.coft.scoring import embedding
from handful.methods.fasl.scoring import feature_discrepancy, unit
from handful.methods.fastrecon import FastRecon
from handful.methods.handful import Handful
from handful.methods.patchcore import PatchCore
from handful.methods.reb import REB
from handful.methods.winclip import harmonic_mean, over_windows
from handful.ops.defects import RECIPES, seven_variants
from handful.ops.foreground import foreground
from handful.ops.maps import merge_levels, pool_neighbourhood
from handful.ops.patches import patch_vectors
from handful.ops.residuals import ResidualBank
from handful.ops.views import random_views
from handful.types import Features

PAPER, PICTURE = "brg01_rl", "PA_BRG01_RL_S_D_02_3.png"  # a dark speck, two bluish ones and a fibre
PAPERS = (PAPER, "btn01_rl", "flr01_tl", "bft01_tl")
PAPER_COLOURS = ("#222222", "#e08214", "#4575b4", "#1b9e77")
SHOTS, SEED = 4, 0
SCORED = 12  # test pictures of either kind, where a figure compares scores
WIDTH, DPI = 8.0, 120  # inches and dots: 960 pixels, in which text of 15 points is legible at 390 pixels too
COLOURS = 128  # of the palette that keeps files small
GOOD, BAD, MARK = "#1f6f8b", "#c8452d", "#e6194b"
OUT = Path(__file__).resolve().parents[1] / "docs" / "methods" / "figures"

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """The pictures of all figures, as one backbone sees them.

    Attributes:
        references: inputs (3, H, W) in [0, 1] of the references.
        picture: of the picture with impurities.
        mask: (h, w) bool, the impurities as the data set marks them.
        good, bad: of test pictures.
        pixels: the references as they lie in their files.
        paths: of the references.
    """

    references: list[Tensor]
    picture: Tensor
    mask: NDArray[np.bool_]
    good: list[Tensor]
    bad: list[Tensor]
    pixels: list[NDArray[np.uint8]]
    paths: list[str]


@dataclass(frozen=True)
class Panel:
    """One square of a figure: a picture (H, W, 3), or values (H, W) that are shown from 0 or `low` to `high`."""

    title: str
    values: NDArray[np.generic]
    low: float | None = None
    high: float | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    outline: NDArray[np.bool_] | None = None


def main() -> None:
    """Draw what the arguments ask for."""
    parser = argparse.ArgumentParser(description="Draws the figures of docs/methods.")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds piped")
    parser.add_argument("--only", nargs="+", help="these figures, by name; default: all")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams.update({"font.size": 15, "axes.titlesize": 15})
    torch.set_num_threads(1)
    backbone = backbones.create(size=320)
    scene = read(arguments.data / "piped", backbone)
    figures: dict[str, Callable[[], Figure]] = {
        "handful": lambda: draw_handful(scene, backbone),
        "patchcore": lambda: draw_patchcore(scene, backbone),
        "fastrecon": lambda: draw_fastrecon(scene, backbone),
        "reb": lambda: draw_reb(scene, backbone),
        "reb_defects": lambda: draw_defects(scene),
        "coft": lambda: draw_coft(scene),
        "resad": lambda: draw_resad(scene, backbone, arguments.data / "piped"),
        "fasl": lambda: draw_fasl(scene, backbone),
        "winclip": draw_winclip,
    }
    for name in arguments.only or figures:
        save(figures[name](), arguments.out / f"{name}.png")


def read(root: Path, backbone: Backbone) -> Scene:
    """The references of the paper as `handful bench` draws them, the picture, and test pictures of both kinds."""
    category, _ = read_category(root / PAPER)
    prepare = Preprocessing(backbone.spec.size, bits=8)

    def image(path: str) -> Tensor:
        return torch.from_numpy(prepare(read_picture(path)))

    def pixels(path: str) -> NDArray[np.uint8]:
        return np.asarray(Image.open(path).convert("RGB"))

    drawn = draw(category.train, shots=SHOTS, seed=SEED)
    (shown,) = [sample for sample in category.test if Path(sample.path).name == PICTURE]
    mask = np.any([np.asarray(Image.open(path).convert("L")) > 0 for path in shown.masks], axis=0)
    of_kind = [[s.path for s in category.test if s.anomalous == wanted and s is not shown] for wanted in (False, True)]
    good, bad = ([image(path) for path in paths[:: len(paths) // SCORED][:SCORED]] for paths in of_kind)
    return Scene(
        [image(path) for path in drawn], image(shown.path), mask, good, bad, [pixels(path) for path in drawn], drawn
    )


def features(backbone: Backbone, images: Sequence[Tensor]) -> Features:
    """One picture at a time, as an inspector sees them."""
    return join([backbone(image[None]) for image in images])


def draw_handful(scene: Scene, backbone: Backbone) -> Figure:
    """The four distances and their geometric mean, both distances of wide patches, and the map of all."""
    known, seen = features(backbone, scene.references), features(backbone, [scene.picture])
    panels = [with_mask(scene)]
    for level, stride in enumerate((8, 16)):
        for measures, name in (("euclidean", "Euclidean"), ("cosine", "at length 1")):
            alone = Handful(measures=measures, turn="never", wide=False)  # type: ignore[arg-type]
            one, other = (Features((both.levels[level],), both.size) for both in (known, seen))
            panels.append(against_median(f"{name}, stride {stride}", array(alone.fit(one)._score_one(other))))
    detector = Detector(backbone=backbone).fit(scene.paths, try_defects=False)
    method = detector._needed.method
    assert isinstance(method, Handful)
    assert len(method.wide_), "wide patches must count for this paper"
    panels.append(against_median("geometric mean", array(method._score_one(seen))))
    for values, name in zip(method._wide_one(seen), ("wide, anywhere", "wide, in its place"), strict=True):
        panels.append(against_median(name, array(values)))
    panels.append(against_median("map of all", array(method.score(seen).maps[0])))
    return grid(panels)


def draw_patchcore(scene: Scene, backbone: Backbone) -> Figure:
    """The strangest patch and the good patch nearest to it, all distances, and the image score."""
    known, seen = features(backbone, scene.references), features(backbone, [scene.picture])
    method = PatchCore().fit(known)
    vectors = patch_vectors(seen.levels, method.scales_, neighbourhood=3, dimensions=None)
    height, width = vectors.shape[1:3]
    distances, nearest = (found[:, 0] for found in method.bank_.nearest(vectors.flatten(0, 2)))
    peak = int(distances.argmax())
    reference, place = divmod(int(nearest[peak]), height * width)
    patches = array(distances.reshape(height, width))
    scores = method.score(seen)
    panels = [
        Panel("strangest patch", photo(scene.picture), boxes=(box(divmod(peak, width), height),)),
        Panel(
            f"nearest good patch,\nin reference {reference + 1} of {SHOTS}",
            photo(scene.references[reference]),
            boxes=(box(divmod(place, width), height),),
        ),
        Panel(f"{height}x{width} distances,\nhighest {patches.max():.2f}", patches, low=0),
        Panel("map: enlarged,\nblurred", array(scores.maps[0]), low=0),
    ]
    figure, axes = canvas(6)
    for axis, panel in zip(axes, panels, strict=False):
        show(axis, panel)
    good = method.score(features(backbone, scene.good[:1]))
    axis = figure.add_subplot(2, 3, (5, 6))
    for unused in axes[4:]:
        unused.remove()
    of_good = method.bank_.nearest(
        patch_vectors(
            features(backbone, scene.good[:1]).levels, method.scales_, neighbourhood=3, dimensions=None
        ).flatten(0, 2)
    )[0][:, 0]
    for values, score, colour, name in (
        (distances, scores.image[0], BAD, "this picture"),
        (of_good, good.image[0], GOOD, "a good one"),
    ):
        highest = array(values.sort(descending=True).values[:64])
        axis.plot(range(1, 65), highest, color=colour, linewidth=2.5, label=f"{name}: {float(score):.2f}")
    axis.axvspan(0.5, 16.5, color="#dddddd", zorder=0)
    axis.set(title="64 highest distances", xlim=(0.5, 64), xticks=(1, 16, 64), ylim=(0, None))
    axis.legend(title="mean of the highest 16", fontsize=13, title_fontsize=13, frameon=False)
    return figure


def draw_fastrecon(scene: Scene, backbone: Backbone) -> Figure:
    """What is left of each patch after its reconstruction, by λ."""
    known, seen = features(backbone, scene.references), features(backbone, [scene.picture])
    good = features(backbone, scene.good)
    panels = [with_mask(scene)]
    pooled = merge_levels(tuple(pool_neighbourhood(level, size=3) for level in seen.levels), mode="nearest")
    for lam in (0.0, 0.5, 2.0):
        method = FastRecon(lam=lam).fit(known)
        left = array(torch.from_numpy(np.asarray(method._residuals(pooled[0]))))
        highest = float(method.score(good).image.max())
        panels.append(Panel(f"λ {lam:g}: {left.max():.1f}\ngood up to {highest:.1f}", left, low=0))
        mean = method.mean_
    panels.append(Panel("distance from the\nmean of the place", array((pooled[0] - mean).norm(dim=2)), low=0))
    scores = FastRecon().fit(known).score(seen)
    panels.append(Panel("map, λ 2:\nenlarged, blurred", array(scores.maps[0]), low=0))
    return grid(panels)


def draw_reb(scene: Scene, backbone: Backbone) -> Figure:
    """The squared distance, what is taken off it, and what is left."""
    known, seen = features(backbone, scene.references), features(backbone, [scene.picture])
    method = REB(alpha=1.0).fit(known)
    vectors = patch_vectors(seen.levels, method.scales_, neighbourhood=3, dimensions=None)
    shape = vectors.shape[1:3]
    distances, nearest = (found[:, 0] for found in method.bank_.nearest(vectors.flatten(0, 2)))
    squares, densities = distances.square(), method.densities_[nearest]
    dense = method.densities_.reshape(SHOTS, *shape)[0]
    top = float(squares.max())
    panels = [
        with_mask(scene),
        Panel(f"d², to the nearest\ngood patch: {top:.2f}", array(squares.reshape(shape)), low=0),
    ]
    panels.append(
        Panel(f"LD of that patch,\nup to {float(densities.max()):.2f}", array(densities.reshape(shape)), low=0)
    )
    for alpha in (0.25, 1.0):
        left = array((squares - alpha * densities).reshape(shape))
        panels.append(Panel(f"d² - {alpha:g} LD:\n{left.min():.2f} to {left.max():.2f}", left))
    panels.append(Panel("LD of the patches\nof a reference", array(dense), low=0))
    return grid(panels)


def draw_defects(scene: Scene) -> Figure:
    """The seven classes that the training tells apart."""
    variants, masks = seven_variants(
        scene.pixels,
        [foreground(pixels) for pixels in scene.pixels],
        row=0,
        generator=np.random.default_rng(SEED),
        turn=False,
    )
    names = ["0: as it is", *(f"{number}: {recipe.name}" for number, recipe in enumerate(RECIPES, 1))]
    figure, axes = canvas(8, across=4)
    for axis, name, pixels, mask in zip(axes, names, variants, masks, strict=False):
        show(axis, Panel(name, pixels, outline=mask if mask.any() else None))
    axes[7].remove()
    return figure


def draw_coft(scene: Scene) -> Figure:
    """Random views of a reference, and the distances of test pictures from the Gaussian over such views."""
    backbone = backbones.create(levels=("bn2",), size=320)
    method = COFT()
    views = [random_views(image, method.views) for image in scene.references]
    seen = join([averaged(backbone(view[None])) for of_image in views for view in of_image])
    method.fit(features(backbone, scene.references), augmented=seen)
    figure, axes = canvas(6)
    show(axes[0], Panel("a reference", photo(scene.references[0])))
    for axis, number in zip(axes[1:3], (0, 1), strict=True):
        show(axis, Panel(f"random view {number + 1} of {method.views}", photo(views[0][number])))
    left = figure.add_subplot(2, 1, 2)
    for axis in axes[3:]:
        axis.remove()
    good, bad = (features(backbone, images) for images in (scene.good, [*scene.bad, scene.picture]))
    rows = (("views", averaged_distances(method, seen), "#888888"), ("good", method.score(good).image, GOOD))
    for height, (_, values, colour) in enumerate((*rows, ("impure", method.score(bad).image, BAD))):
        spread = np.linspace(-0.25, 0.25, len(values))
        left.scatter(array(values), height + spread, s=36, color=colour, alpha=0.7, linewidths=0)
    left.set(yticks=(0, 1, 2), yticklabels=("views", "good", "impure"), ylim=(2.5, -0.5), xlim=(0, None))
    left.set_title("Mahalanobis distance of the embedding")
    return figure


def averaged_distances(method: COFT, views: Features) -> Tensor:
    """The Mahalanobis distances of the views that the Gaussian was fitted to: (N,)."""
    distances: Tensor = torch.linalg.vector_norm((embedding(views) - method.mean_) @ method.whitening_.T, dim=1)
    return distances


def draw_resad(scene: Scene, backbone: Backbone, root: Path) -> Figure:
    """The length of residuals, and patches of good pictures of several papers beside their residuals."""
    known, seen = features(backbone, scene.references), features(backbone, [scene.picture])
    residuals = ResidualBank(known.levels, match="euclidean").residuals(seen.levels, kind="signed")
    figure = Figure(figsize=(WIDTH, 7.3), dpi=DPI, layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    axes = above.subplots(1, 3)
    show(axes[0], with_mask(scene))
    for axis, values, stride in zip(axes[1:], residuals, (8, 16), strict=True):
        show(axis, against_median(f"|r|, stride {stride}", array(values[0].norm(dim=2))))
    patches, left = [], []
    prepare = Preprocessing(backbone.spec.size, bits=8)
    for paper in PAPERS:
        good = draw(read_category(root / paper)[0].train, shots=SHOTS + 1, seed=SEED)
        images = [torch.from_numpy(prepare(read_picture(path))) for path in good]
        others, one = features(backbone, images[:-1]).levels[1:], features(backbone, images[-1:]).levels[1:]
        (difference,) = ResidualBank(others, match="euclidean").residuals(one, kind="signed")
        patches.append(one[0].flatten(0, 2)[::2])
        left.append(difference.flatten(0, 2)[::2])
    means = torch.stack([rows.mean(0) for rows in patches])
    middle = means.mean(0)
    _, _, directions = torch.linalg.svd(means - middle, full_matrices=False)
    pair = below.subplots(1, 2, sharex=True, sharey=True)
    kinds = (("good patches x", [rows - middle for rows in patches]), ("their residuals r", left))
    for axis, (title, of_papers) in zip(pair, kinds, strict=True):
        for paper, colour, rows in zip(PAPERS, PAPER_COLOURS, of_papers, strict=True):
            axis.scatter(*array(rows @ directions[:2].T).T, s=8, color=colour, linewidths=0, label=paper[:5])
        axis.set(title=title, xticks=(0,), yticks=(0,))
    pair[1].legend(fontsize=12, markerscale=3, frameon=False, handletextpad=0, loc="upper right")
    return figure


def draw_fasl(scene: Scene, backbone: Backbone) -> Figure:
    """The discrepancy as one distance, and the four of its channels in which the marked places stand out most."""
    known, seen = features(backbone, scene.references), features(backbone, [scene.picture])
    bank = ResidualBank(unit(known.levels), match="euclidean")
    found = feature_discrepancy(bank, unit(seen.levels))[1][0]  # (h, w, D)
    panels = [with_mask(scene), against_median("as distance", array(found.square().sum(2) / 4))]
    shares = F.adaptive_avg_pool2d(torch.from_numpy(scene.mask)[None].float(), (found.shape[0], found.shape[1]))[0]
    marked = shares > 0.1  # of the patch
    ratios = found[marked].mean(0) / found[~marked].mean(0)
    for channel in ratios.topk(4).indices.tolist():
        panels.append(against_median(f"channel {channel}", array(found[..., channel])))
    return grid(panels)


def draw_winclip() -> Figure:
    """How windows' scores come to patches, on scores that are set by hand: weights of CLIP are not on board."""
    anomalous, side, whole = (3, 3), 7, 0.5
    patches = torch.full((side, side), 0.1)
    patches[anomalous] = 0.9
    scales = [torch.full((side, side), whole)]
    figure, axes = canvas(6)
    numbers(axes[0], "one anomalous patch", patches)
    for row, size in enumerate((2, 3)):
        windows = side - size + 1
        scores = torch.full((windows, windows), 0.1)
        for top in range(windows):
            for left in range(windows):
                if top <= anomalous[0] < top + size and left <= anomalous[1] < left + size:
                    scores[top, left] = 0.9
        numbers(axes[1 + 2 * row], f"windows of {size}x{size}", scores)
        scales.append(over_windows(scores, (side, side)))
        numbers(axes[2 + 2 * row], f"harmonic mean\nover the {size}x{size}", scales[-1])
    numbers(axes[5], f"M0: with the whole\npicture's {whole}", harmonic_mean(torch.stack(scales)))
    return figure


def numbers(axis: Axes, title: str, values: Tensor) -> None:
    """A grid of scores with each value written in its cell."""
    show(axis, Panel(title, array(values), low=0, high=1))
    for row, column in np.ndindex(*values.shape):
        value = float(values[row, column])
        colour = "black" if value > 0.55 else "white"
        axis.text(column, row, f"{value:.1f}".lstrip("0"), ha="center", va="center", color=colour, fontsize=15)


def photo(image: Tensor) -> NDArray[np.uint8]:
    """An input (3, H, W) in [0, 1] as pixels (H, W, 3)."""
    return (255 * image).round().byte().permute(1, 2, 0).numpy()


def with_mask(scene: Scene) -> Panel:
    """The picture, with an outline around what the data set marks."""
    return Panel("the picture; marked\nin the data set", photo(scene.picture), outline=scene.mask)


def against_median(name: str, values: Array) -> Panel:
    """Values from their 10 % quantile on, whose title says how many times the median the highest is."""
    ratio = values.max() / np.median(values)
    return Panel(f"{name}\n{ratio:.1f} times the median", values, low=float(np.quantile(values, 0.1)))


def box(place: tuple[int, int], side: int) -> tuple[float, float, float, float]:
    """Left, top, width and height of a patch's 3x3 neighbourhood in an input of 320 pixels, by row and column."""
    step = 320 / side
    return (place[1] - 1) * step, (place[0] - 1) * step, 3 * step, 3 * step


def array(values: Tensor) -> Array:
    return values.detach().float().cpu().numpy()


def canvas(panels: int, *, across: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure of rows of squares, and the axes in reading order."""
    rows = -(-panels // across)
    figure = Figure(figsize=(WIDTH, rows * (0.55 + WIDTH / across)), dpi=DPI, layout="constrained")
    return figure, list(figure.subplots(rows, across, squeeze=False).flat[:panels])


def grid(panels: Sequence[Panel]) -> Figure:
    figure, axes = canvas(len(panels))
    for axis, panel in zip(axes, panels, strict=True):
        show(axis, panel)
    return figure


def show(axis: Axes, panel: Panel) -> None:
    axis.imshow(panel.values, cmap="viridis", vmin=panel.low, vmax=panel.high, interpolation="nearest")
    axis.set(xticks=(), yticks=())
    axis.set_title(panel.title, linespacing=1.1)
    if panel.outline is not None:
        grown = binary_dilation(panel.outline, iterations=2)
        scale = panel.values.shape[0] / grown.shape[0]
        places = (np.arange(grown.shape[0]) + 0.5) * scale - 0.5
        axis.contour(places, places, grown, levels=[0.5], colors=MARK, linewidths=1.6)
    for left, top, width, height in panel.boxes:
        axis.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=MARK, linewidth=2.5))


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of few colours without a date."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    picture = (
        Image.open(drawn).convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    picture.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
