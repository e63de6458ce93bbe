"""Models as files: every head in both formats answers as it does here, and what cannot be is refused."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fss
from fss.backbones import resnet
from fss.backbones.resnet import ResNet18
from fss.cli import main
from fss.config import Part
from fss.data.canvas import fit, fit_mask
from fss.data.files import read_image
from fss.data.transforms import to_tensor
from fss.exchange import export as exports
from fss.exchange.export import export
from fss.heads import HEADS, Head, HeadOutput
from fss.model import FewShotModel, build_model
from fss.necks import make_neck
from fss.runs.models import load_base_with
from tests.make import TINY, make_folder

SIZE = 49
NO_ONNX = not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
NEEDS_ONNX = pytest.mark.skipif(NO_ONNX, reason="needs onnx, onnxscript, onnxruntime")
SMALL = {"asgnet": {"width": 8, "sizes": (7, 4), "cells": 2.0, "prototypes": 3}, "cwt": {"steps": 30},
         "pfenet": {"width": 8, "sizes": (7.0, 0.5)}, "bam": {"width": 8},
         "hdmnet": {"width": 8, "embed": 8}}  # fmt: skip


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """A block a stage: tracing takes its time by the operation."""
    monkeypatch.setitem(resnet.BLOCKS, 18, (1, 1, 1, 1))


def make(name, neck="ppm", **options):
    torch.manual_seed(0)
    backbone = ResNet18()
    decoder = None if neck == "none" else make_neck(neck, backbone.channels, {"channels": 16})
    classifier = None if decoder is None else torch.nn.Conv2d(decoder.channels, 4, 1)
    model = build_model(name, SMALL.get(name, {}) | options, backbone, decoder, False, classifier).eval()
    for module in model.modules():  # statistics that a fold would have to get right
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def suffix(kind):
    return {"onnx": ".onnx", "torch": ".pt2"}[kind]


@torch.no_grad()
def held(model, path, shots, seed=0):
    """Logits of the file and of the model on an episode that the export did not check."""
    inputs = exports._episode(11, shots, SIZE)
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        got = session.run(None, {k: v.numpy() for k, v in zip(exports.INPUTS, inputs, strict=True)})[0]
        got = torch.from_numpy(got)
    else:
        got = torch.export.load(path).module()(*inputs)
    query, images, masks = inputs
    return got, model(query, images, masks.long(), seed)


def _used(model):
    """Numbers of all parameters and buffers that are needed for the head's levels, and some for the graph."""
    on_neck = not {"neck", "base"}.isdisjoint(model.head.levels)
    levels = {*model.head.levels, *(model.neck.levels if on_neck else ())}
    levels = {level.partition(".")[0] for level in levels}  # a block's stage
    unused = [n for n in range(1, 5) if not any(f"stage{k}" in levels for k in range(n, 5))]
    skipped = tuple(f"backbone.layer{n}." for n in unused) + (() if on_neck else ("neck.",))
    return [v.numel() for k, v in model.state_dict().items() if not k.startswith(skipped)] + [200_000]


# Tracing takes seconds, so each head is traced once for each format, on a neck and with shots of its own.
CASES = {
    "asgnet": [("none", 2, {}), ("none", 1, {"context": "aspp", "similarity": "mean"})],
    "cwt": [("ppm", 1, {}), ("sfnet", 2, {"transformer": False})],
    "pfenet": [("none", 2, {}), ("sfnet", 1, {"level": "neck", "cut": "nothing"})],
    "prototype": [("alignseg", 2, {}), ("sfnet_gated", 1, {})],
}


# An ONNX file begins as torch.export's program, so that heads of one build need not be both.
BOTH = [
    *(pytest.param(name, "onnx", marks=NEEDS_ONNX) for name in HEADS if name != "insid3"),
    *((name, "torch") for name in ("asgnet", "cwt")),
]


@pytest.mark.parametrize(("name", "kind"), BOTH)
def test_every_head_answers_alike(tmp_path, kind, name):
    neck, shots, options = CASES.get(name, [("ppm", 1, {}), ("ppm", 2, {})])[kind == "torch"]
    model, path = make(name, neck, **options), tmp_path / f"file{suffix(kind)}"
    told = export(model, path, shots, SIZE, seed=3)
    got, wanted = held(model, path, shots, seed=3)
    assert got.shape == wanted.shape == (1, 2, SIZE, SIZE)
    assert float((got - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
    assert json.loads(path.with_name(f"{path.name}.json").read_text()) == told
    assert told["inputs"]["support_images"]["shape"] == [1, shots, 3, SIZE, SIZE]
    assert told["check"]["relative"] < 1e-4 and told["check"]["equal"] > 0.999
    assert {p.name for p in tmp_path.iterdir()} == {path.name, f"{path.name}.json"} and not model.as_stored
    assert model.backbone.layer4 is not None and path.stat().st_size < 4.5 * sum(_used(model))


@pytest.mark.skipif(NO_ONNX, reason="needs onnx, onnxscript, onnxruntime")
def test_the_verb_exports_what_was_trained_and_the_page_runs_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root, output = make_folder(tmp_path / "set"), tmp_path / "out"
    tiny = [s for s in TINY if not s.startswith("head.")]
    head = ["--head", "prototype", "network=base", "head.level=neck", "head.embed=4"]
    assert main(["train", "--data", "folder", *head, f"data.root={root}", f"output={output}", *tiny]) == 0
    best = next(output.glob("folder/fold0/prototype*/best.pt"))
    capsys.readouterr()
    assert main(["export", str(best), "cwt.onnx", "--shots", "1"]) == 0
    assert "prototype, 1 shot(s), 49 px, onnx" in capsys.readouterr().out
    told = json.loads(Path("cwt.onnx.json").read_text())["checkpoint"]
    assert told["fold"] == 0 and told["data"] == "folder"
    the_page_runs(root, fss.load_model(best))
    base = next(output.glob("folder/fold0/base*/best.pt"))
    what_a_base_network_can_be_asked_for(base, best, capsys)


def the_page_runs(root, model):
    """The code on docs/export.md, on two photos and a mask, against the model on our own resize."""
    query, support, *_ = sorted((root / "JPEGImages").iterdir())
    Path("query.jpg").write_bytes(query.read_bytes())
    Path("support.jpg").write_bytes(support.read_bytes())
    mask = np.array(Image.open(root / "SegmentationClass" / f"{support.stem}.png")) == 2
    mask = mask.astype(np.uint8)
    Image.fromarray(mask * 255).save("support_mask.png")
    page = (Path(__file__).parent.parent.parent / "docs/export.md").read_text(encoding="utf-8")
    there = {}
    exec(compile(page.partition("```python\n")[2].partition("```")[0], "docs/export.md", "exec"), there)
    images = [to_tensor(fit(read_image(p).astype(np.float32), SIZE)) for p in (query, support)]
    with torch.no_grad():
        wanted = model(
            images[0][None], images[1][None, None], torch.from_numpy(fit_mask(mask, SIZE))[None, None]
        )
    assert np.abs(there["logits"] - wanted.numpy()).max() < 1e-3 * wanted.abs().max()
    assert there["answer"].shape == (there["h"], there["w"]) == (32, 48)


def what_a_base_network_can_be_asked_for(base, best, capsys):
    on_base = load_base_with(base, Part(type="prototype", level="stage3"))
    assert on_base.head.levels == ("stage3",) and on_base.told["fold"] == 0
    with torch.no_grad():
        assert on_base(
            torch.zeros(1, 3, 49, 49), torch.zeros(1, 1, 3, 49, 49), torch.ones(1, 1, 49, 49)
        ).shape
    wrong = ["export", str(base), "x.pt2", "--shots", "1", "--head"]
    assert main([*wrong, "asgnet", "head.features=neck"]) == 2 and main([*wrong, "prototype", "a=b"]) == 2
    assert main(["export", str(best), "x.pt2", "--shots", "1", "--head", "prototype"]) == 2
    said = capsys.readouterr().err
    for part in ("'asgnet' has to learn", "'a=b' is no option of a head", "is no base checkpoint"):
        assert part in said


@pytest.mark.parametrize(
    ("out", "given", "message"),
    [
        ("a.bin", {}, r"a.bin: allowed are names in .onnx and .pt2, or --format"),
        ("a.pt2", {"size": 16}, "--size=16: ResNet18 takes 17 and above; nearest: 17"),
        ("a.pt2", {"size": 0}, "--size=0: .*nearest: 17"),
        ("a.pt2", {"size": None}, "give one with --size"),
        ("a.pt2", {"shots": 0}, "--shots 0"),
    ],
)
def test_what_is_asked_wrongly(tmp_path, out, given, message):
    with pytest.raises(fss.UserError, match=message):
        export(make("prototype"), tmp_path / out, **{"shots": 1, "size": SIZE, **given})
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_leaves_pytorch_says_so(tmp_path):
    with pytest.raises(fss.UserError, match="clusters each query outside of PyTorch, which no exported file"):
        export(make("insid3", "none"), tmp_path / "a.pt2", 1, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        fss.UserError, match=r"needs onnx, onnxscript, onnxruntime: pip install onnx onnxscript onnxruntime"
    ):
        export(make("prototype"), tmp_path / "a.onnx", 1, SIZE)
    assert list(tmp_path.iterdir()) == []


class Own(Head):
    """Stands on stage 2, and differs by what a test asks for."""

    levels = ("stage2",)

    def forward(self, episodes):
        x = episodes.query["stage2"].mean(1, keepdim=True) * share(episodes.support_masks)
        return HeadOutput(torch.cat([-x, x], 1))


def share(masks):
    return (masks == 1).float().mean()


class OutsideTheGraph(Own):
    def forward(self, episodes):
        x = episodes.query["stage2"].mean(1, keepdim=True) * float(
            (episodes.support_masks == 1).numpy().mean()
        )
        return HeadOutput(torch.cat([-x, x], 1))


class Branching(Own):
    def forward(self, episodes):
        if episodes.query["stage2"].mean() > 0:
            return super().forward(episodes)
        return super().forward(replace(episodes, query={"stage2": -episodes.query["stage2"]}))


class Wrong(Own):
    def forward(self, episodes):
        out = super().forward(episodes)
        return HeadOutput(out.logits * 0) if torch.compiler.is_exporting() else out


def own(head):
    torch.manual_seed(0)
    backbone = ResNet18()
    return FewShotModel(backbone, None, head(backbone.channels)).eval()


def test_a_head_of_ones_own_is_exported(tmp_path):
    export(own(Own), tmp_path / "a.pt2", 2, 33)
    got, told = (
        torch.export.load(tmp_path / "a.pt2").module(),
        json.loads((tmp_path / "a.pt2.json").read_text()),
    )
    assert got(*exports._episode(5, 2, 33)).shape == (1, 2, 33, 33) and told["checkpoint"] is None
    assert told["head"] == f"{__name__}:Own"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (OutsideTheGraph, "OutsideTheGraph cannot be exported to torch with PyTorch "),
        (Branching, "Branching cannot be exported to torch with PyTorch .*data-dependent"),
        (Wrong, r"would not answer as the model does: logits differ by 1.0e\+00 of the largest"),
    ],
)
def test_heads_that_cannot_be_exported(tmp_path, head, message):
    model = own(head)
    with pytest.raises(fss.UserError, match=message):
        export(model, tmp_path / "a.pt2", 1, 33)
    assert list(tmp_path.iterdir()) == [] and not model.as_stored
