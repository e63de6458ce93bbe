"""`data.resize=squash` from training to prediction: another protocol, other folders, and one base network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fss
from fss.cli import main
from fss.data import episodes
from fss.data.canvas import Canvas
from fss.data.episodes import EpisodeSet, PictureSet
from fss.data.plan import Draw
from fss.data.source import open_source
from fss.exchange import export
from fss.pictures.overlay import episode_row
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.identity import Identity, require
from fss.training import heads
from tests.make import TINY, make_folder

SQUASH = "data.resize=squash"
PLAIN = [s for s in TINY if not s.startswith("head.")]  # for heads without CWT's options


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A set of photos of 48 x 64, and CWT trained on it, squashed."""
    place = tmp_path_factory.mktemp("squash")
    make_folder(place / "set")
    assert run(place, "train", SQUASH) == 0
    return place


def run(place, verb, *settings, head="cwt"):
    where = [f"data.root={place / 'set'}", f"output={place / 'out'}"]
    tiny = TINY if head == "cwt" else PLAIN
    return main([verb, "--data", "folder", "--head", head, *where, *tiny, *settings])


def source_of(place):
    return open_source(load_config("folder", "cwt", [f"data.root={place / 'set'}", *TINY]).data, "val")


def result_in(place, *names):
    (path,) = (place / "out/folder/fold0").glob("/".join([*names, "result.json"]))
    return json.loads(path.read_text())


def test_both_ways_stand_on_one_base_network_and_in_folders_of_their_own(place):
    assert run(place, "train") == 0
    names = {p.name for p in (place / "out/folder/fold0").iterdir()}
    network = "resnet18_random"
    assert names == {
        f"base_{network}",
        f"cwt,steps=10_{network}_1shot",
        f"cwt,steps=10_{network}_squash_1shot",
    }
    squashed, padded = (result_in(place, f"cwt*random{end}", "test_*") for end in ("_squash_1shot", "_1shot"))
    assert squashed["frozen_sha256"] == padded["frozen_sha256"]
    assert squashed["protocol"].pop("resize") == "squash" and "resize" not in padded["protocol"]
    assert squashed["protocol"] == padded["protocol"]
    assert (
        "images squashed to 49 px;" in squashed["protocol_name"]
        and "images at 49 px;" in padded["protocol_name"]
    )
    assert squashed["protocol_name"].split("[")[1] != padded["protocol_name"].split("[")[1]


def test_a_checkpoint_says_how_it_saw_images_and_is_used_so(place, capsys):
    (path,) = (place / "out/folder/fold0").glob("cwt*squash*/best.pt")
    assert checkpoint.read(path)["about"]["resize"] == "squash"
    assert run(place, "test", "--checkpoint", str(path)) == 2
    assert "resize is squash, wanted pad" in capsys.readouterr().err
    model = fss.Predictor(path, settings=["device=cpu", "precision=fp32"])
    assert model.canvas == Canvas(49, "squash")
    with pytest.raises(fss.UserError, match=r"data\.resize=pad: .* settles that itself"):
        fss.Predictor(path, settings=["device=cpu", "data.resize=pad"])


def test_older_checkpoints_were_padded():
    config = load_config("folder", "cwt", [*TINY])
    asked = Identity.of_few_shot(config, ["kind 1"]).account()
    older = {k: v for k, v in asked.items() if k != "resize"}
    require(older, asked, "old.pt")
    squashed = load_config("folder", "cwt", [*TINY, SQUASH])
    with pytest.raises(fss.UserError, match="resize is pad, wanted squash"):
        require(older, Identity.of_few_shot(squashed, ["kind 1"]).account(), "old.pt")
    base = [Identity.of_base(c, ["kind 1"]).account() for c in (config, squashed)]
    assert base[0] == base[1]  # learnt from crops


@pytest.mark.parametrize("label_size", ["network", "original"])
def test_counts_depend_on_no_worker_and_no_batch(place, label_size):
    texts = []
    for workers, batch in ((0, 8), (2, 1)):
        settings = [SQUASH, f"test.label_size={label_size}", f"data.workers={workers}", f"test.batch={batch}"]
        assert run(place, "test", *settings, "network=base", "head.level=neck", head="prototype") == 0
        (path,) = (place / "out/folder/fold0").glob("prototype*squash*/test_*/episodes.csv")
        texts.append(path.read_text())
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
    assert texts[0] == texts[1]


def test_logits_go_straight_to_the_original_label(place):
    """A model that answers with the squashed label itself is right, up to that label's pixels."""
    protocol = fss.load_protocol(
        "folder", f"data.root={place / 'set'}", *PLAIN, SQUASH, "test.label_size=original"
    )
    truth = PictureSet(source_of(place), Canvas(49, "squash"))
    names = truth.source.index.names

    def model(episode: fss.Episode) -> torch.Tensor:
        labels = truth.load(names.index(episode.meta["query"][0])).labels
        assert episode.photo.all() and (episode.query_image.shape[-2:]) == (49, 49)
        mask = (labels == episode.class_id[0]).float()[None, None]
        return torch.cat([1 - mask, mask], 1)

    assert fss.evaluate(model, protocol).miou > 90


@pytest.mark.parametrize("augment", ["none", "flips", "views"])
def test_training_squashes_whole_images_and_crops_views_as_ever(place, augment):
    source, draw = source_of(place), Draw(1, 3, (7, 11), 5)
    padded, squashed = (EpisodeSet(source, Canvas(49, r), augment).load(draw) for r in ("pad", "squash"))
    if augment == "views":
        assert torch.equal(padded.query_image, squashed.query_image)
        assert torch.equal(padded.support_masks, squashed.support_masks)
        return
    assert squashed.photo.all() and not padded.photo.all()
    assert (squashed.query_image[..., 40:, :].amax(1) > 0).all()  # photo, where padding is black
    area = int((Canvas(49, "squash").mask(source.mask(3)) == 1).sum())
    assert int((squashed.query_mask == 1).sum()) == area  # flipped or not
    assert (padded.query_image[..., 40:, :] == 0).all()


@pytest.mark.parametrize("resize", ["pad", "squash", "stretch"])
def test_whole_views_come_to_the_canvas_as_images_do(place, resize):
    source, canvas = source_of(place), Canvas(49, resize)
    seen = set()
    for seed in range(12):
        e = EpisodeSet(source, canvas, "whole_views", (0.9, 1.1)).load(Draw(1, 3, (7, 11), seed))
        assert e.query_image.shape[-2:] == (49, 49) and e.query_image.dtype == torch.uint8
        share = int((e.query_mask == 1).sum()) / int((canvas.mask(source.mask(3)) == 1).sum())
        # All of the object, rotated or not; its rim of a pixel comes and goes with the sampling.
        assert share == pytest.approx(1, rel=0.3)
        h, w = canvas.filled(48, 64)
        assert (
            not e.photo[:, h:].any() and not e.photo[:, :, w:].any() and e.photo.float().mean() > 0.8 * h / 49
        )
        assert (e.query_mask[~e.photo] == 255).all()
        seen.add(bool(e.photo[:, :h, :w].all()))
    assert seen == {True, False}


def test_stretched_images_are_of_another_protocol_than_squashed_ones(place):
    where = [f"data.root={place / 'set'}", *PLAIN, "test.label_size=original"]
    names = []
    for resize in ("pad", "squash", "stretch"):
        names.append(fss.load_protocol("folder", *where, f"data.resize={resize}").name)
    assert "images stretched to 49 px;" in names[2] and "labels at original" in names[2]
    assert len({name.split("[")[1] for name in names}) == 3


def test_pictures_show_what_the_network_sees(place):
    source, prediction = source_of(place), torch.zeros(49, 49)
    rows = [episode_row(source, Canvas(49, r), Draw(1, 3, (7,), 5), prediction) for r in ("pad", "squash")]
    assert [r.shape[1] / r.shape[0] for r in rows] == pytest.approx([3 * 48 / 32, 3], rel=0.05)


def test_a_prediction_comes_back_to_the_photos_size(tmp_path):
    random = np.random.default_rng(0)
    image = random.integers(90, 110, (40, 100, 3), np.uint8)
    mask = np.zeros((40, 100), np.uint8)
    image[8:30, 60:90], mask[8:30, 60:90] = (230, 40, 30), 1
    network = ["backbone.type=resnet18", "backbone.weights=random", "head.level=stage1"]
    settings = [*network, "device=cpu", "precision=fp32", SQUASH]
    model = fss.Predictor(settings=settings, size=97, edges=False)
    assert model.canvas == Canvas(97, "squash")
    found = model.learn([fss.Support(image, mask)], tile=None)(image)
    assert found.odds.shape[-2:] == (97, 97)
    labels = found.labels() == 1
    assert (labels & (mask == 1)).sum() / (labels | (mask == 1)).sum() > 0.5


def test_an_exported_file_says_which_images_it_wants(place):
    (path,) = (place / "out/folder/fold0").glob("cwt*squash*/best.pt")
    told = export._account(fss.load_model(path), b"", "torch", 1, 49, 0, export.Check(1, 0.0, 0.0, 1.0))
    assert told["images"].startswith("both sides 49, by PIL's bilinear")


def test_training_hands_on_its_canvas_and_scale(place, monkeypatch):
    made = []
    monkeypatch.setattr(heads, "EpisodeSet", lambda *given: made.append(given[1:]) or EpisodeSet(*given))
    more = ["train.augment=views", "train.scale=[0.8,1.25]", "tag=views"]
    assert run(place, "train", SQUASH, *more) == 0
    assert made == [(Canvas(49, "squash"), "views", (0.8, 1.25))]


def test_made_masks_of_both_ways_are_kept_apart(place):
    settings = ["test.support=box", "test.support_by=drawn", "network=base", "head.level=neck"]
    for more in ([], [SQUASH]):
        assert run(place, "test", *settings, *more, head="prototype") == 0
    folder = place / "out/cache/supports"
    shapes = {fss.data.files.read_mask(p).shape for p in Path(folder).glob("*.png")}
    assert shapes == {(32, 48), (49, 49)}


def test_views_get_the_class_and_the_scale_that_training_was_told(place, monkeypatch):
    source, seen = source_of(place), []

    def view(image, mask, size, random, value, scale):
        seen.append((size, value, scale, bool((mask == value).any())))
        return episodes.View(image[:size, :size], mask[:size, :size], mask[:size, :size] != 255)

    monkeypatch.setattr(episodes, "episode_view", view)
    EpisodeSet(source, Canvas(41), "views", (0.8, 1.25)).load(Draw(1, 3, (7,), 5))
    assert seen == [(41, 1, (0.8, 1.25), True)] * 2
