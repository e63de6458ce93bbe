"""The networks that the page offers: checkpoints that are there, each loaded once."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fss.errors import UserError
from fss.photos.annotations import Support
from fss.photos.predictor import Predictor
from fss.photos.tiles import Tile

NONE = ""  # the choice without a checkpoint: votes on the features that come with the package
KEPT = 2  # models in memory


def checkpoints(output: Path) -> list[Path]:
    """The best.pt and last.pt under a folder of results, newest first; not pseudo-masks' networks."""
    found = [p for name in ("best.pt", "last.pt") for p in output.rglob(name) if p.is_file()]
    found = [p for p in found if not any(part.startswith("pseudo_") for part in p.relative_to(output).parts)]
    return sorted(found, key=lambda p: (-p.parent.stat().st_mtime, p))


def choices(output: Path, given: Path | None) -> list[tuple[str, str]]:
    """The choices (words, path): the given checkpoint first, then what is installed, then what is found."""
    first = [given] if given else []
    others = [p for p in checkpoints(output) if not given or p.resolve() != given.resolve()]
    named = [[(_words(p, output), str(p)) for p in paths] for paths in (first, others)]
    return [*named[0], ("Installed: ImageNet features", NONE), *named[1]]


def _words(path: Path, output: Path) -> str:
    """The words for a checkpoint, shorter than its path if it lies among the results."""
    path, output = path.resolve(), output.resolve()
    inside = path.is_relative_to(output)
    return " · ".join(path.relative_to(output).with_suffix("").parts) if inside else str(path)


class Models:
    """Predictors by checkpoint, settings being the same for all; a file that changed is loaded anew.

    Args:
        make: (checkpoint or None) -> predictor.
    """

    def __init__(self, make: Callable[[Path | None], Predictor]) -> None:
        self.make = make
        self._loaded: dict[tuple[str, int], Predictor] = {}
        self._learnt: dict[tuple[str, int], tuple[list[Support], Tile]] = {}

    def load(self, choice: str) -> Predictor:
        """The predictor of a checkpoint, whatever it learnt last.

        Args:
            choice: a path, or `NONE`.

        Raises:
            UserError: no such file, or not a checkpoint.
        """
        return self._loaded[self._find(choice)]

    def learnt(self, choice: str, supports: Sequence[Support], tile: Tile = "auto") -> Predictor:
        """The predictor of a checkpoint, which knows these supports and no others.

        Args:
            tile: as of `Predictor.learn`.

        Raises:
            UserError: as of `load`, or supports that cannot be used.
        """
        key = self._find(choice)
        before, looked = self._learnt.get(key, ([], tile))
        same = len(before) == len(supports) and all(a is b for a, b in zip(before, supports, strict=True))
        if not same or looked != tile:
            self._learnt.pop(key, None)
            self._loaded[key].learn(supports, tile)
            self._learnt[key] = list(supports), tile
        return self._loaded[key]

    def _find(self, choice: str) -> tuple[str, int]:
        path = Path(choice.strip()).expanduser() if choice.strip() else None
        if path and not path.is_file():
            raise UserError(f"no checkpoint {path}; name a .pt file, or choose one of the list")
        key = (str(path), path.stat().st_mtime_ns if path else 0)
        if key not in self._loaded:
            self._forget(str(path))
            self._loaded[key] = self.make(path)
        return key

    def _forget(self, path: str) -> None:
        """Make room: drop what this file was before it changed, and the oldest of the others."""
        stale = [k for k in self._loaded if k[0] == path]
        others = [k for k in self._loaded if k[0] != path]
        for key in [*stale, *others[: max(len(others) + 1 - KEPT, 0)]]:
            del self._loaded[key]
            self._learnt.pop(key, None)
