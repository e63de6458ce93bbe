"""Progress bars that a log file can hold too."""

import sys
import time
from typing import Any

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines of a bar in a file


class Bar(tqdm):
    """A bar of tqdm; where it cannot be drawn over, in a file or a pipe, a whole line now and then.

    In a file, a bar that stays (`leave`) writes one more line at its end; any other that is done within
    `EVERY` seconds writes nothing.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """As of tqdm."""
        self._redrawn = _redraws(named.get("file") or sys.stderr)
        self._said = time.monotonic()
        super().__init__(*arguments, **named)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw the bar; in a file, at most a line each `EVERY` seconds. Returns whether it was drawn."""
        if self._redrawn:
            return super().display(msg, pos)
        if msg != "" and time.monotonic() - self._said >= EVERY:
            self._line()
        return False

    def _line(self) -> None:
        self._said = time.monotonic()
        self.fp.write(f"{str(self).strip()}\n")
        self.fp.flush()

    def clear(self, nolock: bool = False) -> None:
        """Wipe the bar; lines in a file stay."""
        if self._redrawn:
            super().clear(nolock)

    def close(self) -> None:
        """End the bar, with a last line where it stays."""
        if not self._redrawn and not self.disable:
            if self.leave:
                self._line()
            self.leave = False
        super().close()


def _redraws(file: Any) -> bool:
    """Whether a line can be drawn over: on a terminal, and in a notebook."""
    notebook = type(file).__module__.startswith("ipykernel")
    return notebook or (hasattr(file, "isatty") and file.isatty())
