"""The Python interface: anyone's model on our episodes, and its result beside our own."""

import json
import re

import pytest
import torch
from torch import nn

import fss
from fss.backbones import make_backbone
from fss.cli import main
from fss.model import build_model
from fss.ops import normalise
from fss.report.results import make_rows, read_results
from tests.make import TINY, make_folder

HERE = ("data.size=49", "data.workers=0", "data.min_pixels=100")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A set, and CWT trained and tested on its fold 0."""
    place = tmp_path_factory.mktemp("api")
    make_folder(place / "set")
    where = [f"data.root={place / 'set'}", f"output={place / 'out'}"]
    assert main(["train", "--data", "folder", *where, *TINY, "test.batch=5"]) == 0
    return place


def load(place, *settings, **given):
    where = (f"data.root={place / 'set'}", f"output={place / 'out'}")
    return fss.load_protocol("folder", *where, *HERE, *settings, **{"runs": 2, "episodes": 6, **given})


def result_of_test(place) -> dict:
    (path,) = (place / "out").rglob("test_1shot_2x6_*/result.json")
    return json.loads(path.read_text())


def trained(place):
    return fss.load_model(next((place / "out/folder/fold0").glob("cwt*/best.pt")))


def everything(episode):
    """All foreground, at a size of its own."""
    return torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(len(episode.query_image), 2, 3, 3)


def test_our_own_model_gives_what_fss_test_gives(place):
    score, ours = fss.evaluate(trained(place), load(place)), result_of_test(place)
    assert score.content["scores"] == ours["scores"]
    different = {k for k, v in score.content["protocol"].items() if v != ours["protocol"][k]}
    assert different == {"selection"}
    for key in ("head", "shots", "frozen_sha256", "precision", "checkpoint"):
        assert score.content[key] == ours[key], key


def test_our_own_model_as_a_callable_gives_the_same_counts(place):
    model = trained(place)

    @torch.no_grad()
    def wrapped(e):
        images = fss.to_rgb(e.query_image), fss.to_rgb(e.support_images)
        return model(*images, e.support_masks, e.meta["seed"][0])

    score = fss.evaluate(wrapped, load(place))
    assert score.content["scores"]["counts"] == result_of_test(place)["scores"]["counts"]
    assert score.content["frozen_sha256"] == score.content["precision"] == "external"


def test_models_on_two_backbones_share_a_table(place, tmp_path):
    protocol = load(place, runs=1, episodes=1)
    for kind in ("resnet18", "resnet34"):
        model = build_model("prototype", {"level": "stage3"}, make_backbone(kind, "random", {}))
        fss.evaluate(model, protocol).save(tmp_path / f"{kind}.json")
    names = [row.label for row in make_rows(read_results([tmp_path]))]
    assert names == ["Prototype backbone.type=ResNet18", "Prototype backbone.type=ResNet34"]


@pytest.mark.parametrize("settings", [(), ("test.label_size=common",)])
def test_all_foreground_scores_the_objects_share(place, settings):
    """IoU of a prediction of ones is the object's share of the labelled pixels, at either size."""
    protocol = load(place, *settings, runs=1)
    score = fss.evaluate(everything, protocol, batch=4)
    share = torch.zeros(2)
    store = protocol._store(None)
    for ready in store.episodes([protocol.plans[0]]):
        for mask in ready.originals or ready.query_mask:
            share += torch.tensor([(mask == 1).sum(), (mask != 255).sum()])
    assert score.per_class["kind 1"] == pytest.approx(100 * float(share[0] / share[1]), abs=1e-3)
    assert score.interval is None and score.miou == pytest.approx(score.per_class["kind 1"], abs=1e-3)
    assert score.fb_iou == pytest.approx(score.miou / 2, abs=1e-3)


def test_result_stands_in_one_table_with_our_own(place, tmp_path, capsys):
    path = fss.evaluate(everything, load(place), name="all ones").save(tmp_path / "ones.json")
    (own,) = (place / "out").rglob("test_1shot_2x6_*/result.json")
    rows = {r.label: r for r in make_rows(read_results([path, own]))}
    assert rows.keys() == {"cwt", "all ones"}
    assert rows["all ones"].checkpoint == "external" and rows["all ones"].trained is None
    assert main(["report", str(path), str(own)]) == 0
    assert "| all ones | external | | 1-shot |" in " ".join(capsys.readouterr().out.split())
    assert main(["report", "--compare", str(path), str(own)]) == 0


def test_results_of_another_protocol_are_refused(place, tmp_path, capsys):
    path = fss.evaluate(everything, load(place, episodes=5)).save(tmp_path / "ones.json")
    (own,) = (place / "out").rglob("test_1shot_2x6_*/result.json")
    assert main(["report", str(path), str(own)]) == 2
    assert "episodes: 5" in capsys.readouterr().err


def test_score_prints_a_table_and_is_written_whole(place, tmp_path):
    score = fss.evaluate(everything, load(place, runs=1))
    assert "everything, tested with 1 shot(s), trained elsewhere" in str(score)
    assert "external model, labels at 49 px canvas" in str(score)
    with pytest.raises(fss.UserError, match="is a folder"):
        score.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_episodes_are_seeded_and_hold_what_the_page_says(place):
    protocol = load(place, shots=2)
    assert len(protocol) == 12
    first, again = list(protocol), list(protocol.episodes(batch=4))
    assert [len(e.query_image) for e in again] == [4, 2, 4, 2]
    assert [e.meta["seed"][0] for e in first] == [s for e in again for s in e.meta["seed"]]
    assert torch.equal(torch.cat([e.query_image for e in first]), torch.cat([e.query_image for e in again]))
    e = first[0]
    assert e.query_image.shape == (1, 3, 49, 49) and e.query_mask.shape == (1, 49, 49)
    assert e.support_images.shape == (1, 2, 3, 49, 49) and e.support_masks.shape == (1, 2, 49, 49)
    assert e.meta["class"] == ["kind 1"] and len(e.meta["supports"][0]) == 2
    rgb = fss.to_rgb(e.query_image)
    assert rgb.min() >= -1e-3 and rgb.max() <= 255.001
    assert torch.allclose(normalise(rgb), e.query_image, atol=1e-5)


def test_the_query_mask_is_not_handed_over(place):
    class Curious(nn.Module):
        def forward(self, e):
            assert e.query_mask is None and not self.training
            return everything(e).requires_grad_()

    fss.evaluate(Curious(), load(place, runs=1))


def test_a_model_may_learn_on_the_supports(place):
    def learns(e):
        with torch.enable_grad():
            weight = torch.zeros(1, requires_grad=True)
            (weight - e.support_masks.float().mean()).square().backward()
        return everything(e) * weight.grad.abs()  # larger, and so of the same sign

    protocol = load(place, runs=1)
    assert fss.evaluate(learns, protocol).miou == fss.evaluate(everything, protocol).miou > 0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned NoneType; wanted a floating point tensor of logits"),
        (torch.zeros(1, 2, 4, 4, dtype=torch.int64), r"returned torch.int64 of shape \(1, 2, 4, 4\)"),
        (torch.zeros(1, 1, 4, 4), r"of shape \(1, 1, 4, 4\); wanted .* with B = 1"),
        (torch.zeros(2, 2, 4, 4), r"of shape \(2, 2, 4, 4\)"),
        (torch.zeros(1, 2, 0, 4), r"of shape \(1, 2, 0, 4\)"),
        (torch.full((1, 2, 4, 4), torch.nan), "logits are not finite in an episode of 2007_"),
    ],
)
def test_bad_returns_are_told(place, returned, message):
    with pytest.raises(fss.UserError, match=message):
        fss.evaluate(lambda e: returned, load(place, runs=1))


@pytest.mark.parametrize("name", ["cwt", "a|b", "two\nlines"])
def test_names_that_tables_cannot_take(place, name):
    with pytest.raises(fss.UserError, match=re.escape(repr(name))):
        fss.evaluate(everything, load(place, runs=1), name=name)


def test_a_function_called_as_a_head_of_ours_is_no_such_head(place):
    def prototype(episode):
        return everything(episode)

    assert fss.evaluate(prototype, load(place, runs=1)).content["head"] == {"type": "external"}


def test_a_model_is_not_scored_on_what_it_was_trained_on(place):
    with pytest.raises(
        fss.UserError, match="trained on kind 2, novel in fold 1 of folder; take its own, fold=0"
    ):
        fss.evaluate(trained(place), load(place, fold=1))


def test_supports_made_from_strokes_reach_the_model(place):
    protocol = load(place, "test.support=points", "test.support_by=drawn", runs=1)
    score = fss.evaluate(everything, protocol)
    assert score.content["supports"]["kind"] == "points"
    drawn, true = next(iter(protocol)), next(iter(load(place, runs=1)))
    assert (drawn.support_masks == 255).sum() > (true.support_masks == 255).sum()


def test_unknown_names_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'evaluated'"):
        fss.evaluated  # noqa: B018


@pytest.mark.parametrize(("gib", "kept"), [(0, False), (1, True)])
def test_images_are_kept_within_the_budget_of_the_settings(place, gib, kept):
    protocol = load(place, f"cache_gib={gib}", runs=1)
    store = protocol._store(None)
    assert len(list(store.episodes([protocol.plans[0]]))) == 1 and bool(store.features) == kept
