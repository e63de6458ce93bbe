"""Maps that explain a prediction, drawn over the images they are about."""

from collections.abc import Sequence

import cv2
import numpy as np

from fss.heads import Panel
from fss.pictures.offsets import draw_offsets

# Easily told apart, in an order that keeps neighbours different (after Kelly, 1965).
COLOURS = np.array(
    [
        (255, 179, 0), (128, 62, 117), (255, 104, 0), (166, 189, 215), (193, 0, 32), (206, 162, 98),
        (0, 125, 52), (246, 118, 142), (0, 83, 138), (255, 122, 92), (83, 55, 122), (255, 142, 0),
        (179, 40, 81), (244, 200, 0), (127, 24, 13), (147, 170, 0), (89, 51, 21), (241, 58, 19),
        (35, 44, 22), (129, 112, 102), (0, 190, 190), (230, 120, 255), (120, 220, 120), (60, 60, 255),
        (190, 190, 190),
    ],
    np.uint8,
)  # fmt: skip
LEAST = 200  # height of a panel, pixels


def draw_panel(
    panel: Panel, query: np.ndarray, supports: Sequence[np.ndarray], size: int
) -> list[np.ndarray]:
    """One episode's panel as pictures (H,W,3) uint8 RGB: one for the query, or one for each support.

    Args:
        panel: without batch axis.
        query, supports: images (H,W,3) uint8, without the canvas's padding.
        size: S of the canvas, which the panel's cells span corner to corner.
    """
    values = panel.values.cpu().numpy()
    points = None if panel.points is None else panel.points.cpu().numpy()
    images = [query] if panel.over == "query" else supports
    if panel.over == "query":
        values, points = values[None], None if points is None else points[None]
    return [
        _titled(*_drawn(image, values[i], None if points is None else points[i], size, panel.title))
        for i, image in enumerate(images)
    ]


def _drawn(
    image: np.ndarray, values: np.ndarray, points: np.ndarray | None, size: int, title: str
) -> tuple[np.ndarray, str]:
    """The picture, and its title with what had to be measured."""
    zoom = -(-LEAST // image.shape[0])
    image = cv2.resize(image, None, fx=zoom, fy=zoom)
    image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)  # colours mean the map
    h, w = image.shape[:2]
    step = (np.array(values.shape[:2]) - 1) / (size - 1)  # cells to a pixel of the canvas
    y, x = np.arange(h) * step[0] / zoom, np.arange(w) * step[1] / zoom
    if np.issubdtype(values.dtype, np.integer):
        return _in_colours(image, values, points, y, x), title
    across, down = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    smooth = cv2.remap(values.astype(np.float32), across, down, cv2.INTER_LINEAR)
    if smooth.ndim == 3:
        picture, rim = draw_offsets(image, smooth / step[::-1])
        return picture, f"{title}, rim {rim:.1f} px"
    coloured = cv2.applyColorMap((255 * smooth.clip(0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)
    return (image * 0.4 + coloured[..., ::-1] * 0.6).astype(np.uint8), title


def _in_colours(
    image: np.ndarray, values: np.ndarray, points: np.ndarray | None, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Whole numbers as colours and points as dots; rows `y` and columns `x` of the picture, in cells."""
    index = values[np.ix_(np.rint(y).astype(int), np.rint(x).astype(int))]
    out = image.copy()
    inside = index >= 0
    out[inside] = (image[inside] * 0.4 + COLOURS[index[inside] % len(COLOURS)] * 0.6).astype(np.uint8)
    for r, c in [] if points is None else points[~np.isnan(points).any(1)]:
        at = (round(c / x[1]), round(r / y[1]))
        for radius, colour in ((6, (0, 0, 0)), (4, (255, 255, 255))):
            cv2.circle(out, at, radius, colour, -1, cv2.LINE_AA)
    return out


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    """The picture below a strip with its title."""
    strip = np.full((22, image.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, title, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, image])
