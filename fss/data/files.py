"""Reading one image or one mask, and saying clearly why that fails."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fss.data.drawings import check_format, is_inverted
from fss.data.formats import fault
from fss.errors import UserError

# Images are read as stored: a mask has no EXIF tag, so turning the image alone would part the two.
_COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: Path) -> np.ndarray:
    """An image as RGB uint8 (H,W,3).

    Raises:
        UserError: missing, unreadable, or a JPEG that breaks off (OpenCV would fill in grey).
    """
    data = _read(path, "image")
    image = None if _breaks_off(data) else cv2.imdecode(np.frombuffer(data, np.uint8), _COLOUR)
    if image is None:
        raise UserError(
            f"image {path} is damaged or of an unknown format; replace it or take it off the list"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_mask(path: Path) -> np.ndarray:
    """A mask as uint8 labels (H,W); palette images keep their indices.

    Raises:
        UserError: missing, unreadable, or with colours in place of labels.
    """
    with _opened(path) as mask:
        return np.asarray(mask).astype(np.uint8)


def read_grey(path: Path) -> np.ndarray:
    """A grey picture as uint8 (H,W), such as a saliency map.

    Raises:
        UserError: missing, unreadable, or with colours.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("L", "1"):
                raise UserError(f"{path} has mode {picture.mode}; wanted one grey channel of 8 bits (L)")
            return np.asarray(picture.convert("L"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged or no image ({fault(path, error)})") from None


def png_bytes(picture: np.ndarray, palette: bytes | None = None) -> bytes:
    """A PNG of (H,W) uint8: grey, or labels with a palette."""
    image = Image.fromarray(picture)
    if palette:
        image.putpalette(palette)
    image.save(data := io.BytesIO(), "PNG")
    return data.getvalue()


def count_mask(path: Path) -> tuple[tuple[int, int], np.ndarray]:
    """Size (H,W) of a mask and pixels of each label (256,), faster than by reading it into an array.

    Raises:
        UserError: as `read_mask`.
    """
    with _opened(path) as mask:
        counts = np.array(mask.histogram(), np.int64)
        if mask.mode == "1":  # which Pillow counts as 0 and 255
            counts[[1, 255]] = counts[255], 0
        return (mask.height, mask.width), counts


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as mask:
            check_format(mask, path)
            if mask.mode not in ("L", "P", "1"):
                raise UserError(
                    f"mask {path} has mode {mask.mode}; wanted one 8-bit channel of labels (L or P)"
                )
            if is_inverted(mask):
                raise UserError(
                    f"mask {path} has a palette that shows label 0 white and 1 black, so that its object "
                    "may be the background; save it in grey: 0 background, 1, 2, ... the classes"
                )
            yield mask
    except FileNotFoundError:
        raise UserError(f"mask {path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"mask {path} is damaged or no image ({fault(path, error)})") from None


def check_image(path: Path) -> tuple[int, int]:
    """(H,W) of an image whose file is whole, as far as that can be told without decoding it.

    Raises:
        UserError: missing, unreadable, or a JPEG that breaks off.
    """
    if _breaks_off(_read(path, "image")):
        raise UserError(f"image {path} is damaged: it breaks off before its end")
    return image_size(path)


def image_size(path: Path) -> tuple[int, int]:
    """(H,W) of an image from its header alone; as stored, EXIF rotation not applied.

    Raises:
        UserError: missing or unreadable.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"image {path} is damaged or of an unknown format ({fault(path, error)})") from None


def _breaks_off(data: bytes) -> bool:
    return not data or (data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:])


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist") from None
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read ({error.strerror})") from None
