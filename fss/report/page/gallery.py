"""Finds pictures of episodes for a page, matches them with results, chooses some and makes them small."""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import cv2

from fss.data.files import read_image
from fss.errors import UserError
from fss.report.episodes import Scored
from fss.report.results import Result

_NAME = re.compile(r"run(\d+)_(\d+)_(.*)_iou(\d+\.\d)")  # names that EpisodePictures gives
_WIDTH, _HEIGHT, _QUALITY = 960, 160, 80  # pixels at most; of the JPEG


@dataclass(frozen=True)
class Picture:
    """One episode as a head answered it; `iou` in percent, `query` is empty if it is not known."""

    path: Path
    run: int
    number: int
    class_name: str
    iou: float
    query: str = ""


@dataclass(frozen=True)
class Card:
    """One episode with the pictures of all heads that have one: (index of the head's row, picture)."""

    fold: int
    shots: int
    pictures: tuple[tuple[int, Picture], ...]

    @property
    def some(self) -> Picture:
        """Any of the pictures, for the facts that all share."""
        return self.pictures[0][1]

    @property
    def iou(self) -> float:
        """The mean IoU over heads, percent."""
        return mean(p.iou for _, p in self.pictures)


def find_pictures(result: Result, episodes: Sequence[Scored]) -> tuple[list[Picture], int]:
    """The pictures beside a result, and the number of those left out because they belong to an earlier test.

    Args:
        episodes: of the result, if known; they tell the whole names of classes, and which pictures are old.
    """
    known = {(e.run, e.number): e for e in episodes}
    found, old = [], 0
    for path in sorted((result.path.parent / "visualize").glob("run*.jpg")):
        if not (match := _NAME.fullmatch(path.stem)):
            continue
        picture = Picture(path, int(match[1]), int(match[2]), match[3], float(match[4]))
        episode = known.get((picture.run, picture.number))
        if episode and abs(episode.iou - picture.iou) < 0.051:  # names are rounded to 0.1
            found.append(replace(picture, class_name=episode.class_name, query=episode.query))
        elif known:
            old += 1
        else:
            found.append(picture)
    return found, old


def cards(sets: Iterable[tuple[int, Result, Sequence[Picture]]]) -> list[Card]:
    """Pictures (index of the row, result, its pictures) put together by episode, worst first."""
    together: dict[tuple[int, int, int, int], list[tuple[int, Picture]]] = {}
    for row, result, pictures in sets:
        p = result.protocol  # results with equal fold and shots have one plan in a table
        for picture in pictures:
            key = (p["fold"], p["shots"], picture.run, picture.number)
            together.setdefault(key, []).append((row, picture))
    made = [Card(fold, shots, tuple(pairs)) for (fold, shots, _, _), pairs in together.items()]
    return sorted(made, key=lambda c: (c.iou, c.fold, c.shots, c.some.run, c.some.number))


def choose(every: Sequence[Card], most: int) -> list[Card]:
    """Cards evenly from first to last with at most `most` pictures; one card at least, unless it is 0."""
    if not every or most < 1:
        return []
    count = min(len(every), max(1, most // max(len(c.pictures) for c in every)))
    if count == 1:
        return [every[0]]
    return [every[round(i * (len(every) - 1) / (count - 1))] for i in range(count)]


def data_uri(path: Path) -> tuple[str, int, int]:
    """A picture as a small JPEG inside a `data:` address, with its width and height.

    Raises:
        UserError: the picture is damaged.
    """
    try:
        image = read_image(path)
    except UserError:
        raise UserError(f"picture {path} is damaged; test again with --visualize, or take it away") from None
    scale = min(1.0, _WIDTH / image.shape[1], _HEIGHT / image.shape[0])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    text = base64.b64encode(data.tobytes()).decode("ascii")
    return f"data:image/jpeg;base64,{text}", small.shape[1], small.shape[0]
