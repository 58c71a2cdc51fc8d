"""WinCLIP: scores of windows by CLIP's text prototypes, and by their distance from the references' windows.

Paper: Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR 2023,
https://arxiv.org/abs/2303.14814. The authors published no code; public implementations are
zqhang/Accurate-WinCLIP-pytorch at eef4f8c and anomalib (2.7.0; functions at b723368), whose numbers
`tests/methods/test_winclip.py` holds for functions and tests/golden/winclip_whole.md from picture to score.

An embedding x is scored by language (equation 1): the probability of "anomalous" in a softmax over its cosines with the
normal and the anomalous prototype, each divided by τ. For every size of window, a patch has the harmonic mean of the
scores of the windows that contain it; the harmonic mean over these sizes and the whole picture is the map M0 (section
4.2). With references each patch and window is also scored by association (equation 4): half of 1 minus the highest
cosine with any reference's patch or window of that size. For every size of window, a patch again has the harmonic mean
over its windows; the plain mean over these sizes and the patch itself is M (section 4.3). If the paper can be read in
two ways, ours follows both implementations.

    without references    map M0                image score: a, the score of the whole picture by language
    with references       map (M0 + M) / 2      image score: (a + max M) / 2

Windows, prompts and prototypes come with the features, see `handful.backbones.clip`: the levels are patches and, after
them, windows of any sizes, by default the last block's tokens and windows of 2 and 3 patches, as in the paper.

Departures, with what undoes each:
- A prototype is the mean of the prompts' embeddings at length 1; both average them as they come. And each prompt
  template comes with either article; both lists lack one ("a cropped photo of a") and hold another twice ("a jpeg
  corrupted photo of the"). The method takes whatever prototypes `Features.text` holds.
- Patches are compared as the last block leaves them, as zqhang's are. anomalib's have passed the network's last
  normalisation besides: levels "tokens", "windows2" and "windows3".
- The map with references is the mean of M0 and M, as anomalib's; zqhang's is their sum, in the same order.

Not departures: τ is 0.07, as in both (zqhang's comes near the paper's numbers with it; mala-lab/WinCLIP and
caoyunkang/WinClip take 0.01: `temperature`); maps are not blurred; and pictures are squeezed to the model's input,
where CLIP's own preprocessing crops them. caoyunkang/WinClip at 0818c9d reads the paper otherwise and is not followed:
it averages "normal" harmonically, windows of association plainly and the two maps harmonically, and an image's score is
its map's highest value.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.errors import InputError
from handful.methods.base import Method, require
from handful.ops.maps import pixel_map
from handful.ops.neighbors import Bank
from handful.types import Features, Scores


@dataclass(kw_only=True, eq=False)
class WinCLIP(Method):
    """WinCLIP without references, WinCLIP+ with them: `fit` may be given no picture, `features[[]]`.

    Attributes:
        temperature: τ, the divisor of the cosines; without references the order of image scores does not depend on it.
        sigma: the standard deviation of the map's Gaussian blur, in model-input pixels; 0 for no blur, as in the paper.
    """

    name: ClassVar[str] = "winclip"
    min_references: ClassVar[int] = 0
    needs_text: ClassVar[bool] = True

    temperature: float = 0.07
    sigma: float = 0.0

    banks_: tuple[Bank, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature >= 0.01, "temperature", "at least 0.01", self.temperature)
        require(self.sigma >= 0, "sigma", "at least 0", self.sigma)

    def _fit(self, references: Features) -> None:
        _check_windows(references)
        self.banks_ = tuple(Bank(_directions(level)) for level in references.levels) if len(references) else ()

    def _score(self, queries: Features) -> Scores:
        text = _check_windows(queries)
        # Pictures are scored one at a time, so a picture's scores do not depend on its batch.
        scored = [self._score_one(queries[[row]], text) for row in range(len(queries))]
        patch_scores, image = (torch.stack(values) for values in zip(*scored, strict=True))
        return Scores(pixel_map(patch_scores, queries.size, sigma=self.sigma), image)

    def _score_one(self, picture: Features, text: Tensor) -> tuple[Tensor, Tensor]:
        """The patch scores (h, w) and the image score () of one picture."""
        assert picture.image is not None  # `score` has checked
        grid = picture.levels[0].shape[1:3]
        whole = by_language(picture.image[0], text, temperature=self.temperature)
        scales = [whole.expand(grid)]
        for windows in picture.levels[1:]:
            scales.append(over_windows(by_language(windows[0], text, temperature=self.temperature), grid))
        told = harmonic_mean(torch.stack(scales))
        if not self.banks_:
            return told, whole
        seen = torch.stack([self._association(number, level, grid) for number, level in enumerate(picture.levels)])
        associated = seen.mean(0)
        return (told + associated) / 2, (whole + associated.max()) / 2

    def _association(self, number: int, level: Tensor, grid: tuple[int, ...]) -> Tensor:
        """The scores of patches by association in a level: (1, h', w', D) → (h, w) in [0, 1].

        `number` is the number of the level, from 0, and `grid` the patch grid (h, w).
        """
        distances, _ = self.banks_[number].nearest(_directions(level))
        # Between directions the squared distance is 2 (1 - cos).
        return over_windows(distances[:, 0].square().reshape(level.shape[1:3]) / 4, grid)

    def state(self) -> dict[str, Tensor]:
        rows = {f"rows.{number}": bank.rows for number, bank in enumerate(self.banks_)}
        return {"depths": torch.tensor(self.depths_ or ()), **rows}

    def _restore(self, state: dict[str, Tensor]) -> None:
        self.banks_ = tuple(Bank(state[f"rows.{number}"]) for number in range(len(state) - 1))


def by_language(embeddings: Tensor, text: Tensor, *, temperature: float) -> Tensor:
    """The scores of embeddings by language, higher is more anomalous: (…, E) → (…) in (0, 1).

    The embeddings may have any length. `text` (2, E) holds the normal and the anomalous prototype, of length 1; the
    cosines are divided by the temperature.
    """
    cosines = F.normalize(embeddings, dim=-1) @ text.T
    probabilities: Tensor = (cosines / temperature).softmax(-1)  # (…, 2)
    return probabilities[..., 1]


def over_windows(scores: Tensor, grid: tuple[int, ...]) -> Tensor:
    """For each patch of a grid (h, w) the harmonic mean of the scores of its windows: (h', w') → (h, w).

    A patch in a window of score 0 gets 0. If the grid has the shape of the scores, windows are single patches, and the
    result equals the scores.
    """
    sides = tuple(whole - inside + 1 for whole, inside in zip(grid, scores.shape, strict=True))
    spread = scores.new_ones(1, 1, *sides)
    both = torch.stack([scores.reciprocal(), torch.ones_like(scores)])[:, None]  # (2, 1, h', w')
    sums: Tensor = F.conv_transpose2d(both, spread)[:, 0]  # sums over the windows of each patch: (2, h, w)
    return sums[1] / sums[0]


def harmonic_mean(scores: Tensor) -> Tensor:
    """The harmonic mean of scores over the first dimension: (S, …) → (…)."""
    return len(scores) / scores.reciprocal().sum(0)


def _directions(level: Tensor) -> Tensor:
    """The rows of a level at length 1: (B, h, w, D) → (B·h·w, D)."""
    return F.normalize(level.flatten(0, 2))


def _check_windows(features: Features) -> Tensor:
    """The text prototypes; raises InputError unless the levels are patches and then square windows of patches."""
    assert features.text is not None  # `fit` and `score` have checked
    patches, *windows = features.levels
    for level in windows:
        sides = {whole - inside + 1 for whole, inside in zip(patches.shape[1:3], level.shape[1:3], strict=True)}
        if len(sides) > 1 or min(sides) < 2 or level.shape[3] != features.text.shape[1]:
            raise InputError(
                f"winclip's levels must be patches and then windows of them, got a grid of {tuple(level.shape[1:3])} "
                f"on {tuple(patches.shape[1:3])}; leave the levels out for those of the paper."
            )
    return features.text
