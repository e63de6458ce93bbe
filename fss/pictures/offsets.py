"""A field of offsets over an image: the hue is the direction, the saturation the length; arrows show both."""

import cv2
import numpy as np

_ACROSS = 12  # arrows
_WHEEL = 22  # radius of the legend, pixels
_RIM = 0.98  # share of the lengths that the wheel spans; longer ones have its rim's colour


def draw_offsets(image: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, float]:
    """Offsets as colours and arrows over a grey image, with a colour wheel in the lower right corner.

    An arrow stands where a value was wanted and points to where it was fetched; all are stretched alike
    so that one of the rim's length reaches the next.

    Args:
        image: (H,W,3) uint8, grey.
        offsets: (H,W,2), x then y, in any unit.

    Returns:
        the picture, and the length that the wheel's rim stands for, in the same unit.
    """
    length = np.hypot(offsets[..., 0], offsets[..., 1])
    rim = float(np.quantile(length, _RIM))
    coloured = _colours(offsets / max(rim, 1e-6))
    out = (image * 0.4 + coloured * 0.6).astype(np.uint8)
    _arrows(out, offsets, rim)
    _wheel(out)
    return out, rim


def _colours(unit: np.ndarray) -> np.ndarray:
    """(H,W,2) with lengths from 0 to 1 -> (H,W,3) uint8: white at 0, full colours from 1 on."""
    hue = np.arctan2(unit[..., 1], unit[..., 0]) / (2 * np.pi) % 1
    length = np.hypot(unit[..., 0], unit[..., 1]).clip(0, 1)
    hsv = np.stack([hue * 180, length * 255, np.full_like(hue, 255)], -1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _arrows(out: np.ndarray, offsets: np.ndarray, rim: float) -> None:
    h, w = out.shape[:2]
    gap = w / _ACROSS
    for y in np.arange(gap / 2, h, gap):
        for x in np.arange(gap / 2, w, gap):
            step = offsets[int(y), int(x)] / max(rim, 1e-6)
            step = step / max(1.0, float(np.hypot(*step))) * gap * 0.9
            start, end = (round(x), round(y)), (round(x + step[0]), round(y + step[1]))
            if np.hypot(*step) < 2:
                cv2.circle(out, start, 1, (0, 0, 0), -1, cv2.LINE_AA)
            else:
                cv2.arrowedLine(out, start, end, (0, 0, 0), 1, cv2.LINE_AA, tipLength=0.35)


def _wheel(out: np.ndarray) -> None:
    """The legend: every direction, from the centre (0) to the rim."""
    side = np.arange(-_WHEEL, _WHEEL + 1) / _WHEEL
    unit = np.stack(np.meshgrid(side, side), -1)
    inside = np.hypot(unit[..., 0], unit[..., 1]) <= 1
    corner = out[-2 * _WHEEL - 5 : -4, -2 * _WHEEL - 5 : -4]
    corner[inside] = _colours(unit)[inside]
    centre = (out.shape[1] - _WHEEL - 5, out.shape[0] - _WHEEL - 5)
    cv2.circle(out, centre, _WHEEL, (0, 0, 0), 1, cv2.LINE_AA)
