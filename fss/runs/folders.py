"""A run's folder: its name, what is written into it at the start, and where the parts lie."""

import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import fss
from fss.config import Config, NeckConfig
from fss.writing import write_text


def fold_folder(config: Config) -> Path:
    """results/DATA/foldN, of the data that networks are trained on."""
    return config.output / config.data.trained_name / f"fold{config.data.fold}"


def base_folder(config: Config) -> Path:
    """The folder of a base network: one per data, fold, backbone and neck, shared by all heads."""
    return fold_folder(config) / f"base_{_base(config)}"


def pseudo_folder(config: Config) -> Path:
    """The folder of the networks that write pseudo-masks."""
    p, weights = config.pseudo, _weights(config.backbone.weights)
    first = p.backbone or config.backbone.type
    parts = [_part(first)]
    if p.transfer and (p.local_backbone or first) != first:
        parts.append(f"local{_part(str(p.local_backbone)).removeprefix('resnet')}")
    how = [] if p.transfer else ["cam"]
    how += ["saliency"] if p.transfer and p.saliency else []
    how += ["correlation"] if p.correlation else []
    return fold_folder(config) / "_".join(
        ["pseudo", *parts, *weights, *how, *([config.tag] if config.tag else [])]
    )


def train_folder(config: Config, shots: int | None = None) -> Path:
    """The folder of a head's training: one per head, its options, network, resize and training shots."""
    tag = f"_{config.tag}" if config.tag else ""
    variant = _plain(_head(config))
    resized = "" if config.data.resize == "pad" else f"_{config.data.resize}"
    name = f"{variant}_{_network(config)}{resized}_{shots or config.train.shots}shot{tag}"
    return fold_folder(config) / name


def test_folder(config: Config, home: Path, kind: str) -> Path:
    """The folder of a test: one per protocol and kind of checkpoint, in the folder of what is tested."""
    t = config.test
    size = "" if t.label_size == "network" else f"_{t.label_size}"
    plan = f"plan_{t.plan.stem}" if t.plan else f"{t.runs}x{t.episodes}_seed{t.seed}"
    other = "" if config.data.trained_on is None else f"{config.data.name}_"
    sampled = "" if t.plan or t.sampling == "list" else f"_by_{t.sampling}"
    drawn = "" if t.support == "mask" else f"_{t.support}_{t.support_by}"
    return home / f"test_{other}{t.shots}shot_{plan}{sampled}{drawn}{size}_{kind}"


def _base(config: Config) -> str:
    """The base network: backbone, what differs from weights that were found by themselves, and the neck."""
    b, untrained = config.backbone, 0 in (config.pretrain.epochs, config.pretrain.seconds)
    stem, stride = b.options.get("stem", "auto"), b.options.get("stride", 8)
    parts = [_part(b.type), *_weights(b.weights), *([stem] if stem != "auto" else [])]
    parts += [] if stride == 8 else [f"stride{stride}"]
    parts += _options(b.options, ("stem", "stride"))
    parts += _neck(config.neck)
    if (novel := config.data.for_base.novel_in_train) != "background":
        parts.append(f"novel_{novel.removesuffix('_image')}")
    if config.data.boundary_in_train != "ignore":
        parts.append(f"boundary_{config.data.boundary_in_train}")
    if config.data.masks_name is not None:
        parts.append(f"masks_{config.data.masks_name}")
    return "_".join([*parts, *(["untrained"] if untrained else [])])


def _network(config: Config) -> str:
    """The frozen network: the base network, unless said otherwise."""
    parts, cells = [_base(config)], config.neck.options.get("stride", 8)
    if not config.with_neck:
        return "_".join([*parts, "nostage1"])
    if (novel := config.data.novel_in_train) != config.data.for_base.novel_in_train:
        parts.append(f"then_{novel.removesuffix('_image')}")
    parts += [f"cells{cells}"] if cells != 8 else []
    parts += [f"on_{config.base_file.stem}"] if config.base_file else []
    return "_".join(parts)


def _neck(neck: NeckConfig) -> list[str]:
    """The neck, unless it is pyramid pooling, and what it was set to beside its defaults.

    Widths and dropouts are left out, as 0.1 did; a run's checkpoints tell them apart.
    """
    changed = _options(neck.options, ("channels", "dropout", "stride"))
    return [*([] if neck.type == "ppm" else [_part(neck.type)]), *changed]


def _part(name: str) -> str:
    """A part's name in a folder's: without the package that it is in, and in plain signs."""
    return _plain(name.rpartition(":")[2])


def _options(options: Mapping[str, Any], but: Sequence[str]) -> list[str]:
    return [_plain(f"{key}={value}") for key, value in sorted(options.items()) if key not in but]


def _plain(text: str) -> str:
    return re.sub(r"[^\w=.,+-]", "_", text)


def _weights(spec: str) -> list[str]:
    return [] if spec in ("auto", "download") else [Path(spec).stem]


def _head(config: Config) -> str:
    name = config.head.type.rpartition(":")[2]
    return f"{name},{config.variant}" if config.variant else name


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and commit, for results and run folders."""
    return {
        "fss": fss.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


def open_folder(folder: Path, config: Config, device: torch.device) -> None:
    """Make a run's folder and write the resolved configuration and the environment into it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config.to_yaml())
    write_text(folder / "environment.json", json.dumps(environment(device), indent=2) + "\n")


def _commit() -> str | None:
    """The checkout's commit, with `+` where files differ from it; None outside a checkout."""
    here = Path(fss.__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed.stdout.strip() else "")
