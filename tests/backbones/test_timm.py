"""timm's networks as backbones: levels as told, sizes, the authors' own files, and what is refused."""

import copy
import json

import pytest
import torch
from torch import nn

from fss.backbones import make_backbone, timm_weights
from fss.backbones.base import STAGES, check_size
from fss.backbones.fold import fold
from fss.backbones.frozen import freeze
from fss.backbones.timm import Timm
from fss.backbones.timm_weights import find
from fss.errors import UserError
from tests.conftest import relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint

timm = pytest.importorskip("timm")


def images(h, w):
    return 255 * torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(0))


def published(data) -> dict[str, torch.Tensor]:
    """The authors' file that a fixture stands for."""
    state = seeded_checkpoint(str(data["state_keys"]), int(data["state_seed"]))["state_dict"]
    return state | {k: torch.tensor(v) for k, v in json.loads(str(data["own_buffers"])).items()}


@pytest.mark.parametrize(
    ("fixture", "name", "error"),
    [
        ("dinov2_vits14_reg", "vit_small_patch14_reg4_dinov2", 1e-5),
        ("dinov2_vits14", "vit_small_patch14_dinov2", 1e-5),  # timm's own positions: 1e-3
        ("dinov3_vits16", "vit_small_patch16_dinov3_qkvb", 1e-5),
    ],
)
def test_a_published_dino_file_gives_its_authors_features(fixture_numbers, tmp_path, fixture, name, error):
    data = fixture_numbers(fixture)
    torch.save(published(data), tmp_path / "dino.pth")
    backbone = freeze(make_backbone(f"timm:{name}", str(tmp_path / "dino.pth"), {}))
    generator = torch.Generator().manual_seed(int(data["image_seed"]))
    x = torch.randn(tuple(data["image_shape"].tolist()), generator=generator).double()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
    rgb = (255 * (x * std + mean)).float()
    copied = fold(backbone, torch.float32)
    for network in (backbone, copied):
        out = network(rgb, STAGES)
        assert relative_error(out["stage4"][:, ::4], data["last"]) < error
        layers = torch.stack([out[stage][0, ::8] for stage in STAGES])
        assert relative_error(layers, data["layers_2_5_8_11"]) < error


def test_the_dinov3_variant_that_drops_biases_is_refused(fixture_numbers, tmp_path):
    torch.save(published(fixture_numbers("dinov3_vits16")), tmp_path / "dino.pth")
    with pytest.raises(UserError, match=r"would drop.*backbone\.type=timm:vit_small_patch16_dinov3_qkvb"):
        make_backbone("timm:vit_small_patch16_dinov3", str(tmp_path / "dino.pth"), {})


# name, corners, multiple, smallest, an image, a block, and a larger side that is refused
NETWORKS = [
    ("resnet18", True, 1, 17, (65, 49), "stage2.1", 16),
    ("convnext_atto", False, 32, 32, (64, 96), "stage3.5", 65),
    ("swin_tiny_patch4_window7_224", False, 32, 32, (64, 96), "stage3.5", 225),
    ("vit_tiny_patch16_224", False, 16, 16, (64, 48), "stage2.0", 225),
    ("tresnet_m", True, 32, 32, (64, 96), "stage1.0", 65),
]  # fmt: skip


@pytest.mark.parametrize(("name", "corners", "multiple", "smallest", "size", "block", "refused"), NETWORKS)
def test_levels_are_as_told(name, corners, multiple, smallest, size, block, refused):
    backbone = freeze(make_backbone(f"timm:{name}", "random", {}))
    assert (backbone.corners, backbone.multiple, backbone.smallest) == (corners, multiple, smallest)
    before = copy.deepcopy(backbone.state_dict())
    out = backbone(images(*size), tuple(backbone.channels))
    assert {k: x.shape[1] for k, x in out.items()} == backbone.channels
    h, w = size
    for level, x in out.items():
        stride = backbone.strides[level]
        assert tuple(x.shape[2:]) == (-(-h // stride), -(-w // stride)), level
        assert x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    assert (block in out) == (block is not None)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert not any(m._forward_hooks for m in backbone.modules())
    check_size(backbone, 64)
    with pytest.raises(UserError, match=r"Timm takes .*nearest: [0-9]+"):
        check_size(backbone, refused)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_a_stage_is_its_last_block(name):
    backbone = freeze(make_backbone(f"timm:{name}", "random", {}))
    last = max((k for k in backbone.channels if k.startswith("stage2.")), key=lambda k: int(k[7:]))
    out = backbone(images(64, 64), ("stage2", last, "stage3"))
    assert list(out) == ["stage2", last, "stage3"] and torch.equal(out["stage2"], out[last])
    assert not torch.equal(out["stage2"].mean(), out["stage3"].mean())


def test_only_what_is_asked_for_is_computed():
    backbone = freeze(make_backbone("timm:resnet18", "random", {}))
    backbone.network.layer3 = backbone.network.layer4 = None  # would fail if touched
    assert list(backbone(images(65, 65), ("stage1", "stage2.0"))) == ["stage1", "stage2.0"]
    backbone = freeze(make_backbone("timm:vit_tiny_patch16_224", "random", {}))
    backbone.network.blocks[4] = nn.Identity(None)
    backbone.network.blocks[4].forward = None
    assert list(backbone(images(32, 32), ("stage1", "stage2.0"))) == ["stage1", "stage2.0"]


def test_normalisation_is_the_networks_own():
    backbone = freeze(make_backbone("timm:vit_tiny_patch16_224", "random", {}))
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    x = images(32, 32)
    want = backbone.maps(x / 127.5 - 1, ("stage4",))["stage4"]
    assert relative_error(backbone(x)["stage4"], want) < 1e-5
    blocks = backbone.network.forward_intermediates(x / 127.5 - 1, intermediates_only=True, norm=True)
    assert relative_error(want, blocks[-1]) < 1e-5


def test_folded_networks_give_the_same():
    backbone = freeze(make_backbone("timm:mobilenetv3_small_100", "random", {}))
    folded, x = fold(backbone, torch.float32), images(65, 65)
    got, want = folded(x, STAGES), backbone(x, STAGES)
    assert max(relative_error(got[k], want[k]) for k in STAGES) < 1e-4
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


def test_a_network_for_one_size_says_so():
    backbone = freeze(make_backbone("timm:mixer_s16_224", "random", {}))
    assert backbone(images(224, 224))["stage4"].shape == (1, 512, 14, 14)
    with pytest.raises(
        UserError, match=r"takes images of 224 x 224 alone, not 448 x 224; set data\.size=224"
    ):
        backbone(images(448, 224))


@pytest.mark.parametrize("kind", ["timm.pth", "timm.safetensors", "checkpoint.pt"])
def test_files_load_strictly(tmp_path, kind):
    net = timm.create_model("resnet18")
    state, path = net.state_dict(), tmp_path / kind
    if kind.startswith("checkpoint"):
        state = {f"backbone.network.{k}": v for k, v in state.items() if not k.startswith("fc.")}
    if kind.endswith("safetensors"):
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        torch.save(state, path)
    loaded = make_backbone("timm:resnet18", str(path), {}).network.state_dict()
    assert "fc.weight" not in loaded
    assert all(torch.equal(net.state_dict()[k], v) for k, v in loaded.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), r"w\.pth does not fit.*Missing.*layer1\.0\.conv1\.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), r"Unexpected.*extra"),
        (lambda s: s.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}), r"size mismatch.*conv1\.weight"),
        (lambda s: s["bn1.weight"].fill_(float("nan")), r"1 not finite, bn1\.weight first"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, change, message):
    state = timm.create_model("resnet18").state_dict()
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        make_backbone("timm:resnet18", str(tmp_path / "w.pth"), {})


def test_auto_looks_into_the_folder_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(UserError) as error:
        find("auto", "resnet18.a1_in1k", tmp_path)
    for hint in (
        "=download",
        "huggingface.co/timm/resnet18.a1_in1k",
        "resnet18.a1_in1k.safetensors",
        "=random",
    ):
        assert hint in str(error.value)
    cached = tmp_path / "torch/hub/checkpoints/resnet18_a1_0-d63eafa0.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert find("auto", "resnet18.a1_in1k", tmp_path) == cached
    (tmp_path / "resnet18.a1_in1k.pth").touch()
    assert find("auto", "resnet18.a1_in1k", tmp_path) == tmp_path / "resnet18.a1_in1k.pth"
    with pytest.raises(UserError, match="no such file"):
        find(str(tmp_path / "no.pth"), "resnet18")


def test_without_a_network_the_download_names_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timm_weights, "_downloaded", lambda name: [])
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(UserError, match=r"127.*timm/resnet18.*refused.*: initmodel/resnet18\.safetensors"):
        Timm.with_weights("download", "resnet18")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"knows no 'resnet81', did you mean resnet\d+"),
        ("resnet18.nosuch", r"knows no weights 'nosuch' of resnet18; allowed: a1_in1k"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(name, message):
    with pytest.raises(UserError, match=message):
        make_backbone(f"timm:{name}", "random", {})
