"""Pictures of a network's responses, class by class, beside their pseudo-mask."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from fss.episode import IGNORE
from fss.pictures.overlay import row, write_jpeg
from fss.pictures.panels import COLOURS
from fss.pictures.tint import tint

_HEIGHT = 200  # pixels


def draw_responses(
    path: Path, image: np.ndarray, truth: np.ndarray | None, maps: Mapping[str, np.ndarray], mask: np.ndarray
) -> None:
    """Write: image | true mask, where there is one | a heat map for each class | pseudo-mask.

    Args:
        image: (H,W,3) uint8.
        truth, mask: (H,W) label maps, 0 background, 255 ignored.
        maps: class name -> (H,W) in 0..1.
    """
    zoom = max(1.0, _HEIGHT / image.shape[0])
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)  # colours mean the map
    panels = [("image", image)]
    panels += [("true mask", _labelled(grey, truth))] if truth is not None else []
    panels += [(name, _heated(grey, heat)) for name, heat in maps.items()]
    panels.append(("pseudo-mask", _labelled(grey, mask)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jpeg(path, row([_titled(cv2.resize(p, None, fx=zoom, fy=zoom), title) for title, p in panels]))


def _heated(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    coloured = cv2.applyColorMap((255 * heat.clip(0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return (grey * 0.4 + coloured * 0.6).astype(np.uint8)


def _labelled(grey: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels as colours over a grey image; background and ignored pixels stay grey."""
    colours = COLOURS[np.arange(256) % len(COLOURS)]
    return tint(grey, np.where(labels == IGNORE, 0, labels).astype(np.uint8), colours)


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    strip = np.full((22, image.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, title, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, image])
