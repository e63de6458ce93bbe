"""Hostile input: damaged and invented files end in `UserError`, and in nothing else.

More cases: FSS_FUZZ=2000 pytest tests/test_fuzz.py
"""

import io
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fss.config import Config
from fss.data.files import check_image, count_mask, image_size, read_image, read_mask
from fss.data.folder import read_classes
from fss.data.lists import read_list
from fss.data.planfile import read_plan
from fss.data.prepare.coco import Region, draw, read_annotations
from fss.data.prepare.findings import Findings
from fss.data.prepare.own import read_annotated
from fss.data.source import open_source
from fss.errors import UserError
from fss.recipes import load_config
from fss.report.episodes import read_episodes
from fss.report.page.page import report_page
from fss.report.page.svg import curves
from fss.report.results import make_rows, read_results
from fss.report.training import read_log, stretches
from fss.runs import checkpoint
from tests.make import make_folder

many = settings(
    max_examples=int(os.environ.get("FSS_FUZZ", 40)), deadline=None, derandomize="FSS_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

damage = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "zero"]), st.floats(0, 1), st.integers(0, 255)),
    min_size=1, max_size=6,
)  # fmt: skip
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
numbers = st.integers(-3, 12) | st.floats(-2, 12) | junk
points = st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=5) | junk
kinds = (
    st.sampled_from(["polygon", "rectangle", "circle", "ellipse", "mask", "bitmap", "rect", "point"]) | junk
)
texts = st.sampled_from(["1", "5", "1,1;5,1;5,5", "1,2,3", "-1", "nan", "1e400", "", "cat", "9" * 30])
FORMATS = {
    "labelme": st.fixed_dictionaries({
        "imagePath": st.just("photo.jpg") | junk, "imageHeight": junk, "imageWidth": junk,
        "shapes": st.lists(st.fixed_dictionaries({
            "label": st.just("cat") | junk, "shape_type": kinds, "points": points, "mask": junk,
        }), max_size=3),
    }),
    "VIA": st.dictionaries(st.text(max_size=3), st.fixed_dictionaries({
        "filename": st.just("photo.jpg"),
        "regions": st.lists(st.fixed_dictionaries({
            "region_attributes": st.just({"class": "cat"}) | junk,
            "shape_attributes": st.fixed_dictionaries({
                "name": kinds, "all_points_x": st.lists(numbers, max_size=4), "x": numbers, "y": numbers,
                "all_points_y": st.lists(numbers, max_size=4), "cx": numbers, "cy": numbers, "r": numbers,
                "rx": numbers, "ry": numbers, "width": numbers, "height": numbers, "theta": numbers,
            }) | junk,
        }) | junk, max_size=3),
    }), min_size=1, max_size=2),
    "Supervisely": st.fixed_dictionaries({
        "size": st.just({"height": 7, "width": 9}) | junk,
        "objects": st.lists(st.fixed_dictionaries({
            "classTitle": st.just("cat") | junk, "geometryType": kinds, "bitmap": junk,
            "points": st.fixed_dictionaries({"exterior": points, "interior": st.lists(points, max_size=1)}),
        }) | junk, max_size=3),
    }),
}  # fmt: skip


def harm(data: bytes, changes) -> bytes:
    out = bytearray(data)
    for kind, where, value in changes:
        at = int(where * max(len(out) - 1, 0))
        if kind == "cut":
            del out[at:]
        elif kind == "insert":
            out[at:at] = bytes([value]) * (1 + value % 7)
        elif kind == "zero":
            out[at : at + value] = bytes(len(out[at : at + value]))
        elif out:
            out[at] ^= value
    return bytes(out)


def only_user_errors(call, *arguments):
    """Whatever `call` returns; None where it refuses in words."""
    try:
        return call(*arguments)
    except UserError as error:
        assert str(error)
        return None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small set, and a folder beside it for what is made up; nothing else in it may change."""
    place = tmp_path_factory.mktemp("fuzz")
    make_folder(place / "set")
    (place / "made").mkdir()
    yield place
    assert sorted(p.name for p in place.iterdir()) == ["made", "set"]


@pytest.fixture(scope="module")
def source(place):
    settings_ = [f"data.root={place / 'set'}", "data.min_pixels=100"]
    return open_source(load_config("folder", "prototype", settings_).data, "val")


@many
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_list_files_and_class_names(place, data):
    for name in ("list.txt", "classes.txt"):
        (place / "made" / name).write_bytes(data)
    samples = only_user_errors(read_list, place / "made/list.txt", place / "set")
    for sample in samples or []:
        assert sample.image.resolve().is_relative_to(place.resolve() / "set")
    only_user_errors(read_list, place / "made/list.txt", place / "set", None, ("a", "b"))
    only_user_errors(read_classes, place / "made")


parts = ["JPEGImages/", "../", "2007_000001", ".jpg", ".png", " ", "SegmentationClass/", "/", "\x00"]


@many
@given(st.lists(st.sampled_from(parts), max_size=12).map("".join))
def test_list_lines_never_lead_out_of_the_root(place, line):
    (place / "made/line.txt").write_text(line)
    for sample in only_user_errors(read_list, place / "made/line.txt", place / "set") or []:
        for path in (sample.image, sample.mask):
            assert ".." not in path.parts and path.is_relative_to(place / "set")


@many
@given(st.binary(max_size=200) | junk.map(lambda tree: yaml.safe_dump(tree).encode()))
def test_yaml_files(place, data):
    path = place / "made/recipe.yaml"
    path.write_bytes(data)
    only_user_errors(load_config, "shapes", "cwt", [], [str(path)])


sections = {
    name: getattr(field.annotation, "model_fields", {}) for name, field in Config.model_fields.items()
}
keys = [f"{name}.{key}" for name, fields in sections.items() for key in fields]
OLD = [
    "backbone.layers",
    "backbone.stage1",
    "backbone.base",
    "neck.options",
    "neck.options.x",
    "pseudo.layers",
]


@many
@given(
    st.sampled_from([*keys, *OLD, "head.x", "neck.x", "network", "seed", "a.b.c", "data"]),
    junk.map(json.dumps) | st.text(max_size=20),
)
def test_settings_on_the_command_line(key, value):
    only_user_errors(load_config, "shapes", "cwt", [f"{key}={value}"])


def picture(kind: str, **options) -> bytes:
    random = np.random.default_rng(0)
    shape = (24, 31, 3) if kind == "JPEG" else (24, 31)
    image = Image.fromarray(random.integers(0, 256, shape).astype(np.uint8))
    image.save(out := io.BytesIO(), kind, **options)
    return out.getvalue()


@many
@given(st.sampled_from(["JPEG", "PNG", "BMP"]), damage)
def test_damaged_images_and_masks(place, kind, changes):
    path = place / "made/picture"
    path.write_bytes(harm(picture(kind), changes))
    for reader in (read_image, read_mask, image_size, check_image, count_mask):
        only_user_errors(reader, path)


@pytest.fixture(scope="module")
def sound_checkpoint(place):
    state = {
        "facts": {},
        "settings": {},
        "optimizer": {},
        "step": 0,
        "spent": 0.0,
        "best": 0.0,
        "validated": 0,
    }
    path = place / "made/sound.pt"
    checkpoint.save(path, {"stage": "base"}, torch.nn.Linear(20, 20), **state)
    return path.read_bytes()


@many
@given(damage)
def test_damaged_checkpoints(place, sound_checkpoint, changes):
    path = place / "made/damaged.pt"
    path.write_bytes(data := harm(sound_checkpoint, changes))
    content = only_user_errors(checkpoint.read, path)
    if content is not None and data != sound_checkpoint:  # what does not count, such as a date, was changed
        path.write_bytes(sound_checkpoint)
        wanted = checkpoint.read(path)["model"]
        assert all(torch.equal(v, wanted[k]) for k, v in content["model"].items())


@many
@given(junk)
def test_checkpoints_of_plain_values(place, tree):
    torch.save(tree, place / "made/plain.pt")
    only_user_errors(checkpoint.read, place / "made/plain.pt")


words = ["1", "-1", "kind 1", "kind 9", "2007_000016", "2007_000017", "\t", "\n", "\n\n", "#", "9" * 12]


@many
@given(
    st.binary(max_size=200) | st.lists(st.sampled_from(words), max_size=16).map(lambda w: "".join(w).encode())
)
def test_plan_files(place, source, data):
    (place / "made/plan.txt").write_bytes(data)
    for run in only_user_errors(read_plan, place / "made/plan.txt", source) or []:
        assert all(0 <= i < len(source.samples) for d in run for i in d.images)


RESULT = Path(__file__).parent.parent / "docs/results/shapes_fold0_cwt_1shot.json"


@many
@given(st.data())
def test_results(place, data):
    content = json.loads(RESULT.read_text())
    parts = ["protocol", "scores", "head", "shots", "config", "checkpoint", "environment"]
    part = content[data.draw(st.sampled_from(parts))]
    key = data.draw(st.sampled_from(sorted(part)))
    part[key] = data.draw(junk)
    (place / "made/result.json").write_text(json.dumps(content))
    results = only_user_errors(read_results, [place / "made/result.json"])
    if results:
        only_user_errors(make_rows, results)
        only_user_errors(report_page, results)


@many
@given(st.lists(st.dictionaries(st.sampled_from(["step", "total", "validation"]), junk) | junk, max_size=6))
def test_logs(place, lines):
    (place / "made/log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    log = only_user_errors(read_log, place / "made/log.jsonl")
    if log and log.losses:
        curves(stretches(log.losses), log.validations, [], 0, "")


cell_texts = st.sampled_from(["0", "1", "-1", "x", "", '"', "\n", "\r", "\0", ",", "9" * 5000])


@many
@given(st.lists(cell_texts, max_size=30))
def test_episode_files(place, cells):
    head = "run,number,class,query,support_1,intersection,union,iou\n"
    (place / "made/episodes.csv").write_text(head + ",".join(cells), newline="")
    only_user_errors(read_episodes, place / "made/episodes.csv")


@many
@given(st.text(max_size=40) | st.lists(junk, max_size=3) | junk, st.integers(1, 30), st.integers(1, 30))
def test_outlines(outline, h, w):
    for value in (outline, {"size": [h, w], "counts": outline}):
        mask = only_user_errors(draw, [Region(1, value, 0)], (h, w), "x")
        assert mask is None or (mask.shape == (h, w) and set(np.unique(mask)) <= {0, 1})


@many
@given(st.fixed_dictionaries({"images": junk, "annotations": junk, "categories": junk}) | junk)
def test_annotation_files(place, tree):
    path = place / "made/annotations.json"
    path.write_text(json.dumps(tree))
    only_user_errors(read_annotations, path, "")
    only_user_errors(read_annotated, path, None, Findings())


@many
@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_annotations_of_every_format(place, kind, data):
    tree = data.draw(FORMATS[kind])
    path = place / "made/photo.jpg.json"
    path.write_text(json.dumps(tree))
    Image.new("RGB", (9, 7)).save(place / "made/photo.jpg")
    findings = Findings("annotation")
    read = only_user_errors(read_annotated, path, None, findings)
    for item in read.items if read else ():
        mask = only_user_errors(item.draw, {name: 1 for name in read.classes})
        assert mask is None or mask.shape == item.size


@many
@given(st.lists(st.tuples(st.sampled_from(["box", "polygon", "mask", "ellipse"]), texts, texts), max_size=3))
def test_cvat_files(place, shapes):
    path = place / "made/cvat.xml"
    root = ElementTree.Element("annotations")
    image = ElementTree.SubElement(root, "image", name="photo.jpg", height="7", width="9")
    for tag, one, other in shapes:
        same = dict.fromkeys(("xtl", "xbr", "cx", "rx", "left", "width", "rle", "points"), one)
        ElementTree.SubElement(
            image, tag, {**same, **dict.fromkeys(("ytl", "ybr", "cy", "ry", "top", "height", "label"), other)}
        )
    path.write_bytes(ElementTree.tostring(root))
    read = only_user_errors(read_annotated, path, None, Findings("annotation"))
    for item in read.items if read else ():
        only_user_errors(item.draw, {name: 1 for name in read.classes})


@many
@given(st.text(alphabet="0123456789.- ex\n", max_size=60))
def test_yolo_files(place, text):
    (place / "made/yolo").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7)).save(place / "made/yolo/a.jpg")
    (place / "made/yolo/classes.txt").write_text("cat\ndog\n")
    (place / "made/yolo/a.txt").write_text("0 0 0 0 1 1 1\n" + text)
    read = only_user_errors(read_annotated, place / "made/yolo", None, Findings("annotation"))
    for item in read.items if read else ():
        only_user_errors(item.draw, {name: 1 for name in read.classes})
