"""Checks of data sets, weights, and the folder for results."""

import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fss.doctor.item import Item, guarded, reason, shown

PREPARE = {
    "pascal": "fss prepare pascal --root {root} --download",
    "coco": "fss prepare coco --root {root} --download",
    "fss1000": "fss prepare fss1000 --root {root} --splits DIR",
    "folder": "fss prepare folder --root {root} --from ANNOTATIONS",
}


def files(output: Path) -> list[Item]:
    """Items on data sets, backbone weights, and the folder for results."""
    from fss.recipes import recipe_names

    items = [item for name in recipe_names("data") for item in guarded("data", name, _set, name)]
    items += guarded("weights", "initmodel", _weights)
    return items + guarded("results", "folder", _output, output)


def _set(name: str) -> Iterator[Item]:
    """The data set of a recipe: whether its folder is there, and its lists."""
    from fss.recipes import load_config

    data = load_config(name, "prototype").data
    root = data.folder
    if data.layout == "shapes":
        yield Item("data", name, "ok", f"{root}: drawn by the first run, within a minute")
        return
    lists = {data.list_of(split) for split in (("val",) if data.trained_on else ("train", "val"))}
    lacking = sorted(n for n in lists if not any((place / n).is_file() for place in (Path(), root)))
    if root.is_dir() and not lacking:
        yield Item("data", name, "ok", f"{root}: there, with its lists")
        return
    text = f"there, but no {', '.join(lacking)}" if root.is_dir() else "not there"
    yield Item("data", name, "optional", f"{root}: {text}", PREPARE.get(name, "").format(root=root))


def _weights() -> Iterator[Item]:
    """One item for each backbone whose weights are there, one for those without, one for timm's networks."""
    from fss.backbones import weights_there
    from fss.backbones.weights import FOLDER

    lacking = []
    for name, where in weights_there():
        if where:
            installed = Path(where).is_relative_to(sysconfig.get_path("purelib"))
            yield Item("weights", name, "ok", "comes with the installation" if installed else shown(where))
        else:
            lacking.append(name)
    if lacking:
        text = f"none for {', '.join(lacking)} in {FOLDER}/; `shapes` needs none"
        fix = f"backbone.weights=download, or torchvision's resnet50-*.pth into {FOLDER}/"
        yield Item("weights", "others", "optional", text, fix)
    text = "any of its networks, by name; weights from a file: backbone.weights=FILE"
    yield Item("weights", "timm", "optional", text, "backbone.type=timm:NAME backbone.weights=download")


def _output(folder: Path) -> Iterator[Item]:
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free / 2**30
        yield Item("results", "folder", "ok", f"{shown(folder)}: can be written, {free:.1f} GiB free")
    except OSError as error:
        text = f"{shown(folder)}: cannot be written: {reason(error)}"
        yield Item("results", "folder", "broken", text, "output=DIR with a folder that you may write to")
