"""How long one's own photos take: `python studies/measure_latency.py OUT.json`, on an idle machine

Seconds from `fss predict` typed to its first mask written, of a further photo, and of a photo where eight are
segmented at once: `fss predict` as it comes, one support with a mask, drawn photos (`shapes`, 320 px) seen at
321 px. Medians of five. All of the machine's cores are used; the file says how many threads.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import torch
from measure_growth import Photos
from PIL import Image
from timing import median_seconds

from fss.data.files import png_bytes
from fss.photos.predictor import Predictor
from fss.runs.folders import environment
from fss.writing import write_text

PASSES, AT_ONCE = 5, 8


def cold(photos: Photos, folder: Path) -> float:
    """Seconds of the whole command on one photo, each time in a folder of its own."""
    support = photos.supports(1, 1)[0]
    mask = folder / "mask.png"
    mask.write_bytes(png_bytes(np.asarray(support.marks)))
    each = iter(range(PASSES))

    def run() -> None:
        words = [
            "--support",
            support.image,
            mask,
            "--query",
            photos.queries[0],
            "--out",
            folder / str(next(each)),
        ]
        command = [sys.executable, "-m", "fss", "predict", *map(str, words)]
        subprocess.run(command, check=True, capture_output=True)

    return median_seconds(run, PASSES)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="a JSON file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        photos = Photos(Path(root) / "shapes")
        first = cold(photos, Path(root))
        queries = [np.array(Image.open(path).convert("RGB")) for path in photos.queries[:AT_ONCE]]
        predictor = Predictor().learn(photos.supports(1, 1))
        predictor(queries[0])
        one_by_one = median_seconds(lambda: [predictor(query) for query in queries], PASSES) / AT_ONCE
        at_once = median_seconds(lambda: list(predictor.each(queries)), PASSES) / AT_ONCE
    report = {
        "date": date.today().isoformat(), "cold_seconds": first, "photo_seconds": one_by_one,
        "at_once_seconds": at_once, "at_once": AT_ONCE, "size": predictor.size,
        "environment": environment(torch.device("cpu")),
    }  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(given.out, json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
