"""Masks over photos, alike in every picture: a light fill, a line in its colour, a contrasting one around."""

import cv2
import numpy as np

RED, BLUE = (255, 0, 0), (0, 90, 255)  # RGB: true masks, predictions
_FILL = 0.3  # share of the colour inside a mask; the rest is the photo
_SIDE = 400  # pixels of a photo's longer side for each pixel of a line
_BRIGHT = 128  # luminance from which a colour gets a dark line around it, else a white one
_DARK, _WHITE = (20, 20, 20), (255, 255, 255)


def tint(image: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A photo with its labels in colours over it, outlined.

    A mask's own line lies inside of it, the contrasting one outside, and its edge between the two. One is
    light and the other dark, so that the edge shows on any object, be it of the mask's own colour. Where two
    masks meet, each has its own line.

    Args:
        image: (H,W,3) RGB uint8.
        labels: (H,W) uint8; 0 is left as it is.
        colours: (L,3) RGB uint8, one for each label.
    """
    own, marked = np.take(colours, labels, 0), labels > 0  # (H,W,3), (H,W)
    filled = cv2.addWeighted(image, 1 - _FILL, own, _FILL, 0)
    out = np.where(marked[..., None], filled, image)
    wide = max(round(max(labels.shape) / _SIDE), 1)
    near = np.ones((2 * wide + 1, 2 * wide + 1), np.uint8)
    lowest, highest = cv2.erode(labels, near), cv2.dilate(labels, near)
    line = marked & (lowest != highest)
    out[line] = own[line]
    around = ~marked & (highest > 0)
    out[around] = _contrasting(colours)[highest[around]]
    return out


def tint_mask(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A photo (H,W,3) uint8 with one mask (H,W) bool over it, as of `tint`."""
    return tint(image, mask.astype(np.uint8), np.array([(0, 0, 0), colour], np.uint8))


def _contrasting(colours: np.ndarray) -> np.ndarray:
    """Dark for bright colours (L,3) and white for dark ones, (L,3) uint8."""
    luminance = colours @ np.array([0.299, 0.587, 0.114])
    return np.where(luminance[:, None] >= _BRIGHT, _DARK, _WHITE).astype(np.uint8)
