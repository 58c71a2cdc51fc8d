import pytest
import safetensors.torch
import torch

from handful import backbones
from handful.backbones import timm as networks
from handful.errors import SettingError, WeightsError

# (name, size): a pyramid, the one on board, plain and windowed transformers, one whose tokens need a 14-pixel grid
FAMILY = [
    ("resnet18", (64, 96)),
    ("tf_efficientnet_lite0", (64, 96)),
    ("vgg11_bn", (64, 64)),
    ("vit_tiny_patch16_224", (64, 96)),
    ("vit_small_patch14_dinov2.lvd142m", (56, 84)),
    ("swin_tiny_patch4_window7_224", (224, 224)),
]


def images(size, count=2):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=FAMILY, ids=[name for name, _ in FAMILY])
def backbone(request):
    name, size = request.param
    return backbones.create(name, size=size, weights="random", engine="torch", device="cpu")


def test_levels_are_grids_finest_first(backbone):
    features = backbone(images(backbone.spec.size))
    assert features.size == backbone.spec.size
    assert len(features.levels) == len(backbone.spec.levels)
    areas = [level.shape[1] * level.shape[2] for level in features.levels]
    assert areas == sorted(areas, reverse=True)
    height, width = backbone.spec.size
    for level in features.levels:
        assert level.dtype == torch.float32
        assert level.shape[1] / level.shape[2] == pytest.approx(height / width, rel=0.2)


def test_a_batch_gives_what_its_pictures_give_alone(backbone):
    batch = images(backbone.spec.size)
    together = backbone(batch)
    for row in range(2):
        alone = backbone(batch[[row]])
        assert all(torch.equal(a[row], b[0]) for a, b in zip(together.levels, alone.levels, strict=True))


def test_openvino_equals_torch(backbone):
    fast = backbones.load(backbone.spec, backbone.entries, engine="openvino")
    batch = images(backbone.spec.size)
    for one, other in zip(fast(batch).levels, backbone(batch).levels, strict=True):
        # float32 sums in another order
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())
    assert fast.spec.engine == "openvino"
    assert fast.spec.precision == "f32"


def test_an_engine_is_named_as_it_runs_whichever_was_saved():
    fast = backbones.create("resnet18", size=(64, 64), levels=["layer1"], weights="random", engine="openvino")
    slow = backbones.load(fast.spec, fast.entries, engine="torch", device="cpu")
    assert (fast.spec.engine, slow.spec.engine) == ("openvino", "torch")
    assert backbones.load(slow.spec, slow.entries, engine="openvino").spec.engine == "openvino"


def test_saved_parts_make_the_same_backbone_again(backbone):
    again = backbones.load(backbone.spec, backbone.entries, device="cpu")
    batch = images(backbone.spec.size)
    assert all(torch.equal(a, b) for a, b in zip(again(batch).levels, backbone(batch).levels, strict=True))


def test_nothing_behind_the_last_level_is_computed_or_kept():
    network = networks.build("resnet18", levels=["layer2"], size=(64, 64), weights="random")
    names = {name.split(".")[0] for name in network.model.state_dict()}
    assert names == {"conv1", "bn1", "layer1", "layer2"}
    ran = []
    for name in ("layer1", "layer3", "layer4", "fc"):
        network.model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    network(images((64, 64)))
    assert ran == ["layer1"]


def test_a_levels_values_are_the_networks_own():
    network = networks.build("resnet18", levels=["layer1.0.bn1", "layer2"], size=(64, 64), weights="random")
    batch, seen = images((64, 64)), {}
    model = networks._create("resnet18").eval()
    model.layer1[0].bn1.register_forward_hook(lambda m, i, output: seen.update(bn1=output.clone()))
    model.layer2.register_forward_hook(lambda m, i, output: seen.update(layer2=output.clone()))
    with torch.inference_mode():
        model((batch - network.mean) / network.std)
        levels = network(batch)
    # A following in-place activation must not have changed the captured values.
    assert float(levels[0].min()) < 0
    assert torch.equal(levels[0], seen["bn1"].permute(0, 2, 3, 1))
    assert torch.equal(levels[1], seen["layer2"].permute(0, 2, 3, 1))


def test_levels_by_index_are_those_that_timm_lists():
    named = networks.build("resnet18", levels=["layer3", "layer1"], size=(64, 64), weights="random")
    indexed = networks.build("resnet18", levels=[3, 1], size=(64, 64), weights="random")
    assert named.level_names == indexed.level_names == ("layer1", "layer3")  # finest first


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        (["foo"], "got 'foo'; timm lists act1, layer1"),
        ([9], "below the 5 that resnet18 has, got 9"),
        ([], "at least one module"),
        (["layer1", "layer1"], "none twice"),
        (["fc"], r"grid of patches, got \(1, 1000\)"),
    ],
)
def test_levels_that_do_not_serve_are_refused(levels, sentence):
    with pytest.raises(SettingError, match=sentence):
        networks.build("resnet18", levels=levels, size=(64, 64), weights="random")


def test_an_unknown_network_is_refused_with_near_names():
    with pytest.raises(SettingError, match="did you mean resnet18"):
        networks.build("resnet-18", levels=None, size=(64, 64), weights="random")


def test_a_size_that_does_not_fit_the_patches_is_refused_with_one_that_does():
    with pytest.raises(SettingError, match="multiple of the 16-pixel patches.*got 100; use 96"):
        networks.build("vit_tiny_patch16_224", levels=None, size=(100, 96), weights="random")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": "tpu"}, "auto, openvino, torch, got 'tpu'"),
        ({"precision": "int8"}, "f32, bf16, got 'int8'"),
        ({"precision": "bf16", "engine": "torch"}, "f32 with the torch engine"),
        ({"device": "cuda", "engine": "openvino"}, "use the torch engine"),
        ({"device": "mars"}, "auto, cpu, cuda, got 'mars'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, sentence):
    with pytest.raises(SettingError, match=sentence):
        backbones.create("resnet18", size=(64, 64), weights="random", **options)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_come_from_a_local_file(tmp_path, suffix):
    own = networks._create("resnet18")
    torch.nn.init.constant_(own.layer1[0].conv1.weight, 0.125)
    file = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(own.state_dict(), file)
    else:
        torch.save(own.state_dict(), file)
    network = networks.build("resnet18", levels=["layer1"], size=(64, 64), weights=str(file))
    assert torch.equal(network.model.layer1[0].conv1.weight, own.layer1[0].conv1.weight)
    assert network.weights == f"file {file.name}"


def test_weights_for_another_head_serve(tmp_path):
    state = networks._create("resnet18").state_dict()
    state["fc.weight"], state["fc.bias"] = torch.zeros(3, 512), torch.zeros(3)
    safetensors.torch.save_file(state, tmp_path / "three_classes.safetensors")
    networks.build("resnet18", levels=None, size=(64, 64), weights=str(tmp_path / "three_classes.safetensors"))


def test_position_embeddings_of_a_file_are_interpolated_to_the_size(tmp_path):
    safetensors.torch.save_file(networks._create("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.safetensors")
    network = networks.build(
        "vit_tiny_patch16_224", levels=None, size=(64, 96), weights=str(tmp_path / "vit.safetensors")
    )
    assert network.model.pos_embed.shape[1] == 4 * 6 + 1


def test_weights_of_another_network_are_refused(tmp_path):
    safetensors.torch.save_file(networks._create("resnet18").state_dict(), tmp_path / "r18.safetensors")
    with pytest.raises(WeightsError, match=r"must hold .* got .* from file r18.safetensors"):
        networks.build("resnet34", levels=None, size=(64, 64), weights=str(tmp_path / "r18.safetensors"))


class _Mischief:
    def __reduce__(self):
        return (print, ("code from a weights file ran",))


@pytest.mark.parametrize("kind", ["text", "pickle", "empty"])
def test_files_that_are_no_weights_are_refused_and_never_run(tmp_path, kind, capsys):
    file = tmp_path / "weights.pth"
    if kind == "pickle":
        torch.save({"conv1.weight": _Mischief()}, file)
    else:
        file.write_text("no weights" if kind == "text" else "")
    with pytest.raises(WeightsError, match="safetensors or plain torch format"):
        networks.build("resnet18", levels=None, size=(64, 64), weights=str(file))
    assert "ran" not in capsys.readouterr().out


def test_a_weights_file_that_is_missing_is_refused():
    with pytest.raises(WeightsError, match="nowhere.pth; check the path"):
        networks.build("resnet18", levels=None, size=(64, 64), weights="nowhere.pth")


def test_weights_out_of_reach_say_what_to_do(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no network here")

    monkeypatch.setattr(networks, "check_hub", unreachable)
    with pytest.raises(WeightsError, match="got: no network here; download them .* pass the file as `weights`"):
        networks.build("resnet18", levels=None, size=(64, 64), weights="auto")


def test_weights_from_the_hub_are_timms(monkeypatch):
    trained = networks._create("resnet18")
    torch.nn.init.constant_(trained.conv1.weight, 0.5)
    asked = {}

    def create_model(name, *, pretrained):
        asked[name] = pretrained
        return trained

    plain = networks._create("resnet18")
    monkeypatch.setattr(networks, "check_hub", lambda *_: None)
    monkeypatch.setattr(networks, "_create", lambda name: plain)
    monkeypatch.setattr(networks.timm, "create_model", create_model)
    network = networks.build("resnet18", levels=None, size=(64, 64), weights="auto")
    assert asked == {"resnet18": True}
    assert network.weights == "timm's hub"
    assert float(network.model.conv1.weight.detach().mean()) == 0.5


def test_the_digest_tells_weights_apart():
    one, again = (networks.build("resnet18", levels=[1], size=(64, 64), weights="random") for _ in range(2))
    assert networks.digest(one) == networks.digest(again)
    again.model.conv1.weight[0, 0, 0, 0] += 1
    assert networks.digest(one) != networks.digest(again)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_equals_cpu(backbone):
    on_gpu = backbones.load(backbone.spec, backbone.entries, engine="torch", device="cuda")
    batch = images(backbone.spec.size)
    for one, other in zip(on_gpu(batch).levels, backbone(batch).levels, strict=True):
        # cuDNN may take TF32's shorter mantissa for convolutions
        assert float((one.cpu() - other).abs().max()) <= 5e-3 * float(other.abs().max())


@pytest.mark.parametrize(
    ("name", "side", "size"),
    [
        ("resnet18", 64, (32, 128)),
        ("vit_tiny_patch16_224", 64, (32, 128)),
        ("vit_small_patch14_dinov2.lvd142m", 56, (28, 112)),
        ("swin_tiny_patch4_window7_224", 224, (128, 480)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # timm's, in resizing swin's position bias
def test_an_input_of_the_references_aspect_is_made_at_once_or_later_and_can_be_saved(name, side, size):
    options = {"weights": "random", "engine": "torch", "device": "cpu"}
    made = backbones.create(name, size=side, aspect=4.0, **options)
    assert made.spec.size == backbones.frame_of(name, side, 4.0) == size
    later = backbones.at_size(backbones.create(name, size=side, **options), size)
    assert later.spec == made.spec
    loaded = backbones.load(later.spec, later.entries, device="cpu")
    image = images(size, count=1)
    for levels in zip(made(image).levels, later(image).levels, loaded(image).levels, strict=True):
        assert all(torch.equal(levels[0], other) for other in levels[1:])


def test_a_square_aspect_changes_nothing():
    options = {"weights": "random", "engine": "torch", "device": "cpu"}
    for size in (100, None):
        plain, square = (backbones.create("resnet18", size=size, aspect=aspect, **options) for aspect in (None, 1.0))
        assert plain.spec == square.spec and plain.entries == square.entries
    assert plain.spec.size == (320, 320) and backbones.frame_of("vit_small_patch14_dinov2", 320, 1.0) == (322, 322)
