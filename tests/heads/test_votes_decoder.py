"""The decoder of votes: it begins as the votes, sees what its inputs are said to be, and learns."""

import pytest
import torch
import torch.nn.functional as F

from fss.errors import UserError
from fss.heads import Encoded, build_head
from fss.heads.votes import MAP, Cells, Votes, vote
from fss.heads.votes_decoder import INPUTS, Prototypes, episode_losses, first_supports, nearest
from fss.ops import resize, segmentation_loss

CHANNELS = {"stage2": 6, "stage3": 8}
LEVELS = {"stage2": 0.7, "stage3": 1}


def made(name="votes_decoder", seed=0, **options):
    torch.manual_seed(seed)
    return build_head(name, {"level": LEVELS, **options}, CHANNELS).eval()


def episodes(head, shots=2, seed=0, cells=(9, 5)):
    g = torch.Generator().manual_seed(seed)

    def maps(n):
        return {
            k: torch.randn(n, CHANNELS[k], c, c, generator=g) for k, c in zip(CHANNELS, cells, strict=True)
        }

    query, support = head.encode(maps(2)), head.encode_support(maps(2 * shots))
    masks = torch.randint(0, 3, (2, shots, 33, 33), generator=g)
    masks[masks == 2] = 255
    return Encoded(query, {k: x.unflatten(0, (2, shots)) for k, x in support.items()}, masks, [0, 0])


def stirred(head):
    """The decoder with a last layer that is not zero any more."""
    torch.nn.init.normal_(head.decoder.last.weight)
    return head


@torch.no_grad()
@pytest.mark.parametrize("shots", [1, 3])
def test_it_begins_as_the_votes_to_the_bit(shots):
    votes, decoder = made("votes"), made()
    wanted = votes(episodes(votes, shots)).logits
    assert torch.equal(decoder(episodes(decoder, shots)).logits, wanted)
    assert not torch.allclose(stirred(decoder)(episodes(decoder, shots)).logits, wanted, atol=1e-2)


@torch.no_grad()
def test_the_decoder_sees_votes_levels_and_nearest_neighbours():
    head = made()
    e = episodes(head, shots=2)
    e.photo = torch.zeros(2, 33, 33, dtype=torch.bool)
    e.photo[:, :, :20] = True
    maps = head.prepare(e).query[INPUTS]
    assert maps.shape == (2, 18, 9, 9)
    cells = Cells.of(e)
    votes = Votes(CHANNELS, LEVELS)
    assert torch.allclose(maps[:, 0].flatten(1), votes._vote(cells, 2) / 4)
    odds = votes(e).logits[:, 1]
    assert torch.equal(maps[:, 1], odds / 4)
    for i, level in enumerate(LEVELS, 2):
        single = vote(Cells.of(e, level), 2, 0.05, 9).view(2, 1, *e.query[level].shape[-2:])
        assert torch.allclose(maps[:, i], resize(single, (9, 9), True)[:, 0] / 4, atol=1e-5)
    assert torch.allclose(maps[:, 4], odds.mean((1, 2))[:, None, None].expand(2, 9, 9) / 4, atol=1e-5)
    assert torch.allclose(maps[:, 7], maps[:, 5] - maps[:, 6], atol=1e-5)
    assert set(maps[:, 8].unique().tolist()) == {0.0, 1.0}
    area = [(e.support_masks == value).flatten(1).sum(1) for value in (0, 1)]
    share = torch.log((area[1] + 1) / (area[0] + 1)) / 2
    assert torch.allclose(maps[:, 9], share[:, None, None].expand(2, 9, 9), atol=1e-3)
    cosines = Prototypes.of(cells, odds.flatten(1)).cosines()
    assert len(cosines) == 7
    for i, wanted in enumerate(cosines, 10):
        assert torch.allclose(maps[:, i].flatten(1), wanted, atol=1e-6)
    assert torch.allclose(maps[:, 17], torch.tensor(2.0).log())


@torch.no_grad()
def test_nearest_neighbours_are_the_largest_cosines_of_each_side():
    head = made()
    cells = Cells.of(episodes(head, shots=3))
    for side, found in enumerate(nearest(cells)):
        mine, other = cells.area[..., side], cells.area[..., 1 - side]
        for b in range(2):
            keys = cells.support[b][mine[b] > other[b]]
            assert torch.allclose(found[b], (cells.query[b] @ keys.T).amax(1), atol=1e-6)
    without = cells._replace(area=torch.zeros_like(cells.area))
    assert all((found == -1).all() for found in nearest(without))


def test_training_with_several_supports_shows_some_episodes_one_alone():
    head = made()
    torch.nn.init.constant_(head.decoder.last.bias, 0.3)  # good for one of the queries, bad for the other
    e = episodes(head, shots=3)
    e.seeds = [4, 6]
    e.query_mask = torch.tensor([1, 0])[:, None, None].expand(2, 33, 33)
    one, every = (head.prepare(x).query[INPUTS] for x in (first_supports(e, 1), e))
    assert not torch.allclose(one, every, atol=1e-2)
    ready = head.train().prepare(e)
    assert ready.prepared and not ready.support
    assert torch.allclose(ready.query[INPUTS], torch.stack([one[0], every[1]]), atol=1e-4)
    out = head(ready)
    assert torch.equal(out.logits, head(e).logits)
    after = episode_losses(out.logits, e.query_mask, True)
    votes = [made("votes")(x).logits for x in (first_supports(e, 1), e)]
    before = torch.stack([episode_losses(x, e.query_mask, True)[:, i] for i, x in enumerate(votes)], 1)
    assert (after > before).any() and (after < before).any()
    assert torch.allclose(out.losses["soft_iou"], after[1].mean(), atol=1e-5)
    assert torch.allclose(out.losses["harm"], 2 * (after - before).clamp(min=0).sum(0).mean(), atol=1e-5)


@torch.no_grad()
def test_prototypes_are_means_of_the_cells_that_are_likely_either():
    head = made()
    cells = Cells.of(episodes(head, shots=2))
    on_photo = cells.on_photo.clone()
    on_photo[:, 40:] = False
    cells = cells._replace(on_photo=on_photo)
    odds = torch.linspace(-3, 3, 81).expand(2, 81)
    found = Prototypes.of(cells, odds)
    cosines = found.cosines()
    for b in range(2):
        weight = cells.area[b].sum(1, keepdim=True)
        mean = (cells.support[b] * weight).sum(0) / weight.sum()
        query, support = (F.normalize(x - mean, dim=1) for x in (cells.query[b], cells.support[b]))
        p = odds[b].sigmoid() * on_photo[b]
        own = [(1 - p) * on_photo[b], p * (p >= p.max() / 2)]
        each = [
            [F.cosine_similarity(query, (x * w[:, None]).sum(0)[None]) for w in weights]
            for x, weights in ((support, cells.area[b].unbind(1)), (query, own))
        ]
        for i, (background, foreground) in enumerate(each):
            assert torch.allclose(cosines[3 * i][b], 2 * foreground, atol=1e-5)
            assert torch.allclose(cosines[3 * i + 1][b], 2 * background, atol=1e-5)
            assert torch.allclose(cosines[3 * i + 2][b], foreground - background, atol=1e-5)
        agree = F.cosine_similarity(found.support[b, 1], found.own[b, 1], dim=0)
        assert torch.allclose(cosines[6][b], agree, atol=1e-5)


@torch.no_grad()
def test_supports_count_in_any_order():
    head = stirred(made())
    e = episodes(head, shots=3)
    turned = Encoded(e.query, {k: x.flip(1) for k, x in e.support.items()}, e.support_masks.flip(1), [0, 0])
    assert torch.allclose(head(turned).logits, head(e).logits, atol=1e-4)


def test_losses_are_their_formulas_and_leave_pixels_of_255_out():
    lead = torch.tensor([[[[0.0, 2.0], [-1.0, 3.0]]]])
    masks = torch.tensor([[[1, 0], [255, 1]]])
    p = lead[0, 0].sigmoid()
    both, either = p[0, 0] + p[1, 1], 2 + p[0, 1]
    entropy = -(p[0, 0].log() + (1 - p[0, 1]).log() + p[1, 1].log()) / 3
    logits = torch.cat([torch.ones_like(lead), lead + 1], 1)
    wanted = torch.stack([entropy, 1 - both / either])[:, None]
    assert torch.allclose(episode_losses(logits, masks, True), wanted)
    assert episode_losses(logits, torch.full_like(masks, 255), True).tolist() == [[0], [1]]


def test_it_learns_and_nothing_but_the_decoder_does():
    head = made().train()
    assert all(name.startswith("decoder.") for name, _ in head.named_parameters())
    e = episodes(head, shots=1)
    e.query_mask = torch.zeros(2, 33, 33, dtype=torch.int64)
    e.query_mask[:, 8:25, 8:25] = 1
    optimizer, totals = torch.optim.AdamW(head.parameters(), 2e-3), []
    for _ in range(60):
        out = head(e)
        loss = segmentation_loss(out.logits, e.query_mask, False) + sum(out.losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(float(loss.detach()))
    assert totals[-1] < 0.7 * totals[0]
    head.eval()
    assert not head(e).losses


def test_of_one_level_and_of_no_width():
    head = build_head("votes_decoder", {"level": "stage3"}, CHANNELS).eval()
    g = torch.Generator().manual_seed(0)
    maps = {"stage3": torch.randn(2, 8, 5, 5, generator=g)}
    support = {k: x[:, None] for k, x in head.encode_support(maps).items()}
    e = Encoded(head.encode(maps), support, torch.ones(2, 1, 33, 33, dtype=torch.int64), [0, 0])
    assert head(e).logits.shape == (2, 2, 5, 5)
    assert [p.title for p in head.explain(e)][-1] == "after the decoder"
    with pytest.raises(UserError, match=r"width=0, caution=2; allowed: a width from 1 on"):
        build_head("votes_decoder", {"width": 0}, CHANNELS | {"stage4": 4})
    assert torch.equal(F.normalize(maps["stage3"], dim=1), head.encode(maps)["stage3"])
    assert torch.equal(head.encode(maps)[MAP], F.normalize(maps["stage3"], dim=1))
