"""RePRI against the authors' numbers, and against its own plain formulation."""

import pytest
import torch
import torch.nn.functional as F

from fss.bench import plain_repri
from fss.errors import UserError
from fss.heads import Encoded
from fss.heads.cells import nearest
from fss.heads.repri import CELLS, RePRI
from fss.ops import resize
from tests.conftest import relative_error

NAMES = ["1shot", "5shot", "1shot_oracle"]
PUBLISHED = {"valid": "label"}


def head_of(name, width, **options):
    return RePRI({"neck": width}, **{**PUBLISHED, "oracle": "oracle" in name, **options})


def encoded(head, data, **other):
    """The fixture's episodes as a head sees them."""
    query, support = (torch.tensor(data[f"{who}_features"]) for who in ("query", "support"))
    maps = [head.encode({"neck": support[:, k]})[CELLS] for k in range(support.shape[1])]
    masks = torch.tensor(data["support_masks"])
    return Encoded(
        head.encode({"neck": query}), {CELLS: torch.stack(maps, 1)}, masks, [0] * len(query),
        query_mask=torch.tensor(data["query_mask"]), **other,
    )  # fmt: skip


def fitted(name, data, steps):
    head = head_of(name, data["query_features"].shape[1], steps=steps)
    return head._fit(*head._task(encoded(head, data)))


@pytest.mark.parametrize("name", NAMES)
def test_states_and_proportions_are_the_authors(fixture_numbers, name):
    data = fixture_numbers(f"repri_inner_{name}")
    start = fitted(name, data, 1)
    assert relative_error(start.start[:, :-1], data["prototype_start"]) < 1e-5
    assert relative_error(start.start[:, -1], data["bias_start"]) < 1e-5
    assert relative_error(start.expected[:, 0], data["pi_start"][:, 1]) < 1e-5
    for steps in (1, 8, 9, 10, 20, 49, *((100, 299) if "oracle" in name else ())):
        at = fitted(name, data, steps)
        assert relative_error(at.end[:, :-1], data[f"prototype_after_{steps}"]) < 1e-5
        assert relative_error(at.end[:, -1], data[f"bias_after_{steps}"]) < 1e-5
        if steps > 9:  # after the ninth update itself it is renewed for the tenth
            assert relative_error(at.renewed[:, 0], data[f"pi_after_{steps}"][:, 1]) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_pixels_are_the_authors(fixture_numbers, name):
    data = fixture_numbers(f"repri_inner_{name}")
    head = head_of(name, data["query_features"].shape[1])
    out = head(encoded(head, data)).logits
    last = max(int(key.rpartition("_")[2]) for key in data if key.startswith("bias_after"))
    lead, threshold = (out[:, 1] - out[:, 0]), torch.tensor(data[f"bias_after_{last}"])
    assert relative_error(lead + threshold[:, None, None], data["logits"]) < 1e-5
    wide = resize(out, data["query_mask"].shape[-2:])
    likely = wide.softmax(1)[:, 1, ::4, ::4]
    assert relative_error(likely, data["foreground_probability_every_4th_pixel"]) < 1e-4
    wrong = wide.argmax(1).sum((1, 2)) - torch.tensor(data["foreground_pixels"])
    assert wrong.abs().max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_loss_is_the_authors(fixture_numbers, name):
    """What the gradient in closed form is held against: each term before the updates whose state is known."""
    data = fixture_numbers(f"repri_inner_{name}")
    given = lambda key: torch.tensor(data[key])  # noqa: E731
    for b in range(len(data["query_mask"])):
        support, query = (F.normalize(given(f"{who}_features")[b], dim=-3) for who in ("support", "query"))
        size = query.shape[-2:]
        masks, seen = nearest(given("support_masks")[b], size), nearest(given("query_mask")[b][None], size)
        for row in (0, 1, 8, 10, 20):
            at = f"after_{row}" if row else "start"
            state = given(f"prototype_{at}")[b], given(f"bias_{at}")[b]
            share = given(f"pi_{at}")[b, 1]
            found = plain_repri.terms(*state, support, query[None], masks, seen, share, 20.0)
            for term, key in zip(found, ("ce", "kl", "entropy"), strict=True):
                assert float(term) == pytest.approx(float(data[f"{key}_before_update"][row, b]), 1e-4, 1e-6)


def test_the_gradient_is_that_of_the_plain_loss():
    """In both of its parts, and far from where episodes start."""
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 8, 5, 7, generator=g)
    masks = torch.randint(0, 3, (2, 2, 5, 7), generator=g)
    masks[masks == 2] = 255
    seen = torch.randint(0, 2, (2, 5, 7), generator=g) * 255
    head = RePRI({"neck": 8}, valid="label")
    cells = F.normalize(maps, dim=2)
    e = Encoded({CELLS: cells[:, -1]}, {CELLS: cells[:, :-1]}, masks, [0, 0], query_mask=seen)
    task, _ = head._task(e)
    state, share = torch.randn(2, 9, generator=g), torch.rand(2, 1, generator=g)
    found = task.gradient(state, share, (0.7, 1.3, 0.4))
    for b in range(2):
        own = [state[b, :-1].clone().requires_grad_(), state[b, -1].clone().requires_grad_()]
        terms = plain_repri.terms(
            *own, cells[b, :-1], cells[b, -1:], masks[b], seen[b : b + 1], share[b, 0], head.scale
        )
        sum(w * t for w, t in zip((0.7, 1.3, 0.4), terms, strict=True)).backward()
        assert relative_error(found[b], torch.cat([own[0].grad, own[1].grad[None]])) < 1e-5


def test_supports_without_foreground_are_left_out(fixture_numbers):
    data = fixture_numbers("repri_inner_5shot")
    head, width = head_of("5shot", data["query_features"].shape[1]), data["query_features"].shape[1]
    e = encoded(head, data)
    e.support_masks[:, 3] = 0
    e.support_masks[:, 4] = 255
    three = encoded(head, data)
    three.support_masks, three.support = e.support_masks[:, :3], {CELLS: e.support[CELLS][:, :3]}
    same = RePRI({"neck": width}, **PUBLISHED, weights=(1, 1 / 5, 1 / 5))(three)
    found = head(e)
    assert relative_error(found.logits, same.logits) < 1e-5
    assert not found.notes["empty_support"].any()
    e.support_masks[:] = 0
    for other in (head, head_of("oracle", width, steps=49)):
        nothing = other(e)
        assert nothing.notes["empty_support"].all() and (nothing.logits[:, 1] == -20).all()


def test_an_object_between_the_cells_is_none():
    """Its one pixel is no cell's: the prediction is background, and the result counts it."""
    head = RePRI({"neck": 4})
    masks = torch.zeros(1, 1, 17, 17, dtype=torch.int64)
    masks[..., 4, 4] = 1
    maps = F.normalize(torch.rand(1, 4, 3, 3), dim=1)
    out = head(Encoded({CELLS: maps}, {CELLS: maps[:, None]}, masks, [0]))
    assert out.notes["empty_support"].tolist() == [True] and (out.logits.argmax(1) == 0).all()
    masks[..., 5, 5] = 1
    assert not head(Encoded({CELLS: maps}, {CELLS: maps[:, None]}, masks, [0])).notes["empty_support"].any()


@pytest.mark.parametrize("options", [{}, {"valid": "label"}, {"oracle": True}])
def test_a_query_of_which_nothing_counts(options):
    head = RePRI({"neck": 4}, **options)
    maps = F.normalize(torch.rand(1, 4, 3, 3), dim=1)
    masks = torch.zeros(1, 1, 17, 17, dtype=torch.int64)
    masks[..., :9] = 1
    e = Encoded({CELLS: maps}, {CELLS: maps[:, None]}, masks, [0], query_mask=torch.full((1, 17, 17), 255))
    e.photo = torch.zeros(1, 17, 17, dtype=torch.bool)
    assert head(e).logits.isfinite().all()


def test_what_counts_is_the_photo_unless_the_label_is_asked(fixture_numbers):
    data = fixture_numbers("repri_inner_1shot")
    photo, label = (RePRI({"neck": 64}, valid=valid) for valid in ("photo", "label"))
    e = encoded(photo, data, photo=torch.tensor(data["query_mask"]) != 255)
    assert torch.equal(photo(e).logits, label(e).logits)
    e.photo = None
    assert not torch.allclose(photo(e).logits, label(e).logits)
    e.photo = torch.ones_like(e.query_mask, dtype=torch.bool)
    everywhere = photo(e).logits
    e.photo, e.query_mask = None, None
    assert torch.equal(photo(e).logits, everywhere)


@pytest.mark.parametrize(("options", "named"), [({"valid": "label"}, "head.valid=label"),
                                               ({"oracle": True}, "head.oracle=true")])  # fmt: skip
def test_without_a_label_the_option_that_wants_it_is_named(options, named):
    head = RePRI({"neck": 4}, **options)
    assert head.sees_query_mask and not RePRI({"neck": 4}).sees_query_mask
    maps = torch.rand(1, 4, 3, 3)
    masks = torch.zeros(1, 1, 17, 17, dtype=torch.int64)
    with pytest.raises(UserError, match=f"{named} looks at the query's own label"):
        head(Encoded({CELLS: maps}, {CELLS: maps[:, None]}, masks, [0]))


def test_panels_tell_what_was_expected(fixture_numbers):
    data = fixture_numbers("repri_inner_1shot")
    head = head_of("1shot", 64)
    first, last = head.explain(encoded(head, data))
    assert [first.of(i).title for i in (0, 1)] == ["start, 46% expected", "start, 43% expected"]
    assert last.of(1).title == "49 updates, 18% expected"
    lead = head(encoded(head, data)).logits[:, 1]
    assert torch.allclose(last.values, lead.sigmoid(), atol=1e-6)


def test_masks_go_to_cells_by_nearest_from_the_first_pixel():
    mask = torch.arange(417)[:, None] * 1000 + torch.arange(105)
    small = nearest(mask, (53, 14))
    assert small[:, 0].tolist() == [1000 * (i * 417 // 53) for i in range(53)]
    assert small[0].tolist() == [i * 105 // 14 for i in range(14)]
