"""COCO from miniature archives in the official format: polygons, run lengths, crowds, overlaps, damage."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from fss.cli import main
from fss.data.coco import COCO_CLASSES
from fss.data.files import read_mask
from fss.data.prepare.coco import Region, draw
from fss.errors import UserError

pytest.importorskip("pycocotools", reason="pip install pycocotools")

# COCO's category ids have gaps; these are the ones in use.
IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
H, W = 40, 60


def rectangle(top, left, bottom, right):
    """A polygon that covers rows top..bottom-1 and columns left..right-1."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(mask):
    """COCO's uncompressed code: lengths of runs in column order, the first one of zeros."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def entry(number, image, category, outline, crowd=0):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": outline,
            "iscrowd": crowd, "area": 1.0, "bbox": [0, 0, 1, 1]}  # fmt: skip


def write_split(root, split, annotations, images):
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    entries = []
    for number in images:
        name = f"COCO_{split}_{number:012d}.jpg"
        Image.fromarray(np.full((H, W, 3), number % 200, np.uint8)).save(root / split / name)
        entries.append({"id": number, "file_name": name, "height": H, "width": W})
    categories = [{"id": i, "name": n, "supercategory": "x"} for i, n in zip(IDS, COCO_CLASSES, strict=True)]
    content = {"images": entries, "annotations": annotations, "categories": categories[::-1]}
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))


@pytest.fixture
def archive(tmp_path):
    """Train: image 1 polygons that overlap, 2 a crowd of run lengths, 3 a compressed code, 4 nothing."""
    from pycocotools import mask as api

    root, crowd = tmp_path / "coco", np.zeros((H, W), np.uint8)
    crowd[5:9, 7:20] = crowd[30:33, 40:41] = 1
    code = api.encode(np.asfortranarray(crowd))
    code["counts"] = code["counts"].decode()
    write_split(
        root, "train2014",
        [entry(11, 1, 90, rectangle(10, 12, 20, 22)), entry(10, 1, 1, rectangle(2, 4, 30, 44)),
         entry(12, 2, 13, run_lengths(crowd), crowd=1), entry(13, 3, 27, code)],
        [1, 2, 3, 4],
    )  # fmt: skip
    write_split(root, "val2014", [entry(20, 5, 2, rectangle(0, 0, H, W))], [5, 6])
    return root


def prepare(root, lists):
    return main(["prepare", "coco", "--root", str(root), "--lists", str(lists)])


def mask_of(root, split, number):
    return read_mask(root / f"SegmentationClass/{split}/COCO_{split}_{number:012d}.png")


def test_masks_equal_hand_made_truth(archive, tmp_path):
    assert prepare(archive, tmp_path / "lists") == 0
    truth = np.zeros((H, W), np.uint8)
    truth[2:30, 4:44] = 1  # person
    truth[10:20, 12:22] = 80  # toothbrush, id 90: smaller, so on top, though it stands first
    assert np.array_equal(mask_of(archive, "train2014", 1), truth)
    crowd = np.zeros((H, W), np.uint8)
    crowd[5:9, 7:20] = crowd[30:33, 40:41] = 1
    assert np.array_equal(mask_of(archive, "train2014", 2), 12 * crowd)  # id 13, a crowd like any other
    assert np.array_equal(mask_of(archive, "train2014", 3), 25 * crowd)  # id 27 is the 25th
    assert (mask_of(archive, "val2014", 5) == 2).all()


def test_lists_hold_annotated_images_and_open_as_coco(archive, tmp_path):
    from fss.data.source import open_source
    from fss.recipes import load_config

    assert prepare(archive, tmp_path / "lists") == 0
    settings = [f"data.root={archive}", f"data.train_list={tmp_path}/lists/train.txt"]
    source = open_source(load_config("coco", "prototype", settings).data, "train")
    assert [s.name[-1] for s in source.samples] == ["1", "2", "3"] and source.published is None
    assert source.index.pixels[0, [1, 80]].tolist() == [28 * 40 - 100, 100]


def test_damage_is_named_and_counted_at_the_end(archive, tmp_path, capsys):
    path = archive / "annotations/instances_train2014.json"
    content = json.loads(path.read_text())
    by_id = {a["id"]: a for a in content["annotations"]}
    by_id[10]["segmentation"] = rectangle(2, 4, 30, W + 9)
    by_id[12]["segmentation"] = {"size": [H, W], "counts": [5, 5]}
    content["annotations"] += [
        entry(30, 99, 1, rectangle(0, 0, 5, 5)),
        entry(31, 1, 12, rectangle(0, 0, 5, 5)),
    ]
    path.write_text(json.dumps(content))
    photo = archive / "val2014/COCO_val2014_000000000005.jpg"
    photo.write_bytes(photo.read_bytes()[:-40])
    for _ in range(2):  # the same both times
        assert prepare(archive, tmp_path / "lists") == 2
        error = capsys.readouterr().err
        for part in (
            "5 problems", "annotation 30: no image has the id 99", "annotation 31: no category has the id 12",
            "000000000001.jpg, annotation 10: reaches 9.0 pixels out of the image (60x40)",
            "000000000002.jpg, annotation 12: its run-length code adds up to 10 pixels, the image has",
            "000000000005.jpg is damaged: it breaks off",
        ):  # fmt: skip
            assert part in error
    assert (tmp_path / "lists/train.txt").read_text().count("\n") == 1
    assert (tmp_path / "lists/val.txt").read_text() == ""


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda root: (root / "annotations/instances_val2014.json").unlink(), "val2014.json cannot be read"),
        (lambda root: (root / "annotations/instances_val2014.json").write_text("[1"), "cannot be read"),
        (
            lambda root: (root / "annotations/instances_val2014.json").write_text("{}"),
            "images must be a list",
        ),
        (lambda root: (root / "val2014").rename(root / "val"), "no val2014/ in"),
    ],
)
def test_missing_parts_say_what_to_do(archive, tmp_path, harm, message, capsys):
    harm(archive)
    assert prepare(archive, tmp_path / "lists") == 2
    assert message in capsys.readouterr().err


def test_killed_in_the_middle_and_run_again(tmp_path):
    """SIGKILL while masks are written; the second run ends as one that was never stopped."""
    trees = []
    for name in ("killed", "whole"):
        root = tmp_path / name
        boxes = [entry(n, n, IDS[n % 80], rectangle(n % 9, n % 13, 30, 50)) for n in range(1, 1500)]
        write_split(root, "train2014", boxes, range(1, 1500))
        write_split(root, "val2014", boxes[:3], range(1, 4))
        command = [
            sys.executable,
            "-m",
            "fss",
            "prepare",
            "coco",
            "--root",
            str(root),
            "--lists",
            f"{root}/lists",
        ]
        if name == "killed":
            first = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
            masks = root / "SegmentationClass/train2014"
            deadline = time.monotonic() + 120
            while (not masks.is_dir() or len(os.listdir(masks)) < 100) and time.monotonic() < deadline:
                time.sleep(0.005)
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            assert 50 <= len(list(masks.glob("C*.png"))) < 1499 and not (root / "lists/train.txt").exists()
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        trees.append(
            {p.relative_to(root): p.read_bytes() for p in root.rglob("*.*") if p.suffix in (".png", ".txt")}
        )
        assert ("1499" if name == "whole" else "kept") in run.stdout
    assert len(trees[0]) == 1499 + 3 + 2
    assert trees[0] == trees[1] and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("code", ["]6d0d000000", "]", "'[iIO_kQEic1", "PHMXG4", "", "\u00e9", 7, None])
def test_run_length_codes_are_checked_before_pycocotools_sees_them(code):
    """It takes some of these for whole, and writes beyond its memory for others."""
    region = Region(1, {"size": [H, W], "counts": code}, 20)
    with pytest.raises(UserError, match="x, annotation 20: its run-length code"):
        draw([region], (H, W), "x")


def test_compressed_codes_are_read_as_pycocotools_reads_them():
    from pycocotools import mask as api

    random = np.random.default_rng(0)
    for _ in range(50):
        drawn = (random.random((H, W)) < random.random()).astype(np.uint8)
        code = api.encode(np.asfortranarray(drawn))
        assert np.array_equal(draw([Region(1, code, 0)], (H, W), "x"), drawn)


def twice(part, key, value):
    def harm(content):
        content[part].append({**content[part][0], key: value})

    return harm


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (twice("images", "file_name", "other.jpg"), "images with id '5' stand in it twice"),
        (
            twice("images", "id", 77),
            "images with file_name 'COCO_val2014_000000000005.jpg' stand in it twice",
        ),
        (twice("categories", "name", "more"), "categories with id"),
        (lambda c: c["images"][0].update(file_name="../../x.jpg"), "image '../../x.jpg' leads out of"),
        (
            lambda c: c["images"][0].update(file_name="a\0b.jpg"),
            'images[0]: file_name is "a\\u0000b.jpg"; wanted the image\'s file',
        ),
        (
            lambda c: c["annotations"][0].update(image_id={}),
            "annotations[0]: image_id is {}; wanted a whole number",
        ),
        (
            lambda c: c["annotations"][0].update(category_id=[1]),
            "annotations[0]: category_id is [1]; wanted a whole",
        ),
    ],
)
def test_entries_that_cannot_be_used_are_named(archive, tmp_path, harm, message, capsys):
    path = archive / "annotations/instances_val2014.json"
    content = json.loads(path.read_text())
    harm(content)
    path.write_text(json.dumps(content))
    assert prepare(archive, tmp_path / "lists") == 2
    assert message in capsys.readouterr().err
