"""`fss cluster`: images in, label maps, pictures and masks out; stopped and started again without loss."""

import glob
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fss.bars import Bar
from fss.data.drawings import read_drawing
from fss.data.files import png_bytes
from fss.data.formats import advice
from fss.data.photos import Photos, photos_of, read_photo
from fss.episode import IGNORE
from fss.errors import UserError
from fss.pictures.marks import draw_marks, palette
from fss.pictures.overlay import row
from fss.pictures.tint import tint
from fss.runs import checkpoint
from fss.runs.identity import require
from fss.scribbles.clustering import Clustering, Session, check_scribble
from fss.scribbles.reference import Reference
from fss.scribbles.strokes import points_marks
from fss.writing import write_bytes, write_text

_SAVE_EVERY = 60  # seconds


@dataclass(frozen=True)
class Job:
    """The task of one `fss cluster`.

    Attributes:
        source: an image, or a folder of them.
        out: the folder for all that is written.
        scribble: a file, for a single image; so are points, (x, y, label).
        reference: a folder of images that one network is trained on first; weights: a network so trained.
        watch: a picture every so many steps; 0: none.
    """

    source: Path
    out: Path
    settings: Clustering
    seed: int = 0
    scribble: Path | None = None
    points: Sequence[tuple[int, int, int]] = ()
    reference: Path | None = None
    weights: Path | None = None
    watch: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    half: bool = False

    @property
    def about(self) -> dict[str, Any]:
        """The settings that decide a result, apart from the files."""
        return {
            "stage": "clustering", "seed": self.seed, "half": self.half, "device": self.device.type,
            "points": [list(p) for p in self.points], **asdict(self.settings),
        }  # fmt: skip


def run_cluster(job: Job) -> None:
    """Segment every image of the job, and say where the results lie.

    Raises:
        UserError: files that are missing or do not fit, settings that do not go together.
    """
    photos = _checked(job)
    problems = [f"{path}: {advice(path)}" for path in photos.unread]
    for line in problems:
        _say(f"left out: {line}")
    images, work = photos.files, _worker(job)
    for path in Bar(images, "images", leave=False, disable=len(images) < 2):
        try:
            work(path)
        except UserError as error:
            if len(images) == 1:
                raise
            problems.append(str(error))
            _say(f"left out: {error}")
    if problems:
        every = len(images) + len(photos.unread)
        raise UserError(
            f"{len(problems)} of {every} images could not be segmented; the others are in {job.out}"
        )


def _worker(job: Job) -> Callable[[Path], None]:
    """The function that segments an image: on its own, or with a reference's network."""
    if job.reference or job.weights:
        reference = Reference(job.settings, job.seed, job.device, job.half)
        if job.weights:
            reference.load(job.weights)
        else:
            assert job.reference is not None
            reference.train(photos_of([job.reference]).files, job.out / "weights.pt")
        return partial(_with_reference, job, reference)
    return partial(_one, job)


def _with_reference(job: Job, reference: Reference, path: Path) -> None:
    image, start = read_photo(path), time.monotonic()
    _write(job, path, image, None, reference.labels(image), {"steps": 0}, start)


def _checked(job: Job) -> Photos:
    """The images, after every check that can be made before any work."""
    photos = photos_of([job.source])
    if job.out.exists() and not job.out.is_dir():
        raise UserError(f"{job.out} is a file; name a folder for the results")
    marked = job.scribble is not None or bool(job.points)
    if job.scribble and job.points:
        raise UserError("--scribble and --points are two ways to say the same; give one of them")
    if job.reference and job.weights:
        raise UserError("--reference trains weights, --weights brings them; give one of them")
    if marked and (job.source.is_dir() or job.reference or job.weights):
        raise UserError("--scribble and --points are for a single image, clustered on its own")
    if job.watch < 0 or (job.watch and (job.reference or job.weights)):
        raise UserError(f"--watch {job.watch}: allowed are 0 and more, for images clustered on their own")
    return photos


def _one(job: Job, path: Path) -> None:
    """Segment one image, unless that is done already."""
    image = read_photo(path)
    if min(image.shape[:2]) < 2:
        raise UserError(
            f"{path} has {image.shape[1]}x{image.shape[0]} pixels; clustering needs 2 a side or more"
        )
    marks = _marks(job, path, image)
    about = {**job.about, "input": _digest(image, marks)}
    told = job.out / f"{path.stem}_cluster.json"
    if _said(told).get("about") == about:
        _say(f"{path}: done already -> {told}")
        return
    start = time.monotonic()
    session = Session(image, marks, job.settings, job.seed, job.device, job.half)
    unfinished = job.out / f"{path.stem}_unfinished.pt"
    _resume(session, unfinished, about)
    _clear(job, path)
    _loop(session, job, path, about, unfinished)
    facts = {"about": about, "steps": session.steps, "image": str(path)}
    _write(job, path, image, marks, session.labels(), facts, start)
    for file in (unfinished, checkpoint.account_of(unfinished)):
        file.unlink(missing_ok=True)


def _marks(job: Job, path: Path, image: np.ndarray) -> np.ndarray | None:
    """The user's marks, (H,W), or None."""
    if job.scribble is None and not job.points:
        return None
    if job.scribble:
        marks = read_drawing(job.scribble, path)
    else:
        for x, y, label in job.points:
            if not 0 <= label < job.settings.channels:
                raise UserError(
                    f"point {x},{y} has label {label}; allowed: 0 (background) to {job.settings.channels - 1}"
                )
        marks = points_marks(job.points, (image.shape[0], image.shape[1]))
    check_scribble(marks, image.shape[:2], job.settings.channels)
    return marks


def _loop(session: Session, job: Job, path: Path, about: dict[str, Any], unfinished: Path) -> None:
    """Step to the end, with a bar, pictures to watch, and a checkpoint every minute."""
    saved, over = time.monotonic(), session.steps >= job.settings.steps
    most = job.settings.steps
    with Bar(total=most, initial=session.steps, desc=path.stem, unit="step", leave=False) as bar:
        while not over:
            over = session.step()
            bar.update()
            if job.watch and session.steps % job.watch == 0:
                picture = tint(session.image, session.labels(), palette())
                write_bytes(job.out / f"{path.stem}_step{session.steps:05}.jpg", encoded(picture, ".jpg"))
            if not over and time.monotonic() - saved > _SAVE_EVERY:
                _save(session, unfinished, about)
                saved = time.monotonic()


def _save(session: Session, path: Path, about: dict[str, Any]) -> None:
    worker, stop = session.worker, session.stop
    checkpoint.save(
        path, about, worker.network, facts={}, settings={}, optimizer=worker.optimizer.state_dict(),
        step=session.steps, spent=0.0, best=0.0, validated=0, before=stop.before, quiet=stop.quiet,
    )  # fmt: skip


def _resume(session: Session, path: Path, about: dict[str, Any]) -> None:
    """Take up a run that was stopped; one of other settings, or a damaged one, is begun anew."""
    try:
        content = checkpoint.read(path)
        require(content["about"], about, str(path))
    except UserError:
        return
    checkpoint.fill(session.worker.network, content, path)
    session.worker.optimizer.load_state_dict(content["optimizer"])
    session.steps, session.stop.before, session.stop.quiet = (content[k] for k in ("step", "before", "quiet"))


def _clear(job: Job, path: Path) -> None:
    """Remove files of an earlier result under this name, because its classes may be others."""
    told = job.out / f"{path.stem}_cluster.json"
    if told.is_file():
        for pattern in ("_mask*.png", "_step*.jpg"):
            for old in job.out.glob(f"{glob.escape(path.stem)}{pattern}"):
                old.unlink()
        told.unlink()


def _write(
    job: Job, path: Path, image: np.ndarray, marks: np.ndarray | None, labels: np.ndarray,
    facts: dict[str, Any], start: float,
) -> None:  # fmt: skip
    """Write the label map, a picture, a mask per class, and the account last."""
    name = str(job.out / path.stem)
    write_bytes(Path(f"{name}_labels.png"), png_bytes(labels, palette().tobytes()))
    given = [] if marks is None else np.setdiff1d(marks, IGNORE).tolist()
    for label in [v for v in given if v] or np.unique(labels).tolist():
        mask = np.where(labels == label, 255, 0).astype(np.uint8)
        write_bytes(Path(f"{name}_mask{label}.png"), encoded(mask, ".png"))
    shown = image if marks is None else draw_marks(image, marks)
    picture = row([shown, tint(image, labels, palette())])
    write_bytes(Path(f"{name}_cluster.jpg"), encoded(picture, ".jpg"))
    seconds = time.monotonic() - start
    found = {**facts, "labels": np.unique(labels).tolist(), "seconds": round(seconds, 1)}
    right = ""
    if marks is not None:
        drawn = marks != IGNORE
        share = float((labels[drawn] == marks[drawn]).mean())
        found["marks_right"] = round(share, 4)
        right = f", {100 * share:.1f}% of what was drawn is right"
    write_text(Path(f"{name}_cluster.json"), json.dumps(found, indent=2) + "\n")
    _say(
        f"{path}: {found['steps']} steps, {seconds:.1f} s, {len(found['labels'])} labels{right} -> "
        f"{name}_labels.png, _mask*.png, _cluster.jpg"
    )


def encoded(image: np.ndarray, suffix: str) -> bytes:
    """An image file's content: (H,W) grey or (H,W,3) RGB uint8."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    return cv2.imencode(suffix, bgr)[1].tobytes()


def _digest(image: np.ndarray, marks: np.ndarray | None) -> str:
    parts = [image.tobytes(), b"" if marks is None else marks.tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _said(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _say(text: str) -> None:
    Bar.write(text)
