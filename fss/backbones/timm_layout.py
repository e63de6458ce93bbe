"""What a network of timm offers, measured: levels, their channels and strides, the images that it takes."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fss.backbones.base import STAGES
from fss.errors import UserError


class Layout(NamedTuple):
    """A network as `Timm` reads it.

    Attributes:
        flat: all of its maps have one size: a plain transformer.
        indices: level -> its number among the network's own intermediate maps.
        channels, strides: as of `Backbone`; of `blocks` too.
        blocks: single blocks of a network that is not flat -> path of the module, and whether it hands out
            its channels last, (B,h,w,C).
        modules: stage -> path of its module.
        corners, multiple: as of `Backbone`.
        only: the one side of images that it takes, pixels; 0 where it takes others.
    """

    flat: bool
    indices: dict[str, int]
    channels: dict[str, int]
    strides: dict[str, int]
    blocks: dict[str, tuple[str, bool]]
    modules: dict[str, str]
    corners: bool
    multiple: int
    only: int


def layout_of(network: Any, name: str) -> Layout:
    """The layout of a network of timm's that has no classifier.

    Raises:
        UserError: timm offers no intermediate maps of it.
    """
    info = getattr(network, "feature_info", None)
    info = list(getattr(info, "info", info) or [])
    if not info or not hasattr(network, "forward_intermediates"):
        raise UserError(
            f"backbone timm:{name}: timm offers no maps of this network; take another, or a newer timm"
        )
    corners, reductions = _padded(network), [int(level["reduction"]) for level in info]
    flat = len(info) > len(STAGES) and len(set(reductions)) == 1
    indices = _quarters(len(info)) if flat else _last(len(info))
    largest = reductions[-1]
    meta = None if flat and getattr(network, "dynamic_img_size", False) else _Meta(network)
    multiple, only = (
        (largest, 0) if meta is None else _sizes(meta, network, 1 if corners and not flat else largest)
    )
    stages = {stage: info[i] for stage, i in indices.items() if "." not in stage}
    channels = {level: int(info[i]["num_chs"]) for level, i in indices.items()}
    strides = {level: reductions[i] for level, i in indices.items()}
    there = dict(network.named_modules())
    modules = {stage: entry["module"] for stage, entry in stages.items() if entry["module"] in there}
    blocks = {} if flat or meta is None else meta.blocks(modules, indices, only or _side(network, multiple))
    for level in blocks:
        stage = level.partition(".")[0]
        channels[level], strides[level] = channels[stage], strides[stage]
    return Layout(flat, indices, channels, strides, blocks, modules, corners, multiple, only)


def _quarters(depth: int) -> dict[str, int]:
    """Stages of a plain transformer, the ends of its quarters, and each of its blocks."""
    ends = [-1, *(depth * k // 4 - 1 for k in (1, 2, 3, 4))]
    indices = {stage: ends[k] for k, stage in enumerate(STAGES, 1)}
    for k, stage in enumerate(STAGES):
        indices |= {f"{stage}.{i - ends[k] - 1}": i for i in range(ends[k] + 1, ends[k + 1] + 1)}
    return indices


def _last(count: int) -> dict[str, int]:
    """The last four maps of `count`, "stage4" the last; fewer where there are fewer."""
    kept = min(count, len(STAGES))
    return dict(zip(STAGES[len(STAGES) - kept :], range(count - kept, count), strict=True))


def _padded(network: nn.Module) -> bool:
    """Whether the first convolution is no patch: then corner cells lie on corner pixels."""
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    patch = first is not None and first.kernel_size == first.stride and first.stride[0] > 1
    return not (patch and first is not None and tuple(first.padding) == (0, 0))


def _side(network: Any, multiple: int) -> int:
    """The side of images that it was trained on, as a multiple."""
    side = int(network.pretrained_cfg["input_size"][-1])
    return -(-side // multiple) * multiple


def _sizes(meta: "_Meta", network: Any, least: int) -> tuple[int, int]:
    """What sides must be a multiple of, and the only side that it takes (0: it takes others).

    Args:
        least: the multiple that its first layer allows.
    """
    largest = int(meta.reduction)
    for multiple in dict.fromkeys((least, largest)):
        side = _side(network, multiple)
        # One step more, and no square: a network that counts on its own size or on even halves fails.
        if meta.run(side + multiple, side) is not None:
            return multiple, 0
    native = int(network.pretrained_cfg["input_size"][-1])
    return native, native


class _Meta:
    """A copy without numbers, which runs at no cost and tells shapes."""

    def __init__(self, network: nn.Module) -> None:
        self.network: Any = copy.deepcopy(network).to("meta").eval()
        info: Any = self.network.feature_info
        self.reduction = list(getattr(info, "info", info))[-1]["reduction"]

    def run(self, h: int, w: int) -> list[Tensor] | None:
        """The maps of an image; None where the network does not take its size."""
        try:
            with torch.no_grad(), torch.device("meta"):  # masks that it makes on the way are to be shapes too
                return self.network.forward_intermediates(
                    torch.empty(1, 3, h, w, device="meta"), stop_early=True, intermediates_only=True
                )
        except Exception:  # any kind: asserts, shapes that do not match, indices out of range
            return None

    def blocks(
        self, modules: dict[str, str], indices: dict[str, int], side: int
    ) -> dict[str, tuple[str, bool]]:
        """Blocks of the stages whose outputs all have the shape of their stage's map."""
        shapes: dict[str, tuple[int, ...]] = {}
        paths = {stage: _children(self.network, path) for stage, path in modules.items()}
        for path in {p for group in paths.values() for p in group}:
            self.network.get_submodule(path).register_forward_hook(_shape_into(shapes, path))
        maps = self.run(side, side)
        found: dict[str, tuple[str, bool]] = {}
        for stage, group in paths.items():
            if maps is None:
                break
            c, h, w = maps[indices[stage]].shape[1:]
            orders: dict[tuple[int, ...], bool] = {(c, h, w): False, (h, w, c): True}
            if group and all(shapes.get(path, ()) in orders for path in group):
                found |= {f"{stage}.{i}": (path, orders[shapes[path]]) for i, path in enumerate(group)}
        return found


def _children(network: nn.Module, path: str) -> list[str]:
    """Paths of a stage's blocks: the children of its `blocks`, or of itself."""
    stage = network.get_submodule(path)
    inner = getattr(stage, "blocks", None)
    if isinstance(inner, nn.Module):
        stage, path = inner, f"{path}.blocks"
    children = list(stage.named_children())
    return [f"{path}.{name}" for name, _ in children] if len({type(m) for _, m in children}) == 1 else []


def _shape_into(shapes: dict[str, tuple[int, ...]], path: str) -> Any:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[path] = tuple(output.shape[1:])

    return note
