"""Small data sets in the layouts that users have, made on the spot; and a guard of the global generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PALETTE = np.random.default_rng(0).integers(0, 256, 768).tolist()


def make_voc(
    root: Path, classes: int, images: int, masks: str = "SegmentationClass", size=(48, 64)
) -> list[str]:
    """JPEGs with two coloured rectangles of two classes each, and palette masks with 255 borders.

    Image n shows classes n % classes + 1 and (n + 1) % classes + 1. Returns the names.
    """
    names = [f"2007_{n:06d}" for n in range(images)]
    for folder in ("JPEGImages", masks, "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(names):
        image, mask = _scene(n, classes, size)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        save_mask(root / masks / f"{name}.png", mask)
    return names


def save_mask(path: Path, mask: np.ndarray) -> None:
    """A palette PNG of labels."""
    picture = Image.fromarray(mask)
    picture.putpalette(PALETTE)
    picture.save(path)


def _scene(n: int, classes: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(n)
    image = random.integers(90, 160, (*size, 3)).astype(np.uint8)
    mask = np.zeros(size, np.uint8)
    for side, label in enumerate((n % classes + 1, (n + 1) % classes + 1)):
        top, left = random.integers(2, 12), side * size[1] // 2 + random.integers(2, 8)
        box = np.s_[top : top + 24, left : left + 20]
        image[box] = np.random.default_rng(1000 + label).integers(0, 256, 3)
        mask[box] = 255
        inner = np.s_[top + 1 : top + 23, left + 1 : left + 19]
        mask[inner] = label
    return image, mask


def make_folder(root: Path, classes: int = 4, train: int = 16, val: int = 12) -> Path:
    """The `folder` layout: classes.txt, and train and val lists of bare names."""
    names = make_voc(root, classes, train + val)
    (root / "classes.txt").write_text("".join(f"kind {c}\n" for c in range(1, classes + 1)))
    lists = root / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("\n".join(names[:train]) + "\n")
    (lists / "val.txt").write_text("\n".join(names[train:]) + "\n")
    return root


# Settings under which everything runs in a second or two.
TINY = (
    "backbone.weights=random", "backbone.type=resnet18", "neck.channels=16", "data.size=49", "data.workers=0",
    "data.min_pixels=100", "pretrain.epochs=1", "pretrain.batch=8", "pretrain.validations=1",
    "train.epochs=1", "train.episodes=6", "train.batch=2", "train.validations=1",
    "train.validation_episodes=4", "test.episodes=6", "test.runs=2",
    "test.checkpoint=best", "head.steps=10", "precision=fp32",
    "device=cpu",
)  # fmt: skip


@contextmanager
def unmoved() -> Iterator[None]:
    """Assert that what is done inside draws no number from torch's, NumPy's or Python's global generator."""
    before = _generators()
    yield
    moved = [name for name, state in _generators().items() if state != before[name]]
    assert not moved, f"numbers were drawn from the global generator of {', '.join(moved)}"


def _generators() -> dict[str, object]:
    numpy = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": (numpy["state"]["key"].tobytes(), numpy["state"]["pos"], numpy["has_gauss"]),
        "Python": random.getstate(),
    }
