import sys

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from handful import backbones
from handful.backbones import clip
from handful.backbones.crops import with_crops
from handful.errors import PackageError, SettingError, WeightsError
from handful.methods.fasl.scoring import FASL, FASLHead

open_clip = clip.open_clip  # imported there, after the torchvision that it needs has been seen to


@pytest.fixture(autouse=True)
def _known(tiny_clip):
    """Let open_clip know clip:tiny-clip."""


@pytest.fixture
def whole():
    """A whole random CLIP at the size that it was made for."""
    torch.manual_seed(1)
    return clip._made("tiny-clip", None, (32, 32)).eval()


@pytest.fixture
def file(whole, tmp_path):
    path = tmp_path / "tiny.safetensors"
    safetensors.torch.save_file(whole.state_dict(), path)
    return path


def create(**options):
    return backbones.create("clip:tiny-clip", **{"weights": "random", "device": "cpu", **options})


def images(size=(32, 32), count=2):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def normalised(batch):
    own = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in own)
    return (batch - mean) / std


def close(one, other):
    # float32 sums in another order
    return one.shape == other.shape and float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


def test_block_levels_are_the_raw_outputs_of_the_blocks_without_the_class_token(file, whole):
    backbone = create(levels=[1, "block3"], weights=str(file))
    with torch.inference_mode():
        own = whole.visual.forward_intermediates(normalised(images()), indices=[0, 2])["image_intermediates"]
    features = backbone(images())
    assert backbone.spec.levels == ("block1", "block3")
    assert all(close(level, block.permute(0, 2, 3, 1)) for level, block in zip(features.levels, own, strict=True))
    assert features.image is None and features.text is None
    assert backbone.spec.object_name is None


def test_the_picture_and_its_patches_lie_where_open_clip_puts_them(file, whole):
    features = create(levels=["patches"], weights=str(file))(images())
    whole.visual.output_tokens = True
    with torch.inference_mode():
        picture, tokens = whole.visual(normalised(images()))
        patches = (tokens @ whole.visual.proj).reshape(2, 4, 4, 12)
    assert close(features.image, picture)
    assert close(features.levels[0], patches)


def test_a_window_is_a_picture_of_its_tokens_alone(file, whole):
    features = create(levels=["windows2", "windows3"], weights=str(file))(images())
    assert [level.shape for level in features.levels] == [(2, 3, 3, 12), (2, 2, 2, 12)]
    with torch.inference_mode():
        tokens = whole.visual._embeds(normalised(images()))
        for side, level in zip((2, 3), features.levels, strict=True):
            for row in range(5 - side):
                for column in range(5 - side):
                    inside = [1 + 4 * (row + i) + column + j for i in range(side) for j in range(side)]
                    alone, _ = whole.visual._pool(whole.visual.transformer(tokens[:, [0, *inside]]))
                    assert close(level[:, row, column], alone @ whole.visual.proj)


def test_a_window_of_the_whole_grid_is_the_picture():
    features = create(levels=["windows4"])(images())
    assert close(features.levels[0][:, 0, 0], features.image)


def test_the_default_levels_are_winclips_finest_first():
    backbone = create(size=(32, 48))
    assert backbone.spec.levels == ("block3", "windows2", "windows3")
    features = backbone(images((32, 48)))
    assert [level.shape for level in features.levels] == [(2, 4, 6, 16), (2, 3, 5, 12), (2, 2, 4, 12)]
    assert features.image.shape == (2, 12) and features.text.shape == (2, 12)
    assert features.size == (32, 48)


def test_levels_come_finest_first_however_they_are_named():
    levels = create(levels=["windows3", "patches", -1, 1, "windows2"]).spec.levels
    assert levels == ("block1", "block3", "patches", "windows2", "windows3")


def test_a_batch_gives_what_its_pictures_give_alone():
    backbone, batch = create(), images()
    together = backbone(batch)
    for row in range(2):
        alone = backbone(batch[[row]])
        assert all(torch.equal(a[row], b[0]) for a, b in zip(together.levels, alone.levels, strict=True))
        assert torch.equal(together.image[row], alone.image[0])


def test_prototypes_are_the_mean_directions_of_the_prompts(file, whole):
    backbone = create(weights=str(file), object_name="metal nut")
    assert backbone.spec.object_name == "metal nut"
    text = backbone(images()).text
    tokenizer = open_clip.get_tokenizer("tiny-clip")
    for prototype, states in zip(text, (clip.NORMAL_STATES, clip.ANOMALOUS_STATES), strict=True):
        texts = clip.prompts("metal nut", states)
        with torch.inference_mode():
            own = torch.stack([F.normalize(whole.encode_text(tokenizer([one]))[0], dim=0) for one in texts]).mean(0)
        assert close(prototype, own / own.norm())


def test_the_ensemble_is_every_state_in_every_template():
    normal, anomalous = (clip.prompts("bolt", states) for states in (clip.NORMAL_STATES, clip.ANOMALOUS_STATES))
    assert (len(normal), len(anomalous)) == (7 * 22, 4 * 22)
    assert len(set(normal + anomalous)) == 11 * 22
    assert "a photo of a small bolt without flaw." in normal
    assert "a close-up photo of the damaged bolt." in anomalous


def test_the_object_defaults_to_object_and_may_be_another():
    backbone = create()
    other = backbones.about(backbone, "bottle")
    assert (backbone.spec.object_name, other.spec.object_name) == ("object", "bottle")
    batch = images()
    assert not torch.equal(backbone(batch).text, other(batch).text)
    assert torch.equal(backbone(batch).image, other(batch).image)
    assert torch.equal(create(object_name="bottle")(batch).text, other(batch).text)
    assert backbone.spec.weights_sha256 == other.spec.weights_sha256  # of the pictures' tower alone


def test_saved_parts_make_the_same_backbone_again_without_a_text_tower():
    backbone = create(object_name="bottle")
    assert sorted(backbone.entries) == ["backbone.safetensors", "backbone.text.safetensors"]
    names = safetensors.torch.load(backbone.entries["backbone.safetensors"])
    assert {name.split(".")[0] for name in names} == {"model", "mean", "std"}
    assert not [name for name in names if "token_embedding" in name]
    again = backbones.load(backbone.spec, backbone.entries, device="cpu")
    one, other = backbone(images()), again(images())
    assert all(torch.equal(a, b) for a, b in zip(one.levels, other.levels, strict=True))
    assert torch.equal(one.image, other.image) and torch.equal(one.text, other.text)
    assert again.spec == backbone.spec
    assert again.entries.keys() == backbone.entries.keys()
    with pytest.raises(SettingError, match="must be 'bottle', as the inspector was fitted for, got 'can'"):
        backbones.about(again, "can")


def test_nothing_behind_the_last_block_is_computed_or_kept():
    backbone = create(levels=[2])
    names = safetensors.torch.load(backbone.entries["backbone.safetensors"])
    assert not [name for name in names if "resblocks.2" in name or "ln_post" in name or "proj" == name.split(".")[-1]]
    assert list(backbone.entries) == ["backbone.safetensors"]
    again = backbones.load(backbone.spec, backbone.entries, device="cpu")
    assert torch.equal(again(images()).levels[0], backbone(images()).levels[0])


def test_the_position_embedding_is_interpolated_to_the_size(file, whole):
    tower = create(levels=[1], weights=str(file), size=(48, 64)).network
    own = tower.model.positional_embedding
    assert own.shape == (6 * 8 + 1, 16)
    assert torch.equal(own[0], whole.visual.positional_embedding[0])
    grid = whole.visual.positional_embedding[1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    larger = F.interpolate(grid, size=(6, 8), mode="bicubic", antialias=True)
    assert torch.equal(own[1:].reshape(6, 8, 16), larger[0].permute(1, 2, 0))


def test_crops_are_seen_as_by_a_clip_made_for_their_size(file):
    before = images()
    for levels in ([1, -1], ["patches", "windows2"]):
        plain = create(levels=levels, weights=str(file))
        expected = plain(before)
        small, made = backbones.at_size(plain, (16, 24)), create(levels=levels, weights=str(file), size=(16, 24))
        one, other = small(images((16, 24))), made(images((16, 24)))
        assert all(close(*pair) for pair in zip(one.levels, other.levels, strict=True))
        assert (one.image is None) == (other.image is None) and one.size == small.spec.size == (16, 24)
        assert small.spec.weights_sha256 == plain.spec.weights_sha256
        assert all(torch.equal(*pair) for pair in zip(plain(before).levels, expected.levels, strict=True))
        assert backbones.at_size(plain, (32, 32)) is plain


def test_crops_too_small_for_patches_or_windows_are_refused():
    plain = create()
    with pytest.raises(SettingError, match="`size` must be a multiple of the 8-pixel patches of clip:tiny-clip"):
        backbones.at_size(plain, (20, 16))
    with pytest.raises(SettingError, match="windows2 to windows2, got 'windows3'"):
        backbones.at_size(plain, (16, 16))


def test_fasl_looks_at_crops_through_clip():
    features = with_crops(create(levels=[1, 2]), FASL(winmode="mul", win_size=2).crops_wanted)(images())
    assert [level.shape for level in features.crops.levels] == [(2, 4, 2, 2, 16)] * 2  # at stride 2
    head = FASLHead(features.depths, nam=True, seed=0)
    scores = FASL(winmode="mul", win_size=2).take_head(head).fit(features).score(features)
    assert scores.maps.shape == (2, 32, 32) and bool(scores.image.isfinite().all())


def test_weights_come_from_a_local_file(file, tmp_path, whole):
    plain = tmp_path / "tiny.pt"
    torch.save({"state_dict": whole.state_dict()}, plain)
    one, other = (create(weights=str(path)) for path in (file, plain))
    assert one.spec.weights == "file tiny.safetensors"
    assert one.spec.weights_sha256 == other.spec.weights_sha256 != create().spec.weights_sha256


class _Mischief:
    def __reduce__(self):
        return (print, ("code from a weights file ran",))


@pytest.mark.parametrize("kind", ["text", "pickle", "empty", "another"])
def test_files_that_are_no_weights_of_it_are_refused_and_never_run(tmp_path, kind, capsys):
    path = tmp_path / "weights.pt"
    if kind == "pickle":
        torch.save({"visual.proj": _Mischief()}, path)
    elif kind == "another":
        torch.save({"conv1.weight": torch.zeros(3)}, path)
    else:
        path.write_text("no weights" if kind == "text" else "")
    with pytest.raises(WeightsError, match="must hold the weights of clip:tiny-clip, both towers"):
        create(weights=str(path))
    assert "ran" not in capsys.readouterr().out


def test_a_weights_file_that_is_missing_is_refused():
    with pytest.raises(WeightsError, match="nowhere.pt; check the path"):
        create(weights="nowhere.pt")


def test_a_model_without_listed_weights_asks_for_a_file():
    with pytest.raises(WeightsError, match="got: no weights that open_clip lists; .* pass the file as `weights`"):
        create(weights="auto")


def test_weights_out_of_reach_say_what_to_do(monkeypatch):
    def unreachable(*args):
        raise OSError("no network here")

    monkeypatch.setattr(clip.timm, "check_hub", unreachable)
    with pytest.raises(WeightsError, match="ViT-B-32.openai must be .* got: no network here; download them"):
        backbones.create("clip:ViT-B-32", levels=[1])


def test_weights_from_the_hub_are_open_clips_with_the_activation_of_the_tag(monkeypatch, whole):
    asked = {}

    def create_model(name, **options):
        asked.update(options, name=name)
        return whole

    monkeypatch.setattr(clip.timm, "check_hub", lambda *_: None)
    monkeypatch.setattr(clip.open_clip, "create_model", create_model)
    monkeypatch.setattr(clip, "_vision", lambda *_: {"image_size": 32, "layers": 3, "patch_size": 8})
    backbone = backbones.create("clip:ViT-L-14-336", levels=[1], device="cpu")
    assert asked["name"] == "ViT-L-14-336" and asked["pretrained"] == "openai"
    assert asked["force_quick_gelu"] is True and asked["require_pretrained"] is True
    assert backbone.spec.name == "clip:ViT-L-14-336.openai"
    assert backbone.spec.weights == "open_clip's hub"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("clip:ViT-B-61", "a name that open_clip knows, got 'clip:ViT-B-61'; did you mean ViT-B-16"),
        ("clip:RN50", "own vision transformers with a class token, got 'clip:RN50'"),
        ("clip:ViT-B-16-SigLIP", "own vision transformers"),
        ("clip:coca_ViT-B-32", "own vision transformers"),
        ("clip:ViT-B-16.imagenet", "The tag of ViT-B-16 must be one of openai, .*, got 'imagenet'"),
        ("clip:tiny-clip.x", "must be one of none, got 'x'"),
    ],
)
def test_names_that_do_not_serve_are_refused(name, sentence):
    with pytest.raises(SettingError, match=sentence):
        backbones.create(name, weights="random")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"levels": [0]}, "block1 to block3 .* or windows2 to windows4, got 0"),
        ({"levels": [4]}, "got 4"),
        ({"levels": [-4]}, "got -4"),
        ({"levels": ["windows1"]}, "got 'windows1'"),
        ({"levels": ["windows5"]}, "got 'windows5'"),
        ({"levels": ["layer1"]}, "got 'layer1'"),
        ({"levels": []}, "at least one level"),
        ({"levels": [1, "block1"]}, "none twice"),
        ({"size": (36, 32)}, "multiple of the 8-pixel patches of clip:tiny-clip, got 36; use 32"),
        ({"engine": "openvino"}, "must run in torch at f32, got openvino"),
        ({"precision": "bf16"}, "must run in torch at f32, got bf16"),
        ({"object_name": " "}, "The object must have a name"),
        ({"object_name": "can", "levels": [1, 2]}, "must be left out with blocks alone, .* got 'can'"),
    ],
)
def test_options_that_do_not_serve_are_refused(options, sentence):
    with pytest.raises(SettingError, match=sentence):
        create(**options)


def test_a_saved_backbone_refuses_openvino():
    backbone = create(levels=[1])
    with pytest.raises(SettingError, match="must run in torch"):
        backbones.load(backbone.spec, backbone.entries, engine="openvino")


def test_an_object_is_refused_where_no_text_is_read():
    with pytest.raises(SettingError, match="must be left out with resnet18, which reads no text, got 'bottle'"):
        backbones.create("resnet18", weights="random", size=(64, 64), object_name="bottle")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "handful.backbones.clip")
    monkeypatch.delattr(backbones, "clip")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(PackageError, match=r'needs open_clip_torch: pip install "handful\[clip\]"\.'):
        backbones.create("clip:ViT-B-16", weights="random")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_equals_cpu():
    backbone = create()
    on_gpu = backbones.load(backbone.spec, backbone.entries, device="cuda")
    one, other = on_gpu(images()), backbone(images())
    for a, b in zip((*one.levels, one.image, one.text), (*other.levels, other.image, other.text), strict=True):
        assert float((a.cpu() - b).abs().max()) <= 5e-3 * float(b.abs().max())


def test_an_input_of_the_references_aspect_can_be_saved(tiny_clip):
    options = {"weights": "random", "device": "cpu"}
    made = backbones.create(tiny_clip, aspect=4.0, **options)
    assert backbones.square_side(tiny_clip, None) == 32
    assert made.spec.size == backbones.frame_of(tiny_clip, 32, 4.0)
    size = (24, 64)
    later = backbones.at_size(backbones.create(tiny_clip, **options), size)
    loaded = backbones.load(later.spec, later.entries, device="cpu")
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    for one, other in zip(later(image).levels, loaded(image).levels, strict=True):
        assert torch.equal(one, other)
    assert backbones.about(later, "bolt").spec.object_name == "bolt"
