"""Training on the same episodes again, classes alike often, and validating on base classes it leaves out."""

import json

import pytest
import torch

from fss.cli import main
from fss.config import TrainConfig
from fss.data.folds import split_base
from fss.data.plan import Planner
from fss.data.source import open_source
from fss.heads.votes_decoder import INPUTS, VotesDecoder
from fss.model import build_backbone, build_model
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.testing.evaluate import feature_store
from fss.testing.features import encode_now
from fss.training import heads, validation
from fss.training.heads import _chunks
from fss.training.prepared import PreparedStore
from tests.make import TINY, make_folder

OWN = [
    *(s for s in TINY if not s.startswith("head.")), "network=weights", "head.width=4", "train.shots=2",
    "train.augment=none", "train.cache=true", "train.same_episodes=true", "train.sampling=class",
    "train.validation_classes=2", "train.epochs=3", "train.seconds=null", "test.shots=2",
]  # fmt: skip
HEAD = ["--data", "folder", "--head", "votes_decoder"]


def config_for(root, *more):
    return load_config("folder", "votes_decoder", [*OWN, f"data.root={root}", *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A set of six classes, fold 0 of two, on which the decoder was trained; its folder."""
    place = tmp_path_factory.mktemp("same")
    root, output = make_folder(place / "set", classes=6, train=30, val=12), place / "out"
    assert main(["train", *HEAD, f"data.root={root}", f"output={output}", "data.folds=3", *OWN]) == 0
    (folder,) = output.glob("folder/fold0/votes_decoder*")
    return root, folder


def store_of(config):
    source = open_source(config.data, "train", config.output / "cache")
    model = build_model("votes_decoder", {"level": "stage3", "width": 4}, build_backbone(config.backbone))
    return source, model, feature_store(model, source, config, torch.device("cpu"), frozen_only=True)


def test_kept_episodes_are_what_the_head_makes_of_fresh_ones(trained, tmp_path):
    source, model, store = store_of(config_for(trained[0], f"output={tmp_path}"))
    kept = PreparedStore.of(store, model.head.train())
    draws = Planner(source.pools(source.base, 100, 3, "error"), 2, seed=0).run(0, 4)
    calls = []
    prepare = model.head.prepare
    model.head.prepare = lambda e: calls.append(len(e)) or prepare(e)
    first, again = kept.episodes([draws, [draws[3], draws[0]]])
    assert calls == [1, 1, 1, 1]  # each alone, and once
    assert again.draws == [draws[3], draws[0]] and again.encoded.prepared
    assert torch.equal(again.encoded.query[INPUTS], first.encoded.query[INPUTS][[3, 0]])
    (fresh,) = store.episodes([draws])
    whole = model.head(encode_now(model.head, fresh.encoded))
    ready = model.head(encode_now(model.head, first.encoded))
    assert torch.allclose(ready.logits, whole.logits, atol=1e-4)
    assert torch.equal(first.query_mask, fresh.query_mask) and torch.equal(first.class_id, fresh.class_id)
    assert first.encoded.seeds == fresh.encoded.seeds
    assert torch.equal(first.encoded.base_class, fresh.encoded.base_class)


def test_what_is_kept_changes_nothing_that_is_learnt(trained, tmp_path, monkeypatch):
    root, folder = trained
    monkeypatch.setattr(VotesDecoder, "prepares", False)
    assert main(["train", *HEAD, f"data.root={root}", f"output={tmp_path}", "data.folds=3", *OWN]) == 0
    (other,) = tmp_path.glob("folder/fold0/votes_decoder*/last.pt")
    mine, theirs = (checkpoint.read(p)["model"] for p in (folder / "last.pt", other))
    assert mine.keys() == theirs.keys()
    assert all(torch.allclose(mine[k], theirs[k], rtol=1e-3, atol=1e-5) for k in mine)
    moved = [k for k in mine if k.startswith("head.decoder.last")]
    assert all(mine[k].abs().sum() > 0 for k in moved)


def test_every_epoch_has_the_same_episodes_in_another_order(trained):
    config = config_for(trained[0], "train.batch=2")
    source = open_source(config.data, "train", trained[1] / "cache")
    planner = Planner(source.pools(source.base, 100, 3, "error"), 2, seed=0, sampling="class")
    chunks = _chunks(planner, config, 3, 0)
    epochs = [[draw for _ in range(3) for draw in next(chunks)] for _ in range(2)]
    assert sorted(d.seed for d in epochs[0]) == sorted(d.seed for d in epochs[1])
    assert epochs[0] != epochs[1]
    assert next(_chunks(planner, config, 3, 4)) == epochs[1][2:4]  # resumed


def test_training_leaves_validation_classes_out_and_says_so(trained):
    _, folder = trained
    content = checkpoint.read(folder / "best.pt")
    names = content["facts"]["validation_classes"]
    assert len(names) == 2 and set(names) < {f"kind {c}" for c in range(3, 7)}
    (path,) = folder.glob("test_2shot*best/result.json")
    result = json.loads(path.read_text())
    assert result["protocol"]["selection"] == "best checkpoint by base classes that training left out"
    assert result["checkpoint"]["validation_classes"] == names
    assert set(result["scores"]["per_class"]) == {"kind 1", "kind 2"}


def test_no_episode_of_training_is_of_a_validation_class(trained, tmp_path, monkeypatch):
    root, folder = trained
    learnt, validated = set(), set()
    monkeypatch.setattr(
        heads, "_chunks", lambda planner, *more: learnt.update(planner.pools) or _chunks(planner, *more)
    )
    scored = validation._scorer
    monkeypatch.setattr(
        validation, "_scorer",
        lambda *args: validated.update(c for planner in args[3] for c in planner.pools) or scored(*args),
    )  # fmt: skip
    assert main(["train", *HEAD, f"data.root={root}", f"output={tmp_path}", "data.folds=3", *OWN]) == 0
    names = checkpoint.read(folder / "best.pt")["facts"]["validation_classes"]
    assert {f"kind {c}" for c in validated} == set(names)
    assert learnt == {3, 4, 5, 6} - validated


def test_base_classes_are_split_by_the_seed():
    base = [3, 4, 5, 6, 9, 10]
    for seed in range(5):
        learnt, held_out = split_base(base, 2, seed)
        assert sorted(learnt + held_out) == base and len(held_out) == 2
    assert len({tuple(split_base(base, 2, seed)[1]) for seed in range(9)}) > 3
    assert split_base(base, 0, 1) == (base, [])


def test_wrong_settings_say_what_is_allowed(trained, tmp_path, capsys):
    with pytest.raises(
        ValueError, match=r"same_episodes=true has un-augmented images; set train\.cache=true"
    ):
        TrainConfig(same_episodes=True)
    more = [f"data.root={trained[0]}", f"output={tmp_path}", *OWN, "train.validation_classes=5"]
    assert main(["train", *HEAD, *more, "network=base"]) == 2
    assert "train.validation_classes=5 of 5 base classes; allowed: 0..4" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))  # base training has not begun
