"""The line that says what is needed, and the one that says how marks were understood."""

from pathlib import Path

import numpy as np
import pytest

from fss.demo.desk import Desk, Photo
from fss.demo.status import needed, understood
from fss.photos.annotations import Support


def photos(marked, fresh=0):
    """So many photos with a mask over an eighth of each, and so many without."""
    out = [Photo(Path(f"{n}.png"), (20, 40), np.zeros((20, 40, 3), np.uint8)) for n in range(marked + fresh)]
    for photo in out[:marked]:
        photo.mask = np.zeros((20, 40), bool)
        photo.mask[:10, :10] = True
        photo.support = Support(photo.path, photo.mask.astype(np.uint8), "cup")
    return out


@pytest.mark.parametrize(
    ("marked", "fresh", "queries", "text"),
    [
        (0, 0, 0, "Drop a photo of the thing, and mark it."),
        (0, 0, 3, "Drop a photo of the thing, and mark it."),
        (0, 2, 1, "Mark the thing in the photo, and press Use it."),
        (1, 2, 0, "Mark the thing in 2 more photos, or go on: drop photos to search in."),
        (1, 1, 0, "Mark the thing in 1 more photo, or go on: drop photos to search in."),
        (2, 0, 0, "Drop photos to search in."),
        (2, 0, 5, "Ready: 2 examples, 5 photos."),
        (1, 1, 1, "Ready: 1 example, 1 photo. Mark the thing in 1 more photo, or go on."),
    ],
)
def test_what_is_needed(marked, fresh, queries, text):
    assert needed(Desk(photos(marked, fresh), photos(0, queries))) == text


def test_how_marks_were_understood():
    fresh, cup = photos(0, 1)[0], photos(1)[0]
    assert understood(fresh) == ""
    cup.way = "scribble"
    assert understood(cup).startswith(
        "0.png, understood as cup: 12% of the photo. To mend it, draw red on more"
    )
    cup.mask[:] = False
    cup.mask[0, :4], cup.way = True, "file"
    assert "0.5% of the photo. To mend it, drop another file, and press Use it again." in understood(cup)
