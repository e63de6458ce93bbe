"""`fss predict`: photos in, masks and overlays out; what is done already is passed over."""

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fss.bars import Bar
from fss.data.formats import advice
from fss.data.photos import Photos, photos_of
from fss.errors import UserError
from fss.photos.annotations import Support
from fss.photos.prediction import Prediction, check_threshold
from fss.photos.predictor import Predictor
from fss.photos.side_by_side import side_by_side
from fss.photos.tiles import Tile, check_tile
from fss.scribbles.masks import Method
from fss.writing import write_text

ALL = 95  # percent of a photo from which on a mask says nothing
_WITHOUT = "Without --checkpoint and backbone.weights, ImageNet features that are installed do better"


@dataclass(frozen=True)
class Job:
    """The task of one `fss predict`.

    Attributes:
        queries: photos, and folders of them.
        out: the folder for all that is written.
        threshold: probability above which a pixel is no background; None: chosen on the supports.
        others: as of `Predictor` and its `learn`.
    """

    supports: Sequence[Support]
    queries: Sequence[Path]
    out: Path
    checkpoint: Path | None = None
    head: str = "votes"
    threshold: float | None = None
    tile: Tile = "auto"
    size: int | None = None
    support_by: Method = "clustering"
    settings: Sequence[str] = field(default_factory=tuple)

    @property
    def cut(self) -> float:
        """The probability of a `Prediction` above which a pixel is no background."""
        return 0.5 if self.threshold is None else self.threshold

    def account(self) -> dict[str, Any]:
        """The settings that decide a result, apart from the query."""
        return {
            "checkpoint": _digest(self.checkpoint) if self.checkpoint else None,
            "head": self.head, "threshold": self.threshold, "tile": self.tile,
            "size": self.size, "support_by": self.support_by, "settings": list(self.settings),
            "supports": [_account(s) for s in self.supports],
        }  # fmt: skip


def run_predict(job: Job) -> None:
    """Segment every query, and write its files.

    Raises:
        UserError: anything wrong with supports, checkpoint or settings, before any work; or queries that
            cannot be read, after all others.
        OSError: no space or no permission to write, which stops the work.
    """
    check_threshold(job.cut)
    check_tile(job.tile)
    if job.out.exists() and not job.out.is_dir():
        raise UserError(f"{job.out} is a file; name a folder for the results")
    photos, about = photos_of(job.queries), job.account()
    queries = photos.files
    problems = [f"{path}: {advice(path)}" for path in photos.unread]
    _say_passed_over(photos, problems)
    _check_nothing_is_lost(job, queries)
    left = [path for path in queries if _said(job, path).get("about") != {**about, "query": _digest(path)}]
    done = len(queries) - len(left)
    if done:
        print(f"{done} of {len(queries)} done already -> {job.out}")
    every = len(queries) + len(photos.unread)
    if not left:
        _check_complete(problems, every, job.out)
        return
    predictor = Predictor(
        job.checkpoint, head=job.head, settings=job.settings, size=job.size, support_by=job.support_by
    )
    warn_of_doubts(predictor)
    predictor.learn(job.supports, job.tile, leave_one_out=job.threshold is None)
    print(_how(predictor))
    shares = []
    found = side_by_side(partial(_one_or_why_not, job, predictor, about), left, predictor.device)
    bar = Bar(
        total=len(left), desc="queries", unit="photo", leave=False, disable=None if len(left) > 1 else True
    )
    with bar:
        for one in found:
            bar.update()
            if isinstance(one, UserError):
                problems.append(str(one))
            else:
                shares.append(one)
    for remark in remarks(shares):
        print(f"fss: warning: {remark}", file=sys.stderr)
    _check_complete(problems, every, job.out)


def _say_passed_over(photos: Photos, problems: Sequence[str]) -> None:
    """Name pictures in the queries' folders that are no queries."""
    for line in problems:
        print(f"left out: {line}")
    if photos.drawings:
        names = ", ".join(path.name for path in photos.drawings[:3])
        print(
            f"{len(photos.drawings)} masks, strokes or results by their names, not taken for photos: {names}"
        )


def _check_complete(problems: Sequence[str], every: int, out: Path) -> None:
    """`UserError` if queries could not be segmented; each was named before."""
    if problems and len(problems) == every:
        raise UserError("no query could be segmented:\n" + "\n".join(problems))
    if problems:
        raise UserError(f"{len(problems)} of {every} queries could not be segmented; the others are in {out}")


def _check_nothing_is_lost(job: Job, queries: Sequence[Path]) -> None:
    """Results must not lie among photos, and must not take the place of anything but older results.

    Raises:
        UserError: names what is in the way.
    """
    drawn = [Path(s.marks) for s in job.supports if isinstance(s.marks, str | Path)]
    images = [Path(s.image) for s in job.supports if isinstance(s.image, str | Path)]
    for path in [*queries, *images, *drawn]:
        if path.resolve().parent == job.out.resolve():
            raise UserError(f"{path} lies in {job.out}, where the results go; name another folder with --out")
    for path in queries:
        told = _account_of(job, path)
        other = Path(told.get("image", path))
        if other != path and other.is_file() and _digest(other) != _digest(path):
            raise UserError(f"{job.out} holds the results of {other}, named as {path} is; name another --out")
        first = job.out / f"{path.stem}_labels.png"
        if first.exists() and not told:
            raise UserError(f"{first} is there and no result of fss predict; name another folder with --out")


def warn_of_doubts(predictor: Predictor) -> None:
    """Say what speaks against a network on photos, before it is put to work."""
    for doubt in predictor.doubts:
        print(f"fss: warning: {doubt}: expect useless masks of photos. {_WITHOUT}", file=sys.stderr)


def remarks(shares: Sequence[dict[str, float]]) -> list[str]:
    """What is suspicious about the percent of photos that classes cover: {class: percent} for each."""
    every = f"all {len(shares)} photos" if len(shares) > 1 else "the photo"
    found = []
    for name in shares[0] if shares else ():
        parts = [share[name] for share in shares]
        if min(parts) >= ALL:
            found.append(
                f"{name} covers {ALL}% or more of {every}, which says nothing. Does the support's mask mark "
                "the object, and leave background? Otherwise try a higher --threshold, or more supports"
            )
        elif max(parts) == 0:
            found.append(
                f"{name} was not found in {'any of ' if len(parts) > 1 else ''}{every}. Try a lower "
                "--threshold, supports that look more like these photos, or, for small objects, --tile PX"
            )
    return found


def _how(predictor: Predictor) -> str:
    """How the photos are looked at, in a line or a few."""
    how = {"squash": "squashed to", "stretch": "stretched to"}.get(predictor.canvas.resize, "seen at")
    seen = f"{how} {predictor.size} px"
    lines = [f"classes: {', '.join(predictor.classes)}; {seen} on {predictor.device}"]
    moved = [f"{name} {p:.2f}" for name, p in predictor.thresholds.items() if p != 0.5]
    if moved:
        lines.append(f"thresholds, by leaving supports out: {', '.join(moved)}")
    small = [f"{name} {100 * share:.0f}%" for name, share in predictor.tile_shares.items()]
    if small:
        lines.append(f"small objects, looked at in tiles of a share of the photo's side: {', '.join(small)}")
    return "\n".join(lines)


def _one_or_why_not(
    job: Job, predictor: Predictor, about: dict[str, Any], path: Path
) -> dict[str, float] | UserError:
    """`_one`, or what is wrong with the query."""
    try:
        return _one(job, predictor, path, about)
    except UserError as error:
        Bar.write(f"left out: {error}")
        return error


def _one(job: Job, predictor: Predictor, path: Path, about: dict[str, Any]) -> dict[str, float]:
    """Segment one query, and write its files; returns percent of the photo by class."""
    start, digest = time.monotonic(), _digest(path)
    bar = Bar(desc=path.name, unit="tile", leave=False, disable=None if predictor.tiled else True)

    def progress(done: int, every: int) -> None:
        bar.total = every
        bar.update(done - bar.n)

    found = predictor(path, progress)
    bar.close()
    old = _account_of(job, path).get("files", [])
    # The account is written first, so that files of a killed run are known to be results.
    _tell(job, path, {"image": str(path), "files": old})
    files = found.save(job.out, path.stem, job.cut)
    for name in set(old) - {f.name for f in files}:  # files of classes that are none any more
        (job.out / Path(name).name).unlink(missing_ok=True)
    shares = _shares(found, job.cut)
    seconds = round(time.monotonic() - start, 1)
    told = {
        "about": {**about, "query": digest}, "image": str(path), "classes": found.classes, "percent": shares,
        "thresholds": predictor.thresholds, "seconds": seconds,
        "labels": dict(zip(found.values, found.classes, strict=True)),
        "files": [f.name for f in files], "labels_sha256": _digest(files[0]),
    }  # fmt: skip
    _tell(job, path, told)
    Bar.write(f"{path}: {_summary(found, shares, job.cut)}, {seconds} s -> {files[1]}")
    return shares


def _summary(found: Prediction, shares: dict[str, float], threshold: float) -> str:
    seen = sorted((-share, name) for name, share in shares.items() if share)
    if seen:
        return ", ".join(f"{name} {-share:.1f}%" for share, name in seen) + " of the image"
    most = max(float(found.probability(n).max()) for n in range(len(found.classes)))
    return (
        f"nothing above {threshold}; the likeliest pixel has {most:.2f} (another --threshold, a second "
        "support, or another checkpoint may help)"
    )


def _shares(found: Prediction, threshold: float) -> dict[str, float]:
    """Percent of the image that each class covers."""
    labels = found.labels(threshold)
    counts = np.bincount(labels.ravel(), minlength=256)[found.values]
    return {n: round(100 * int(c) / labels.size, 3) for n, c in zip(found.classes, counts, strict=True)}


def _told(job: Job, path: Path) -> Path:
    return job.out / f"{path.stem}_predict.json"


def _tell(job: Job, path: Path, told: dict[str, Any]) -> None:
    write_text(_told(job, path), json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def _account_of(job: Job, path: Path) -> dict[str, Any]:
    """The files that an earlier run wrote of a query of this name, finished or not."""
    try:
        told = json.loads(_told(job, path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) and isinstance(told.get("files"), list) else {}


def _said(job: Job, path: Path) -> dict[str, Any]:
    """The files that a finished run wrote of this query; none where a file is gone or the map is another."""
    told = _account_of(job, path)
    names = [str(name) for name in told.get("files", [])]
    there = bool(names) and all((job.out / name).is_file() for name in names)
    return told if there and told.get("labels_sha256") == _digest(job.out / names[0]) else {}


def _account(support: Support) -> dict[str, Any]:
    marks: Any = support.marks
    if isinstance(marks, str | Path):
        marks = _digest(Path(marks))
    elif isinstance(marks, np.ndarray):
        marks = hashlib.sha256(marks.tobytes()).hexdigest()[:16]
    else:
        marks = [list(m) for m in marks]
    image: Any = support.image
    is_file = isinstance(image, str | Path)
    image = _digest(Path(image)) if is_file else hashlib.sha256(image.tobytes()).hexdigest()[:16]
    return {"image": image, "kind": support.kind, "name": support.name, "marks": marks}


def _digest(path: Path) -> str:
    """Of a file's content; of its name, where it cannot be read, which whoever uses it will tell."""
    try:
        content = path.read_bytes() if path.is_file() else str(path).encode(errors="replace")
    except OSError:
        content = str(path).encode()
    return hashlib.sha256(content).hexdigest()[:16]
