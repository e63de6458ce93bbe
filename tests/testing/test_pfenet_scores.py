"""PFENet's published scores of given logits, at the labels' own sizes and at the network's."""

from types import SimpleNamespace

import pytest
import torch

from fss.data.canvas import Canvas
from fss.metrics import counts
from fss.testing.evaluate import _predictions


@pytest.mark.parametrize(("label_size", "name"), [("original", "original"), ("network", "resized")])
def test_counts_are_the_published_ones(fixture_numbers, label_size, name):
    numbers = fixture_numbers("pfenet_scores")
    every = range(len(numbers["logits"]))
    labels, targets = ([torch.from_numpy(numbers[f"{k}_{i}"]) for i in every] for k in ("label", "target"))
    assert {tuple(x.shape) for x in labels} == {(50, 37), (61, 80), (75, 75)}
    ready = SimpleNamespace(
        originals=labels, query_mask=torch.stack(targets), encoded=SimpleNamespace(corners=True)
    )
    found = _predictions(
        torch.from_numpy(numbers["logits"]), ready, label_size, Canvas(numbers["logits"].shape[-1])
    )
    inter, union = (torch.cat(x) for x in zip(*(counts(p[None], m[None]) for p, m in found), strict=True))
    assert torch.equal(inter, torch.from_numpy(numbers[f"intersection_{name}"]))
    assert torch.equal(union, torch.from_numpy(numbers[f"union_{name}"]))
