"""Strokes, boxes and points drawn on pictures, and the colours of label maps."""

import cv2
import numpy as np

from fss.episode import IGNORE

YELLOW, CYAN = (255, 230, 0), (0, 220, 255)  # RGB: marks of the object, of background


def draw_marks(picture: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """A picture (H,W,3) with marks (H,W) on it: the object's yellow, background's cyan; a box's outline."""
    out = picture.copy()
    if not ((marks != 0) & (marks != IGNORE)).any():  # a box: background all around it
        inside = np.pad((marks == IGNORE).astype(np.uint8), 1)
        edge = inside - cv2.erode(inside, np.ones((3, 3), np.uint8))
        out[edge[1:-1, 1:-1] == 1] = YELLOW
        return out
    out[marks == 0] = CYAN
    out[(marks != 0) & (marks != IGNORE)] = YELLOW
    return out


def palette(count: int = 256) -> np.ndarray:
    """Colours (count,3) uint8 that stand apart: label 0 dark grey, then hues by the golden angle."""
    label = np.arange(count)
    hsv = np.stack([label * 137.508 % 360 / 2, 150 + label * 53 % 106, 255 - label * 31 % 110], 1)
    colours = cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0]
    colours[0] = 60
    return colours
