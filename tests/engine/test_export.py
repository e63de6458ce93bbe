"""Models as files: every head in both formats answers as it does here, and what cannot be is refused."""

import importlib.util
import json

import pytest
import torch

import fss
from fss.backbones import resnet
from fss.backbones.resnet import ResNet
from fss.cli import main
from fss.engine import export as exports
from fss.engine.export import export
from fss.heads import HEADS, Head, HeadOutput
from fss.model import FewShotModel, build_model
from fss.necks import make_neck
from fss.ops import normalise
from tests.make import TINY, make_folder

SIZE = 49
NO_ONNX = not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
ONNX = pytest.param(
    "onnx", marks=pytest.mark.skipif(NO_ONNX, reason="onnx, onnxscript, onnxruntime: fss[export]")
)
SMALL = {"asgnet": {"width": 8, "sizes": (7, 4), "cells": 2.0, "prototypes": 3}, "cwt": {"steps": 30}}


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """A block a stage: tracing takes its time by the operation."""
    monkeypatch.setitem(resnet.BLOCKS, 18, (1, 1, 1, 1))


def make(name, neck="ppm", **options):
    torch.manual_seed(0)
    backbone = ResNet(18)
    decoder = make_neck(neck, backbone.channels, {"channels": 16})
    model = build_model(name, SMALL.get(name, {}) | options, backbone, decoder).eval()
    for module in model.modules():  # statistics that a fold would have to get right
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def suffix(kind):
    return {"onnx": ".onnx", "torch": ".pt2"}[kind]


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
    with torch.no_grad():
        return got, model(normalise(query), normalise(images), masks.long(), seed)


CASES = [(name, "ppm", shots, {}) for shots, name in enumerate(HEADS, 1)]
NECKS = [
    ("prototype", "alignseg", 1, {}), ("asgnet", "sfnet", 2, {"features": "neck"}),
    ("asgnet", "ppm", 1, {"context": "aspp", "similarity": "mean"}),
]  # fmt: skip


@pytest.mark.parametrize("kind", [ONNX, "torch"])
@pytest.mark.parametrize(("name", "neck", "shots", "options"), CASES)
def test_every_head_answers_alike(tmp_path, kind, name, neck, shots, options):
    holds(tmp_path, kind, name, neck, 1 + (shots + (kind == "onnx")) % 2, options)


@pytest.mark.parametrize("kind", [ONNX])
@pytest.mark.parametrize(("name", "neck", "shots", "options"), NECKS)
def test_necks_and_options_answer_alike(tmp_path, kind, name, neck, shots, options):
    holds(tmp_path, kind, name, neck, shots, options)


def holds(tmp_path, kind, name, neck, shots, options):
    model, path = make(name, neck, **options), tmp_path / f"file{suffix(kind)}"
    told = export(model, path, shots, SIZE, seed=3)
    got, wanted = held(model, path, shots, seed=3)
    assert got.shape == wanted.shape == (1, 2, SIZE, SIZE)
    assert float((got - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
    assert json.loads(path.with_suffix(".json").read_text()) == told
    assert told["inputs"]["support_images"]["shape"] == [1, shots, 3, SIZE, SIZE]
    assert told["check"]["relative"] < 1e-4 and told["check"]["equal"] > 0.999
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "file.json"} and not model.as_stored


def test_the_verb_exports_what_was_trained(tmp_path, capsys):
    root, output = make_folder(tmp_path / "set"), tmp_path / "out"
    tiny = [s for s in TINY if not s.startswith("head.")]
    head = ["--head", "prototype", "backbone.stage1=true", "head.level=neck", "head.embed=4"]
    assert main(["train", "--data", "folder", *head, f"data.root={root}", f"output={output}", *tiny]) == 0
    best = next(output.glob("folder/fold0/prototype*/best.pt"))
    out = tmp_path / "files" / "model.pt2"
    capsys.readouterr()
    assert main(["export", str(best), str(out), "--shots", "2"]) == 0
    assert "prototype, 2 shot(s), 49 px, torch" in capsys.readouterr().out
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["checkpoint"]["fold"] == 0 and told["checkpoint"]["data"] == "folder"
    got, wanted = held(fss.load_model(best), out, 2)
    assert torch.allclose(got, wanted, atol=1e-4)
    base = next(output.glob("folder/fold0/base*/best.pt"))
    on_base = ["export", str(base), str(tmp_path / "base.pt2"), "--shots", "1", "--head"]
    assert main([*on_base, "prototype", "head.level=stage3"]) == 0
    told = json.loads((tmp_path / "base.json").read_text())["checkpoint"]
    assert (told["head"], told["head_options"]["level"], told["fold"]) == ("prototype", "stage3", 0)
    assert main([*on_base, "asgnet", "head.features=neck"]) == 2 and main([*on_base, "prototype", "a=b"]) == 2
    assert main(["export", str(best), str(tmp_path / "x.pt2"), "--shots", "1", "--head", "prototype"]) == 2
    said = capsys.readouterr().err
    for part in ("'asgnet' has to learn", "'a=b' is no option of a head", "is no checkpoint of stage 1"):
        assert part in said


@pytest.mark.parametrize(
    ("out", "given", "message"),
    [
        ("a.bin", {}, r"a.bin: allowed are names in .onnx and .pt2, or --format"),
        ("a.json", {"kind": "torch"}, "take another suffix"),
        ("a.pt2", {"size": 50}, "--size 50: allowed are 8n.1 from 33 to 2049, such as 49"),
        ("a.pt2", {"size": 17}, "--size 17: .*such as 33"),
        ("a.pt2", {"size": None}, "give one with --size"),
        ("a.pt2", {"shots": 0}, "--shots 0"),
    ],
)
def test_what_is_asked_wrongly(tmp_path, out, given, message):
    with pytest.raises(fss.UserError, match=message):
        export(make("prototype"), tmp_path / out, **{"shots": 1, "size": SIZE, **given})
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        fss.UserError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'fss\[export\]'"
    ):
        export(make("prototype"), tmp_path / "a.onnx", 1, SIZE)
    assert list(tmp_path.iterdir()) == []


class Own(Head):
    """Stands on stage 2, and differs by what a test asks for."""

    levels = ("stage2",)

    def prepare(self, support_masks, seed):
        return {"share": (support_masks == 1).float().mean((1, 2))}

    def forward(self, query, support, support_masks, extras, query_mask=None):
        x = query["stage2"].mean(1, keepdim=True) * extras["share"].mean()
        return HeadOutput(torch.cat([-x, x], 1))


class Complete(Own):
    def prepare_in_graph(self, support_masks):
        return self.prepare(support_masks, 0)


class Branching(Complete):
    def forward(self, query, *rest):
        if query["stage2"].mean() > 0:
            return super().forward(query, *rest)
        return super().forward({"stage2": -query["stage2"]}, *rest)


class Wrong(Complete):
    def prepare_in_graph(self, support_masks):
        return {"share": torch.zeros(len(support_masks))}


def own(head):
    torch.manual_seed(0)
    backbone = ResNet(18)
    return FewShotModel(backbone, None, head(backbone.channels)).eval()


def test_a_head_of_ones_own_says_how_a_graph_prepares(tmp_path):
    export(own(Complete), tmp_path / "a.pt2", 2, 33)
    got, told = torch.export.load(tmp_path / "a.pt2").module(), json.loads((tmp_path / "a.json").read_text())
    assert got(*exports._episode(5, 2, 33)).shape == (1, 2, 33, 33) and told["checkpoint"] is None
    assert told["head"] == "tests.engine.test_export:Complete"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (Own, r"Own.prepare depends on the support masks, .*prepare_in_graph\(self, support_masks\)"),
        (Branching, "Branching cannot be exported to torch with PyTorch .*data-dependent"),
        (Wrong, r"would not answer as the model does: logits differ by 1.0e\+00 of the largest"),
    ],
)
def test_heads_that_cannot_be_exported(tmp_path, head, message):
    model = own(head)
    with pytest.raises(fss.UserError, match=message):
        export(model, tmp_path / "a.pt2", 1, 33)
    assert list(tmp_path.iterdir()) == [] and not model.as_stored
