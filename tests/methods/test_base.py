import pytest
from torch import nn

from handful.backbones import timm
from handful.methods.base_training import layers_up_to


@pytest.mark.parametrize(
    ("name", "stride", "last", "next_one"),
    [
        ("resnet18", 4, "layer1.1.act2", "layer2.0.conv1"),
        ("resnet18", 2, "act1", "maxpool"),
        ("vgg11_bn", 2, "features.6", "features.7"),  # the pooling that leads to stride 4
        ("tf_efficientnet_lite0", 16, "blocks.5.0.bn1", "blocks.5.0.conv_dw"),
    ],
)
def test_layers_up_to_a_stride_end_before_the_first_one_beyond_it(name, stride, last, next_one):
    trunk = timm.trunk(name, size=64, weights="random")
    names = {module: path for path, module in trunk.model.named_modules()}
    found = [names[layer] for layer in layers_up_to(trunk, stride=stride, size=64)]
    assert last in found
    assert next_one not in found


def test_no_layer_is_found_at_stride_0_or_without_strides():
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    assert layers_up_to(convolution, stride=0, size=64) == []
    assert layers_up_to(convolution, stride=2, size=64) == []  # nothing goes beyond stride 2
    assert layers_up_to(timm.trunk("vit_tiny_patch16_224", size=64, weights="random"), stride=4, size=64) == []
