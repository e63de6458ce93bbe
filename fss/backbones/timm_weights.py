"""Networks of timm with their weights: found, downloaded or refused; loaded strictly."""

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.backbones.weights import FOLDER, downloaded, load_strict, read_state
from fss.errors import UserError
from fss.parts import nearest

ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
# Arguments that make a transformer take images of any size; which of them one knows depends on its family.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


def create(name: str, **given: Any) -> Any:
    """A network by timm's name, without its classifier, for images of any size where it can.

    Raises:
        UserError: an unknown name, with the nearest.
    """
    import timm

    _check_name(name)
    network: Any = None
    for size in _ANY_SIZE:
        try:
            network = timm.create_model(name, num_classes=0, **size, **given)
        except TypeError as error:
            if not size or next(iter(size)) not in str(error):
                raise
            continue
        # Older versions swallow an argument that they do not know.
        if not getattr(getattr(network, "patch_embed", None), "strict_img_size", False):
            break
    if "dinov2" in name and getattr(network, "reg_token", 0) is None and network.cls_token is not None:
        network._pos_embed = MethodType(_dinov2_positions, network)
    return network


def _check_name(name: str) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UserError(
            f"backbone timm:{name}: timm {timm.__version__} knows no {architecture!r}"
            f"{nearest(architecture, timm.list_models())}"
        )
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UserError(
            f"backbone timm:{name}: timm {timm.__version__} knows no weights {tag!r} of {architecture}; "
            f"allowed: {', '.join(tags) or 'none'}"
        )


def _dinov2_positions(network: Any, x: Tensor) -> Tensor:
    """DINOv2's own way to fit its positions to an image: patches (B,h,w,C) -> tokens (B,1+h*w,C).

    Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024. The 0.1 that its
    program adds to the size enters the step of the sampling; timm's resizing differs by 0.1%.
    """
    b, h, w, c = x.shape
    grid = network.pos_embed[:, 1:]  # (1,n*n,C)
    n = round(grid.shape[1] ** 0.5)
    if (h, w) != (n, n):
        grid = grid.float().view(1, n, n, c).permute(0, 3, 1, 2)
        scale = ((h + 0.1) / n, (w + 0.1) / n)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
    positions = torch.cat([network.pos_embed[:, :1], grid.to(x.dtype)], 1)
    return network.pos_drop(torch.cat([network.cls_token.expand(b, -1, -1), x.flatten(1, 2)], 1) + positions)


def find(weights: str, name: str, folder: Path = FOLDER) -> Path:
    """The file that `backbone.weights` means: itself, or for "auto" what lies in `folder` or was downloaded.

    Raises:
        UserError: there is none; the message says what to do.
    """
    if weights != "auto":
        if not Path(weights).is_file():
            raise UserError(
                f"backbone.weights={weights}: no such file (also allowed: auto, download, random)"
            )
        return Path(weights)
    here = [path for end in ENDINGS if (path := folder / f"{name}{end}").is_file()]
    found = here or _downloaded(name)
    if not found:
        raise UserError(
            f"no weights for timm:{name} in {folder}/. Do one of these:\n"
            f"  - have them fetched: backbone.weights=download\n"
            f"  - {_where(name)} into {folder}/\n"
            f"  - a file of your own: backbone.weights=FILE\n"
            f"  - on purpose without: backbone.weights=random (novel classes will be segmented badly)"
        )
    return found[0]


def _downloaded(name: str) -> list[Path]:
    """Files of earlier downloads, in the caches of Hugging Face's hub and of PyTorch."""
    config = _config(name)
    found = []
    if config.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        files = (
            [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        )
        found += [try_to_load_from_cache(config.hf_hub_id, file) for file in files]
    if isinstance(config.url, str) and config.url:
        found.append(str(Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]))
    return [Path(path) for path in found if isinstance(path, str) and Path(path).is_file()]


def _config(name: str) -> Any:
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(name)


def _where(name: str) -> str:
    """What to fetch by hand, and under which name to keep it."""
    config = _config(name)
    source = f"https://huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else "its authors"
    return f"put the file of {source} as {name}.safetensors (or .pth)"


def fetched(name: str) -> Path:
    """The file of the weights that timm names, in `FOLDER` or from an earlier download; else it is fetched.

    Raises:
        UserError: timm names none, or it cannot be had; the message says what to put where.
    """
    _check_name(name)
    config = _config(name)
    there = [path for end in ENDINGS if (path := FOLDER / f"{name}{end}").is_file()] or _downloaded(name)
    if there:
        return there[0]
    url = _url(config) if config else ""
    if not url:
        raise UserError(
            f"backbone.weights=download: timm knows no file for {name}; {_where(name)} into {FOLDER}/"
        )
    return downloaded(url, f"{name}{Path(url).suffix}")


def _url(config: Any) -> str:
    """Where the weights of a configuration of timm's lie; "" for nowhere."""
    if config.hf_hub_id:
        place = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return f"{place}/{config.hf_hub_id}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
    return str(config.url or "")


def loaded(name: str, path: Path) -> Any:
    """The network with the weights of a file in timm's names, its authors' names, or a checkpoint's.

    Raises:
        UserError: names are missing, unknown or misshapen, or numbers are not finite.
    """
    state = read(path)
    inside = "backbone.network."
    own = {k.removeprefix(inside): v for k, v in state.items() if k.startswith(inside)}
    if own:
        network = create(name)
        load_strict(network, own, str(path))
        return network
    state = _without_classifier(name, state)
    _refuse_dropped_biases(name, state, path)
    overlay = {"state_dict": state, "num_classes": 0, "label_offset": 0}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # timm prints what it does not find
            network = create(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except UserError:
        raise
    except Exception as error:  # a file of another network fails in its conversion, in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} does not fit timm:{name}; {reason[:400]}") from None
    network.pretrained_cfg["state_dict"] = None
    broken = [n for n, v in network.state_dict().items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise UserError(f"{path} does not fit timm:{name}; {len(broken)} not finite, {broken[0]} first")
    return network


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, of safetensors or of PyTorch."""
    if path.suffix != ".safetensors":
        return read_state(path)
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # the package raises its own kinds for a damaged file
        raise UserError(f"{path} is truncated, or no file of safetensors ({error})") from None


def _without_classifier(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without the layers that `num_classes=0` leaves out."""
    names = _config(name).classifier or ()
    layers = (names,) if isinstance(names, str) else tuple(names)
    return {k: v for k, v in state.items() if k.rpartition(".")[0] not in layers}


def _refuse_dropped_biases(name: str, state: Mapping[str, Tensor], path: Path) -> None:
    """DINOv3's own files hold biases of queries and values, which one of timm's two variants would drop."""
    if "dinov3" not in name or "qkvb" in name or "storage_tokens" not in state:
        return
    for key, bias in state.items():
        query, _, value = bias.chunk(3) if key.endswith("qkv.bias") else (bias[:0],) * 3
        if query.any() or value.any():
            fitting = f"{name.partition('.')[0]}_qkvb"
            raise UserError(
                f"{path} has biases of queries and values ({key}), which timm:{name} would drop: "
                f"features differ by 0.5 to 1% then. Set backbone.type=timm:{fitting}"
            )
