"""Formats of pictures: which are read, and which are named in a message because they are not."""

from pathlib import Path
from typing import BinaryIO

from PIL import UnidentifiedImageError

from fss.errors import UserError, why

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff")
LOSSLESS = (".png", ".bmp", ".tif", ".tiff")  # masks are saved as these
_HEIF = (".heic", ".heif", ".hif")
_OTHERS = (
    *_HEIF, ".avif", ".jxl", ".jp2", ".j2k", ".jpf", ".gif", ".ppm", ".pgm", ".pbm", ".tga", ".psd", ".xcf",
    ".svg", ".exr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef", ".raw",
)  # fmt: skip
_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg")
_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def is_hidden(below: Path) -> bool:
    """Whether a path below a folder is hidden, as macOS' `._cat.jpg` and Jupyter's copies are."""
    return any(part.startswith(".") or part == "__MACOSX" for part in below.parts)


def is_picture(path: Path) -> bool:
    """Whether a file has the suffix of a format that is read, in small letters or capitals."""
    return path.suffix.lower() in (*SUFFIXES, *(_HEIF if _heif() else ())) and not path.name.startswith(".")


def is_unread(path: Path) -> bool:
    """Whether a file has the suffix of a picture, in a format that is not read."""
    return path.suffix.lower() in _OTHERS and not is_picture(path) and not path.name.startswith(".")


def advice(path: Path) -> str:
    """The way to a picture that can be read, for messages; empty where the format is unknown."""
    if path.suffix.lower() in _HEIF or _holds_heif(path):
        return "it is HEIC: pip install pillow-heif, or save it as JPEG"
    if path.suffix.lower() in _VIDEOS:
        return "it is a video; save the frames that matter as JPEG or PNG"
    if path.suffix.lower() in _OTHERS:
        return f"{path.suffix[1:].upper()} is not read; save it as JPEG or PNG"
    return ""


def meant(path: Path) -> str:
    """A guess at the reason why nothing is at a path, for messages; empty where there is none."""
    text = str(path)
    if any(mark in text for mark in "*?["):
        return ". A pattern that fits no file, or stands in quotes, stays as it is: name the folder"
    if text.startswith("~"):
        return ". In quotes or after =, ~ does not stand for the home folder: write it out"
    if text.startswith(("http:/", "https:/")):
        return ". Addresses are not fetched: save the file, and name it"
    return ""


def fault(path: Path | BinaryIO, error: Exception) -> str:
    """The reason why a picture cannot be read, in plain words."""
    if isinstance(path, Path) and path.is_file() and not path.stat().st_size:
        return "the file is empty; copy it again"
    if isinstance(error, UnidentifiedImageError):
        return f"its content is no picture's; read are {', '.join(SUFFIXES)}"
    return why(error)


def ready(path: Path) -> None:
    """Make Pillow able to read a HEIC file.

    Raises:
        UserError: the package for it is not installed.
    """
    if path.suffix.lower() not in _HEIF:
        return
    if not _heif():
        raise UserError(f"{path} cannot be read: {advice(path)}")
    import pillow_heif

    pillow_heif.register_heif_opener()


def _heif() -> bool:
    from importlib.util import find_spec

    return find_spec("pillow_heif") is not None


def _holds_heif(path: Path) -> bool:
    """Whether a file is HEIC by its content, as telephones' photos with a changed suffix are."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS
