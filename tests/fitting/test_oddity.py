"""`fit` finds references that do not belong, says what is odd about them, and refuses them where that is clear."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from handful.detector import Detector
from handful.errors import InputError
from handful.fitting import oddity, signs


@pytest.fixture(scope="module")
def good(picture_factory):
    return [picture_factory(seed) for seed in range(7)]


@pytest.fixture(scope="module")
def odd(picture_factory):
    """Pictures that do not belong, by what is odd."""
    base = picture_factory(20).astype(np.float32)
    stripes = np.indices((96, 96)).sum(0)[:, :, None] // 8 % 2 * np.array([200, 40, 120])
    pictures = {
        "uniform": np.full((96, 96, 3), 128.0),
        "darker": base / 3,
        "brighter": base * 0.4 + 90,
        "softer": ndimage.gaussian_filter(base, (4, 4, 0)),
        "product": stripes,
        "place": base.copy(),
    }
    pictures["place"][50:80, 50:80] = (255, 0, 255)
    return {kind: picture.clip(0, 255).astype(np.uint8) for kind, picture in pictures.items()}


@pytest.fixture
def fit(fitted):
    """Fit a detector to pictures."""

    def fit_to(pictures, **options):
        return Detector(backbone=fitted._needed.backbone).fit(pictures, **options)

    return fit_to


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_references_that_belong_together_are_learnt_without_a_word(fit, good, count):
    assert fit(good[:count]).oddities == ()


@pytest.mark.parametrize("count", [3, 6])
@pytest.mark.parametrize("kind", ["uniform", "darker", "softer", "product", "place"])
def test_a_reference_that_does_not_belong_is_named_with_what_is_odd(fit, good, odd, kind, count):
    pictures = [*good[:count], odd[kind]]
    (found,) = fit(pictures, accept_odd=True).oddities
    assert (found.picture, found.kind, found.known) == (f"picture {count}", kind, True)
    if kind == "place":
        x, y = found.at
        assert 50 <= x <= 80 and 50 <= y <= 80


@pytest.mark.parametrize("kind", ["uniform", "product", "softer"])
def test_a_fit_is_refused_where_it_is_clear(fit, good, odd, kind):
    words = {"uniform": "almost uniform", "product": "another product", "softer": "softer than the other"}[kind]
    with pytest.raises(InputError, match=rf"got picture 0, which .*{words}.*`--accept-odd`"):
        fit([odd[kind], *good[:3]])


def test_two_that_do_not_belong_are_both_found(fit, good, odd, picture_factory):
    again = np.roll(odd["product"], 4, axis=0)
    found = fit([*good, odd["product"], again], accept_odd=True).oddities
    assert [(one.picture, one.kind) for one in found] == [("picture 7", "product"), ("picture 8", "product")]


def test_two_references_cannot_show_which_does_not_belong(fit, good, odd):
    found = fit([good[0], odd["product"]], accept_odd=True).oddities
    assert [one.picture for one in found] == ["picture 0", "picture 1"]
    assert all("cannot show which one does not belong" in one.words and not one.known for one in found)


def test_a_blank_one_of_two_is_known(fit, good, odd):
    with pytest.raises(InputError, match="got picture 1, which is almost uniform;"):
        fit([good[0], odd["uniform"]])


def test_what_was_odd_comes_back_from_the_file(fit, good, odd, tmp_path):
    detector = fit([*good[:4], odd["place"]], accept_odd=True)
    detector.save(tmp_path / "part.handful", graph=False)
    assert Detector.load(tmp_path / "part.handful", device="cpu").oddities == detector.oddities != ()


def test_accepting_odd_references_changes_nothing_else(fit, good):
    one, other = fit(good[:4]), fit(good[:4], accept_odd=True)
    assert one.calibration == other.calibration
    assert one.inspect(good[5])[0].raw_score == other.inspect(good[5])[0].raw_score


def test_many_references_are_looked_at_in_groups(fit, picture_factory, odd, monkeypatch):
    monkeypatch.setattr(oddity, "MOST", 4)
    pictures = [picture_factory(seed) for seed in range(8)]
    pictures[5] = odd["product"]
    found = fit(pictures, accept_odd=True).oddities
    assert "picture 5" in [one.picture for one in found]


def test_every_kind_of_sign_has_both_bounds():
    assert signs.WARN.keys() == signs.CLEAR.keys()
    assert all(signs.WARN[kind] <= signs.CLEAR[kind] for kind in signs.WARN)


def folder_of(path, pictures):
    path.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{number}.png")
    return path


def test_the_command_line_refuses_until_it_is_told_otherwise(command_line, ready_backbone, good, odd, tmp_path):
    folder, saved = folder_of(tmp_path / "good", [*good[:3], odd["product"]]), tmp_path / "part.handful"
    code, out, (line,) = command_line("fit", folder, "-o", saved)
    assert (code, out) == (2, []) and re.search(r"3\.png, which looks like another product.*--accept-odd", line)
    assert not saved.exists()
    code, out, (line,) = command_line("fit", folder, "-o", saved, "--accept-odd")
    assert code == 0 and saved.exists() and re.search(r"3\.png looks like another product", line)
    assert any(re.match(r"odd +.*3\.png looks like another product", line) for line in command_line("info", saved)[1])


def test_a_weaker_sign_is_a_sentence_beside_the_fit(command_line, ready_backbone, good, odd, tmp_path, monkeypatch):
    monkeypatch.setitem(signs.CLEAR, "place", 13.0)
    folder = folder_of(tmp_path / "good", [*good[:4], odd["place"]])
    code, _, (line,) = command_line("fit", folder, "-o", tmp_path / "part.handful")
    assert code == 0 and re.search(r"4\.png has a strange place at \(\d+, \d+\), as a defect would be", line)
    _, (line,), _ = command_line("fit", folder, "-o", tmp_path / "part.handful", "--json")
    (found,) = json.loads(line)["oddities"]
    assert found["kind"] == "place" and not found["clear"]


def test_two_references_are_told_that_they_cannot_show_it(command_line, ready_backbone, good, tmp_path):
    folder, saved = folder_of(tmp_path / "good", good[:2]), tmp_path / "part.handful"
    code, _, (line,) = command_line("fit", folder, "-o", saved)
    assert code == 0 and "Two references cannot show which of them does not belong" in line
    code, (line,), said = command_line("fit", folder, "-o", saved, "--json")
    (note,) = json.loads(line)["notes"]
    assert (code, said) == (0, []) and "Two references cannot show which of them does not belong" in note
