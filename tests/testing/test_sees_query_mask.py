"""A head that looks at the query's own label: only a test has it, and every result says so."""

import json

import pytest
import torch

import fss
from fss.cli import main
from fss.config import HeadConfig
from fss.report.protocol import protocol_id, protocol_name, protocol_words
from fss.runs.models import load_base_with
from tests.make import TINY, make_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A set, and results of RePRI on its base network: as it is, with the label's 255, and the oracle."""
    root = tmp_path_factory.mktemp("sees")
    make_folder(root / "set")
    said = [
        "--data",
        "folder",
        "--head",
        "repri",
        f"data.root={root / 'set'}",
        f"output={root / 'out'}",
        *TINY,
    ]
    assert main(["train", *said]) == 0
    assert main(["test", *said, "head.valid=label"]) == 0
    assert main(["test", *said, "head.oracle=true", "head.valid=label"]) == 0
    return root, said


def results(place):
    return {p.parent.parent.name: json.loads(p.read_text()) for p in place[0].rglob("result.json")}


def test_results_say_that_the_label_was_seen_and_others_are_as_before(place):
    found = results(place)
    assert len(found) == 3
    for name, result in found.items():
        seen = "label" in name
        assert result["protocol"].get("query_label") == ("seen by the head" if seen else None)
        assert ("query's own label" in result["protocol_name"]) == seen
        assert ("query's own label" in protocol_words(result["protocol"], [0], [1])) == seen
        assert result["protocol_name"] == protocol_name(result["protocol"])
    assert len({protocol_id(r["protocol"]) for r in found.values()}) == 2
    scores = [r["scores"]["counts"] for r in found.values()]
    assert scores[0] != scores[1] != scores[2] != scores[0]


def test_a_report_keeps_them_apart(place, capsys):
    assert main(["report", str(place[0] / "out")]) == 2
    assert "query_label" in capsys.readouterr().err
    seen = [str(p) for p in place[0].rglob("result.json") if "label" in p.parent.parent.name]
    assert main(["report", *seen]) == 0
    assert capsys.readouterr().out.count("the query's own label is seen by the head") == 1


def test_scores_from_python_say_so_too(place):
    root, said = place
    base = next((root / "out").glob("folder/fold0/base_*/best.pt"))
    protocol = fss.load_protocol(
        "folder",
        *[s for s in said[4:] if s.startswith(("data.", "output"))],
        fold=0,
        shots=1,
        runs=1,
        episodes=4,
    )
    for options, seen in (({}, False), ({"oracle": True}, True)):
        model = load_base_with(base, HeadConfig(type="repri", **options))
        score = fss.evaluate(model, protocol)
        assert ("query_label" in score.content["protocol"]) == seen


def test_what_has_no_label_names_the_option(place, tmp_path, capsys):
    root, _ = place
    base = next((root / "out").glob("folder/fold0/base_*/best.pt"))
    told = "head.valid=label looks at the query's own label, which tests alone have"
    on_base = ["--head", "repri", "head.valid=label"]
    assert main(["export", str(base), str(tmp_path / "a.pt2"), "--shots", "1", *on_base]) == 2
    assert told in capsys.readouterr().err
    photo, mask = (next((root / "set" / name).iterdir()) for name in ("JPEGImages", "SegmentationClass"))
    shown = ["--support", str(photo), str(mask), "--query", str(photo), "--out", str(tmp_path / "out")]
    assert main(["predict", *shown, "--checkpoint", str(base), *on_base]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.p*"))


@torch.no_grad()
def test_a_model_takes_the_label_by_hand(place):
    base = next((place[0] / "out").glob("folder/fold0/base_*/best.pt"))
    model = load_base_with(base, HeadConfig(type="repri", valid="label"))
    g = torch.Generator().manual_seed(0)
    images, masks = 255 * torch.rand(2, 3, 49, 49, generator=g), torch.zeros(1, 1, 49, 49)
    masks[..., 9:30, 9:30] = 1
    given = images[:1], images[None, 1:], masks
    with pytest.raises(fss.UserError, match=r"head\.valid=label"):
        model(*given)
    label, photo = torch.zeros(1, 49, 49), torch.ones(1, 49, 49, dtype=torch.bool)
    label[:, 20:] = 255
    photo[:, 20:] = False
    seen = model(*given, query_mask=label)
    other = load_base_with(base, HeadConfig(type="repri"))
    assert torch.equal(other(*given, photo=photo), seen)
    assert not torch.allclose(other(*given), seen)
    assert torch.equal(other(*given, query_mask=label), other(*given))
    with pytest.raises(ValueError, match=r"photo is \(1, 48, 49\); wanted \(1, 49, 49\)"):
        other(*given, photo=photo[:, 1:])
