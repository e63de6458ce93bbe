"""INSID3 against its authors' numbers step by step, and what they leave open."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fss.backbones.resnet import ResNet
from fss.errors import UserError
from fss.heads import Encoded, build_head
from fss.heads.insid3 import (
    INSID3,
    MAP,
    Task,
    at_cells,
    candidates,
    clustered,
    debiased,
    positions,
    prototype,
    scores,
)
from fss.model import build_model
from fss.ops import foreground
from fss.randomness import seeded
from fss.recipes import load_config

NAMES = ["1shot", "2shot", "5shot", "tiny_mask", "no_positive", "no_candidate"]


def unpacked(bits, size):
    return torch.from_numpy(np.unpackbits(bits, axis=-1)[..., : size[1]].astype(np.int64))


@pytest.fixture(params=NAMES)
def published(request, fixture_numbers):
    """A fixture, a head with its options, and its episode."""
    data = fixture_numbers(f"insid3_{request.param}")
    size = tuple(data["size"].tolist())
    unit = lambda name: F.normalize(torch.from_numpy(data[name]), dim=-3)  # noqa: E731
    query, supports, masks = unit("query"), unit("supports"), unpacked(data["support_masks"], size)
    head = INSID3(
        {"stage4": query.shape[-3]}, components=int(data["svd_components"]), tau=float(data["tau"]),
        merge=float(data["merge_threshold"]),
    )  # fmt: skip
    noise = torch.from_numpy(data["noise_map"])
    query, noise = query.view(1, *query.shape[-3:]), noise.view(1, *noise.shape[-3:])
    network = lambda images: {"stage4": noise}  # noqa: E731
    e = Encoded({MAP: query}, {MAP: supports[None]}, masks[None], [0], corners=False, network=network)
    return data, head, e


def close(got, wanted):
    wanted = torch.from_numpy(np.asarray(wanted)).float()
    return got.shape == wanted.shape and torch.allclose(got, wanted, atol=1e-4, rtol=1e-4)


def test_every_step_gives_the_authors_numbers(published):
    data, head, e = published
    size = tuple(e.query[MAP].shape[-2:])
    masks = at_cells(e.support_masks[0], size, False)
    assert np.array_equal(masks, data["support_masks_at_cells"].astype(bool))
    (task,) = head._tasks(e)
    apart = torch.cat([task.others, task.apart[None]]).transpose(1, 2).unflatten(2, size)
    assert close(apart[:, ::2], data["debiased"].reshape(apart[:, ::2].shape))
    wanted = prototype(task)
    assert close(wanted, data["prototype"].reshape(-1))
    cosine = task.apart @ wanted
    assert close(cosine.view(size), data["forward_cosine"])
    chosen = candidates(task, cosine)
    assert np.array_equal(chosen.view(size), data["candidates"].astype(bool))
    if "cluster_labels" not in data:
        assert not chosen.any()
        return
    clusters, labels = clustered(task.cells, 1 - head.tau), data["cluster_labels"].reshape(-1)
    pairs = set(zip(clusters.tolist(), labels.tolist(), strict=True))
    assert len(pairs) == len(set(labels.tolist())) == int(clusters.max()) + 1
    ours = [mine for _, mine in sorted((theirs, mine) for mine, theirs in pairs)]
    found = scores(task, clusters, wanted, chosen)
    assert int((clusters == found.seed).nonzero()[0]) == int(data["seed_cell"])
    for name in ("cross", "intra", "area"):
        assert close(getattr(found, name)[ours], data[f"cluster_{name}"])
    assert close(found.product[ours], data["cluster_score"])


def test_the_answer_is_the_authors(published):
    data, head, e = published
    coarse = head._segmented(e)[0].foreground
    assert np.array_equal(coarse, data.get("coarse_mask", np.zeros(coarse.shape)).reshape(-1).astype(bool))
    size = tuple(data["size"].tolist())
    logits = head(e).logits
    assert logits.shape == (1, 2, *size)
    answer = foreground(logits, size, corners=False)[0]
    assert torch.equal(answer, unpacked(data["prediction"], size).view(size))
    smaller = foreground(logits, (70, 90), corners=False)  # of the mask, thresholded again, as published
    wanted = F.interpolate(answer[None, None].float(), (70, 90), mode="bilinear")[0] > 0.5
    assert torch.equal(smaller, wanted.long())


def random_task(n=40, shots=3, c=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    unit = lambda *shape: F.normalize(torch.randn(*shape, generator=g), dim=-1)  # noqa: E731
    masks = torch.rand(shots, n, generator=g) > 0.6
    return Task(unit(n, c), unit(n, c), unit(shots, n, c), masks, torch.ones(n, dtype=torch.bool))


def test_without_a_positive_cosine_the_uppermost_tenth_takes_part():
    task = random_task(38)
    task = task._replace(masks=torch.ones_like(task.masks))  # every cell is the object's: none is voted out
    cosine = -torch.rand(38, generator=torch.Generator().manual_seed(1)) - 0.1
    assert candidates(task, cosine).nonzero()[:, 0].tolist() == sorted(cosine.argsort()[-4:].tolist())
    half = task._replace(on_photo=torch.arange(38) < 20)
    assert sorted(cosine[:20].argsort()[-2:].tolist()) == candidates(half, cosine).nonzero()[:, 0].tolist()


def test_half_of_the_supports_that_show_the_object_must_agree():
    task, everywhere = random_task(shots=5), torch.ones(40)
    votes = torch.stack([
        torch.tensor([bool(mask[int((q @ other.T).argmax())]) for q in task.apart])
        for other, mask in zip(task.others, task.masks, strict=True)
    ]).sum(0)  # fmt: skip
    assert torch.equal(candidates(task, everywhere), votes >= 3)
    two = task._replace(others=task.others[:2], masks=task.masks[:2])
    alone = [task._replace(others=task.others[[i]], masks=task.masks[[i]]) for i in range(2)]
    either = torch.stack([candidates(one, everywhere) for one in alone]).any(0)
    assert torch.equal(candidates(two, everywhere), either)


@pytest.mark.parametrize(
    ("pixels", "cells"),
    [
        ([(109, 77)], [(6, 4)]),  # its mean cell, rounded down
        ([(64, 80)], [(4, 5)]),  # a pixel that a cell takes
        ([(64, 80), (71, 95)], [(4, 5)]),
        ([(0, 159)], [(0, 9)]),
        ([], []),
    ],
)  # fmt: skip
def test_an_object_smaller_than_a_cell_keeps_one(pixels, cells):
    mask = torch.zeros(1, 128, 160, dtype=torch.int64)
    mask[0, 50:60, 50:60] = 255
    for row, column in pixels:
        mask[0, row, column] = 1
    found = at_cells(mask, (8, 10), False)[0]
    assert [tuple(x) for x in found.nonzero().tolist()] == cells


def model_of(**options):
    with seeded(0):
        return build_model("insid3", {"level": "stage3", **options}, ResNet(18)).eval()


def inputs(shots=2, size=(65, 49)):
    g = torch.Generator().manual_seed(3)
    images = 255 * torch.rand(1, shots + 1, 3, *size, generator=g)
    masks = torch.zeros(1, shots, *size, dtype=torch.int64)
    masks[..., 10:40, 12:33] = 1
    return images[:, 0], images[:, 1:], masks


def test_supports_without_foreground_are_left_out_and_none_leaves_nothing():
    model, (query, images, masks) = model_of(), inputs(3)
    masks[:, 1] = 0
    both = [0, 2]
    with torch.no_grad():
        found = model(query, images, masks)
        assert torch.equal(found, model(query, images[:, both], masks[:, both])) and (found[:, 1] > 0).any()
        masks[:] = 255
        assert (model(query, images, masks)[:, 1] < 0).all()


def test_positions_are_found_once_for_each_size_until_the_network_changes():
    model, asked = model_of(), []
    own = model.extract

    def extract(images, masks=None):
        asked.extend(tuple(x.shape[1:]) for x in images if not x.any())
        return own(images, masks)

    model.extract = extract
    with torch.no_grad():
        answers = [model(*inputs(size=size)) for size in ((65, 49), (49, 65), (65, 49))]
        assert asked == [(65, 49), (49, 65)] and torch.equal(answers[0], answers[2])
        model(*inputs()[:2], inputs()[2], seed=5)
        assert len(asked) == 2
        for p in model.backbone.parameters():
            p.mul_(1.1)
        model(*inputs())
    assert len(asked) == 3


def test_positions_are_what_a_black_image_shows():
    x = torch.randn(12, 5, 6, generator=torch.Generator().manual_seed(0))
    cells = x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
    for k in (1, 4, 11):
        basis = positions(x, k)
        wanted = torch.linalg.svd(cells)[0][:, :k]
        assert torch.allclose(basis @ basis.T, wanted @ wanted.T, atol=1e-5)
    few = torch.randn(12, 2, 2)
    assert positions(few, 11).shape == (12, 3)  # four cells vary in three directions
    assert debiased(few.flatten(1).T, positions(few, 2)).norm(dim=1).sub(1).abs().max() < 1e-5


def test_the_canvas_around_the_photo_has_no_say():
    model = model_of(components=0, tau=0.9)
    query, images, masks = inputs()
    photo = torch.ones(1, 65, 49, dtype=torch.bool)
    photo[:, 32:] = False
    with torch.no_grad():
        support = {k: x[None] for k, x in model.encode(images[0]).items()}
        e = Encoded(model.encode(query), support, masks, [0], photo=photo, network=model.network)
        logits = model.head(e).logits
        noise = e.query[MAP].clone()  # 9 x 7 cells, 5 rows of which are photo
        noise[..., 5:, :] = F.normalize(torch.randn_like(noise[..., 5:, :]), dim=1)
        again = model.head(replace(e, query={MAP: noise})).logits
    assert torch.equal(logits, again) and (logits[:, 1, 37:] < 0).all() and (logits[:, 1] > 0).any()


def test_it_needs_a_network_to_ask_and_says_so():
    head = INSID3({"stage4": 8})
    e = Encoded({MAP: torch.rand(1, 8, 3, 3)}, {MAP: torch.rand(1, 1, 8, 3, 3)}, torch.ones(1, 1, 9, 9), [0])
    with pytest.raises(UserError, match="asks the network about a black image"):
        head(e)


def test_without_scipy_it_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else find(name))
    with pytest.raises(UserError, match=r"'insid3' clusters with scipy.*pip install"):
        build_head("insid3", {}, {"stage4": 8})


def test_its_protocol_has_a_name_of_its_own():
    own, common = load_config("coco_insid3", "insid3"), load_config("coco", "insid3")
    assert own.data.name == "coco_insid3" != common.data.name and own.data.folder == common.data.folder
    assert own.data.val_list == common.data.train_list != common.data.val_list
    assert (own.data.size, own.data.resize, own.data.scheme) == (1024, "squash", "interleaved")
    t = own.test
    assert (t.runs, t.episodes, t.seed, t.label_size) == (1, 1000, 0, "network")
    assert t.sampling == "hsnet_classes" and own.network == "weights"
