"""From the official archives to what the recipes expect. So far: PASCAL, from VOC 2012 and SBD.

SBD: Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011.
"""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from fss.data.files import read_mask
from fss.errors import UserError

MASKS = "SegmentationClassAug"
_GET = (
    "Put VOC 2012 trainval there as JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/ (or as "
    "VOCdevkit/VOC2012/), or have both archives fetched with --download"
)
_GET_SBD = (
    "Put SBD there (cls/*.mat, train.txt, val.txt, train_noval.txt; or all in benchmark_RELEASE/dataset/), "
    "name its folder with --sbd, or have it fetched with --download"
)


@dataclass
class Prepared:
    """Where the data root is, images of every list written, and what could not be made."""

    root: Path
    lists: dict[str, int] = field(default_factory=dict)
    made: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)


def prepare_pascal(root: Path, sbd: Path | None, lists: Path, download: bool = False) -> Prepared:
    """Write `SegmentationClassAug/` into VOC's folder, and the published lists.

    VOC's own masks are taken where there is one; SBD's for the rest. Masks that are there already are kept,
    so that a run that was stopped goes on; each file is written in one go.

    Args:
        root: holds VOC 2012, or will with `download`.
        sbd: holds SBD; default: `root`/sbd.
        lists: folder for train.txt (5,953 images), val.txt (1,449) and trainaug.txt (10,582).

    Raises:
        UserError: an archive or one of its parts is missing.
    """
    sbd = sbd or root / "sbd"
    if download:
        _download(root, sbd)
    voc, sbd = (
        _find(root, "VOCdevkit/VOC2012", "JPEGImages", _GET),
        _find(sbd, "benchmark_RELEASE/dataset", "cls", _GET_SBD),
    )
    own = {split: _names(voc / "ImageSets/Segmentation" / f"{split}.txt", _GET) for split in ("train", "val")}
    extra = {split: _names(sbd / f"{split}.txt", _GET_SBD) for split in ("train", "val", "train_noval")}
    every = {
        "train": own["train"] | extra["train_noval"],
        "val": own["val"],
        "trainaug": (own["train"] | extra["train"] | extra["val"]) - own["val"],
    }
    found = Prepared(voc)
    annotated = own["train"] | own["val"]
    _write_masks(found, sorted(set().union(*every.values())), lambda n: _source(n, n in annotated, voc, sbd))
    for name, images in every.items():
        lines = "".join(f"JPEGImages/{n}.jpg {MASKS}/{n}.png\n" for n in sorted(images))
        _write(lists / f"{name}.txt", lines.encode())
        found.lists[name] = len(images)
    return found


def _source(name: str, annotated: bool, voc: Path, sbd: Path) -> np.ndarray:
    """The mask of an image: VOC's where it has one, else SBD's."""
    if not (voc / "JPEGImages" / f"{name}.jpg").is_file():
        raise UserError(f"image {voc / 'JPEGImages' / name}.jpg does not exist")
    if annotated:
        return read_mask(voc / "SegmentationClass" / f"{name}.png")
    return read_sbd(sbd / "cls" / f"{name}.mat")


def read_sbd(path: Path) -> np.ndarray:
    """The label map (H,W) uint8 of one of SBD's class annotations.

    Raises:
        UserError: missing or damaged, labels beyond 20, or scipy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError(
            "SBD's .mat files need scipy: pip install 'fss[prepare]', or pip install scipy"
        ) from None
    if not path.is_file():
        raise UserError(f"annotation {path} does not exist")
    try:
        mask = np.asarray(loadmat(str(path))["GTcls"][0]["Segmentation"][0])
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise UserError(f"annotation {path} is damaged ({type(error).__name__}: {error})") from None
    if mask.ndim != 2 or mask.min() < 0 or not set(np.unique(mask)) <= {*range(21), 255}:
        raise UserError(f"annotation {path} is no label map of 0..20 and 255")
    return mask.astype(np.uint8)


def _write_masks(found: Prepared, names: Sequence[str], source: Callable[[str], np.ndarray]) -> None:
    folder = found.root / MASKS
    folder.mkdir(exist_ok=True)

    def make(name: str) -> str | None:
        path = folder / f"{name}.png"
        if path.is_file():
            return None
        try:
            Image.fromarray(source(name)).save(png := io.BytesIO(), "PNG")
        except UserError as error:
            return str(error)
        _write(path, png.getvalue())
        return ""

    with ThreadPoolExecutor() as pool:
        for problem in tqdm(pool.map(make, names), "masks", len(names)):
            found.kept += problem is None
            found.made += problem == ""
            found.problems += [problem] if problem else []


def _find(root: Path, inner: str, part: str, hint: str) -> Path:
    for folder in (root, root / inner):
        if (folder / part).is_dir():
            return folder
    raise UserError(f"no {part}/ in {root} or {root / inner}. {hint}")


def _names(path: Path, hint: str) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} cannot be read ({error}). {hint}") from None


def _write(path: Path, data: bytes) -> None:
    """A file in one go: a run that is killed leaves none half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}.part")
    half.write_bytes(data)
    half.replace(path)


def _download(root: Path, sbd: Path) -> None:
    """Both archives by torchvision's own downloaders."""
    from torchvision.datasets import SBDataset, VOCSegmentation

    try:
        if not (root / "VOCdevkit/VOC2012/JPEGImages").is_dir() and not (root / "JPEGImages").is_dir():
            VOCSegmentation(str(root), "2012", "trainval", download=True)
        if not (sbd / "cls").is_dir():
            SBDataset(str(sbd), "train_noval", "segmentation", download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"the download failed ({error}); fetch the archives elsewhere. {_GET}") from None
