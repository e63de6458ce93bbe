"""Backbone weights: found, downloaded or refused; loaded strictly and by name."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fss.errors import UserError
from fss.fetching import fetch

FOLDER = Path("initmodel")
# Stem names of the two published layouts -> ours. In the deep one, conv2 and conv3 are stem layers too.
_PLAIN = {"conv1": "layer0.0", "bn1": "layer0.1"}
_DEEP = {**_PLAIN, "conv2": "layer0.3", "bn2": "layer0.4", "conv3": "layer0.6", "bn3": "layer0.7"}
_HINT = """no weights for ResNet-{layers} ({stem}) in {folder}/. Do one of these:
  - deep stem, as published: put resnet{layers}_v2.pth into {folder}/
  - plain stem: put torchvision's resnet{layers}-*.pth there, or have it fetched: backbone.weights=download
  - a file of your own: backbone.weights=FILE
  - on purpose without: backbone.weights=random (novel classes will be segmented badly)"""


def find_weights(spec: str, layers: int, stem: str, folder: Path = FOLDER) -> Path | str:
    """Settle what `backbone.weights` means: a file, "download" or "random".

    Args:
        spec: auto, download, random, or a path.
        stem: auto, deep or plain; limits what `auto` takes.

    Raises:
        UserError: nothing fits; the message says what to fetch and where to put it.
    """
    if spec in ("download", "random"):
        return spec
    if spec != "auto":
        if not Path(spec).is_file():
            raise UserError(f"backbone.weights={spec}: no such file (also allowed: auto, download, random)")
        return Path(spec)
    patterns = {"deep": f"resnet{layers}_v2.pth", "plain": f"resnet{layers}-*.pth"}
    found = [
        p
        for kind, pattern in patterns.items()
        if stem in ("auto", kind)
        for p in sorted(folder.glob(pattern))
    ]
    if not found:
        what = "any stem" if stem == "auto" else f"{stem} stem"
        raise UserError(_HINT.format(layers=layers, stem=what, folder=folder))
    return found[0]


def read_weights(found: Path | str, layers: int) -> dict[str, Tensor]:
    """The state dict of a file in a published layout (or of torchvision's download), in our names."""
    if isinstance(found, Path):
        state = rename(read_state(found))
        own = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
        return own or state
    from torchvision import models

    url = models.get_model_weights(f"resnet{layers}")["IMAGENET1K_V1"].url
    return rename(read_state(downloaded(url, url.rpartition("/")[2])))


def downloaded(url: str, name: str) -> Path:
    """A published file, kept as `name` in `FOLDER`, where "auto" finds it: fetched if it is not there.

    An earlier download in PyTorch's own cache is taken. Where the file's own name ends in digits of its
    checksum, as torchvision's do, they are held against it.

    Raises:
        UserError: it cannot be had; the message says what to fetch and where to put it.
    """
    file = url.rpartition("/")[2]
    earlier = Path(torch.hub.get_dir()) / "checkpoints" / file
    if earlier.is_file() and not (FOLDER / name).is_file():
        return earlier
    digits = re.search(r"-([0-9a-f]{8,64})\.\w+$", file)
    try:
        return fetch(url, FOLDER / name, digits[1] if digits else "")
    except UserError as error:
        raise UserError(
            f"backbone.weights=download: {error}. Or fetch it elsewhere, and put it there: {FOLDER / name}"
        ) from None


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a published file or of a checkpoint, without nesting and `module.` prefixes.

    Raises:
        UserError: missing, truncated, no PyTorch file, or holding more than tensors.
    """
    content = read_torch(path)
    state: object = content
    for nest in ("state_dict", "model"):
        state = state.get(nest, state) if isinstance(state, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(k, str) and _dense(v) for k, v in state.items()):
        raise UserError(f"{path} holds no state dict of names and plain tensors")
    named = {name.removeprefix("module."): value for name, value in state.items()}
    if len(named) < len(state):
        raise UserError(f"{path} holds {len(state) - len(named)} names twice, with `module.` and without")
    return named


def _dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def read_torch(path: Path) -> object:
    """`torch.load` with `weights_only=True`, so that no code in a file runs; `UserError` if it fails."""
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = re.split(r"[.\n]", str(error), maxsplit=1)[0]
        reason = type(error).__name__ if not reason or reason.isdigit() else reason
        raise UserError(
            f"{path} is truncated, or no checkpoint that can be read safely ({reason}). "
            "Put a whole one in its place; what training here wrote is made anew once it is moved away"
        ) from None


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published or torchvision names -> ours. ImageNet's classifier (`fc.*`) is left out: never used."""
    table = _DEEP if "conv2.weight" in state else _PLAIN
    out = {}
    for name, value in state.items():
        head, _, tail = name.partition(".")
        if head != "fc":
            out[f"{table[head]}.{tail}" if head in table else name] = value
    return out


def has_deep_stem(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict in our names starts with three 3x3 convolutions."""
    return "layer0.6.weight" in state


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load by name; every name must be there, known, and of the right shape.

    Norms' step counters (`num_batches_tracked`), which old files lack and nothing here reads, may miss.

    Raises:
        UserError: lists missing, unexpected and misshapen names.
    """
    own = module.state_dict()
    counters = {n for n in own if n.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - state.keys() - counters)
    unexpected = sorted(state.keys() - own.keys())
    shapes = [
        f"{n} {tuple(state[n].shape)}, wanted {tuple(own[n].shape)}"
        for n in sorted(own.keys() & state.keys())
        if state[n].shape != own[n].shape
    ]
    both = [n for n in sorted(own.keys() & state.keys()) if state[n].shape == own[n].shape]
    kinds = [f"{n} ({state[n].dtype})" for n in both if _kind(state[n]) != _kind(own[n])]
    broken = [n for n in both if state[n].is_floating_point() and not state[n].isfinite().all()]
    problems = [
        ("missing", missing), ("unexpected", unexpected), ("of another shape", shapes),
        ("of another type", kinds), ("not finite", broken),
    ]  # fmt: skip
    lines = [f"{len(names)} {what}: {_first(names)}" for what, names in problems if names]
    if lines:
        raise UserError(f"{source} does not fit this network; " + "; ".join(lines))
    module.load_state_dict({**{n: own[n] for n in counters}, **state})


def _kind(value: Tensor) -> tuple[bool, bool]:
    return value.is_floating_point(), value.is_complex()


def _first(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")
