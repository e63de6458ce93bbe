"""Tokens of a vision transformer beside the ResNet's maps (Dosovitskiy et al., ICLR 2021)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer, ViT_B_16_Weights, vit_b_16
from torchvision.models.vision_transformer import interpolate_embeddings

from fss.backbones.weights import FOLDER, load_strict, read_state
from fss.errors import UserError

PATCH = 16  # pixels
VIT_CHANNELS = {"vit": 768, "vit_class": 1}


class Tokens(nn.Module):
    """The last layer's tokens as maps: "vit", and "vit_class", each patch's likeness to the class token.

    Args:
        vit: torchvision's; its classifier is dropped. Images are resized to its `image_size`.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        vit.heads = nn.Sequential()
        self.vit = vit

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B,3,H,W) -> {"vit": (B,C,g,g), "vit_class": (B,1,g,g) in -1..1}, g tokens a side."""
        size = self.vit.image_size
        images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
        patches = self.vit.conv_proj(images).flatten(2).mT  # (B,gg,C)
        every = torch.cat([self.vit.class_token.expand(len(patches), -1, -1), patches], 1)
        every = self.vit.encoder(every)  # (B,1+gg,C)
        side = size // self.vit.patch_size
        tokens = every[:, 1:].mT.unflatten(2, (side, side))  # (B,C,g,g)
        likeness = F.cosine_similarity(tokens.float(), every[:, 0, :, None, None].float(), dim=1)
        return {"vit": tokens, "vit_class": likeness[:, None]}


def build_tokens(weights: str, size: int, folder: Path = FOLDER) -> Tokens:
    """ViT-B/16 for images of `size` pixels, its position embeddings interpolated from 224.

    Args:
        weights: "auto" (`initmodel/vit_b_16-*.pth`), "download", "random", or a file.

    Raises:
        UserError: no such file, or one that does not fit.
    """
    tokens = Tokens(vit_b_16(image_size=size))
    if weights == "random":
        return tokens
    state, source = _read(weights, folder)
    state = {k: v for k, v in state.items() if not k.startswith("heads.")}
    if "encoder.pos_embedding" in state:
        try:
            state = dict(interpolate_embeddings(size, PATCH, state))
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{source} is no ViT-B/16 of torchvision's ({error})") from None
    load_strict(tokens.vit, state, source)
    return tokens


def _read(weights: str, folder: Path) -> tuple[dict[str, Tensor], str]:
    if weights == "download":
        try:
            return dict(
                ViT_B_16_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
            ), weights
        except (OSError, RuntimeError) as error:  # no network, or another checksum
            raise UserError(
                f"backbone.vit=download: torchvision could not fetch ViT-B/16 ({error}). "
                f"Fetch vit_b_16-c867db91.pth elsewhere and put it into {folder}/."
            ) from None
    found = sorted(folder.glob("vit_b_16-*.pth")) if weights == "auto" else [Path(weights)]
    if not found or not found[0].is_file():
        where = f"{folder}/vit_b_16-*.pth" if weights == "auto" else weights
        raise UserError(
            f"backbone.vit={weights}: no file {where}; allowed: none, auto, download, random, FILE"
        )
    return read_state(found[0]), str(found[0])
