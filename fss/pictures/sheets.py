"""`fss check-data`: the errors of a data set, and a sheet of images for each class."""

import numpy as np

from fss.config import Config
from fss.data.check import check_set, check_text
from fss.errors import UserError
from fss.pictures.overlay import class_sheet, file_name


def run_check(config: Config) -> None:
    """Print all errors of a data set, and draw a sheet of each class's images."""
    found = check_set(config.data, config.test.shots)
    print(check_text(found, config.data))
    folder = config.output / config.data.name / "check"
    split = found.splits.get("train", found.splits["val"])
    for c, name in enumerate(found.classes, 1):
        best = np.argsort(-split.pixels[:, c], kind="stable")
        shown = [split.samples[i] for i in best if split.pixels[i, c] > 0]
        class_sheet(folder / f"{c:02}_{file_name(name)}.jpg", shown, c)
    print(f"\na sheet of images per class: {folder}")
    problems = found.all_problems
    if problems:
        raise UserError("\n".join([f"{len(problems)} problems:", *problems]))
    print("no problems found")
