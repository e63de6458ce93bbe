"""`fss predict`: photos in, masks and overlays out; what is done already is passed over."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fss.data.photos import photos_of
from fss.engine.annotations import Support
from fss.engine.predict import Predictor
from fss.engine.prediction import Prediction, check_threshold
from fss.engine.run import write_text
from fss.errors import UserError
from fss.weak.masks import Method


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        queries: photos, and folders of them.
        out: the folder for all that is written.
        others: as of `Predictor` and `Prediction`.
    """

    supports: Sequence[Support]
    queries: Sequence[Path]
    out: Path
    checkpoint: Path | None = None
    head: str = "prototype"
    threshold: float = 0.5
    tile: int | None = None
    size: int | None = None
    support_by: Method = "clustering"
    settings: Sequence[str] = field(default_factory=tuple)

    def account(self) -> dict[str, Any]:
        """All that decides a result, apart from the query."""
        return {
            "checkpoint": _digest(self.checkpoint) if self.checkpoint else None,
            "head": None if self.checkpoint else self.head, "threshold": self.threshold, "tile": self.tile,
            "size": self.size, "support_by": self.support_by, "settings": list(self.settings),
            "supports": [_account(s) for s in self.supports],
        }  # fmt: skip


def run_predict(job: Job) -> int:
    """Segment every query; returns how many could not be read, each of which was named.

    Raises:
        UserError: anything wrong with supports, checkpoint or settings, before any work; or every query
            is unreadable.
    """
    check_threshold(job.threshold)
    if job.out.exists() and not job.out.is_dir():
        raise UserError(f"{job.out} is a file; name a folder for the results")
    queries, about = photos_of(job.queries), job.account()
    left = [path for path in queries if _said(job, path).get("about") != {**about, "query": _digest(path)}]
    done = len(queries) - len(left)
    if done:
        print(f"{done} of {len(queries)} done already -> {job.out}")
    if not left:
        return 0
    predictor = Predictor(
        job.checkpoint, head=job.head, settings=job.settings, size=job.size, support_by=job.support_by
    ).learn(job.supports)
    print(f"classes: {', '.join(predictor.classes)}; seen at {predictor.size} px on {predictor.device}")
    problems = []
    for path in tqdm(left, "queries", unit="photo", leave=False, disable=len(left) < 2):
        try:
            _one(job, predictor, path, about)
        except UserError as error:
            problems.append(str(error))
            tqdm.write(f"left out: {error}")
    if len(problems) == len(queries):
        raise UserError("no query could be segmented:\n" + "\n".join(problems))
    if problems:
        raise UserError(
            f"{len(problems)} of {len(queries)} queries could not be segmented; the others are in {job.out}"
        )
    return len(problems)


def _one(job: Job, predictor: Predictor, path: Path, about: dict[str, Any]) -> None:
    start, digest = time.monotonic(), _digest(path)
    bar = tqdm(desc=path.name, unit="tile", leave=False, disable=job.tile is None)

    def progress(done: int, every: int) -> None:
        bar.total = every
        bar.update(done - bar.n)

    found = predictor(path, job.tile, progress)
    bar.close()
    _told(job, path).unlink(missing_ok=True)  # of other settings: its files are replaced now
    files = found.save(job.out, path.stem, job.threshold)
    shares = _shares(found, job.threshold)
    seconds = round(time.monotonic() - start, 1)
    told = {
        "about": {**about, "query": digest}, "image": str(path), "classes": found.classes,
        "percent": shares, "seconds": seconds, "files": [f.name for f in files],
    }  # fmt: skip
    write_text(_told(job, path), json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    what = ", ".join(f"{name} {share:.1f}%" for name, share in shares.items())
    tqdm.write(f"{path}: {what} of the image, {seconds} s -> {files[1]}")


def _shares(found: Prediction, threshold: float) -> dict[str, float]:
    """Percent of the image that each class covers."""
    labels = found.labels(threshold)
    counts = np.bincount(labels.ravel(), minlength=len(found.classes) + 1)[1:]
    return {n: round(100 * int(c) / labels.size, 3) for n, c in zip(found.classes, counts, strict=True)}


def _told(job: Job, path: Path) -> Path:
    return job.out / f"{path.stem}_predict.json"


def _said(job: Job, path: Path) -> dict[str, Any]:
    """What an earlier run wrote of this query; nothing where one of its files is gone."""
    try:
        told = json.loads(_told(job, path).read_text(encoding="utf-8"))
        there = all((job.out / name).is_file() for name in told["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return told if there else {}


def _account(support: Support) -> dict[str, Any]:
    marks = support.marks
    return {
        "image": _digest(Path(str(support.image))), "kind": support.kind, "name": support.name,
        "marks": _digest(Path(marks)) if isinstance(marks, str | Path) else [list(m) for m in marks],
    }  # fmt: skip


def _digest(path: Path) -> str:
    """Of a file's content; of its name, where it cannot be read, which whoever uses it will tell."""
    try:
        content = path.read_bytes()
    except OSError:
        content = str(path).encode()
    return hashlib.sha256(content).hexdigest()[:16]
