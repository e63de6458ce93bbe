"""Where EfficientNet-Lite0's cells look: the centre of the squared gradient less the cell's place, pixels.

Both ways are measured: as `fss` computes the network, and with TensorFlow's padding in every stage.

    python studies/measure_cells.py data/msrc studies/results/cells.json
"""

import argparse
import json
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fss.backbones import efficientnet, make_backbone
from fss.runs.folders import environment

SIDE = 321  # pixels
DIRECTIONS = 6  # random sums of channels whose gradients are taken


def offset(network: torch.nn.Module, image: torch.Tensor, level: str) -> np.ndarray:
    """Down and right (2,), pixels, of what the middle cell of a level depends on in an image (1,3,S,S)."""
    pixels, stride = image.requires_grad_(), network.strides[level]
    place = SIDE // 2 // stride
    cell = network(pixels, (level,))[level][0, :, place, place]  # (C,)
    signs = torch.randn(DIRECTIONS, len(cell), generator=torch.Generator().manual_seed(0))
    grads = [torch.autograd.grad(cell @ s, pixels, retain_graph=True)[0] for s in signs]
    weight = torch.stack(grads).square().sum((0, 1, 2)).double()  # (S,S)
    steps = torch.arange(SIDE).double()
    centre = [(weight.sum(1 - axis) @ steps) / weight.sum() for axis in (0, 1)]
    return np.array([float(c) for c in centre]) - place * stride


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path, help="a folder in VOC layout")
    parser.add_argument("out", type=Path, help="a JSON file")
    given = parser.parse_args()
    names = (given.root / "ImageSets/Segmentation/train.txt").read_text().split()[::20]
    pictures = [Image.open(given.root / f"JPEGImages/{name}.jpg").convert("RGB") for name in names]
    images = [torch.tensor(np.array(p.resize((SIDE, SIDE)))).permute(2, 0, 1)[None].float() for p in pictures]
    network = make_backbone("efficientnet_lite0", "auto", {}).eval().requires_grad_(False)
    ours, table = efficientnet._to_even_sides, {}
    for way, pad in (("fss", ours), ("TensorFlow's padding", lambda x: x)):
        efficientnet._to_even_sides = pad
        means = {
            level: np.mean([offset(network, x, level) for x in images], 0) for level in ("stage3", "stage4")
        }
        table[way] = {level: [round(float(v), 1) for v in mean] for level, mean in means.items()}
        print(way, table[way])
    told = {
        "date": date.today().isoformat(), "set": given.root.name, "photos": len(images), "side": SIDE,
        "down_and_right_px": table, "environment": environment(torch.device("cpu")),
    }  # fmt: skip
    given.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
