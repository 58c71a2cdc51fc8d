import pytest
import torch

from handful.backbones import onboard
from handful.backbones import timm as networks
from handful.errors import WeightsError


def test_the_default_backbones_weights_arrive_with_pip():
    file = onboard.weights_file("tf_efficientnet_lite0")
    assert file is not None and file.suffix == ".pth"


def test_a_network_without_a_package_has_none():
    assert onboard.weights_file("resnet18") is None


def test_every_weight_finds_its_place_and_the_network_still_classifies():
    model = networks._create("tf_efficientnet_lite0").eval()
    state = onboard.read_state(onboard.weights_file("tf_efficientnet_lite0"), model)
    model.load_state_dict(state, strict=True)
    # A trained network tells a ramp from noise by its features; a wrongly mapped one would have exploded or died.
    ramp = torch.linspace(-1, 1, 224).expand(1, 3, 224, 224)
    noise = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        one, other = model(ramp).softmax(1), model(noise).softmax(1)
    assert float(one.max()) > 0.05 and int(one.argmax()) != int(other.argmax())


def test_a_file_with_other_weights_is_refused(tmp_path):
    model = networks._create("tf_efficientnet_lite0")
    state = torch.load(onboard.weights_file("tf_efficientnet_lite0"), weights_only=True)
    del state["_conv_stem.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match="conv_stem.weight"):
        onboard.read_state(tmp_path / "less.pth", model)
