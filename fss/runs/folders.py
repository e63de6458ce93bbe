"""A run's folder: its name, what is written into it at the start, and where the parts lie."""

import json
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch
import torchvision

import fss
from fss.config import Config, NeckConfig
from fss.writing import write_text


def fold_folder(config: Config) -> Path:
    """results/DATA/foldN, of the data that networks are trained on."""
    return config.output / config.data.trained_name / f"fold{config.data.fold}"


def base_folder(config: Config) -> Path:
    """Where stage 1 lies: one per data, fold, backbone and neck, shared by all heads."""
    return fold_folder(config) / f"base_{_base(config)}"


def pseudo_folder(config: Config) -> Path:
    """Where the networks that write pseudo-masks lie."""
    p, weights = config.pseudo, _weights(config.backbone.weights)
    layers = p.layers or config.backbone.layers
    parts = [f"resnet{layers}"]
    if p.transfer and (p.local_layers or layers) != layers:
        parts.append(f"local{p.local_layers}")
    how = [] if p.transfer else ["cam"]
    how += ["saliency"] if p.transfer and p.saliency else []
    how += ["correlation"] if p.correlation else []
    return fold_folder(config) / "_".join(
        ["pseudo", *parts, *weights, *how, *([config.tag] if config.tag else [])]
    )


def train_folder(config: Config, shots: int | None = None) -> Path:
    """Where stage 2 lies: one per head, its options, network and training shots."""
    tag = f"_{config.tag}" if config.tag else ""
    variant = re.sub(r"[^\w=.,+-]", "_", _head(config))
    name = f"{variant}_{_network(config)}_{shots or config.train.shots}shot{tag}"
    return fold_folder(config) / name


def test_folder(config: Config, home: Path, kind: str) -> Path:
    """Where a test lies: one per protocol and kind of checkpoint, in the folder of what is tested."""
    t = config.test
    size = "" if t.label_size == "network" else f"_{t.label_size}"
    plan = f"plan_{t.plan.stem}" if t.plan else f"{t.runs}x{t.episodes}_seed{t.seed}"
    other = "" if config.data.trained_on is None else f"{config.data.name}_"
    sampled = "" if t.plan or t.sampling == "list" else f"_by_{t.sampling}"
    drawn = "" if t.support == "mask" else f"_{t.support}_{t.support_by}"
    return home / f"test_{other}{t.shots}shot_{plan}{sampled}{drawn}{size}_{kind}"


def _base(config: Config) -> str:
    """Stage 1's network: layers, and what differs from weights that were found by themselves."""
    b, untrained = config.backbone, 0 in (config.pretrain.epochs, config.pretrain.seconds)
    parts = [f"resnet{b.layers}", *_weights(b.weights), *([b.stem] if b.stem != "auto" else [])]
    parts += [] if b.stride == 8 else [f"stride{b.stride}"]
    parts += _neck(config.neck)
    if config.data.novel_in_train != "background":
        parts.append(f"novel_{config.data.novel_in_train.removesuffix('_image')}")
    if config.data.masks_name is not None:
        parts.append(f"masks_{config.data.masks_name}")
    return "_".join([*parts, *(["untrained"] if untrained else [])])


def _network(config: Config) -> str:
    """The frozen network: stage 1's, unless said otherwise."""
    b, parts = config.backbone, [_base(config)]
    parts += [] if b.stage1 else ["nostage1"]
    parts += [f"cells{config.neck.stride}"] if b.stage1 and config.neck.stride != 8 else []
    parts += [f"on_{b.base.stem}"] if b.base else []
    parts += [] if b.vit == "none" else [f"vit{b.vit_size}", *_weights(b.vit)]
    return "_".join(parts)


def _neck(neck: NeckConfig) -> list[str]:
    """The neck, unless it is pyramid pooling, and what it was set to beside its defaults."""
    if neck.type == "ppm":
        return []
    usual, name = NeckConfig(type=neck.type), neck.type.rpartition(":")[2]
    changed = [
        f"{key}={getattr(neck, key)}"
        for key in ("align", "auxiliary", "gate")
        if getattr(neck, key) != getattr(usual, key)
    ]
    changed += [re.sub(r"[^\w=.,+-]", "_", f"{k}={v}") for k, v in sorted(neck.options.items())]
    return [name, *changed]


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
        "torchvision": torchvision.__version__,
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
