"""FSS-1000 (Li et al., CVPR 2020): 1,000 classes of 10 images, split by published lists of class names."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fss.data.prepare.common import Prepared, name_problem, tally, write, write_list, write_mask
from fss.errors import UserError, why

MASKS = "SegmentationClass"
# As the authors of the split name them: trn 520 classes, val 240, test 240.
_SPLITS = {"train": ("trn.txt", "train.txt"), "val": ("val.txt",), "test": ("test.txt",)}
_GET = "Put FSS-1000 there: a folder per class with 1.jpg and 1.png to 10.jpg and 10.png"


def prepare_fss1000(root: Path, lists: Path, splits: Path | None = None) -> Prepared:
    """Write masks of one class an image (0, 1), classes.txt and the lists of images.

    Args:
        root: holds a folder per class, itself or in fewshot_data/.
        splits: holds lists of class names: trn.txt (or train.txt), val.txt, test.txt; default: `root`.
        lists: folder for train.txt, val.txt and test.txt, of images.

    Raises:
        UserError: no such folders or lists, or a class in two lists.
    """
    root = next((f for f in (root / "fewshot_data", root) if f.is_dir()), root)
    classes = {split: _classes(splits or root, names, root) for split, names in _SPLITS.items()}
    every = [name for names in classes.values() for name in names]
    odd = [name for name in every if "/" in name or name_problem(name)]
    if odd:
        raise UserError(f"{odd[0][:80]!r} is no name of a class; a class is a folder of {root}")
    twice = {name for name in every if every.count(name) > 1}
    if twice:
        raise UserError(f"classes stand in two lists, or twice in one: {', '.join(sorted(twice)[:5])}")
    found = Prepared(root)
    write(root / "classes.txt", "".join(f"{name}\n" for name in sorted(every)).encode())
    images = {name: _images(root / name, found.problems) for name in sorted(every)}
    names = [f"{c}/{image.stem}" for c, own in images.items() for image in own]
    with ThreadPoolExecutor() as pool:
        paths = [image for own in images.values() for image in own]
        good = tally(found, names, pool.map(partial(_make, root), paths), "masks")
    for split, own in classes.items():
        lines = [
            f"{c}/{i.name} {MASKS}/{c}/{i.stem}.png"
            for c in own
            for i in images[c]
            if f"{c}/{i.stem}" in good
        ]
        write_list(found, lists / f"{split}.txt", lines)
    return found


def _classes(folder: Path, names: tuple[str, ...], root: Path) -> list[str]:
    for name in names:
        if (folder / name).is_file():
            try:
                lines = (folder / name).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"list {folder / name} cannot be read ({why(error)})") from None
            classes = [line.strip() for line in lines if line.strip()]
            gone = [c for c in classes if not (root / c).is_dir()]
            if gone or not classes:
                raise UserError(
                    f"{folder / name}: {len(gone)} classes have no folder in {root}: {gone[:3]}. {_GET}"
                )
            return classes
    raise UserError(f"no {names[0]} in {folder}: a list of class names; name its folder with --splits")


def _images(folder: Path, problems: list[str]) -> list[Path]:
    images = [p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg")] if folder.is_dir() else []
    images = sorted(images, key=lambda p: (len(p.stem), p.stem))
    if not images:
        problems.append(f"{folder} holds no .jpg")
    return images


def _make(root: Path, image: Path) -> str | None:
    path = root / MASKS / image.parent.name / f"{image.stem}.png"
    return write_mask(path, image, _reader(image.with_suffix(".png")))


def _reader(path: Path) -> Callable[[], np.ndarray]:
    """Published masks are black and white, in one channel or three; 0 and 1 are taken as well."""

    def read() -> np.ndarray:
        try:
            with Image.open(path) as mask:
                if mask.mode not in ("L", "P", "1", "RGB", "RGBA"):
                    raise UserError(f"mask {path} has mode {mask.mode}; wanted black and white of 8 bits")
                grey = np.asarray(mask.convert("RGB")).max(2)
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError(f"mask {path} does not exist") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"mask {path} is damaged or no image ({error})") from None
        inside = grey > (127 if grey.max() > 127 else 0)
        if not inside.any():
            raise UserError(f"mask {path} shows nothing")
        return inside.astype(np.uint8)

    return read
