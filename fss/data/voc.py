"""PASCAL VOC's 20 classes, label n being the n-th, and its colours."""

from functools import cache

import numpy as np

PASCAL_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@cache
def voc_palette() -> bytes:
    """VOC's colour map: the bits of an index are dealt out to R, G, B from the top bit down."""
    places = np.arange(3)[:, None] + 3 * np.arange(8)
    bits = np.arange(256)[:, None, None] >> places & 1
    return (bits @ (128 >> np.arange(8))).astype(np.uint8).tobytes()
