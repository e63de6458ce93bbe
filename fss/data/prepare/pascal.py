"""PASCAL from VOC 2012 and SBD.

SBD: Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fss.data.files import read_mask
from fss.data.prepare.common import Prepared, find_part, name_problem, tally, write_list, write_mask
from fss.errors import UserError, why
from fss.fetching import fetch

MASKS = "SegmentationClassAug"
_GET = (
    "Put VOC 2012 trainval there as JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/ (or as "
    "VOCdevkit/VOC2012/), or have both archives fetched with --download"
)
_GET_SBD = (
    "Put SBD there (cls/*.mat, train.txt, val.txt, train_noval.txt; or all in benchmark_RELEASE/dataset/), "
    "name its folder with --sbd, or have it fetched with --download"
)


def prepare_pascal(root: Path, lists: Path, sbd: Path | None = None, download: bool = False) -> Prepared:
    """Write `SegmentationClassAug/` into VOC's folder, and the published lists.

    VOC's own masks are taken where there is one; SBD's for the rest.

    Args:
        root: holds VOC 2012, or will with `download`.
        sbd: holds SBD; default: `root`/sbd.
        lists: folder for train.txt (5,953 images), val.txt (1,449) and trainaug.txt (10,582); images
            that could not be made are left out.

    Raises:
        UserError: an archive or one of its parts is missing.
    """
    sbd = sbd or root / "sbd"
    if download:
        _download(root, sbd)
    voc = find_part(root, "VOCdevkit/VOC2012", "JPEGImages", _GET)
    sbd = find_part(sbd, "benchmark_RELEASE/dataset", "cls", _GET_SBD)
    own = {split: _names(voc / "ImageSets/Segmentation" / f"{split}.txt", _GET) for split in ("train", "val")}
    extra = {split: _names(sbd / f"{split}.txt", _GET_SBD) for split in ("train", "val", "train_noval")}
    every = {
        "train": own["train"] | extra["train_noval"],
        "val": own["val"],
        "trainaug": (own["train"] | extra["train"] | extra["val"]) - own["val"],
    }
    annotated = own["train"] | own["val"]

    def make(name: str) -> str | None:
        image, mask = voc / "JPEGImages" / f"{name}.jpg", voc / MASKS / f"{name}.png"
        if name in annotated:
            return write_mask(mask, image, lambda: read_mask(voc / "SegmentationClass" / f"{name}.png"))
        return write_mask(mask, image, lambda: read_sbd(sbd / "cls" / f"{name}.mat"))

    found, names = Prepared(voc), sorted(set().union(*every.values()))
    with ThreadPoolExecutor() as pool:
        good = tally(found, names, pool.map(make, names), "masks")
    for name, images in every.items():
        lines = (f"JPEGImages/{n}.jpg {MASKS}/{n}.png" for n in images & good)
        write_list(found, lists / f"{name}.txt", lines)
    return found


def read_sbd(path: Path) -> np.ndarray:
    """The label map (H,W) uint8 of one of SBD's class annotations.

    Raises:
        UserError: missing or damaged, labels beyond 20, or scipy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError("SBD's .mat files need scipy: pip install scipy") from None
    if not path.is_file():
        raise UserError(f"annotation {path} does not exist")
    try:
        mask = np.asarray(loadmat(str(path))["GTcls"][0]["Segmentation"][0])
        fit = mask.ndim == 2 and mask.size > 0 and set(np.unique(mask).tolist()) <= {*range(21), 255}
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise UserError(f"annotation {path} is damaged ({type(error).__name__}: {error})") from None
    if not fit:
        raise UserError(f"annotation {path} is no label map of 0..20 and 255")
    return mask.astype(np.uint8)


def _names(path: Path, hint: str) -> set[str]:
    try:
        names = set(path.read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} cannot be read ({why(error)}). {hint}") from None
    odd = [n for n in names if "/" in n or name_problem(n)]
    if odd:
        raise UserError(f"list {path}: {odd[0][:80]!r} is no name of an image")
    return names


def _download(root: Path, sbd: Path) -> None:
    """Both archives, which torchvision then holds against its checksums and unpacks."""
    from torchvision.datasets import SBDataset, VOCSegmentation
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    voc = DATASET_YEAR_DICT["2012"]
    try:
        if not (root / "VOCdevkit/VOC2012/JPEGImages").is_dir() and not (root / "JPEGImages").is_dir():
            fetch(voc["url"], root / voc["filename"])
            VOCSegmentation(str(root), "2012", "trainval", download=True)
        if not (sbd / "cls").is_dir():
            fetch(SBDataset.url, sbd / SBDataset.filename)
            SBDataset(str(sbd), "train_noval", "segmentation", download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"the download failed ({error}); fetch the archives elsewhere. {_GET}") from None
