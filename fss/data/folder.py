"""Anyone's data set in the VOC layout, with the class names in `classes.txt`."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fss.episode import IGNORE
from fss.errors import UserError, why

# Names that programs give to what is no class, and the labels that these have.
NO_CLASS = {"_background_": 0, "__background__": 0, "background": 0, "__ignore__": IGNORE, "_ignore_": IGNORE}

_NUMBERED = re.compile(r"(\d{1,4})(\s*[:;,\t]\s*|\s+)\S")


def check_numbering(lines: Sequence[str], path: Path) -> None:
    """`UserError` where lines have their own numbers, which would stand in the names of classes.

    "1 euro" and "2 euro" may be classes; from 0 on, or before a colon, comma or tab, they are numbers.
    """
    parts = [_NUMBERED.match(line.strip()) for line in lines]
    numbers, marks = [int(p[1]) for p in parts if p], {p[2].strip(" ") for p in parts if p}
    count = len(lines)
    from_0 = numbers == list(range(count)) and count > 1
    if from_0 or (numbers == list(range(1, count + 1)) and marks and "" not in marks):
        raise UserError(
            f"{path}: its lines begin with numbers, as {lines[0].strip()[:40]!r} does; write the names "
            "alone, one a line, in the order of their numbers"
        )


def read_classes(root: Path, most: int = 254) -> tuple[str, ...]:
    """Class names from `root/classes.txt`, one a line; line n names label n.

    Raises:
        UserError: no such file, no names, a name twice, one that is no class, or more than
            `most` (a mask of 8 bits holds 254).
    """
    path = root / "classes.txt"
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: write one class name a line, line n for label n") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({why(error)}); it has one class name a line, line n for label n"
        ) from None
    check_numbering(names, path)
    for number, name in enumerate(names, 1):
        if name.casefold() in NO_CLASS:
            raise UserError(
                f"{path} line {number}: {name!r} is no class: background is label 0 and what is ignored 255, "
                f"and neither has a line. Take the line away; line n names label n"
            )
    twice = {name for name, count in Counter(names).items() if count > 1}
    if "" in names or any(not name.isprintable() for name in names):
        raise UserError(
            f"{path}: a blank or unprintable line before the last; line n names label n, so none may be"
        )
    if not names or twice or len(names) > most:
        raise UserError(
            f"{path} must hold 1 to {most} different names, got {len(names)} (twice: {sorted(twice)})"
        )
    return tuple(names)
