"""Classes that a configuration trains on and tests, by number and by name."""

from typing import NamedTuple

from fss.config import DataConfig
from fss.data.coco import COCO_CLASSES
from fss.data.folder import read_classes
from fss.data.folds import base_classes, novel_classes
from fss.data.lists import LIST_HINT, find_list, read_list
from fss.data.voc import PASCAL_CLASSES
from fss.errors import UserError

# Training sets of cross-domain tests: classes and fold scheme, four folds each.
TRAINED = {
    "pascal": (PASCAL_CLASSES, "contiguous"),
    "coco": (COCO_CLASSES, "interleaved"),
    "coco_contiguous": (COCO_CLASSES, "contiguous"),
}
_COCO_NAME = {
    "aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle",
    "pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv",
}  # fmt: skip


class Classes(NamedTuple):
    """The classes of one fold.

    Attributes:
        names: of all; label i is names[i-1].
        base, novel: labels that are trained on, and held out for testing.
        trained: names of the classes that the network learns; another set's in a cross-domain test.
    """

    names: tuple[str, ...]
    base: list[int]
    novel: list[int]
    trained: list[str]


def class_names(config: DataConfig) -> tuple[str, ...]:
    """Names of the classes, label 1 first.

    Raises:
        UserError: they stand in the data folder, and it has none; or they are fewer than the folds, of
            which one is asked for.
    """
    fixed = {"voc": PASCAL_CLASSES, "coco": COCO_CLASSES}
    if config.layout in fixed:
        names = fixed[config.layout]
    else:
        names = read_classes(config.folder, most=10_000 if config.layout == "fss1000" else 254)
    if len(names) < config.folds and config.trained_on is None and config.fold >= 0:
        raise UserError(too_few(config.name, len(names), config.folds))
    return names


def too_few(name: str, classes: int, folds: int) -> str:
    """What to do about a set whose classes cannot be divided into folds, each of which holds some out."""
    if classes > 1:
        return f"{name} has {classes} classes, which cannot make data.folds={folds}; allowed: 2 to {classes}"
    return (
        f"{name} has one class. Training needs two or more: a fold is trained on some, and tested on others. "
        "Segmenting photos needs no training: `fss predict --support PHOTOS MASKS --query MORE --out DIR`; "
        "`fss evaluate-own` tells how good that is. data.folds=1 tests a head without training on all classes"
    )


def fold_classes(config: DataConfig, split: str = "val") -> Classes:
    """The classes of `config.fold`, of its own set or of the one that a cross-domain test trained on.

    Args:
        split: whose novel classes, where a set's lists say them: "val" or "select".
    """
    names = class_names(config)
    if config.trained_on:
        theirs, scheme = TRAINED[config.trained_on]
        trained = [theirs[c - 1] for c in base_classes(len(theirs), config.fold, 4, scheme)]
        learnt = {_common_name(name) for name in trained}
        novel = [c for c, name in enumerate(names, 1) if _common_name(name) not in learnt]
        return Classes(names, [], novel, trained)
    if config.layout == "fss1000":
        base = _listed(config, "train", names) if config.fold >= 0 else []
        novel = _listed(config, "val" if split == "train" else split, names)
        both = [names[c - 1] for c in base if c in novel]
        if both:
            raise UserError(
                f"{config.name}: classes are in the training list and in that of {split}: {both[:5]}"
            )
    else:
        fold = (len(names), config.fold, config.folds, config.scheme)
        base, novel = base_classes(*fold), novel_classes(*fold)
    return Classes(names, base, novel, [names[c - 1] for c in base])


def _common_name(name: str) -> str:
    name = name.casefold()
    return _COCO_NAME.get(name, name)


def _listed(config: DataConfig, split: str, names: tuple[str, ...]) -> list[int]:
    """Labels that occur in a list of images of one class each."""
    path = find_list(config.list_of(split), config.folder, LIST_HINT.format(split=split))
    none: list[str] = []  # readers of images report problems
    samples = read_list(path, config.folder, config.mask_dir, names, none, need_masks=False)
    return sorted({s.label for s in samples if s.label})
