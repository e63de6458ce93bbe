"""Episode plans as text files that others can run: one episode a line, a blank line between runs."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from fss.data.plan import Draw
from fss.data.source import Source
from fss.errors import UserError, why

_HEAD = "# seed, class, query image, support images; tab-separated; a blank line between runs"


def plan_text(runs: Sequence[Sequence[Draw]], source: Source) -> str:
    """A plan as `read_plan` takes it."""
    names, classes = source.index.names, source.classes
    line = lambda d: "\t".join([str(d.seed), classes[d.class_id - 1], *(names[i] for i in d.images)])  # noqa: E731
    return "\n".join([_HEAD, "\n\n".join("\n".join(map(line, plan)) for plan in runs)]) + "\n"


def read_plan(path: Path, source: Source) -> list[list[Draw]]:
    """The runs of a plan file, for the images of `source`.

    Raises:
        UserError: no such file, or a line that fits neither the format nor the data; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"plan {path} cannot be read ({why(error)})") from None
    reader = _Reader(source)
    runs: list[list[Draw]] = [[]]
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        if not line.strip():
            runs.append([])
            continue
        try:
            runs[-1].append(reader.draw(line))
        except ValueError as error:
            raise UserError(f"{path} line {number}: {error}") from None
    runs = [run for run in runs if run]
    if not runs:
        raise UserError(f"plan {path} holds no episode")
    if len({len(run) for run in runs}) > 1:
        raise UserError(f"plan {path} has runs of {sorted({len(r) for r in runs})} episodes; make them equal")
    shots = {len(d.supports) for run in runs for d in run}
    if len(shots) > 1:
        raise UserError(f"plan {path} mixes episodes of {sorted(shots)} shots; one number is allowed")
    return runs


def seeds_hash(runs: Sequence[Sequence[Draw]]) -> str:
    """sha256 over the episodes' seeds, which a plan's own hash leaves out."""
    text = "\n\n".join("\n".join(str(d.seed) for d in run) for run in runs)
    return hashlib.sha256(text.encode()).hexdigest()


class _Reader:
    """Lines into draws, by the names of a source."""

    def __init__(self, source: Source) -> None:
        self.classes = {name: i for i, name in enumerate(source.classes, 1)}
        self.images = {name: i for i, name in enumerate(source.index.names)}
        self.novel, self.pixels = set(source.novel), source.index.pixels

    def draw(self, line: str) -> Draw:
        """One episode; ValueError says what is wrong with the line."""
        parts = line.split("\t")
        if len(parts) < 4:
            raise ValueError("wanted seed, class, query and supports, tab-separated")
        seed, name, *images = parts
        if not re.fullmatch(r"[0-9]{1,10}", seed) or int(seed) >= 2**31:
            raise ValueError(f"the seed {seed[:20]!r} is no whole number below {2**31}")
        if self.classes.get(name) not in self.novel:
            raise ValueError(f"class {name!r} is not one of this fold's test classes")
        unknown = [i for i in images if i not in self.images]
        if unknown:
            raise ValueError(f"image {unknown[0]!r} is not in the list of test images")
        if images[0] in images[1:]:
            raise ValueError("the query stands among its supports")
        bare = [i for i in images if not self.pixels[self.images[i], self.classes[name]]]
        if bare:
            raise ValueError(f"image {bare[0]!r} shows no {name}")
        query, *supports = (self.images[i] for i in images)
        return Draw(self.classes[name], query, tuple(supports), int(seed))
