import pytest
import torch

from handful import backbones
from handful.backbones.crops import CroppingBackbone, with_crops
from handful.detector import Detector
from handful.errors import SettingError
from handful.ops.crops import cut_crops
from handful.types import Crops


@pytest.fixture
def plain(fitted):
    return fitted._needed.backbone


def test_a_network_sees_crops_of_another_size_with_the_same_weights(plain):
    small = backbones.at_size(plain, (32, 32))
    made = backbones.create(size=(32, 32), engine="torch", device="cpu")
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert small.spec.size == (32, 32) and small.spec.weights_sha256 == plain.spec.weights_sha256
    for one, other in zip(small(image).levels, made(image).levels, strict=True):
        assert torch.equal(one, other)
    assert backbones.at_size(plain, plain.spec.size) is plain


def test_a_transformers_positions_are_interpolated():
    options = {"weights": "random", "engine": "torch", "device": "cpu"}
    plain = backbones.create("vit_tiny_patch16_224", levels=[2, 5, 8], size=(64, 64), **options)
    small = backbones.at_size(plain, (32, 32))
    assert [level.shape for level in small(torch.rand(1, 3, 32, 32)).levels] == [(1, 2, 2, 192)] * 3
    with pytest.raises(SettingError, match="must be a multiple of the 16-pixel patches"):
        backbones.at_size(plain, (40, 32))


def test_crops_come_beside_the_picture(plain):
    wanted = Crops(4, 2, 4)  # of 8 patches of 8 pixels
    backbone = with_crops(plain, wanted)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = backbone(images)
    assert all(torch.equal(*pair) for pair in zip(features.levels, plain(images).levels, strict=True))
    small = backbones.at_size(plain, (32, 32))
    for level, expected in zip(features.crops.levels, small(cut_crops(images[1], (8, 8), wanted)).levels, strict=True):
        assert level.shape[:2] == (2, 9)
        assert torch.equal(level[1], expected)
    assert features.crops.size == (32, 32)
    assert (backbone.spec, backbone.entries, backbone.device) == (plain.spec, plain.entries, plain.device)


def test_enlarged_to_the_whole_crops_go_through_the_same_network(plain):
    backbone = CroppingBackbone(plain, Crops(4, 4, 8))
    assert backbone(torch.rand(1, 3, 64, 64)).crops.size == (64, 64)
    assert backbone._of_crops is plain


def test_a_backbone_is_never_wrapped_twice(plain):
    once = with_crops(plain, Crops(4, 2, 4))
    assert with_crops(once, Crops(4, 4, 4)).plain is plain
    assert with_crops(once, None) is plain


def test_an_inspector_with_crops_scores_as_saved(plain, good_folder, tmp_path, picture_factory):
    from handful.methods import create_head_training
    from handful.training.head_file import Record, read, write

    module = create_head_training("fasl", {}).make_head(plain(torch.rand(1, 3, 64, 64)).depths, seed=0)
    backbone = {"name": plain.spec.name, "levels": list(plain.spec.levels), "size": [64, 64]}
    backbone["weights_sha256"] = plain.spec.weights_sha256
    record = Record("fasl", {}, module.depths, backbone, (), (), {}, (), 0)
    write(tmp_path / "head.safetensors", module, record)
    settings = {"winmode": "mul", "win_size": 4}
    detector = Detector("fasl", settings=settings, backbone=plain, head=read(tmp_path / "head.safetensors"))
    picture = picture_factory(50, side=64)
    expected = detector.fit(good_folder).inspect(picture)[0].raw_score
    assert detector.fit(good_folder).inspect(picture)[0].raw_score == expected  # fitted again, on the same backbone
    detector.save(tmp_path / "part.handful")
    loaded = Detector.load(tmp_path / "part.handful", engine="torch", device="cpu")
    assert loaded.inspect(picture)[0].raw_score == expected
    with pytest.raises(SettingError, match="`win_size` must be at most the 8 patches"):
        Detector("fasl", settings={"winmode": "only"}, backbone=plain, head=detector.head).fit(good_folder)
