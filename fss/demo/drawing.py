"""Paint from the browser, made into a `Support`. The browser has a smaller copy of the photo."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from fss.episode import IGNORE
from fss.errors import UserError
from fss.photos.annotations import Support

Way = Literal["paint", "scribble", "box", "file"]
LONGEST = 900  # pixels of a side in the browser
RED, BLUE = "#ff3b30", "#0a84ff"  # colours of the brush: the object, the background


def shrunk(image: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """An image (H,W,3) or (H,W), no side longer than `longest`; as it is where none was."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def strokes(layers: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The brush's marks, at the photo's size.

    Args:
        layers: (h,w,4) uint8 of the editor, lowest first; all of one size.
        size: (H,W) of the photo.

    Returns:
        (H,W) uint8: 1 where the topmost paint is red, 0 where it is blue, 255 where there is none.
    """
    marks = np.full(size, IGNORE, np.uint8)
    for layer in layers:
        red, blue = layer[..., 0].astype(np.int16), layer[..., 2].astype(np.int16)
        for value, colour in ((0, blue > red), (1, red >= blue)):
            cover = np.where(colour, layer[..., 3], 0).astype(np.uint8)  # smooth enlargement leaves no stairs
            marks[cv2.resize(cover, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) > 127] = value
    return marks


def support(photo: Path, way: Way, name: str, drawn: np.ndarray, mask: Path | None) -> Support:
    """A support, of what a person did to mark its object.

    Args:
        photo: its file.
        way: paint: red is the object, all else background. scribble: red the object, blue background, the
            rest to be found out. box: what is inside the smallest box around all red. file: a mask, a file.
        name: of the class; blank: "object".
        drawn: (H,W) uint8, as of `strokes`, at the photo's size.

    Raises:
        UserError: nothing is marked, or no file is given.
    """
    name = name.strip() or "object"
    if way == "file":
        if mask is None:
            raise UserError(
                f"{photo.name}: no mask file yet; drop a PNG as large as the photo, 0 is background"
            )
        return Support(photo, mask, name, "mask")
    if not (drawn == 1).any():
        what = {
            "paint": "paint over the object",
            "scribble": "draw a line on the object",
            "box": "draw a line across the object",
        }
        raise UserError(f"{photo.name}: nothing is marked red; {what[way]}")
    if way == "paint":
        return Support(photo, (drawn == 1).astype(np.uint8), name, "mask")
    if way == "scribble":
        return Support(photo, drawn, name, "scribble")
    return Support(photo, red_box(drawn), name, "box")


def red_box(drawn: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box around all red of `strokes` (H,W): left, top, right, bottom, all included."""
    y, x = np.nonzero(drawn == 1)
    return int(x.min()), int(y.min()), int(x.max()), int(y.max())
