"""The curve of a training run: a line of JSON for every step and validation, and TensorBoard."""

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class Curve:
    """Appends to `log.jsonl` and to TensorBoard's events, in the main process.

    The log of a run that was killed and resumed equals that of one that was not: what was written after
    the checkpoint is taken back first.

    Args:
        lines: that the checkpoint knows of; what comes after them is cut off.
        step: at which training goes on.
    """

    def __init__(self, folder: Path, lines: int, step: int) -> None:
        path = folder / "log.jsonl"
        kept = path.read_bytes().splitlines(keepends=True)[:lines] if path.is_file() else []
        half = path.with_suffix(".part")
        half.write_bytes(b"".join(kept))
        half.replace(path)
        self.lines, self.file = len(kept), path.open("a", encoding="utf-8")
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

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

    def flush(self) -> None:
        """Put the added lines on disk, before a checkpoint that counts on them."""
        self.file.flush()
        self.writer.flush()

    def close(self) -> None:
        """Close both files."""
        self.file.close()
        self.writer.close()
