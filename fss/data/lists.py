"""The VOC layout: JPEGImages/, SegmentationClass[Aug]/ and list files. Only where files are."""

import glob
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fss.errors import UserError, why

_IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".JPG", ".JPEG", ".PNG")
_TWO_PATHS = re.compile(r"^(.+\.(?:jpe?g|png|bmp))\s+(\S.*\.png)$", re.IGNORECASE)


LIST_HINT = "Write one `IMAGE MASK` a line, relative to the root, or set data.{split}_list."


class Sample(NamedTuple):
    """One image with its mask.

    Attributes:
        name: the image file's stem (with its folder, where that is its class); unique within a list.
        files: image and mask below `root` (or absolute), as text: 82,000 pairs of paths take 50 MB more.
        label: the class of all that the mask shows as 1; None where masks hold labels.
    """

    name: str
    root: Path
    files: tuple[str, str]
    label: int | None = None

    @property
    def image(self) -> Path:
        """The image's file."""
        return self.root / self.files[0]

    @property
    def mask(self) -> Path:
        """The mask's file."""
        return self.root / self.files[1]

    def value(self, class_id: int) -> int:
        """The value that stands for a class in the mask."""
        return class_id if self.label is None else 1


def read_list(
    path: Path,
    root: Path,
    mask_dir: str | None = None,
    folders: Sequence[str] | None = None,
    problems: list[str] | None = None,
    need_masks: bool = True,
) -> list[Sample]:
    """The samples of a list file: one `IMAGE MASK` a line relative to `root`, or one bare name a line.

    Args:
        folders: class names, label 1 first, where each image lies in the folder of its one class.
        need_masks: false where masks of another origin take their place: then none need exist.
        problems: takes what is wrong with single lines, which are then left out; None raises the first.

    Raises:
        UserError: no such file, an empty list, a name twice, a path out of the root, a missing file;
            the message names list and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} cannot be read ({why(error)})") from None
    seen: dict[str, int] = {}
    labels = {name: i for i, name in enumerate(folders, 1)} if folders is not None else None
    samples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            sample = _sample(line.strip(), root, mask_dir, labels, f"{path} line {number}", need_masks)
            if sample.name in seen:
                raise UserError(
                    f"{path} line {number}: {sample.name} stands in line {seen[sample.name]} already"
                )
        except UserError as error:
            if problems is None:
                raise
            problems.append(str(error))
            continue
        except OSError as error:
            raise UserError(f"{path} line {number}: {error.strerror}: {line[:80]!r}") from None
        seen[sample.name] = number
        samples.append(sample)
    if not samples and not problems:
        raise UserError(f"list {path} is empty")
    return samples


def find_list(name: str, root: Path, hint: str) -> Path:
    """A list file given relative to the working folder or to the data root.

    Raises:
        UserError: it is in neither place; the message ends with `hint`.
    """
    for path in (Path(name), root / name):
        if path.is_file():
            return path
    raise UserError(f"no list {name}, neither here nor in {root}. {hint}")


def list_checksum(samples: Sequence[Sample]) -> str:
    """sha256 of the sorted image names joined by newlines: tells one published list from another."""
    return hashlib.sha256("\n".join(sorted(s.name for s in samples)).encode()).hexdigest()


def _others(path: Path, kind: str) -> str:
    """What there is in place of a missing file, for messages."""
    allowed = ".png" if kind == "mask" else ", ".join(t for t in _IMAGE_TYPES if t.islower())
    twin = next(
        (p.name for p in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")) if p.is_file()), None
    )
    if twin:
        return f", and {twin} does; allowed: {allowed}"
    return ". A line holds a name without its suffix, or `IMAGE MASK`, two paths with a blank between"


def _mask_dir(root: Path, needed: bool) -> str:
    names = ("SegmentationClassAug", "SegmentationClass")
    for name in names:
        if (root / name).is_dir():
            return name
    if not needed:
        return names[1]
    raise UserError(
        f"{root} has neither {names[0]}/ nor {names[1]}/; put the masks there or set data.mask_dir"
    )


def _sample(
    line: str, root: Path, mask_dir: str | None, labels: dict[str, int] | None, where: str, need_masks: bool
) -> Sample:  # fmt: skip
    line = line.replace("\\", "/")  # as Windows writes paths
    pair = _TWO_PATHS.match(line)
    if pair:
        image, mask = root / pair[1].lstrip("/"), root / pair[2].lstrip("/")
        name = image.stem
    else:
        line = line.lstrip("/")
        name, mask = line, root / (mask_dir or _mask_dir(root, need_masks)) / f"{line}.png"
        found = [root / "JPEGImages" / f"{line}{t}" for t in _IMAGE_TYPES]
        there = [p for p in found if p.is_file()]
        if len({p.suffix.lower() for p in there}) > 1:
            raise UserError(
                f"{where}: {there[0]} and {there[-1].name} have one name; take one of the two away"
            )
        image = there[0] if there else found[0]
    for kind, path in (("image", image), ("mask", mask)):
        if not path.is_relative_to(root) or ".." in path.relative_to(root).parts:
            raise UserError(f"{where}: {kind} {path} lies outside {root}")
        if not path.is_file() and (kind == "image" or need_masks):
            raise UserError(f"{where}: {kind} {path} does not exist{_others(path, kind)}")
    files = (str(image.relative_to(root)), str(mask.relative_to(root)))
    if labels is None:
        return Sample(name, root, files)
    folder = image.parent.name
    if folder not in labels:
        raise UserError(f"{where}: {folder!r} is no class of classes.txt")
    return Sample(f"{folder}/{name}", root, files, labels[folder])
