"""Clustering one image: repeatable, stopped by its rules, as the plain loop, right on an easy picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fss.bench.plain_cluster import Plain
from fss.episode import IGNORE
from fss.errors import UserError
from fss.scribbles.clustering import (
    PUBLISHED,
    Clusterer,
    Clustering,
    Session,
    Stop,
    at_working_size,
    check_scribble,
    cluster,
)  # fmt: skip
from fss.scribbles.guided import enlarge
from tests.conftest import relative_error

SMALL = Clustering(channels=12, steps=40)


def picture(h=48, w=64):
    """A red disc on noisy green; scribbles of label 3 on it and 0 beside it; the disc."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:h, :w]
    disc = (y - h / 2) ** 2 + (x - w / 2) ** 2 < (h / 3) ** 2
    image = random.integers(0, 60, (h, w, 3)).astype(np.uint8)
    image[..., 1] += 120
    image[disc] = image[disc][:, [1, 0, 2]]
    scribble = np.full((h, w), IGNORE, np.uint8)
    scribble[h // 2, w // 2 - 8 : w // 2 + 8], scribble[3, 3 : w - 3] = 3, 0
    return image, scribble, disc


def test_finds_the_disc_from_two_strokes():
    image, scribble, disc = picture()
    found = cluster(image, scribble, SMALL, seed=0) == 3
    assert (found & disc).sum() / (found | disc).sum() > 0.9


@pytest.mark.parametrize("half", [False, True])
def test_same_seed_same_labels(half):
    image, scribble, _ = picture()
    torch.manual_seed(1)
    first = cluster(image, scribble, SMALL, seed=5, half=half)
    torch.manual_seed(2)  # the global generator has no say
    assert (cluster(image, scribble, SMALL, seed=5, half=half) == first).all()
    unmarked = [cluster(image, None, replace(SMALL, steps=2), seed=s, half=half) for s in (5, 6)]
    assert (unmarked[0] != unmarked[1]).any()


def test_steps_are_those_of_the_plain_loop():
    """Within what a pixel between two labels, which may fall either way, makes of the last digits."""
    image, scribble, _ = picture()
    settings = replace(PUBLISHED, channels=12)
    ours, plain, other = Clusterer(settings, 3), Plain(settings, 3), Plain(replace(settings, lr=0.12), 3)
    x, marks = ours.prepared(image), torch.from_numpy(scribble)
    for step in range(5):
        _, losses = ours.step(x, marks)
        assert relative_error(losses, plain.step(x.contiguous(), marks)) < (1e-2 if step else 1e-5)
        apart = relative_error(losses, other.step(x.contiguous(), marks))
    assert apart > 3e-2  # a fifth more of the learning rate shows


def labels_of(*counts):
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))[None]


def test_stops_when_few_labels_are_left():
    three, four = labels_of(50, 30, 20), labels_of(40, 30, 20, 10)
    assert not Stop(PUBLISHED, 0).now(four) and Stop(PUBLISHED, 0).now(three)
    assert not Stop(PUBLISHED, 2).now(three)  # two kinds of strokes: two labels
    assert Stop(PUBLISHED, 2).now(labels_of(60, 40))
    assert Stop(replace(PUBLISHED, min_labels=4), 2).now(four)


def test_stops_when_labels_have_settled():
    still, other = labels_of(40, 30, 20, 10), labels_of(41, 29, 20, 10)  # 1% apart
    stop = Stop(replace(SMALL, settled=0.005, patience=3), 0)
    seen = [stop.now(x) for x in (still, still, still, other, other, other, other)]
    assert seen == [False, False, False, False, False, False, True]  # the change counts from the start again
    never = Stop(PUBLISHED, 0)
    assert not any(never.now(still) for _ in range(30))


def test_a_session_ends_by_its_steps():
    image, scribble, _ = picture()
    session = Session(image, scribble, replace(SMALL, steps=3, settled=0), seed=0)
    assert [session.step() for _ in range(3)] == [False, False, True]


def test_reduced_scribbles_keep_thin_strokes_in_place():
    image, scribble, _ = picture(96, 128)
    small, marks = at_working_size(image, scribble, 32)
    assert small.shape == (24, 32, 3) and marks.shape == (24, 32)
    assert (np.unique(marks) == [0, 3, IGNORE]).all()
    assert (np.argwhere(marks == 3)[:, 0] == 12).all() and (np.argwhere(marks == 0)[:, 0] == 0).all()
    assert at_working_size(image, scribble, None)[1] is scribble


def test_enlarged_labels_follow_the_edge():
    image, _, disc = picture(96, 128)
    coarse = disc[2::6, 2::6].astype(np.uint8) * 7
    plain = np.kron(coarse, np.ones((6, 6), np.uint8))[:96, :128]
    plain = np.pad(plain, ((0, 96 - plain.shape[0]), (0, 128 - plain.shape[1])), "edge")
    found = enlarge(coarse, image)
    assert set(np.unique(found)) == {0, 7}
    wrong, before = ((found == 7) != disc).mean(), ((plain == 7) != disc).mean()
    assert wrong < 0.6 * before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:-1], r"scribble is 64x47, the image 64x48"),
        (lambda s: np.full_like(s, IGNORE), "marks nothing"),
        (lambda s: np.where(s == 3, 12, s), "label 12; allowed: 0 .background. to 11"),
        (lambda s: np.where(s == 3, 255, s), "background .0. only"),
    ],
)
def test_wrong_scribbles(change, message):
    _, scribble, _ = picture()
    with pytest.raises(UserError, match=message):
        check_scribble(change(scribble), (48, 64), 12)


@pytest.mark.parametrize(
    "wrong", [{"channels": 1}, {"channels": 256}, {"lr": 0}, {"steps": 0}, {"settled": 2}, {"size": 3}]
)
def test_settings_out_of_range(wrong):
    with pytest.raises(UserError, match="allowed"):
        replace(Clustering(), **wrong)


def test_divergence_is_told():
    image, _, _ = picture()
    worker = Clusterer(SMALL, seed=0)
    with torch.no_grad():
        worker.network.convs[0].weight.fill_(float("nan"))
    with pytest.raises(UserError, match="diverged"):
        worker.step(worker.prepared(image), None)
