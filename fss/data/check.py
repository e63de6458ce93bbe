"""A check of a data set for few-shot segmentation: all of its errors, not the first one alone."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from PIL import Image

from fss.bars import Bar
from fss.config import DataConfig
from fss.data.classes import class_names, fold_classes
from fss.data.files import count_mask, read_image
from fss.data.formats import meant
from fss.data.index import count_labels, white_masks
from fss.data.lists import Sample, list_checksum
from fss.data.shapes import draw_shapes
from fss.data.source import read_split
from fss.errors import UserError


@dataclass
class SplitCheck:
    """The content of one split.

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
    """All splits, the classes' names, the folds that test each label, and errors between splits."""

    classes: tuple[str, ...]
    splits: dict[str, SplitCheck]
    folds: dict[int, list[int]]
    problems: list[str]

    @property
    def all_problems(self) -> list[str]:
        """The errors, a line each, the splits' own first."""
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
        raise UserError(
            f"no data folder {config.folder} for {config.name}; set data.root to where it is"
            f"{meant(config.folder)}"
        )
    classes = class_names(config)
    names = ["train"] * (config.trained_on is None) + ["select"] * bool(config.select_list) + ["val"]
    splits = {split: _check_split(config, split, len(classes)) for split in names}
    problems = []
    for one, other in combinations(names, 2):
        both = {s.name for s in splits[one].samples} & {s.name for s in splits[other].samples}
        if both:
            problems.append(f"{len(both)} images are in both lists, {one} and {other}: {_some(sorted(both))}")
    folds: dict[int, list[int]] = {c: [] for c in range(1, len(classes) + 1)}
    counts = counting(splits["val"], config)
    for fold in folds_of(config):
        novel = fold_classes(config.model_copy(update={"fold": fold})).novel
        for c in novel:
            folds[c].append(fold)
        small = [f"{classes[c - 1]} ({counts[c]})" for c in novel if counts[c] < shots + 1]
        if small:
            problems.append(
                f"fold {fold}: fewer than {shots + 1} test images with {config.min_pixels} pixels of "
                f"{_some(small)}"
            )
    return SetCheck(classes, splits, folds, problems)


def folds_of(config: DataConfig) -> range:
    """The folds to check: all, or, of a set that is tested as a whole, that one (-1)."""
    return range(config.folds) if config.fold >= 0 else range(-1, 0)


def counting(split: SplitCheck, config: DataConfig) -> np.ndarray:
    """Images that count for each label (classes + 1,): at least `min_pixels` of it."""
    return (split.pixels >= config.min_pixels).sum(0)


def _check_split(config: DataConfig, split: str, classes: int) -> SplitCheck:
    problems: list[str] = []
    samples = read_split(config, split, problems)
    wanted, got = getattr(config, f"{split}_sha256", None), list_checksum(samples)
    found = SplitCheck(samples, np.zeros((len(samples), classes + 1), np.int64), problems=problems)
    found.checksum, found.published = got, None if wanted is None else got == wanted
    with ThreadPoolExecutor() as pool:
        looks = pool.map(lambda sample: _look(sample, classes), samples)
        for i, (row, mode, size, problem) in enumerate(
            Bar(looks, f"reading {split}", len(samples), leave=False)
        ):
            found.pixels[i] = row
            found.modes.update([mode] if mode else [])
            found.sizes += [size] if size else []
            problems += [problem] if problem else []
    if config.layout == "folder":  # published sets have images of which all is ignored
        blank = [s for s, row in zip(samples, found.pixels, strict=True) if not row[1:].any()]
        white = white_masks([s for s in blank if _is_readable(s)])
        problems += [f"{split}: {white}"] if white else []
    return found


def _is_readable(sample: Sample) -> bool:
    try:
        count_mask(sample.mask)
    except UserError:
        return False
    return True


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


def _with_any(split: SplitCheck, classes: list[int], config: DataConfig) -> int:
    return int((split.pixels[:, classes] >= config.min_pixels).any(1).sum())


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
    lines += [
        "",
        f"images with {config.min_pixels} pixels or more of a class, and the folds that test it",
        f"{'class':<{width}}  {'folds':>7}" + "".join(f"{split:>8}" for split in counts),
    ]
    lines += [
        f"{name:<{width}}  {','.join(map(str, found.folds[c])):>7}"
        + "".join(f"{own[c]:>8}" for own in counts.values())
        for c, name in enumerate(found.classes, 1)
    ]
    for fold in folds_of(config) if any(found.folds.values()) else ():
        tested = [c for c, folds in found.folds.items() if fold in folds]
        sums = ", ".join(f"{split} {_with_any(s, tested, config)}" for split, s in found.splits.items())
        lines.append(f"fold {fold}: {len(tested)} classes; images that count for one of them: {sums}")
    return "\n".join(lines)
