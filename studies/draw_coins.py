"""The picture at the top of the README: `python studies/draw_coins.py docs/coins.jpg FOLDER`

Greek coins from Pompeii (Brooklyn Museum Collection, no known copyright restrictions), as scikit-image brings
them. The uppermost row is the support, with a box round each coin; the rest is the query. Both go into FOLDER
as row.png and coins.png, for `fss predict`.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fss.photos.annotations import Support
from fss.photos.prediction import overlay
from fss.photos.predictor import Predictor

BOXES = [
    (22, 34, 68, 75), (80, 35, 122, 76), (132, 27, 178, 74), (192, 27, 241, 73), (253, 32, 297, 72),
    (304, 14, 367, 71),
]  # fmt: skip
ROW, REST = slice(0, 82), slice(90, None)  # lines of the photo
RED = (225, 30, 40)


def main() -> None:
    """Segment and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    from skimage import data  # pip install scikit-image

    photo = np.repeat(data.coins()[..., None], 3, 2)
    row, rest = photo[ROW], photo[REST]
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("row", row), ("coins", rest)):
        Image.fromarray(part).save(given.folder / f"{name}.png")
    prediction = Predictor().learn(Support(row, BOXES, "coin", "box"))(rest)
    picture(row, rest, overlay(rest, prediction.labels(), prediction.classes)).save(given.picture, quality=88)


def picture(row: np.ndarray, rest: np.ndarray, prediction: np.ndarray) -> Image.Image:
    """The support with its boxes above; below the query, and its masks; twice their size."""
    width = 2 * row.shape[1]
    top = Image.fromarray(row).resize((width, 2 * row.shape[0]), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(top)
    for box in BOXES:
        draw.rectangle(tuple(2 * x for x in box), outline=RED, width=3)
    gap = 8
    side = (width - gap) // 2, round((width - gap) / 2 / rest.shape[1] * rest.shape[0])
    page = Image.new("RGB", (width, top.height + gap + side[1]), "white")
    page.paste(top, (0, 0))
    for i, part in enumerate((rest, prediction)):
        page.paste(
            Image.fromarray(part).resize(side, Image.Resampling.LANCZOS),
            (i * (side[0] + gap), top.height + gap),
        )
    return page


if __name__ == "__main__":
    main()
