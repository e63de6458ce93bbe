"""Logs read back, also those that broke off."""

import json

import pytest

from fss.errors import UserError
from fss.report.results import read_results
from fss.report.training import Stretch, log_of, read_log, stretches
from tests.make_results import make_result


def test_losses_and_validations_are_told_apart(tmp_path):
    lines = [
        {"step": 0, "validation": 5},
        {"step": 0, "lr": 1, "ce": 2.0, "total": 3.0},
        {"step": 1, "total": 1},
    ]
    text = "".join(json.dumps(x) + "\n" for x in lines)
    odd = '{"step": 2, "total": NaN}\n[1]\n{"step": "a", "total": 1}\n{"step": 3, "tot'
    (tmp_path / "log.jsonl").write_text(text + odd)
    got = read_log(tmp_path / "log.jsonl")
    assert got.losses == [(0, 3.0), (1, 1.0)] and got.validations == [(0, 5.0)]


def test_a_log_that_is_no_text_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"log .*log\.jsonl cannot be read"):
        read_log(tmp_path / "log.jsonl")


def test_lines_that_are_nested_or_endless_are_passed_over(tmp_path):
    odd = "[" * 100_000 + "\n" + "9" * 300_000 + "\n"
    (tmp_path / "log.jsonl").write_text(odd + '{"step": 1, "total": 2.0}\n')
    assert read_log(tmp_path / "log.jsonl").losses == [(1, 2.0)]


def test_long_curves_are_drawn_in_stretches():
    points = [(s, float(s)) for s in range(1000)]
    got = stretches(points, most=10)
    assert len(got) == 10 and got[0] == Stretch(49.5, 0.0, 49.5, 99.0) and got[-1].high == 999.0
    assert stretches([(3, 2.0)]) == [Stretch(3, 2.0, 2.0, 2.0)] and stretches([]) == []


def test_the_log_lies_beside_or_above(tmp_path):
    path = make_result(tmp_path)
    (result,) = read_results([path])
    assert log_of(result) == tmp_path.resolve() / "log.jsonl"
    (path.parent / "log.jsonl").touch()
    assert log_of(result) == path.resolve().parent / "log.jsonl"
    (path.parent / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").unlink()
    assert log_of(result) is None
