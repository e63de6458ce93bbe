"""Anyone's data set in the VOC layout, with the class names in `classes.txt`."""

from pathlib import Path

from fss.episode import IGNORE
from fss.errors import UserError

# Names that programs give to what is no class, and the labels that these have.
NO_CLASS = {"_background_": 0, "__background__": 0, "background": 0, "__ignore__": IGNORE, "_ignore_": IGNORE}


def read_classes(root: Path, most: int = 254) -> tuple[str, ...]:
    """Class names from `root/classes.txt`, one a line; line n names label n.

    Raises:
        UserError: no such file, no names, a name twice, one that is no class, or more than
            `most` (a mask of 8 bits holds 254).
    """
    path = root / "classes.txt"
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"{path} is missing or no text: write one class name a line, line n for label n"
        ) from None
    for number, name in enumerate(names, 1):
        if name.casefold() in NO_CLASS:
            raise UserError(
                f"{path} line {number}: {name!r} is no class: background is label 0 and what is ignored 255, "
                f"and neither has a line. Take the line away; line n names label n"
            )
    twice = {n for n in names if names.count(n) > 1}
    if "" in names or any(not name.isprintable() for name in names):
        raise UserError(
            f"{path}: a blank or unprintable line before the last; line n names label n, so none may be"
        )
    if not names or twice or len(names) > most:
        raise UserError(
            f"{path} must hold 1 to {most} different names, got {len(names)} (twice: {sorted(twice)})"
        )
    return tuple(names)
