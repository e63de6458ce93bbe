"""`shapes`: a synthetic few-shot segmentation set in the VOC layout, drawn from a seed.

A class is a silhouette with a texture and a pair of hues. Each silhouette belongs to two classes,
each texture to four (one per fold) and each hue pair to five, so no single cue tells the class.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from fss.bars import Bar
from fss.data.scene import CLASSES, MIN_SIZE, draw_scene
from fss.data.voc import voc_palette
from fss.errors import UserError

VERSION = 1  # raised whenever the drawing changes
SPLITS, LISTS = ("train", "val"), "ImageSets/Segmentation"


def draw_shapes(root: Path, seed: int = 0, train: int = 600, val: int = 200, size: int = 128) -> None:
    """Draw `train` + `val` images of `size` x `size` px with their masks to `root`, in the VOC layout.

    Masks hold 0 (background), 1..20 (`CLASSES`) and 255 (a 2 px border). An image depends on the
    seed, its split and its number alone. A complete set drawn with the same values is kept as is.
    Raises UserError for values out of range, and where `root` holds anything else (never deleted).
    """
    wanted = {"version": VERSION, "seed": seed, "train": train, "val": val, "size": size}
    _check_values(wanted)
    root = Path(root)
    if _is_drawn(root, wanted):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as folder:
        part = Path(folder) / root.name
        _write_set(part, wanted)
        _publish(part, root, wanted)


def _check_values(wanted: dict[str, int]) -> None:
    for key, least in {"seed": 0, "train": 1, "val": 1, "size": MIN_SIZE}.items():
        if wanted[key] < least:
            raise UserError(f"shapes: {key} is {wanted[key]}; it must be at least {least}")


def _is_drawn(root: Path, wanted: dict[str, int]) -> bool:
    """False where `root` does not exist; UserError where it is not the wanted set."""
    if not root.exists():
        return False
    try:
        found = json.loads((root / "shapes.json").read_text())
    except (OSError, ValueError):
        found = "no readable shapes.json"
    if found == wanted:
        missing = [path for path in _files(root, wanted) if not path.is_file()]
        if not missing:
            return True
        found = f"{len(missing)} files missing, the first {missing[0].relative_to(root)}"
    raise UserError(f"{root} is not the wanted shapes set: found {found}; wanted {wanted}. "
                    "Move that folder away, or name another data.root")  # fmt: skip


def _files(root: Path, wanted: dict[str, int]) -> list[Path]:
    images = [path for split in SPLITS for name in _names(split, wanted) for path in _pair(root, name)]
    return [root / "classes.txt", *(root.joinpath(LISTS, f"{split}.txt") for split in SPLITS), *images]


def _names(split: str, wanted: dict[str, int]) -> list[str]:
    return [f"{split}_{number:04d}" for number in range(wanted[split])]


def _pair(root: Path, name: str) -> tuple[Path, Path]:
    return root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png"


def _write_set(root: Path, wanted: dict[str, int]) -> None:
    for folder in ("JPEGImages", "SegmentationClass", LISTS):
        (root / folder).mkdir(parents=True)
    jobs = [(split, number, name) for split in SPLITS for number, name in enumerate(_names(split, wanted))]
    for split, number, name in Bar(jobs, desc="drawing shapes", unit="image"):
        rng = np.random.default_rng([wanted["seed"], SPLITS.index(split), number])
        image, mask = (
            Image.fromarray(array) for array in draw_scene(rng, number % len(CLASSES), wanted["size"])
        )
        mask.putpalette(voc_palette())
        image_path, mask_path = _pair(root, name)
        image.save(image_path, quality=95)
        mask.save(mask_path)
    for split in SPLITS:
        root.joinpath(LISTS, f"{split}.txt").write_text("\n".join(_names(split, wanted)) + "\n")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "shapes.json").write_text(json.dumps(wanted, indent=1) + "\n")


def _publish(part: Path, root: Path, wanted: dict[str, int]) -> None:
    try:
        part.rename(root)
    except OSError:  # another process may have drawn the same set meanwhile
        if not _is_drawn(root, wanted):
            raise
