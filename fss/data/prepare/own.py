"""Reading a user's own annotations: labelme, COCO-style JSON, or plain masks."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fss.data.files import read_mask
from fss.data.folder import read_classes
from fss.data.prepare import coco, labelme
from fss.episode import IGNORE
from fss.errors import UserError


class Item(NamedTuple):
    """One annotated image.

    Attributes:
        source: the file that holds its annotation; a mask older than that is made anew.
        size: (H,W) that the annotation is for.
        draw: class name -> label in, label map (H,W) uint8 out.
    """

    name: str
    image: Path
    source: Path
    size: tuple[int, int]
    draw: Callable[[dict[str, int]], np.ndarray]


class Annotated(NamedTuple):
    """All items, and the class names that they use, in the order in which new ones get their numbers."""

    items: list[Item]
    classes: list[str]


def read_annotated(source: Path, images: Path | None, problems: list[str]) -> Annotated:
    """The annotations at `source`: a COCO-style JSON file, labelme's, or a folder of masks.

    Args:
        images: where the images are; default: beside the annotations.
        problems: takes a line for each annotation that cannot be used.

    Raises:
        UserError: nothing is there, or it is of none of these kinds.
    """
    if source.suffix.lower() == ".json" and source.is_file():
        if labelme.is_one(source):
            return _read_labelme([source], source.parent, images, problems)
        return _read_coco(source, images or source.parent, problems)
    if not source.is_dir():
        raise UserError(f"no annotations at {source}; name a COCO-style JSON file or a folder")
    if files := sorted(source.rglob("*.json")):
        return _read_labelme(files, source, images, problems)
    return _read_masks(source, images, problems)


def _read_labelme(files: list[Path], root: Path, images: Path | None, problems: list[str]) -> Annotated:
    shapes = [s for f in files if (s := labelme.read(f, images, problems))]
    items = [Item(_name(s.file, root), s.image, s.file, s.size, s.draw) for s in shapes]
    return Annotated(items, sorted({label for s in shapes for label in s.labels}))


def _read_coco(source: Path, images: Path, problems: list[str]) -> Annotated:
    hint = "Wanted is COCO's instance format"
    content = coco.read_annotations(source, hint)
    ordered = sorted(content["categories"], key=lambda c: str(c["id"]).zfill(12))
    names = [c["name"].strip() for c in ordered]
    ids = {c["id"]: i for i, c in enumerate(ordered)}
    coco.need_pycocotools()

    def drawer(job: coco.Job) -> Callable[[dict[str, int]], np.ndarray]:
        def draw(numbers: dict[str, int]) -> np.ndarray:
            regions = [r._replace(label=numbers[names[r.label]]) for r in job.regions]
            return coco.draw(regions, job.size, str(job.image))

        return draw

    jobs = coco.collect(content, ids, images, Path(), problems)
    items = [Item(_name(j.image, images), j.image, source, j.size, drawer(j)) for j in jobs]
    return Annotated(items, names)


def _read_masks(source: Path, images: Path | None, problems: list[str]) -> Annotated:
    """Masks with labels 0..N and 255, or, where 255 is all that they hold, with one class of 255."""
    if images is None:
        raise UserError(f"{source} holds masks; say with --images where the images are")
    files = sorted(source.rglob("*.png"))
    found: dict[str, list[Path]] = {}
    for path in sorted(set(images.rglob("*")) - set(files)):
        if path.suffix.lower() in Image.registered_extensions():
            found.setdefault(_name(path, images), []).append(path)
    values: set[int] = set()
    kept: list[tuple[str, Path, tuple[int, int]]] = []
    with ThreadPoolExecutor() as pool:
        for path, seen in zip(files, pool.map(_values, files), strict=True):
            name = _name(path, source)
            fitting = found.get(name, [])
            if isinstance(seen, str) or len(fitting) != 1:
                many = f"{len(fitting)} images in" if fitting else "no image in"
                problems.append(seen if isinstance(seen, str) else f"mask {path} has {many} {images}")
                continue
            values |= seen[0]
            kept.append((name, path, seen[1]))
    names = _mask_names(source, values - {0})
    whole = IGNORE in values and values <= {0, IGNORE}

    def drawer(path: Path) -> Callable[[dict[str, int]], np.ndarray]:
        def draw(numbers: dict[str, int]) -> np.ndarray:
            table = np.zeros(256, np.uint8)
            table[IGNORE] = numbers[names[IGNORE]] if whole else IGNORE
            for value, name in names.items():
                table[value] = numbers[name]
            return table[read_mask(path)]

        return draw

    items = [Item(name, found[name][0], path, size, drawer(path)) for name, path, size in kept]
    return Annotated(items, list(names.values()))


def _values(path: Path) -> tuple[set[int], tuple[int, int]] | str:
    """A mask's labels and size (H,W), or its error."""
    try:
        mask = read_mask(path)
    except UserError as error:
        return str(error)
    return set(np.unique(mask).tolist()), (mask.shape[0], mask.shape[1])


def _mask_names(source: Path, values: set[int]) -> dict[int, str]:
    """Label -> class name: from classes.txt beside the masks or one folder up, else "class N"."""
    whole, values = values == {IGNORE}, values - {IGNORE}
    for folder in (source, source.parent):
        if (folder / "classes.txt").is_file():
            names = read_classes(folder)
            if whole:
                return {IGNORE: names[0]}
            if max(values, default=0) > len(names):
                raise UserError(
                    f"{folder / 'classes.txt'} names {len(names)} classes, masks hold {max(values)}"
                )
            return dict(enumerate(names, 1))
    return {IGNORE: "class 1"} if whole else {value: f"class {value}" for value in sorted(values)}


def _name(path: Path, root: Path) -> str:
    """A name for an image from its path below `root`, folders joined by underscores."""
    below = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return "_".join(below.with_suffix("").parts)
