"""Every network of timm (https://github.com/huggingface/pytorch-image-models) as a backbone, `timm:NAME`."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

from fss.backbones.base import STAGES, Backbone
from fss.backbones.timm_layout import layout_of
from fss.backbones.timm_weights import create, fetched, find, loaded
from fss.errors import UserError


class Timm(Backbone):
    """A network of timm without its classifier.

    Stages are the last four levels of a network that shrinks its maps, normally at strides 4, 8, 16 and 32,
    as they come. Of a plain transformer, all of whose maps have one size, they are the blocks at a quarter,
    half, three quarters and all of its depth, each after the final norm, as DINO's authors hand them out.
    Single blocks, "stage3.2", are offered where all blocks of a stage have maps of one shape; a network that
    shrinks its maps then computes that stage to its end.

    Args:
        name: as of `timm.list_models()`, with or without the tag of its weights: `convnext_tiny.fb_in1k`.

    Raises:
        UserError: timm knows no such network, or offers no maps of it.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._take(create(name))

    def _take(self, network: nn.Module) -> None:
        """Stand on this network of timm."""
        self.network = network
        self.layout = layout_of(network, self.name)
        self.channels, self.strides = self.layout.channels, self.layout.strides
        self.corners, self.multiple = self.layout.corners, self.layout.multiple
        self.smallest = max(self.multiple, type(self).smallest if self.multiple == 1 else 0)
        config: Any = network.pretrained_cfg
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])

    def forward(self, images: Tensor, levels: Collection[str] = ("stage4",)) -> dict[str, Tensor]:
        """RGB of 0..255 (B,3,H,W) -> {level: (B,C,h,w)}; no deeper stage is computed.

        Raises:
            UserError: the network takes images of one size, and these have another.
        """
        side = self.layout.only
        if side and images.shape[-2:] != (side, side):
            raise UserError(
                f"timm:{self.name} takes images of {side} x {side} alone, not "
                f"{images.shape[-2]} x {images.shape[-1]}; set data.size={side}, or take another network"
            )
        return self.maps(self.pixels(images), levels)

    def maps(self, x: Tensor, levels: Collection[str]) -> dict[str, Tensor]:
        """As `forward`, of what `pixels` makes."""
        layout, out = self.layout, dict[str, Tensor]()
        hooked = [level for level in levels if level in layout.blocks]
        indices = {
            level: layout.indices[level.partition(".")[0] if level in hooked else level] for level in levels
        }
        with self._watched(hooked, out):
            found = cast(Any, self.network).forward_intermediates(
                x, indices=sorted(set(indices.values())), norm=layout.flat, stop_early=True,
                output_fmt="NCHW", intermediates_only=True,
            )  # fmt: skip
        by_index = dict(zip(sorted(set(indices.values())), found, strict=True))
        return {level: out[level] if level in hooked else by_index[indices[level]] for level in levels}

    @contextmanager
    def _watched(self, blocks: Collection[str], out: dict[str, Tensor]) -> Iterator[None]:
        """Put the outputs of these blocks into `out` while the network runs."""
        handles = []
        for level in blocks:
            path, last = self.layout.blocks[level]
            handles.append(self.network.get_submodule(path).register_forward_hook(_keep(out, level, last)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def parts(self) -> list[nn.Module]:
        """Stem and stages, of networks whose stages are modules of their own."""
        stages = [self.layout.modules[s] for s in STAGES if s in self.layout.modules]
        if self.layout.flat or len(set(stages)) < len(STAGES):
            return super().parts()
        inside = {id(m) for path in stages for m in self.network.get_submodule(path).modules()}
        leaves = [m for m in self.network.modules() if not any(True for _ in m.children())]
        stem = nn.ModuleList(m for m in leaves if id(m) not in inside)
        return [stem, *map(self.network.get_submodule, stages)]

    @classmethod
    def with_weights(cls, weights: str, *family: str, **options: Any) -> "Timm":
        """As of `Backbone`; a file has timm's names or its authors', which timm knows how to convert.

        "auto" takes NAME.safetensors, .pth, .pt or .bin in initmodel/, else what timm downloaded earlier.
        """
        backbone = cls(*family, **options)
        if weights == "random":
            return backbone
        path = fetched(backbone.name) if weights == "download" else find(weights, backbone.name)
        backbone._take(loaded(backbone.name, path))
        return backbone


def _keep(out: dict[str, Tensor], level: str, last: bool) -> Any:
    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        out[level] = output.permute(0, 3, 1, 2) if last else output  # (B,C,h,w)

    return keep
