"""Every option of every head does something: an option that is taken and ignored fails here.

A new option needs a line in `CHANGES`: a value that is not its default, and what else must be set for it to
have a part in anything.
"""

import inspect

import pytest
import torch
from torch import nn

from fss.errors import UserError
from fss.heads import HEADS, KIND, Encoded, build_head, find_head
from fss.heads.cwt import CWT
from fss.heads.votes_decoder import Decoder
from fss.ops import segmentation_loss
from fss.training.heads import _losses

CHANNELS = {"stage1": 8, "stage2": 12, "stage3": 16, "stage4": 16, "neck": 16, "neck:sum": 16, "base": 5}
SIDE, CELLS = 49, 7
CHANGES = {
    "cwt": {
        "transformer": (False, {}), "steps": (7, {}), "lr": (0.02, {}), "heads": (2, {}),
        "attention_dropout": (0.9, {}), "dropout": (0.9, {}), "start": ("identity", {}),
        "balanced": (False, {}),
    },
    "asgnet": {
        "context": ("aspp", {}), "prototypes": (2, {}), "cells": (9, {}), "width": (8, {}),
        "sizes": ([7, 3], {}), "similarity": ("mean", {}), "iterations": ([3, 2], {}), "dropout": (0.1, {}),
        "features": ("neck", {}),
    },
    "pfenet": {
        "level": ("neck", {}), "deep": ("stage3", {"cut": "nothing"}), "cut": ("nothing", {}),
        "width": (8, {}), "sizes": ([7, 3], {}), "dropout": (0.1, {}),
    },
    "bam": {
        "level": ("neck", {}), "deep": ("stage3", {"cut": "nothing"}), "style": ("stage1", {}),
        "cut": ("nothing", {}), "width": (8, {}), "dropout": (0.1, {}), "ensemble": (False, {}),
    },
    "hdmnet": {
        "level": ("neck", {}), "deep": ("stage4", {}), "style": ("stage1", {}), "width": (8, {}),
        "embed": (16, {}), "dropout": (0.1, {}), "noise": (0.5, {}), "distillation": (0.5, {}),
        "ensemble": (False, {}), "psi": ("published", {}),
    },
    "hsnet": {
        "levels": ([["stage4"], ["stage3"], ["neck"]], {"shots": "mean"}), "shots": ("mean", {}),
    },
    "dcama": {
        "levels": ([["stage4"], ["stage3"], ["neck"]], {}), "fine": ("stage2", {}), "heads": (2, {}),
        "dropout": (0.1, {}), "shots": ("mean", {}),
    },
    "insid3": {
        "level": ("stage3", {"tau": 0.9}), "components": (0, {"tau": 0.9}), "tau": (0.9, {}),
        "merge": (0.9, {"tau": 0.9}),
    },
    "prototype": {
        "level": ("stage3", {}), "scale": (5.0, {}), "embed": (8, {}), "align": (True, {"embed": 8}),
    },
    "repri": {
        "level": ("stage3", {}), "steps": (7, {}), "lr": (0.05, {}), "scale": (5.0, {}), "renew": (0, {}),
        "weights": ([1, 1, 0], {}), "valid": ("label", {}), "oracle": (True, {}),
    },
    "votes": {
        "level": ("stage3", {}), "tau": (0.5, {}), "trust": (1, {}), "walk": (0.3, {}), "walk_tau": (0.5, {}),
        "steps": (2, {}),
    },
    "votes_decoder": {
        "level": ("stage3", {}), "tau": (0.5, {}), "trust": (1, {}), "walk": (0.3, {}), "walk_tau": (0.5, {}),
        "steps": (2, {}), "width": (8, {}), "caution": (9, {}),
    },
}  # fmt: skip
USUAL = {  # small, so that a test takes no seconds
    "asgnet": {"width": 16, "sizes": [7, 4], "cells": 4},
    "pfenet": {"width": 16, "sizes": [7, 4]},
    "bam": {"width": 16},
    "dcama": {"heads": 4},
    "hdmnet": {"width": 16, "embed": 8},
}
# What an option alone may change: training's noise and weights, which a test never sees.
IN_TRAINING = {("cwt", "attention_dropout"), ("cwt", "dropout"), ("cwt", "balanced"), ("asgnet", "dropout"),
               ("pfenet", "dropout"), ("prototype", "align"), ("bam", "dropout"),
               ("hdmnet", "dropout"), ("hdmnet", "noise"), ("hdmnet", "distillation"),
               ("dcama", "dropout"), ("votes_decoder", "caution")}  # fmt: skip
# What the model asks of the network and the head has no part in; tests/heads/test_asks.py has what it does.
# And what needs a training of several shots, which tests/heads/test_hdmnet.py has.
OF_NETWORK = {("pfenet", "cut"): "support_cut", ("bam", "cut"): "support_cut", ("hdmnet", "psi"): "psi"}


def head_of(name, options):
    torch.manual_seed(0)
    head = build_head(name, {**USUAL.get(name, {}), **options}, CHANNELS)
    if isinstance(ensemble := getattr(head, "ensemble", None), nn.Module):
        for parameter in ensemble.parameters():  # at its start it hears nothing of its images' difference
            nn.init.uniform_(parameter, 0.2, 0.9)
    if isinstance(decoder := getattr(head, "decoder", None), Decoder):
        nn.init.uniform_(decoder.last.weight, -0.5, 0.5)  # at its start it adds nothing
    return head


def answers(name, options):
    """The logits of a test, and the loss of training."""
    head, g = head_of(name, options), torch.Generator().manual_seed(1)
    maps = lambda: {k: torch.rand(2, CHANNELS[k], CELLS, CELLS, generator=g) for k in CHANNELS}  # noqa: E731
    query, shots = maps(), [maps() for _ in range(2)]
    masks = torch.zeros(2, 2, SIDE, SIDE, dtype=torch.int64)
    masks[..., 8:41, 8:41] = 1
    target = (torch.rand(2, SIDE, SIDE, generator=g) > 0.7).long()
    target[..., -7:] = 255
    others = maps()  # of the images that a head asks the network about
    network = lambda images: {k: others[k][:1] for k in head.levels}  # noqa: E731
    found = []
    for training in (False, True):
        head.train(training)
        torch.manual_seed(2)
        with torch.no_grad():
            own = lambda i: {"mask": masks[:, i]} if head.encodes_mask else {}  # noqa: E731
            encoded = [
                head.encode_support({k: x[k] for k in head.levels} | own(i)) for i, x in enumerate(shots)
            ]
            support = {k: torch.stack([x[k] for x in encoded], 1) for k in encoded[0]}
            at = head.encode({k: query[k] for k in head.levels})
            seen = target if training or head.sees_query_mask else None
            e = Encoded(at, support, masks, [3, 4], query_mask=seen, network=network)
            out = head(e)
        found.append(out)
    loss = segmentation_loss(found[1].logits, target, head.balanced_loss) + sum(found[1].losses.values())
    return found[0].logits, loss


def differ(a, b):
    return a.shape != b.shape or not torch.allclose(a, b, atol=1e-6, rtol=1e-6)


def test_every_option_of_every_head_is_listed():
    assert CHANGES.keys() == HEADS.keys()
    for name, options in CHANGES.items():
        assert options.keys() == set(inspect.signature(find_head(name)).parameters) - {
            "channels",
            "strides",
            "train_shots",
        }, name


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in CHANGES for option in CHANGES[name]])
def test_an_option_changes_the_answer_or_the_loss(name, option):
    value, others = CHANGES[name][option]
    if (name, option) in OF_NETWORK:
        attribute = OF_NETWORK[name, option]
        assert getattr(head_of(name, {**others, option: value}), attribute) == value
        assert getattr(head_of(name, others), attribute) != value
        return
    (logits, loss), (as_usual, usual) = answers(name, {**others, option: value}), answers(name, others)
    if (name, option) in IN_TRAINING:
        assert differ(loss, usual) and not differ(logits, as_usual)
    else:
        assert differ(logits, as_usual)


def test_asgnet_clusters_as_often_in_training_as_the_first_number_says_and_the_second_in_testing():
    (logits, loss), (as_usual, usual) = answers("asgnet", {"iterations": [3, 5]}), answers("asgnet", {})
    assert differ(loss, usual) and not differ(logits, as_usual)
    (logits, loss), (as_usual, usual) = answers("asgnet", {"iterations": [10, 2]}), answers("asgnet", {})
    assert differ(logits, as_usual) and not differ(loss, usual)


@pytest.mark.parametrize("balanced", [True, False])
def test_the_trainer_balances_where_the_head_says_so(balanced):
    model = nn.Module()
    model.head, model.corners = CWT({"neck": 4}, balanced=balanced), True
    logits, mask = torch.randn(2, 2, 5, 5), (torch.rand(2, 17, 17) > 0.9).long()
    mask[0, :4] = 255
    out = CWT({"neck": 4}, steps=0, transformer=False)(
        Encoded({"neck": torch.rand(2, 4, 5, 5)}, {"neck": torch.rand(2, 1, 4, 5, 5)}, mask[:, None], [0, 1])
    )
    out.logits, out.losses = logits, {"own": torch.tensor(0.5)}
    losses = _losses(model, out, mask, list)
    assert float(losses.each["query"]) == pytest.approx(float(segmentation_loss(logits, mask, balanced)))
    assert losses.each.keys() == {"query", "own"}
    assert float(losses.weight) == (2 if balanced else int((mask != 255).sum()))


def test_defaults_are_the_published_numbers():
    """CWT's and ASGNet's are their papers'; a default that moves would move every number of the tables."""
    assert KIND.options("cwt", {}) == {
        "transformer": True, "steps": 200, "lr": 0.1, "heads": 4, "attention_dropout": 0.1, "dropout": 0.5,
        "start": "published", "balanced": True,
    }  # fmt: skip
    assert KIND.options("asgnet", {}) == {
        "context": "pyramid", "prototypes": 5, "cells": 100, "width": 256, "sizes": (60, 30, 15, 8),
        "similarity": "sum", "iterations": (10, 5), "dropout": 0.5, "features": "stages",
    }  # fmt: skip
    assert KIND.options("pfenet", {}) == {
        "level": ("stage3", "stage2"), "deep": "stage4", "cut": "stage4", "width": 256,
        "sizes": (60, 30, 15, 8), "dropout": 0.5,
    }  # fmt: skip
    assert KIND.options("bam", {}) == {
        "level": ("stage3", "stage2"), "deep": "stage4", "style": "stage2", "cut": "stage4", "width": 256,
        "dropout": 0.5, "ensemble": True,
    }  # fmt: skip
    assert KIND.options("hdmnet", {}) == {
        "level": ("stage3", "stage2"), "deep": ("neck:sum", "stage4"), "style": "stage2", "width": 256,
        "embed": 64, "dropout": 0.5, "noise": 0.1, "distillation": 1.0, "ensemble": True, "psi": "mean",
    }  # fmt: skip
    assert KIND.options("hsnet", {}) == {"levels": None, "shots": "vote"}
    assert KIND.options("insid3", {}) == {
        "level": "stage4", "components": None, "tau": 0.6, "merge": 0.2,
    }  # fmt: skip
    assert KIND.options("dcama", {}) == {
        "levels": None, "fine": None, "heads": 8, "dropout": 0.5, "shots": "largest",
    }  # fmt: skip
    assert KIND.options("prototype", {}) == {"level": "neck", "scale": 20.0, "embed": 0, "align": False}
    assert KIND.options("repri", {}) == {
        "level": "neck", "steps": None, "lr": 0.025, "scale": 20.0, "renew": 9, "weights": None,
        "valid": "photo", "oracle": False,
    }  # fmt: skip
    assert KIND.options("votes", {}) == {
        "level": "stage4", "tau": 0.035, "trust": 9, "walk": 0.7, "walk_tau": 0.08, "steps": 20,
    }  # fmt: skip
    assert KIND.options("votes_decoder", {}) == KIND.options("votes", {}) | {"width": 48, "caution": 2}


@pytest.mark.parametrize(("name", "least", "below"), [
    ("cwt", {"steps": 0, "heads": 1, "lr": 1e-9}, {"steps": -1, "heads": 0, "lr": 0}),
    ("asgnet", {"prototypes": 1, "cells": 1, "width": 1, "sizes": [1], "iterations": [1, 1], "dropout": 0},
     {"prototypes": 0, "cells": 0.99, "width": 0, "sizes": [4, 0], "iterations": [0, 1], "dropout": -0.1}),
    ("asgnet", {"sizes": [1000], "dropout": 0.99}, {"sizes": [1001], "dropout": 1, "iterations": [1, 0]}),
    ("pfenet", {"width": 1, "sizes": [1, 0.01], "dropout": 0},
     {"width": 0, "sizes": [4, 0], "dropout": -0.1, "deep": "stage3"}),
    ("pfenet", {"sizes": [1000], "dropout": 0.99, "deep": "stage3", "cut": "nothing"},
     {"sizes": [1001], "dropout": 1}),
    ("pfenet", {"sizes": [2]}, {"sizes": [1.5]}),
    ("pfenet", {"sizes": [0.5]}, {"sizes": []}),
    ("bam", {"width": 1, "dropout": 0}, {"width": 0, "dropout": -0.1, "deep": "stage3"}),
    ("bam", {"dropout": 0.99, "deep": "stage3", "cut": "nothing"}, {"dropout": 1}),
    ("hdmnet", {"width": 1, "embed": 8, "dropout": 0, "noise": 0, "distillation": 0},
     {"width": 0, "embed": 0, "dropout": -0.1, "noise": -0.1, "distillation": -0.1}),
    ("hdmnet", {"dropout": 0.99, "noise": 0.99}, {"embed": 12, "dropout": 1, "noise": 1}),
    ("insid3", {"components": 0, "tau": -0.99, "merge": 0}, {"components": -1, "tau": -1, "merge": -0.1}),
    ("insid3", {"components": 15, "tau": 0.99, "merge": 0.99}, {"components": 16, "tau": 1, "merge": 1}),
    ("dcama", {"heads": 1, "dropout": 0}, {"heads": 0, "dropout": -0.1}),
    ("dcama", {"heads": 4, "dropout": 0.99}, {"heads": 5, "dropout": 1}),
    ("prototype", {"embed": 0, "scale": 1e-9}, {"embed": -1, "scale": 0}),
    ("repri", {"steps": 0, "lr": 1e-9, "scale": 1e-9, "renew": 0, "weights": [0, 0, 0]},
     {"steps": -1, "lr": 0, "scale": 0, "renew": -1, "weights": [1, -0.1, 1]}),
    ("votes", {"tau": 1e-9, "walk_tau": 1e-9, "trust": 0, "walk": 0, "steps": 0, "level": {"stage4": 1e-9}},
     {"tau": 0, "walk_tau": 0, "trust": -0.1, "walk": -0.1, "steps": -1, "level": {"stage4": 0}}),
    ("votes", {"walk": 0.99}, {"walk": 1}),
    ("votes_decoder", {"width": 1, "caution": 0}, {"width": 0, "caution": -0.1}),
])  # fmt: skip
def test_ranges_end_where_the_messages_say(name, least, below):
    assert build_head(name, least, CHANNELS)
    for option, value in below.items():
        with pytest.raises(UserError, match=r"allowed|must be 1 or more"):
            build_head(name, {option: value}, CHANNELS)
