"""Tokens as maps, in the images' own orientation, and weights that are found or missed by name."""

import pytest
import torch
from torchvision.models import VisionTransformer

from fss.backbones.vit import VIT_CHANNELS, Tokens, build_tokens
from fss.errors import UserError


def tiny(image_size=64):
    torch.manual_seed(0)
    return VisionTransformer(image_size, 16, 1, 4, hidden_dim=VIT_CHANNELS["vit"], mlp_dim=8)


def test_tokens_are_the_encoder_s_without_the_class_token():
    vit = tiny()
    tokens = Tokens(vit).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        out = tokens(images)
        every = vit.encoder(torch.cat([vit.class_token.expand(2, -1, -1), vit._process_input(images)], 1))
    assert out["vit"].shape == (2, 768, 4, 4) and out["vit_class"].shape == (2, 1, 4, 4)
    assert torch.allclose(out["vit"][:, :, 1, 2], every[:, 1 + 4 + 2], atol=1e-5)
    alike = torch.cosine_similarity(every[:, 0], every[:, 7], dim=1)
    assert torch.allclose(out["vit_class"][:, 0, 1, 2], alike, atol=1e-5)


def test_images_of_any_shape_are_resized():
    with torch.no_grad():
        assert Tokens(tiny()).eval()(torch.randn(1, 3, 49, 97))["vit"].shape == (1, 768, 4, 4)


def test_published_positions_are_interpolated_to_the_size(tmp_path, monkeypatch):
    monkeypatch.setattr("fss.backbones.vit.vit_b_16", tiny)
    torch.save(tiny(64).state_dict(), tmp_path / "vit_b_16-12345678.pth")
    tokens = build_tokens("auto", 96, tmp_path)
    assert tokens.vit.encoder.pos_embedding.shape == (1, 37, 768)
    wanted = tiny(64).encoder.pos_embedding[0, 0]
    assert torch.equal(tokens.vit.encoder.pos_embedding[0, 0], wanted)  # the class token's


@pytest.mark.parametrize("weights", ["auto", "mine.pth"])
def test_missing_weights_are_named(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("fss.backbones.vit.vit_b_16", tiny)
    with pytest.raises(UserError, match=rf"backbone.vit={weights}: no .*allowed: none, auto, download"):
        build_tokens(weights, 64, tmp_path)


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fss.backbones.vit.vit_b_16", tiny)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match="does not fit this network"):
        build_tokens(str(tmp_path / "wrong.pth"), 64, tmp_path)
