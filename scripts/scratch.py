"""A folder that looks like a checkout in use: tiny data sets, photos and weight files under documented names.

All is drawn from seeds or copied from the project; nothing is downloaded. `make` is all there is to call.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # tests/ is no part of the package

from fss.backbones.resnet import ResNet  # noqa: E402
from fss.data.coco import COCO_CLASSES  # noqa: E402
from fss.data.voc import PASCAL_CLASSES  # noqa: E402
from tests.fixtures.seeded_checkpoint import seeded_checkpoint  # noqa: E402
from tests.make import save_mask  # noqa: E402

OWN = ("apple", "bolt", "cup", "dog")  # of photos of one's own
# COCO's category ids have gaps; these are the ones in use.
IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
H, W, SIDE = 120, 160, 60  # pixels: of images, and of an object, which must have 2,048


def make(work: Path) -> None:
    """Fill an empty folder."""
    work.mkdir(parents=True)
    for name in ("configs", "docs", "examples", "lists", "scripts"):
        shutil.copytree(ROOT / name, work / name)
    for build in (_programs, _pascal, _coco, _fss1000, _own, _single_photos, _weights, _results):
        build(work)


def _programs(work: Path) -> None:
    """What an installation puts on the path."""
    folder = work / "bin"
    for path in (folder, work / ".config/fish/completions"):
        path.mkdir(parents=True)
    modules = {"python": "", "fss": "-m fss", "torchrun": "-m torch.distributed.run"}
    for name, module in modules.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (folder / name).chmod(0o755)


def _boxes(n: int, classes: int) -> list[tuple[int, int, int]]:
    """Label, top and left of an image's two objects: classes n and n + 1, counted round."""
    random = np.random.default_rng(n)
    tops, shift = random.integers(5, H - SIDE - 5, 2), random.integers(2, 16, 2)
    return [(n % classes + 1, tops[0], shift[0]), ((n + 1) % classes + 1, tops[1], 80 + shift[1])]


def _image(n: int, classes: int) -> Image.Image:
    pixels = np.random.default_rng(n).integers(90, 160, (H, W, 3)).astype(np.uint8)
    for label, top, left in _boxes(n, classes):
        colour = np.random.default_rng(1000 + label).integers(0, 256, 3)
        pixels[top : top + SIDE, left : left + SIDE] = colour
    return Image.fromarray(pixels)


def _mask(n: int, classes: int) -> np.ndarray:
    """(H,W) labels, with 255 along the objects' edges."""
    mask = np.zeros((H, W), np.uint8)
    for label, top, left in _boxes(n, classes):
        mask[top : top + SIDE, left : left + SIDE] = 255
        mask[top + 1 : top + SIDE - 1, left + 1 : left + SIDE - 1] = label
    return mask


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _lines(names) -> str:
    return "".join(f"{name}\n" for name in names)


def _voc(root: Path, train: list[str], val: list[str], classes: int) -> None:
    """Images and masks with lists, as VOC 2012 unpacks."""
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for n, name in enumerate([*train, *val]):
        _image(n, classes).save(root / f"JPEGImages/{name}.jpg")
        save_mask(root / f"SegmentationClass/{name}.png", _mask(n, classes))
    _write(root / "ImageSets/Segmentation/train.txt", _lines(train))
    _write(root / "ImageSets/Segmentation/val.txt", _lines(val))


def _pascal(work: Path) -> None:
    """VOC 2012 with SBD beside it, saliency maps and image-level labels; 6 images a class, for 5 shots."""
    from scipy.io import savemat

    root, classes = work / "data/pascal", len(PASCAL_CLASSES)
    train, val = [f"2007_{n:06d}" for n in range(60)], [f"2008_{n:06d}" for n in range(60)]
    extra = [f"2009_{n:06d}" for n in range(8)]
    _voc(root, train, val, classes)
    (root / "sbd/cls").mkdir(parents=True)
    for n, name in enumerate(extra):
        _image(n, classes).save(root / f"JPEGImages/{name}.jpg")
        content = {"Segmentation": _mask(n, classes)}
        savemat(root / f"sbd/cls/{name}.mat", {"GTcls": content})
    for split, names in {"train": extra[:6], "val": extra[6:], "train_noval": extra[:6]}.items():
        _write(root / f"sbd/{split}.txt", _lines(names))
    shutil.copytree(root, work / "data/voc")
    every = [*train, *extra]
    (work / "saliency").mkdir()
    for n, name in enumerate(every):
        mask = _mask(n if n < len(train) else n - len(train), classes)
        Image.fromarray((mask > 0).astype(np.uint8) * 200).save(work / f"saliency/{name}.png")
    shown = [[PASCAL_CLASSES[c - 1] for c, *_ in _boxes(n % len(train), classes)] for n in range(len(every))]
    _write(work / "labels.txt", _lines("\t".join([n, *c]) for n, c in zip(every, shown, strict=True)))


def _outline(top: int, left: int) -> list[list[int]]:
    top, left = int(top), int(left)
    return [[left, top, left + SIDE, top, left + SIDE, top + SIDE, left, top + SIDE]]


def _instances(names: list[str], classes: list[str], ids: list[int]) -> str:
    """COCO's annotation file for images 0..N of these names."""
    images = [{"id": n, "file_name": f"{name}.jpg", "height": H, "width": W} for n, name in enumerate(names)]
    objects = [
        {"image_id": n, "category_id": ids[label - 1], "segmentation": _outline(top, left), "iscrowd": 0,
         "area": SIDE * SIDE, "bbox": [int(left), int(top), SIDE, SIDE]}
        for n in range(len(names))
        for label, top, left in _boxes(n, len(classes))
    ]  # fmt: skip
    kinds = [{"id": i, "name": name} for i, name in zip(ids, classes, strict=True)]
    entries = [{"id": i, **entry} for i, entry in enumerate(objects, 1)]
    return json.dumps({"images": images, "annotations": entries, "categories": kinds})


def _coco(work: Path) -> None:
    """COCO 2014 as it unpacks, 6 images a class in both splits."""
    root = work / "data/coco"
    for split in ("train2014", "val2014"):
        names = [f"COCO_{split}_{n:012d}" for n in range(240)]
        (root / split).mkdir(parents=True)
        for n, name in enumerate(names):
            _image(n, len(COCO_CLASSES)).save(root / split / f"{name}.jpg")
        text = _instances(names, list(COCO_CLASSES), IDS)
        _write(root / f"annotations/instances_{split}.json", text)


def _fss1000(work: Path) -> None:
    """A folder of ten images for each class, and the lists of classes."""
    root = work / "data/fss1000"
    splits = {"trn": [f"a{n}" for n in range(4)], "val": ["b0", "b1"], "test": ["c0", "c1"]}
    for c, name in enumerate(n for names in splits.values() for n in names):
        (root / name).mkdir(parents=True)
        for i in range(1, 11):
            _image(10 * c + i, 20).save(root / name / f"{i}.jpg")
            labels = _mask(10 * c + i, 20)
            Image.fromarray((labels == labels.max()).astype(np.uint8) * 255).save(root / name / f"{i}.png")
    shutil.copytree(root, work / "fewshot_data")
    for folder in ("class_lists", "DIR"):
        for split, names in splits.items():
            _write(work / f"{folder}/{split}.txt", _lines(names))


def _own(work: Path) -> None:
    """Photos of one's own, in every form in which they may be annotated."""
    names = [f"img_{n:03d}" for n in range(48)]
    for root in (work / "my_photos", work / "MY_PHOTOS"):
        _voc(root, names[:24], names[24:], len(OWN))
        _write(root / "classes.txt", _lines(OWN))
    names = [f"new_{n:02d}" for n in range(12)]
    for folder in ("photos", "masks", "labelme_files", "labelme_json"):
        (work / folder).mkdir()
    _write(work / "classes.txt", _lines(OWN))  # beside masks/: what their labels are called
    _write(work / "instances.json", _instances(names, list(OWN), [1, 2, 3, 4]))
    for n, name in enumerate(names):
        _image(n, len(OWN)).save(work / f"photos/{name}.jpg")
        save_mask(work / f"masks/{name}.png", _mask(n, len(OWN)))
        shapes = [
            {"label": OWN[label - 1], "shape_type": "rectangle", "flags": {}, "group_id": None,
             "points": [[int(left), int(top)], [int(left) + SIDE, int(top) + SIDE]]}
            for label, top, left in _boxes(n, len(OWN))
        ]  # fmt: skip
        for folder in ("labelme_files", "labelme_json"):
            _image(n, len(OWN)).save(work / folder / f"{folder}_{n}.jpg")
            content = {"version": "5.4", "imagePath": f"{folder}_{n}.jpg", "imageData": None,
                       "imageHeight": H, "imageWidth": W, "shapes": shapes}  # fmt: skip
            _write(work / folder / f"{folder}_{n}.json", json.dumps(content))


def _single_photos(work: Path) -> None:
    """Single photos with masks and scribbles, and a few in a folder."""
    (work / "a_few_photos").mkdir()
    for n in range(2):
        _image(n, 4).save(work / f"a_few_photos/{n}.jpg")
    animals = {"cat": 3, "cat1": 3, "cat2": 7, "dog": 1, "photo": 11, "a": 15, "b": 19, "c": 27, "huge": 23}
    for name, n in animals.items():
        size = (3 * W, 3 * H) if name == "huge" else (2 * W, 2 * H)
        _image(n, 4).resize(size, Image.Resampling.NEAREST).save(work / f"{name}.jpg")
        whole = Image.fromarray((_mask(n, 4) == n % 4 + 1).astype(np.uint8)).resize(size, 0)
        for mask in (f"{name}.png", f"{name}_mask.png"):
            whole.point(lambda v: 255 * v).save(work / mask)
        marks = Image.new("L", size, 255)
        box, drawn = whole.getbbox(), ImageDraw.Draw(marks)
        drawn.line((box[0] + 20, box[1] + 20, box[2] - 20, box[3] - 20), fill=1, width=3)
        drawn.line((2, 2, size[0] - 3, 2), fill=0, width=3)
        marks.save(work / f"{name}_scribble.png")
    shutil.copy(work / "photo_scribble.png", work / "scribble.png")
    _image(5, 4).save(work / "street.jpg")
    for name, label in (("car", 2), ("tree", 3)):
        Image.fromarray((_mask(5, 4) == label).astype(np.uint8) * 255).save(work / f"street_{name}.png")


def _weights(work: Path) -> None:
    """Weight files in the published formats, filled at random."""
    (work / "initmodel").mkdir()
    torch.save(_imagenet(50, deep=True), work / "initmodel/resnet50_v2.pth")
    torch.save(_imagenet(18, deep=False), work / "initmodel/resnet18-f37072fd.pth")
    (work / "resnet50_v2.pth").hardlink_to(work / "initmodel/resnet50_v2.pth")
    for name, fixture in (("best", "asgnet50_pyramid_1shot"), ("pspnet", "cwt_pspnet50_features")):
        with np.load(ROOT / f"tests/fixtures/{fixture}.npz", allow_pickle=False) as numbers:
            state = seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"]))
        torch.save(state, work / f"{name}.pth")
    shapes = {"w_qkvs.weight": [2048, 512], "fc.weight": [512, 2048], "fc.bias": [512],
              "layer_norm.weight": [512], "layer_norm.bias": [512]}  # fmt: skip
    keys = json.dumps([[f"module.{name}", shape, "float32"] for name, shape in shapes.items()])
    torch.save({"epoch": 3, **seeded_checkpoint(keys, 7)}, work / "transformer.pth")


def _imagenet(layers: int, deep: bool) -> dict[str, torch.Tensor]:
    """A ResNet's random weights under the names of ImageNet files."""
    stem = {"layer0.0": "conv1", "layer0.1": "bn1"}
    if deep:
        stem |= {"layer0.3": "conv2", "layer0.4": "bn2", "layer0.6": "conv3", "layer0.7": "bn3"}
    torch.manual_seed(layers)
    state = {}
    for name, value in ResNet(layers, deep).state_dict().items():
        head = ".".join(name.split(".")[:2])
        state[name.replace(head, stem[head], 1) if head in stem else name] = value
    width = 512 if layers < 50 else 2048
    return state | {"fc.weight": torch.zeros(1000, width), "fc.bias": torch.zeros(1000)}


def _results(work: Path) -> None:
    """Result files of real tests, where `fss report` is told to look, and two to compare."""
    for file in sorted((ROOT / "docs/results").glob("shapes_fold?_*_?shot.json")):
        _, fold, *head, shot = file.stem.split("_")
        test = f"results/shapes/{fold}/measured_{'_'.join(head)}/test_{shot}_5x200_seed2021_best"
        (work / test).mkdir(parents=True)
        shutil.copy(file, work / test / "result.json")
    for name, head in (("ONE", "cwt"), ("OTHER", "asgnet")):
        (work / name).mkdir()
        shutil.copy(ROOT / f"docs/results/shapes_fold0_{head}_1shot.json", work / name / "result.json")
