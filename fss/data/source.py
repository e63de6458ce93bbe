"""A data set as the configuration names it: classes, fold, samples and index of one split."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fss.config import DataConfig
from fss.data.classes import class_names, fold_classes
from fss.data.files import read_mask
from fss.data.formats import meant
from fss.data.index import Index, build_index, white_masks
from fss.data.lists import LIST_HINT, Sample, find_list, list_checksum, read_list
from fss.data.shapes import draw_shapes
from fss.episode import IGNORE
from fss.errors import UserError

_GET = {
    "voc": "Put VOC 2012 there (JPEGImages/, SegmentationClassAug/; `fss prepare pascal` makes the masks)",
    "coco": "Put COCO 2014 there (`fss prepare coco` makes masks and lists)",
    "fss1000": "Put FSS-1000 there (`fss prepare fss1000` makes masks and lists)",
    "folder": "Put your set there (JPEGImages/, SegmentationClass/, classes.txt)",
}


@dataclass(frozen=True)
class Source:
    """One split of a data set.

    Attributes:
        classes: names; label i is classes[i-1].
        base, novel: class ids of the fold.
        base_names: of the classes that its networks are trained on; another set's in a cross-domain test.
        checksum: sha256 of the list's sorted names.
        published: whether that is the published list; None where the data set has none.
        ignored: class ids whose pixels are 255 here.
        boundary: what pixels of 255 are here: that, or background (0).
    """

    classes: tuple[str, ...]
    base: list[int]
    novel: list[int]
    samples: list[Sample]
    index: Index
    checksum: str
    published: bool | None
    base_names: tuple[str, ...] = ()
    ignored: tuple[int, ...] = ()
    boundary: int = IGNORE

    def mask(self, position: int) -> np.ndarray:
        """The label map of an image, (H,W) uint8; `UserError` where it cannot be read."""
        mask = read_mask(self.samples[position].mask)
        if self.boundary != IGNORE:
            mask[mask == IGNORE] = self.boundary
        if self.ignored:
            mask[np.isin(mask, self.ignored)] = IGNORE
        return mask

    def base_number(self, class_id: int) -> int:
        """Which of the base classes a class is, from 0; -1 for a novel one."""
        return self.base.index(class_id) if class_id in self.base else -1

    def value(self, class_id: int) -> int:
        """The value that stands for a class in the masks."""
        return self.samples[0].value(class_id)

    @property
    def counts_checksum(self) -> str:
        """sha256 of every mask's label counts: tells one set of masks from another."""
        return hashlib.sha256(self.index.pixels.tobytes()).hexdigest()

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
                f"or leave such classes out with data.small_classes=drop. {self._white()}".rstrip()
            )
        kept = {c: p for c, p in pools.items() if len(p) >= least}
        if not kept:
            raise UserError(
                f"no class has {least} images with at least {min_pixels} pixels; lower data.min_pixels. "
                f"{self._white()}".rstrip()
            )
        return kept

    def _white(self) -> str:
        return white_masks(
            [s for s, row in zip(self.samples, self.index.pixels, strict=True) if not row[1:].any()]
        )


def open_source(config: DataConfig, split: str, cache: Path | None = None) -> Source:
    """Find and index a split ("train", "val", or "select"); the synthetic set is drawn where it is missing.

    Raises:
        UserError: the root, a list, or a listed file is missing, or the masks do not fit the classes.
    """
    root = config.folder
    if config.layout == "shapes":
        draw_shapes(root)
    elif not root.is_dir():
        raise UserError(
            f"no data folder {root} for {config.name}. {_GET[config.layout]}, or set data.root to where it is"
            f"{meant(root)}"
        )
    samples = read_split(config, split)
    wanted, got = getattr(config, f"{split}_sha256", None), list_checksum(samples)
    classes, base, novel, trained = fold_classes(config, split)
    source = Source(
        classes=classes,
        base=base,
        novel=novel,
        samples=samples,
        index=build_index(samples, len(classes), cache),
        checksum=got,
        published=None if wanted is None else wanted == got,
        base_names=tuple(trained),
    )
    if split != "train":
        return source
    boundary = 0 if config.boundary_in_train == "background" else IGNORE
    return _without_novel(replace(source, boundary=boundary), config.novel_in_train)


def read_split(
    config: DataConfig, split: str, problems: list[str] | None = None, need_masks: bool = True
) -> list[Sample]:  # fmt: skip
    """The samples of a split's list, with `train_masks` in training; arguments as in `read_list`."""
    path = find_list(config.list_of(split), config.folder, LIST_HINT.format(split=split))
    folders = class_names(config) if config.layout == "fss1000" else None
    other = split == "train" and config.masks_name is not None
    samples = read_list(path, config.folder, config.mask_dir, folders, problems, need_masks and not other)
    return with_masks(samples, config, problems) if other and need_masks else samples


def masks_folder(config: DataConfig) -> Path:
    """The folder of masks that stand in for the true ones: `train_masks`, by default beside those."""
    if config.train_masks in ("true", "pseudo"):
        return config.folder / "SegmentationPseudo" / f"fold{config.fold}"
    return Path(config.train_masks)


def with_masks(
    samples: Sequence[Sample], config: DataConfig, problems: list[str] | None = None
) -> list[Sample]:  # fmt: skip
    """The samples with the masks of `masks_folder`, NAME.png each; `problems` as in `read_list`.

    Raises:
        UserError: an image has none; names it and the command that writes it.
    """
    folder = masks_folder(config).absolute()
    # An absolute path leaves `root` aside.
    every = [s._replace(files=(s.files[0], str(folder / f"{s.name}.png"))) for s in samples]
    missing = [s for s in every if not s.mask.is_file()]
    if missing:
        where = "" if config.train_masks == "pseudo" else f" data.train_masks={config.train_masks}"
        error = (
            f"no mask {missing[0].mask} for image {missing[0].name}; {len(missing)} of {len(samples)} images "
            f"have none there. Write them with `fss pseudo-label write --data {config.name} --fold "
            f"{config.fold}{where}` (and the settings that `fss pseudo-label train` had), or set "
            "data.train_masks=true"
        )
        if problems is None:
            raise UserError(error)
        problems.append(error)
    gone = {s.name for s in missing}
    return [s for s in every if s.name not in gone]


def _without_novel(source: Source, how: str) -> Source:
    """A training split in which held-out classes are what `how` says; the list's checksum stays."""
    if source.samples[0].label is not None:  # images of one class each, none of them held out
        return source
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
