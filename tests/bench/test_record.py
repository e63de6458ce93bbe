"""Recorded ratios are held against ratios measured again: what fell is named, once it fell three times."""

import json

import pytest
import torch

from fss.bench import record
from fss.bench.cases import Setting
from fss.bench.record import Record
from fss.cli import main

SMALL = ["bench", "--size", "65", "--runs", "1", "--gpus", "cpu", "--precision", "fp32"]
SETTING = Setting(65, "resnet50", torch.device("cpu"), False)


@pytest.fixture(scope="module")
def times(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "times.json"
    assert main([*SMALL, "--only", "asgnet_image,load_episode", "--out", str(path)]) == 0
    return path


def scaled(times, tmp_path, factor, case):
    """The file with one case's ratio so many times as large, and the other's a hundredth."""
    told = json.loads(times.read_text())
    for name, each in told["cases"].items():
        each["plain"] *= factor if name == case else 0.01
    path = tmp_path / "times.json"
    path.write_text(json.dumps(told))
    return path


def test_what_fell_is_named_and_the_code_tells(times, tmp_path, capsys):
    path = scaled(times, tmp_path, 100, "load_episode")
    check = ["bench", "--gpus", "cpu", "--runs", "1", "--check", str(path)]
    with pytest.raises(SystemExit) as stop:
        main(check)
    assert stop.value.code == 1
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith("fell by more than 15%: load_episode from") and "asgnet_image" not in told
    assert main([*check, "--only", "asgnet_image"]) == 0
    out = capsys.readouterr().out
    assert "no ratio fell by more than 15%" in out and "load_episode" not in out


@pytest.mark.parametrize(
    ("ratios", "calls", "passes"), [([3.39, 3.5], 2, True), ([3, 3.2, 3.3, 9], 3, False)]
)
def test_a_fallen_case_is_measured_again(ratios, calls, passes, capsys):
    left = iter(ratios)
    asked = []

    def measure(names):
        asked.append(names)
        return {name: {"ours": 1.0, "plain": next(left) if name == "a" else 5.0} for name in names}

    recorded = Record(65, "resnet50", False, "some machine", {"a": 4.0, "b": 5.8})
    assert record.check(recorded, measure, SETTING) is passes
    assert asked == [["a", "b"], *[["a"]] * (calls - 1)]
    assert "recorded on some machine; here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "65"], "--check measures as its file was measured; leave out --size"),
        (["--layers", "50"], "leave out --size, --layers"),
        (["--only", "cwt_image"], "has no case 'cwt_image'; it has: asgnet_image, load_episode"),
    ],
)
def test_mistakes(times, arguments, message, capsys):
    assert main(["bench", "--gpus", "cpu", "--check", str(times), *arguments]) == 2
    assert message in capsys.readouterr().err


NO_PLAIN = """{"environment": {"device": "x", "threads": 1, "torch": "2"}, "size": 65,
"backbone": "resnet50", "half": false, "cases": {"cwt_image": {"ours": 1}}}"""


@pytest.mark.parametrize("content", ["{}", "[]", '{"environment": {}}', '{"a":', "", NO_PLAIN])
def test_what_is_no_record_is_refused(content, tmp_path, capsys):
    path = tmp_path / "times.json"
    path.write_text(content)
    assert main(["bench", "--gpus", "cpu", "--check", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
