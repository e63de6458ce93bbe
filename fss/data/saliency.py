"""Saliency maps: grey pictures named as the images, bright where any object is."""

import hashlib
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fss.bars import Bar
from fss.config import DataConfig
from fss.data.files import image_size, read_grey, read_mask
from fss.data.lists import Sample
from fss.errors import UserError


def find_saliency(config: DataConfig, folder: Path, samples: Sequence[Sample]) -> list[Path | None]:
    """The saliency map of each image, `folder`/NAME.png; None for images that have none.

    Args:
        folder: relative to here or to the data root. `shapes` draws its own, `Saliency` in its root, on
            first use.

    Raises:
        UserError: no such folder, no map in it for any image, a map of another size than its image, or an
            unreadable one.
    """
    own = config.folder / folder
    if config.layout == "shapes" and folder == Path("Saliency") and not own.is_dir():
        draw_saliency(config.folder)
    place = next((p for p in (folder, own) if p.is_dir()), None)
    if place is None:
        raise UserError(f"pseudo.saliency={folder}: no such folder, neither here nor in {config.folder}")
    found: list[Path | None] = []
    for sample in Bar(samples, "looking for saliency maps", leave=False):
        path = place / f"{sample.name}.png"
        found.append(path if path.is_file() else None)
        if found[-1]:
            _check(path, sample)
    if not any(found):
        raise UserError(
            f"pseudo.saliency={place} has no map for any image, such as {samples[0].name}.png; leave it out "
            "to do without"
        )
    return found


def _check(path: Path, sample: Sample) -> None:
    (h, w), (height, width) = image_size(path), image_size(sample.image)
    if (h, w) != (height, width):
        raise UserError(f"saliency map {path} is {w}x{h}, its image {sample.image} {width}x{height}")


def saliency_checksum(samples: Sequence[Sample], maps: Sequence[Path | None]) -> str:
    """sha256 of which images have a map, and of the maps' file sizes: tells sets of maps apart."""
    lines = [f"{s.name} {path.stat().st_size}" for s, path in zip(samples, maps, strict=True) if path]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_saliency(path: Path) -> np.ndarray:
    """A saliency map (H,W) float32 in 0..1, divided by its maximum; zeros stay."""
    grey = read_grey(path).astype(np.float32)
    return grey / max(float(grey.max()), 1.0)


def draw_saliency(root: Path, seed: int = 0) -> None:
    """Saliency maps for `shapes`, from its masks, as good and as bad as a detector's: `root`/Saliency.

    Bright where any object is, of whatever class, held-out ones included. Imperfect on purpose: an object is
    between 0.55 and 1 bright, one in ten is missed (0.05), every other image has a blotch of 0.3 to 0.8
    where nothing is, and edges are blurred by 1.5 px. A map depends on the seed and the image's name alone.

    Raises:
        UserError: a mask cannot be read.
    """
    with tempfile.TemporaryDirectory(dir=root, prefix=".Saliency-") as folder:
        part = Path(folder) / "Saliency"
        part.mkdir()
        for path in Bar(sorted((root / "SegmentationClass").glob("*.png")), "drawing saliency", unit="map"):
            random = np.random.default_rng([seed, zlib.crc32(path.stem.encode())])
            Image.fromarray(_map(read_mask(path), random)).save(part / path.name)
        try:
            part.rename(root / "Saliency")
        except OSError:  # another process wrote it first
            if not (root / "Saliency").is_dir():
                raise


def _map(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Label map (H,W) -> grey (H,W) uint8."""
    size = min(mask.shape)
    out = np.zeros(mask.shape, np.float32)
    for label in np.setdiff1d(np.unique(mask), (0, 255)):
        bright = random.uniform(0.55, 1) if random.random() < 0.9 else 0.05
        out[cv2.dilate((mask == label).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0] = bright
    if random.random() < 0.5:
        blotch = np.zeros_like(out)
        centre = [int(random.uniform(0, side)) for side in mask.shape[::-1]]
        axes = [int(x * size) for x in random.uniform(0.06, 0.16, 2)]
        angle, bright = random.uniform(0, 180), random.uniform(0.3, 0.8)
        cv2.ellipse(blotch, (centre, [2 * a for a in axes], angle), bright, -1)
        out = np.maximum(out, blotch * (mask == 0))
    return (255 * cv2.GaussianBlur(out, (0, 0), 1.5)).round().astype(np.uint8)
