"""Which data sets and weights are there, and whether results can be written."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fss.doctor.item import Item, guarded, reason, shown

if TYPE_CHECKING:
    from fss.config import DataConfig

PREPARE = {
    "pascal": "fss prepare pascal --root {root} --download",
    "coco": "fss prepare coco --root {root} --download",
    "fss1000": "fss prepare fss1000 --root {root} --splits DIR",
    "folder": "fss prepare folder --root {root} --from ANNOTATIONS",
}
LITTLE = 2 * 2**30  # bytes; a run keeps some checkpoints of 100 to 300 MB


def files(output: Path) -> list[Item]:
    """Data sets, backbone weights, and the folder for results."""
    items = guarded("data", "recipes", _sets)
    items += guarded("weights", "initmodel", _weights)
    return items + guarded("results", "folder", lambda: _output(output))


def _sets() -> Iterator[Item]:
    """One item for each data root that a recipe names."""
    from fss.errors import UserError
    from fss.recipes import load_config, recipe_names

    roots: dict[Path, list[DataConfig]] = {}
    for name in recipe_names("data"):
        try:
            config = load_config(name, "prototype").data
            roots.setdefault(config.folder, []).append(config)
        except UserError as error:
            yield Item("data", name, "warning", f"its recipe has a mistake: {reason(error)}")
    for root, sets in roots.items():
        yield _set(root, sets)


def _set(root: Path, sets: list["DataConfig"]) -> Item:
    name, *others = sorted((s.name for s in sets), key=len)
    also = f" (also for {', '.join(others)})" if others else ""
    prepare = PREPARE.get(name, "").format(root=root)
    if sets[0].layout == "shapes":
        detail = "drawn" if root.is_dir() else "not drawn yet; the first run does it, within a minute"
        return Item("data", name, "ok", f"{root}: {detail}")
    if not root.is_dir():
        return Item("data", name, "optional", f"{root}: not there{also}", prepare)
    wanted = {s.list_of(split) for s in sets for split in _splits(s)}
    lacking = sorted(name for name in wanted if not any((p / name).is_file() for p in (Path(), root)))
    if lacking:
        text = f"{root}: there, but no {', '.join(lacking)}"
        return Item("data", name, "optional", text, prepare)
    return Item("data", name, "ok", f"{root}: there, with its lists{also}")


def _splits(config: "DataConfig") -> tuple[str, ...]:
    return ("val",) if config.trained_on else ("train", "val")


def _weights() -> Iterator[Item]:
    from fss.backbones.weights import FOLDER, find_weights
    from fss.errors import UserError

    lacking = []
    for layers in (18, 34, 50, 101):
        try:
            yield Item("weights", f"ResNet-{layers}", "ok", str(find_weights("auto", layers, "auto")))
        except UserError:
            lacking.append(str(layers))
    if lacking:
        text = f"none for {', '.join(lacking)} in {FOLDER}/; `shapes` needs none"
        fix = f"backbone.weights=download, or torchvision's resnet50-*.pth into {FOLDER}/"
        yield Item("weights", "ResNet", "optional", text, fix)
    vit = sorted(FOLDER.glob("vit_b_16-*.pth"))
    if vit:
        yield Item("weights", "ViT-B/16", "ok", str(vit[0]))
    else:
        yield Item("weights", "ViT-B/16", "optional", f"none in {FOLDER}/; for backbone.vit=auto alone")


def _output(folder: Path) -> Iterator[Item]:
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    fix = "output=DIR with a folder that you may write to"
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield Item("results", "folder", "broken", f"{shown(folder)}: cannot be written: {reason(error)}", fix)
        return
    free = shutil.disk_usage(there).free
    text = f"{shown(folder)}: can be written, {free / 2**30:.1f} GiB free"
    if free < LITTLE:
        yield Item("results", "folder", "warning", f"{text}: a run's checkpoints may not fit", fix)
    else:
        yield Item("results", "folder", "ok", text)
