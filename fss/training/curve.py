"""The curve of a training run: a line of JSON for every step and validation, and TensorBoard."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class Curve:
    """Appends to `log.jsonl` and to TensorBoard's events, in the main process.

    Both are, of a run that was killed and resumed, what they are of one that was not: what was written after
    the checkpoint is taken back first.

    Args:
        lines: that the checkpoint knows of; what comes after them is cut off.
        step: at which training goes on.
        events: bytes of each of TensorBoard's files that the checkpoint knows of, as `flush` told them; None
            for one of before, which does not say. TensorBoard is then asked to leave out what it finds of
            this step and later ones, though a validation before this step bears the same number.
    """

    def __init__(self, folder: Path, lines: int, step: int, events: Mapping[str, int] | None) -> None:
        path = folder / "log.jsonl"
        kept = path.read_bytes().splitlines(keepends=True)[:lines] if path.is_file() else []
        half = path.with_suffix(".part")
        half.write_bytes(b"".join(kept))
        half.replace(path)
        self.lines, self.file = len(kept), path.open("a", encoding="utf-8")
        self.events = folder / "tensorboard"
        if events is not None:
            self._take_back(events)
        self.writer = SummaryWriter(str(self.events), purge_step=step if events is None else None)

    def _take_back(self, kept: Mapping[str, int]) -> None:
        """Cut TensorBoard's files to the bytes that are kept of each."""
        for path in self.events.glob(_EVENTS):
            if path.name not in kept:
                path.unlink()
            elif path.stat().st_size > kept[path.name]:
                os.truncate(path, kept[path.name])

    def add_step(self, step: int, losses: dict[str, float], lr: float) -> None:
        """Add losses and learning rate of one step."""
        self._line({"step": step, "lr": lr, **losses})
        if step % 10 == 1 or step < 50:
            for name, value in losses.items():
                self.writer.add_scalar(f"loss/{name}", value, step)
            self.writer.add_scalar("lr", lr, step)

    def add_validation(self, step: int, score: float, measure: str = "mIoU") -> None:
        """Add the score of a validation, percent."""
        self._line({"step": step, "validation": score})
        self.writer.add_scalar(f"validation/{measure.lower()}", score, step)

    def _line(self, content: dict[str, Any]) -> None:
        self.file.write(json.dumps(content) + "\n")
        self.lines += 1

    def flush(self) -> dict[str, int]:
        """Put what was added on disk, before a checkpoint that counts on it; bytes of TensorBoard's files."""
        self.file.flush()
        self.writer.flush()
        return {path.name: path.stat().st_size for path in self.events.glob(_EVENTS)}

    def close(self) -> None:
        """Close both files."""
        self.file.close()
        self.writer.close()


_EVENTS = "events.out.tfevents.*"
