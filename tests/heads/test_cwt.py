"""CWT against the authors' numbers, and against its own plain formulation."""

import pytest
import torch
import torch.nn.functional as F

from fss.heads import Encoded
from fss.heads.cwt import CWT, WeightTransformer, _Rows, first_weight, fit_classifier
from fss.ops import class_weights, interpolation_matrix, resize
from tests.conftest import relative_error


def plain_loss(weight, features, masks):
    """The inner loop's loss as the paper writes it: weight (2,C), features (K,C,h,w), masks (K,H,W)."""
    logits = resize(torch.einsum("nc,kchw->knhw", weight, features), masks.shape[-2:])
    return F.cross_entropy(logits, masks.long(), class_weights(masks[None])[0], ignore_index=255)


@pytest.mark.parametrize("shots", [1, 5])
def test_inner_loop_matches_the_authors(fixture_numbers, shots):
    data = fixture_numbers(f"cwt_inner_loop_{shots}shot")
    features, masks = torch.tensor(data["support_features"]), torch.tensor(data["support_masks"])
    first = torch.tensor(data["init_weight"])[None]
    for steps in (1, 20, 200):
        before = fit_classifier(features[None], masks[None], first, steps - 1)[0]
        assert float(plain_loss(before, features, masks)) == pytest.approx(
            float(data[f"loss_at_step_{steps}"]), rel=1e-4
        )
        after = fit_classifier(features[None], masks[None], first, steps)[0]
        assert relative_error(after, data[f"weight_after_{steps}"]) < (1e-3 if steps == 200 else 1e-4)


def test_episodes_in_a_batch_do_not_touch_each_other(fixture_numbers):
    data = fixture_numbers("cwt_inner_loop_5shot")
    features = torch.tensor(data["support_features"]).unsqueeze(1)  # five episodes of one shot
    masks = torch.tensor(data["support_masks"]).unsqueeze(1)
    first = torch.tensor(data["init_weight"]).expand(5, 2, -1)
    together = fit_classifier(features, masks, first, 20)
    alone = torch.cat(
        [fit_classifier(features[i : i + 1], masks[i : i + 1], first[:1], 20) for i in range(5)]
    )
    assert relative_error(together, alone) < 1e-5


def test_transformer_matches_the_authors(fixture_numbers):
    data = fixture_numbers("cwt_transformer")
    state = {k.removeprefix("state."): torch.tensor(v) for k, v in data.items() if k.startswith("state.")}
    features = torch.tensor(data["query_features_l2_normalised"])
    module = WeightTransformer(features.shape[1], int(data["heads"])).eval()
    module.load_state_dict(state)
    updated = module(torch.tensor(data["weights"]), features)
    assert relative_error(updated.detach(), data["updated_weights"]) < 1e-4
    logits = torch.einsum("bnc,bchw->bnhw", updated, features)
    assert relative_error(logits.detach(), data["logits"]) < 1e-4


def test_identity_start_leaves_the_classifier_as_it_is():
    torch.manual_seed(0)
    weight, features = torch.randn(3, 2, 16), F.normalize(torch.randn(3, 16, 5, 7), dim=1)
    module = WeightTransformer(16, start="identity").eval()
    adapted = module(weight, features).detach()
    length = weight.std(-1, correction=0).mean(1)[:, None, None]
    assert relative_error(adapted * length, weight) < 1e-4  # scaled as a whole: every argmax stays


def test_empty_support_is_noted_and_harmless():
    head = CWT({"neck": 8}, steps=3).eval()
    masks = torch.zeros(2, 1, 17, 17, dtype=torch.uint8)
    masks[1, 0, :5] = 1
    maps = torch.rand(2, 8, 3, 3)
    out = head(Encoded({"neck": maps}, {"neck": maps[:, None]}, masks, [1, 1]))
    assert out.notes["empty_support"].tolist() == [True, False]
    assert out.logits.isfinite().all()


@pytest.mark.parametrize("option", [{"steps": -5}, {"heads": 0}, {"lr": -1.0}])
def test_nonsense_options_are_refused(option):
    with pytest.raises(ValueError, match="allowed"):
        CWT({"neck": 8}, **option)


def test_first_weight_is_a_function_of_the_seed():
    before = torch.get_rng_state()
    a, c = first_weight(1, 512), first_weight(2, 512)
    first_weight.cache_clear()
    b = first_weight(1, 512)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's numbers are used up
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.abs().max() <= 512**-0.5 and a.std() == pytest.approx(512**-0.5 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(("cells", "pixels"), [(13, 97), (7, 49), (5, 38), (1, 9)])
def test_rows_are_the_resize_and_its_transpose(cells, pixels, corners):
    x, rows = torch.randn(2, cells, 6), _Rows(cells, pixels, torch.zeros(1), corners)
    wide = rows.up(x).flatten(1, 2)[:, :pixels]
    matrix = interpolation_matrix(cells, pixels, corners=corners)
    assert torch.allclose(wide, matrix @ x, atol=1e-5)
    y = torch.randn(2, pixels, 6)
    assert torch.allclose(rows.down(rows.cut(y)), matrix.T @ y, atol=1e-5)


@pytest.mark.parametrize(
    ("cells", "pixels", "whole"), [(13, 97, False), (2, 9, False), (5, 38, True), (1, 9, True)]
)
def test_sizes_of_the_quick_way_take_it(cells, pixels, whole):
    """Both ways give the same numbers: only this tells whether the quick one is taken."""
    assert _Rows(cells, pixels, torch.zeros(1), True).whole is whole
    assert _Rows(cells, pixels, torch.zeros(1), False).whole


def test_projections_start_as_wide_as_each_start_says():
    for start, std in (("published", 64**-0.5), ("identity", (30 / 64**0.5) ** 0.5)):
        torch.manual_seed(0)
        module = WeightTransformer(64, start=start)
        assert float(module.w_qkvs.weight.detach().std()) == pytest.approx(std, rel=0.03)
        assert bool((module.fc.weight == 0).all()) == (start == "identity")
        assert module.restore == (start == "identity")
