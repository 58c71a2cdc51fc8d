"""Good pictures alone become a labelled data set: nothing learnt from is tested, and masks say where defects are."""

import numpy as np
import pytest
from PIL import Image

from handful.data.layouts.registry import open_dataset
from handful.data.leaks import leaks
from handful.data.synthetic import write_defects
from handful.errors import ImageError, InputError, OutputError, SettingError
from handful.ops.foreground import foreground

RECIPES = {"cut_blob", "cut_scar", "cut_clump", "noise_blob", "noise_scar", "noise_clump"}


def load(path):
    return np.asarray(Image.open(path))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_a_data_set_in_which_every_defect_has_its_mask(good_folder, tmp_path):
    dataset = write_defects(good_folder, tmp_path / "made", per_image=6, seed=0)
    (category,) = dataset.categories
    assert dataset == open_dataset(tmp_path / "made")
    assert (dataset.missing, leaks(dataset)) == ((), ())
    assert names(tmp_path / "made/train/good") == ["0.png", "2.png"]
    assert names(tmp_path / "made/test/good") == ["1.png", "3.png"]
    assert {sample.kind for sample in category.test} == {"good", *RECIPES}
    assert sum(sample.anomalous for sample in category.test) == 12
    assert names(tmp_path / "made/test/noise_scar") == ["1_004.png", "3_004.png"]
    assert names(tmp_path / "made/ground_truth/noise_scar") == ["1_004_mask.png", "3_004_mask.png"]


def test_a_defect_changes_its_picture_inside_its_mask_alone(good_folder, tmp_path):
    dataset = write_defects(good_folder, tmp_path / "made", per_image=6, seed=0)
    for sample in dataset.categories[0].test:
        if not sample.anomalous:
            continue
        good = load(good_folder / f"{sample.path.rsplit('/', 1)[1][0]}.png")
        changed = (load(sample.path) != good).any(axis=2)
        mask = load(sample.masks[0])
        assert set(np.unique(mask)) == {0, 255}
        assert changed.any()
        assert not (changed & (mask == 0)).any()


def test_defects_lie_on_the_part(good_folder, tmp_path):
    write_defects(good_folder, tmp_path / "made", per_image=24, seed=0)
    for path in (tmp_path / "made/ground_truth").glob("*_scar/*.png"):  # small ones, or chance would do
        part = foreground(load(good_folder / f"{path.name[0]}.png"))
        assert not part.all()
        assert (part & (load(path) > 0)).any()


def test_recipes_take_turns_across_pictures(good_folder, tmp_path):
    write_defects(good_folder, tmp_path / "made", per_image=3, seed=0)
    assert {path.name for path in (tmp_path / "made/ground_truth").iterdir()} == RECIPES


def test_the_seed_alone_decides_what_is_random(good_folder, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        write_defects(good_folder, tmp_path / name, per_image=1, seed=seed)
    one, two, three = (load(tmp_path / name / "test/cut_blob/1_000.png") for name in ("one", "two", "three"))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)


def test_pictures_keep_their_own_sizes_and_depth_becomes_8_bits(tmp_path, picture_factory):
    folder = tmp_path / "good"
    folder.mkdir()
    Image.fromarray(picture_factory(0)[:40]).save(folder / "a.jpg")
    deep = picture_factory(1)[:, :50, 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "b.png")
    write_defects(folder, tmp_path / "made", per_image=1, seed=0)
    assert load(tmp_path / "made/train/good/a.png").shape == (40, 96, 3)
    assert np.array_equal(load(tmp_path / "made/test/good/b.png")[..., 0], deep // 257)
    assert load(tmp_path / "made/ground_truth/cut_blob/b_000_mask.png").shape == (96, 50)


def test_a_single_picture_is_learnt_from_and_its_defects_tested(good_folder, tmp_path):
    for number in (1, 2, 3):
        (good_folder / f"{number}.png").unlink()
    dataset = write_defects(good_folder, tmp_path / "made", per_image=2, seed=0)
    (category,) = dataset.categories
    assert len(category.train) == 1
    assert [sample.kind for sample in category.test] == ["cut_blob", "cut_scar"]
    assert dataset.missing == ("made: the folder test/good is absent.",)


@pytest.mark.parametrize("per_image", [0, 1000])
def test_a_wrong_number_of_defects_is_refused(good_folder, tmp_path, per_image):
    with pytest.raises(SettingError, match=f"from 1 to 999, got {per_image}"):
        write_defects(good_folder, tmp_path / "made", per_image=per_image, seed=0)


def test_a_folder_that_is_not_empty_is_left_alone(good_folder):
    with pytest.raises(OutputError, match="got a folder that is not empty"):
        write_defects(good_folder, good_folder, per_image=1, seed=0)
    assert names(good_folder) == ["0.png", "1.png", "2.png", "3.png"]


def test_nothing_is_left_behind_by_a_broken_picture(good_folder, tmp_path):
    (good_folder / "3.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"3\.png"):
        write_defects(good_folder, tmp_path / "made", per_image=1, seed=0)
    assert names(tmp_path) == ["good"]


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold pictures"):
        write_defects(tmp_path, tmp_path / "made", per_image=1, seed=0)
