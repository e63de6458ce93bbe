"""A data set as the configuration names it: classes, fold, samples and index of one split."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fss.config import DataConfig
from fss.data.coco import COCO_CLASSES
from fss.data.files import read_mask
from fss.data.folder import read_classes
from fss.data.folds import base_classes, novel_classes
from fss.data.index import Index, build_index
from fss.data.shapes import draw_shapes
from fss.data.voc import PASCAL_CLASSES, Sample, find_list, list_checksum, read_list
from fss.episode import IGNORE
from fss.errors import UserError

_GET_PASCAL = (
    "Put VOC 2012 (JPEGImages/, SegmentationClassAug/) into {root}, or set data.root to where it is."
)
_GET_COCO = (
    "Put COCO 2014 there as JPEGImages/ and SegmentationClass/ (one PNG of labels 1..80 an image), "
    "or set data.root to where it is ({root})."
)
_GET_FOLDER = (
    "Put your set there (JPEGImages/, SegmentationClass/, classes.txt), or set data.root to where it is."
)
_GET_LIST = "Write one `IMAGE MASK` a line, relative to the root (lists/README.md), or set data.{split}_list."


@dataclass(frozen=True)
class Source:
    """One split of a data set.

    Attributes:
        classes: names; label i is classes[i-1].
        base, novel: class ids of the fold.
        checksum: sha256 of the list's sorted names.
        published: whether that is the published list; None where the data set has none.
        ignored: class ids whose pixels are 255 here.
    """

    classes: tuple[str, ...]
    base: list[int]
    novel: list[int]
    samples: list[Sample]
    index: Index
    checksum: str
    published: bool | None
    ignored: tuple[int, ...] = ()

    def mask(self, position: int) -> np.ndarray:
        """The label map of an image, (H,W) uint8; `UserError` where it cannot be read."""
        mask = read_mask(self.samples[position].mask)
        if self.ignored:
            mask[np.isin(mask, self.ignored)] = IGNORE
        return mask

    @property
    def base_names(self) -> list[str]:
        """Names of the base classes."""
        return [self.classes[c - 1] for c in self.base]

    def pools(self, classes: list[int], min_pixels: int, least: int, small: str) -> dict[int, np.ndarray]:
        """Class -> positions of the images that count for it.

        Args:
            least: images that an episode needs, K + 1.
            small: what to do with a class that has fewer: "error" or "drop".

        Raises:
            UserError: a class is too small and `small` is "error", or none is left.
        """
        pools = {c: self.index.images_of(c, min_pixels) for c in classes}
        short = [f"{self.classes[c - 1]} ({c}): {len(p)}" for c, p in pools.items() if len(p) < least]
        if short and small == "error":
            raise UserError(
                f"too few images for {least - 1} shots and a query; wanted {least} with {min_pixels} or more "
                f"pixels of the class, found {', '.join(short)}. Ask for fewer shots, lower data.min_pixels, "
                "or leave such classes out with data.small_classes=drop"
            )
        kept = {c: p for c, p in pools.items() if len(p) >= least}
        if not kept:
            raise UserError(
                f"no class has {least} images with at least {min_pixels} pixels; lower data.min_pixels"
            )
        return kept


def class_names(config: DataConfig) -> tuple[str, ...]:
    """Names of the classes, label 1 first.

    Raises:
        UserError: they stand in the data folder, and it has none; or they are fewer than the folds.
    """
    fixed = {"voc": PASCAL_CLASSES, "coco": COCO_CLASSES}
    classes = fixed[config.layout] if config.layout in fixed else read_classes(config.folder)
    if len(classes) < config.folds:
        raise UserError(f"{len(classes)} classes cannot make data.folds={config.folds} folds; ask for fewer")
    return classes


def find_split(config: DataConfig, split: str) -> Path:
    """The list file of a split; `UserError` where there is none."""
    return find_list(getattr(config, f"{split}_list"), config.folder, _GET_LIST.format(split=split))


def base_names(config: DataConfig) -> list[str]:
    """Names of the classes that the fold trains on."""
    classes = class_names(config)
    return [classes[c - 1] for c in base_classes(len(classes), config.fold, config.folds, config.scheme)]


def open_source(config: DataConfig, split: str, cache: Path | None = None) -> Source:
    """Find and index a split ("train" or "val"); the synthetic set is drawn where it is missing.

    Raises:
        UserError: the root, a list, or a listed file is missing, or the masks do not fit the classes.
    """
    root = config.folder
    hint = {"voc": _GET_PASCAL, "coco": _GET_COCO}.get(config.layout, _GET_FOLDER)
    if config.layout == "shapes":
        draw_shapes(root)
    elif not root.is_dir():
        raise UserError(f"no data folder {root} for {config.name}. {hint.format(root=root)}")
    classes = class_names(config)
    samples = read_list(find_split(config, split), root, config.mask_dir)
    wanted, got = getattr(config, f"{split}_sha256"), list_checksum(samples)
    fold = (len(classes), config.fold, config.folds, config.scheme)
    source = Source(
        classes=tuple(classes),
        base=base_classes(*fold),
        novel=novel_classes(*fold),
        samples=samples,
        index=build_index(samples, len(classes), cache),
        checksum=got,
        published=None if wanted is None else wanted == got,
    )
    return _without_novel(source, config.novel_in_train) if split == "train" else source


def _without_novel(source: Source, how: str) -> Source:
    """A training split in which held-out classes are what `how` says; the list's checksum stays."""
    if how == "ignore":
        return replace(source, ignored=tuple(source.novel))
    if how == "drop_image":
        kept = np.flatnonzero(source.index.pixels[:, source.novel].sum(1) == 0)
        if not len(kept):
            raise UserError(
                "every training image shows a held-out class, so data.novel_in_train=drop_image leaves none; "
                "take background or ignore"
            )
        samples = [source.samples[i] for i in kept]
        index = Index(tuple(s.name for s in samples), source.index.pixels[kept])
        return replace(source, samples=samples, index=index)
    return source
