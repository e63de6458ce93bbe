"""Is a data set fit for few-shot segmentation? All that is wrong with it, not the first thing alone."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from tqdm import tqdm

from fss.config import DataConfig
from fss.data.files import read_image
from fss.data.folds import novel_classes
from fss.data.index import count_labels
from fss.data.shapes import draw_shapes
from fss.data.source import class_names, find_split
from fss.data.voc import Sample, list_checksum, read_list
from fss.errors import UserError

SPLITS = ("train", "val")


@dataclass
class SplitCheck:
    """What one split holds.

    Attributes:
        samples: those that the list names and that exist.
        pixels: (samples, classes + 1) label counts; zeros where a mask cannot be used.
        modes: masks by kind: "P" palette, "L" grey, "1" two values.
        sizes: (H,W) of the masks that could be read.
        published: whether the list is the published one; None where there is none.
        problems: one line each.
    """

    samples: list[Sample]
    pixels: np.ndarray
    modes: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    checksum: str = ""
    published: bool | None = None
    problems: list[str] = field(default_factory=list)


@dataclass
class SetCheck:
    """Both splits, the classes' names, and what is wrong between the splits."""

    classes: tuple[str, ...]
    splits: dict[str, SplitCheck]
    problems: list[str]

    @property
    def all_problems(self) -> list[str]:
        """One line each, the splits' own first."""
        own = [p for split in self.splits.values() for p in split.problems]
        return list(dict.fromkeys([*own, *self.problems]))  # a missing folder is one problem, not a hundred


def check_set(config: DataConfig, shots: int) -> SetCheck:
    """Read every image and mask of both splits, whole.

    Args:
        shots: K; every held-out class needs K + 1 counting test images in its fold.

    Raises:
        UserError: there is no data folder, no list, or no class names, so that nothing can be checked.
    """
    if config.layout == "shapes":
        draw_shapes(config.folder)
    elif not config.folder.is_dir():
        raise UserError(f"no data folder {config.folder} for {config.name}; set data.root to where it is")
    classes = class_names(config)
    splits = {split: _check_split(config, split, len(classes)) for split in SPLITS}
    both = {s.name for s in splits["train"].samples} & {s.name for s in splits["val"].samples}
    problems = [f"{len(both)} images are in both lists: {_some(sorted(both))}"] if both else []
    for fold in range(config.folds):
        counts = counting(splits["val"], config)
        novel = novel_classes(len(classes), fold, config.folds, config.scheme)
        small = [f"{classes[c - 1]} ({counts[c]})" for c in novel if counts[c] < shots + 1]
        if small:
            problems.append(
                f"fold {fold}: fewer than {shots + 1} test images with {config.min_pixels} pixels of "
                f"{_some(small)}"
            )
    return SetCheck(classes, splits, problems)


def counting(split: SplitCheck, config: DataConfig) -> np.ndarray:
    """Images that count for each label (classes + 1,): at least `min_pixels` of it."""
    return (split.pixels >= config.min_pixels).sum(0)


def _check_split(config: DataConfig, split: str, classes: int) -> SplitCheck:
    problems: list[str] = []
    samples = read_list(find_split(config, split), config.folder, config.mask_dir, problems)
    wanted, got = getattr(config, f"{split}_sha256"), list_checksum(samples)
    found = SplitCheck(samples, np.zeros((len(samples), classes + 1), np.int64), problems=problems)
    found.checksum, found.published = got, None if wanted is None else got == wanted
    with ThreadPoolExecutor() as pool:
        looks = pool.map(lambda sample: _look(sample, classes), samples)
        for i, (row, mode, size, problem) in enumerate(
            tqdm(looks, f"reading {split}", len(samples), leave=False)
        ):
            found.pixels[i] = row
            found.modes.update([mode] if mode else [])
            found.sizes += [size] if size else []
            problems += [problem] if problem else []
    return found


def _look(sample: Sample, classes: int) -> tuple[np.ndarray, str, tuple[int, int] | None, str]:
    """Label counts, mask mode, size and problem of one image with its mask, both read whole."""
    nothing = np.zeros(classes + 1, np.int64)
    try:
        row = count_labels(sample, classes)
        read_image(sample.image)
    except UserError as error:
        return nothing, "", None, str(error)
    with Image.open(sample.mask) as mask:
        return row, str(mask.mode), (mask.height, mask.width), ""


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_text(found: SetCheck, config: DataConfig) -> str:
    """The check as a table of classes, and what was found of each split."""
    lines = []
    for name, split in found.splits.items():
        heights, widths = zip(*split.sizes, strict=True) if split.sizes else ((0,), (0,))
        said = {True: ", the published one", False: ", not the published one", None: ""}[split.published]
        modes = ", ".join(f"{n} {kind}" for kind, n in split.modes.most_common())
        lines += [
            f"{name}: {len(split.samples)} images, list {split.checksum[:12]}{said}; "
            f"masks {modes or 'none'}; {min(widths)}x{min(heights)} to {max(widths)}x{max(heights)} px"
        ]
    width = max(5, *(len(c) for c in found.classes))
    counts = {name: counting(split, config) for name, split in found.splits.items()}
    fold_of = {
        c: fold
        for fold in range(config.folds)
        for c in novel_classes(len(found.classes), fold, config.folds, config.scheme)
    }
    lines += [
        "",
        f"images with {config.min_pixels} pixels or more of a class",
        f"{'class':<{width}}  fold  train    val",
    ]
    lines += [
        f"{name:<{width}}  {fold_of[c]:>4}  {counts['train'][c]:>5}  {counts['val'][c]:>5}"
        for c, name in enumerate(found.classes, 1)
    ]
    return "\n".join(lines)
