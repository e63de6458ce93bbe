"""What BAM and HDMNet take from a base network: against the authors' numbers, and by hand."""

import pytest
import torch

from fss.heads.cells import masked_average
from fss.heads.ensemble import Ensemble, ShotWeights, adjustments, base_probability, gram
from tests.conftest import relative_error


def test_gram_matrices_psi_and_the_masked_average_are_the_published_ones(fixture_numbers):
    numbers = {k: torch.from_numpy(v) for k, v in fixture_numbers("bam_gram").items()}
    query, support = gram(numbers["query"]), gram(numbers["support"].flatten(0, 1))
    support = support.unflatten(0, numbers["support"].shape[:2])
    assert relative_error(query, numbers["query_gram"]) < 1e-5
    assert relative_error(support, numbers["support_gram"]) < 1e-5
    assert relative_error(adjustments(query, support), numbers["distance_per_shot"]) < 1e-5
    average = masked_average(numbers["query"], numbers["soft_mask"][:, 0])
    assert relative_error(average, numbers["masked_average"]) < 1e-5


def test_gram_matrices_are_cosines_of_channels_in_float32_and_0_of_dead_ones():
    torch.manual_seed(0)
    maps = torch.rand(2, 6, 3, 5).to(torch.bfloat16)
    maps[1, 2] = 0
    found = gram(maps)
    assert found.dtype == torch.float32 and torch.equal(found, found.mT)
    diagonal = found.diagonal(dim1=1, dim2=2)
    assert torch.allclose(diagonal[0], torch.ones(6), atol=1e-5) and not found[1, 2].any()


def test_psi_of_images_that_hardly_differ_keeps_its_digits():
    torch.manual_seed(0)
    maps = torch.rand(1, 64, 9, 9)
    other = maps + 1e-3 * torch.rand_like(maps)
    double = [gram(x.double()) for x in (maps, other)]
    wanted = (double[0].double() - double[1].double()).flatten(1).norm(dim=1) / 64
    assert relative_error(adjustments(gram(maps), gram(other)[:, None])[:, 0], wanted) < 1e-3


def test_the_base_probability_is_of_all_classes_but_the_background_and_an_episodes_own():
    torch.manual_seed(0)
    logits = 3 * torch.randn(3, 5, 4, 6)
    likely = logits.softmax(1)
    assert torch.allclose(base_probability(logits), 1 - likely[:, :1], atol=1e-6)
    found = base_probability(logits, torch.tensor([0, 3, -1]))
    assert torch.allclose(found[0], likely[0, 2:].sum(0, keepdim=True), atol=1e-6)
    assert torch.allclose(found[1], likely[1, 1:4].sum(0, keepdim=True), atol=1e-6)
    assert torch.allclose(found[2], likely[2, 1:].sum(0, keepdim=True), atol=1e-6)
    lone = base_probability(torch.randn(1, 2, 3, 3), torch.tensor([0]))
    assert not lone.any()  # the only base class is the episode's own


def test_the_ensemble_begins_as_the_meta_learner_and_merges_as_the_paper_says():
    torch.manual_seed(0)
    both, meta, base = Ensemble(), torch.randn(2, 2, 3, 5), torch.rand(2, 1, 3, 5)
    psi = torch.tensor([0.1, 0.4])
    assert torch.allclose(both(meta, psi, base), meta.softmax(1))
    with torch.no_grad():
        both.gram_merge.weight.copy_(torch.tensor([0.9, 0.3]).view(1, 2, 1, 1))
        both.cls_merge.weight.copy_(torch.tensor([0.8, 0.5]).view(1, 2, 1, 1))
    found, likely = both(meta, psi, base), meta.softmax(1)
    for i in range(2):
        background = 0.8 * (0.9 * likely[i, 0] + 0.3 * psi[i]) + 0.5 * base[i, 0]
        assert torch.allclose(found[i, 0], background, atol=1e-6)
        assert torch.allclose(found[i, 1], 0.9 * likely[i, 1] + 0.3 * psi[i], atol=1e-6)


def test_weights_belong_to_the_ascending_psi_and_go_back_to_their_supports():
    torch.manual_seed(0)
    weights, psi = ShotWeights(3), torch.tensor([[0.3, 0.1, 0.2], [0.1, 0.2, 0.3]])
    raw = weights.kshot_rw(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)).view(3).softmax(0)
    found = weights(psi)
    assert torch.allclose(found, torch.stack([raw[[2, 0, 1]], raw]))
    assert len(set(raw.tolist())) == 3
    weights.back = False
    assert torch.allclose(weights(psi), raw.expand(2, 3))


@pytest.mark.parametrize(("trained", "tested", "unlike"), [
    (1, 1, False), (1, 5, True), (5, 1, True), (5, 3, True), (5, 5, False),
])  # fmt: skip
def test_of_another_number_all_supports_weigh_alike_and_it_is_said(trained, tested, unlike):
    torch.manual_seed(0)
    weights, psi = ShotWeights(trained), torch.rand(2, tested)
    alike = torch.full((2, tested), 1 / tested)
    assert weights.unlike(psi).tolist() == [unlike, unlike]
    assert torch.equal(weights(psi), alike) == (unlike or tested == 1)
    assert torch.allclose(weights(psi).sum(1), torch.ones(2))
