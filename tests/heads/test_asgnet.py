"""ASGNet's parts against the authors' numbers, against plain code, and by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fss.heads import Encoded
from fss.heads.asgnet import ASGNet, allocate, cluster, guide, masked_average
from fss.heads.seeds import on_grid, place_seeds, seeds_in_graph
from tests.conftest import relative_error


def cells_of(mask):
    """The grid of a map of stride 8."""
    return tuple((side - 1) // 8 + 1 for side in mask.shape)


def unpacked(numbers):
    return np.unpackbits(numbers["masks"], axis=2)[:, :, : int(numbers["mask_width"])] == 1


def test_seeds_are_the_published_ones(fixture_numbers):
    numbers = fixture_numbers("asgnet_seeds")
    most, cells = int(numbers["max_seeds"]), int(numbers["area_per_seed"])
    for mask, wanted in zip(unpacked(numbers), numbers["seeds"], strict=True):
        got = place_seeds(mask, cells_of(mask), most, cells)
        assert np.array_equal(np.pad(got, [(0, most - len(got)), (0, 0)]), wanted)


@pytest.mark.parametrize(
    ("area", "count"),
    [(0, 0), (149, 0), (150, 2), (249, 2), (250, 2), (251, 3), (350, 4), (450, 4), (900, 5)],
)
def test_number_of_seeds_rounds_halves_to_even(area, count):
    mask = np.zeros((473, 473), bool)
    grid = np.zeros(3600, bool)
    grid[:area] = True
    rows = np.arange(60) * 473 // 60  # where the grid's cells are read
    mask[np.ix_(rows, rows)] = grid.reshape(60, 60)
    assert on_grid(mask, (60, 60)).sum() == area
    assert len(place_seeds(mask, (60, 60), 5, 100)) == count


def test_seeds_of_a_full_rectangle_count_its_ring_as_background():
    mask = np.ones((49, 81), bool)  # 7 x 11 cells
    assert place_seeds(mask, (7, 11), 3, 10).tolist() == [[3, 3], [3, 7], [2, 5]]


def _drawn(kind, random):
    """A mask of odd sides; a box has no background in it."""
    h, w = random.integers(17, 120, 2)
    mask, (y, x) = np.zeros((h, w), bool), np.mgrid[:h, :w]
    (top, bottom), (left, right) = (np.sort(random.integers(0, side, 2)) for side in (h, w))
    if kind == "noise":
        return random.random((h, w)) > random.random()
    if kind == "ellipse":
        return ((y / h - 0.5) / random.random()) ** 2 + ((x / w - 0.5) / random.random()) ** 2 < 0.2
    if kind == "box":
        mask[top : bottom + 1, left : right + 1] = True
    mask[top, left] |= kind == "pixel"
    return mask | (kind == "all")


@pytest.mark.parametrize("kind", ["noise", "box", "ellipse", "all", "pixel", "nothing"])
def test_seeds_of_a_graph_are_the_same(kind):
    random = np.random.default_rng(0)
    for _ in range(15):
        mask, most = _drawn(kind, random), int(random.integers(1, 7))
        cells = float(random.choice([1, 1.5, 2, 3.7, 10]))
        wanted = place_seeds(mask, cells_of(mask), most, cells)
        seeds, counts = seeds_in_graph(torch.from_numpy(mask)[None], cells_of(mask), most, cells)
        assert counts.tolist() == [len(wanted)] and len(seeds[0]) == most
        assert np.array_equal(seeds[0, : len(wanted)].numpy(), wanted) and not seeds[0, len(wanted) :].any()


def test_seeds_of_a_mask_that_is_not_square():
    mask = np.zeros((49, 97), bool)
    mask[16:40, 40:96] = True
    seeds = place_seeds(mask, (7, 13), 4, 4)
    assert len(seeds) == 4 and on_grid(mask, (7, 13))[seeds[:, 0], seeds[:, 1]].all()


def test_clustering_and_allocation_give_the_published_numbers(fixture_numbers):
    numbers = {k: torch.from_numpy(v) for k, v in fixture_numbers("asgnet_sgc_gpa").items()}
    features, mask = numbers["support_features"][None], numbers["support_mask"][None]
    seeds, counts = numbers["seeds"][None], torch.tensor([len(numbers["seeds"])])
    for iterations in (1, 5, 10):
        prototypes, valid, _ = cluster(features, mask, seeds, counts, iterations)
        assert relative_error(prototypes[0].T, numbers[f"prototypes_after_{iterations}"]) < 1e-4
        assert valid.all()
    assert relative_error(masked_average(features, mask)[0], numbers["masked_average_prototype"]) < 1e-4
    five = numbers["prototypes_after_5"].T[None]
    likeness, index = allocate(numbers["query_features"][None], five, torch.ones(1, 4, dtype=torch.bool))
    assert relative_error(likeness[0], numbers["similarity"]) < 1e-4
    assert relative_error(likeness[0].sum(0), numbers["probability_map"]) < 1e-4
    assert torch.equal(index[0], numbers["guide_index"])
    assert relative_error(guide(five, index)[0], numbers["guide_features"]) < 1e-4


def one_by_one(features, mask, seeds, iterations):
    """Clustering as the paper writes it, one support at a time, in float64."""
    y, x = torch.nonzero(mask == 1).T
    cells, place = features[:, y, x].T.double(), torch.stack([y, x], 1).double()
    centre, at = features[:, seeds[:, 0], seeds[:, 1]].T.double(), seeds.double()
    for _ in range(iterations):
        far = ((cells[:, None] - centre) ** 2).sum(2) + ((place[:, None] - at) ** 2).sum(2) / 100
        share = (-far.sqrt()).exp()
        share = share / share.sum(0)
        centre, at = share.T @ cells, share.T @ place
    return centre


def random_supports(m=7, c=24, h=13, w=17, most=5):
    torch.manual_seed(0)
    features = torch.randn(m, c, h, w) + 40 * torch.randn(c)[:, None, None]  # a mean that float32 feels
    masks = F.avg_pool2d((torch.rand(m, 1, 2 * h, 2 * w) > 0.1).float(), 2)[:, 0]
    counts = torch.tensor([5, 2, 0, 3, 4, 5, 2])
    seeds = torch.zeros(m, most, 2, dtype=torch.int64)
    for i, n in enumerate(counts.tolist()):
        inside = torch.nonzero(masks[i] == 1)
        seeds[i, :n] = inside[torch.randperm(len(inside))[:n]]
    masks[5] *= 0.5  # seeds, but no whole cell: falls back on the average
    return features, masks, seeds, counts


def test_batched_clustering_equals_one_by_one():
    features, masks, seeds, counts = random_supports()
    prototypes, valid, index = cluster(features, masks, seeds, counts, 10)
    for i, n in enumerate(counts.tolist()):
        if n < 2 or i == 5:
            average = (features[i].double() * masks[i]).sum((1, 2)) / (masks[i].double().sum() + 0.0005)
            assert valid[i].tolist() == [True] + [False] * 4
            assert relative_error(prototypes[i, 0], average) < 1e-5
            continue
        wanted = one_by_one(features[i], masks[i], seeds[i, :n], 10)
        assert valid[i].sum() == n
        assert relative_error(prototypes[i, :n], wanted) < 1e-5
        assert set(index[i].unique().tolist()) <= {-1, *range(n)}
        assert torch.equal(index[i] >= 0, masks[i] == 1)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            self.numel = max(self.numel, x.numel() if isinstance(x, torch.Tensor) else 0)
        return out


def test_nothing_is_as_large_as_pixels_times_centres_times_channels():
    m, c, h, w, n = 4, 64, 30, 30, 5
    features = torch.randn(m, c, h, w, requires_grad=True)
    seeds = torch.randint(0, 30, (m, n, 2))
    with Largest() as largest:
        prototypes, valid, _ = cluster(features, torch.ones(m, h, w), seeds, torch.full((m,), n), 3)
        likeness, index = allocate(features, prototypes, valid)
        (guide(prototypes, index).sum() + likeness.sum()).backward()
    assert largest.numel <= m * (c + 2) * h * w


def test_no_gradient_reaches_prototypes():
    features, masks, seeds, counts = random_supports()
    assert not cluster(features.requires_grad_(), masks, seeds, counts, 2)[0].requires_grad


@pytest.mark.parametrize("context", ["pyramid", "aspp"])
def test_reduction_of_parts_is_that_of_the_concatenation(context):
    torch.manual_seed(0)
    channels = {"stage1": 8, "stage2": 12, "stage3": 20}
    head = ASGNet(channels, context, width=16, sizes=(7, 4)).eval()
    size = {"stage1": (13, 13), "stage2": (9, 9)}  # stages of another network: 2 finer than 3
    features = {k: torch.randn(2, channels[k], *size.get(k, (7, 7))) for k in head.levels}
    whole = torch.cat(
        [F.interpolate(features[k], (7, 7), mode="bilinear", align_corners=True) for k in head.reduced], 1
    )
    assert torch.allclose(head.encode(features)["reduced"], head.down_conv(whole), atol=1e-5)


def test_mean_similarity_does_not_grow_with_the_shots():
    torch.manual_seed(0)
    channels = {"stage1": 8, "stage2": 12, "stage3": 20}
    head = ASGNet(channels, width=16, sizes=(7,), cells=4, similarity="mean").eval()
    features = {k: torch.randn(1, channels[k], 7, 7) for k in head.levels}
    query = head.encode(features)
    mask = torch.zeros(1, 1, 49, 49, dtype=torch.int64)
    mask[..., 8:40, 8:40] = 1
    answers = []
    for shots in (1, 5):
        masks = mask.expand(-1, shots, -1, -1)
        support = {k: v[:, None].expand(-1, shots, -1, -1, -1) for k, v in query.items()}
        answers.append(head(Encoded(query, support, masks, [0])).logits)
    assert torch.allclose(*answers, atol=1e-5)


@pytest.mark.parametrize("stride", [4, 16])
def test_a_prototype_stands_for_the_same_area_at_any_stride(stride):
    """`cells` counts cells of 8 x 8 pixels; maps of another stride get as many prototypes."""
    torch.manual_seed(0)
    channels = {"stage1": 8, "stage2": 12, "stage3": 20}
    head = ASGNet(channels, width=16, sizes=(7,), cells=100).eval()
    mask = torch.zeros(1, 1, 257, 257, dtype=torch.int64)
    mask[..., 8:168, 8:168] = 1  # 400 cells of stride 8
    for side in (33, 256 // stride + 1):
        reduced = torch.randn(1, 1, 16, side, side)
        valid = head._cluster(Encoded({}, {"reduced": reduced}, mask, [0]))[1]
        assert int(valid.sum()) == 4


@pytest.mark.parametrize("context", ["pyramid", "aspp"])
def test_the_auxiliary_loss_is_the_mean_over_scales_of_plain_cross_entropies(context):
    """Neither their sum nor weighted by class: a tenth of the query is foreground, so it would show."""
    torch.manual_seed(0)
    channels = {"stage1": 8, "stage2": 12, "stage3": 20}
    head = ASGNet(channels, context, width=16, sizes=(7, 4, 2), cells=4).eval()
    features = {k: torch.randn(2, channels[k], 7, 7) for k in head.levels}
    query = head.encode(features)
    masks = torch.zeros(2, 1, 49, 49, dtype=torch.int64)
    masks[..., 8:40, 8:40] = 1
    target = torch.zeros(2, 49, 49, dtype=torch.int64)
    target[:, :15, :16], target[:, -3:] = 1, 255
    scales = []
    head.context.register_forward_hook(lambda module, inputs, output: scales.extend(output[1]))
    out = head(Encoded(query, {"reduced": query["reduced"][:, None]}, masks, [0, 1], query_mask=target))
    assert len(scales) == (3 if context == "pyramid" else 1) and list(out.losses) == ["auxiliary"]
    each = [
        F.cross_entropy(
            F.interpolate(s, (49, 49), mode="bilinear", align_corners=True), target, ignore_index=255
        )
        for s in scales
    ]
    wanted = torch.stack(each).mean().item()
    assert out.losses["auxiliary"].item() == pytest.approx(wanted, rel=1e-5)


def test_one_seed_makes_no_superpixel():
    """A support with fewer than two seeds has one prototype: its average."""
    features, masks, seeds, counts = random_supports()
    single = torch.ones_like(counts)
    prototypes, valid, index = cluster(features, masks, seeds, single, 3)
    assert relative_error(prototypes[:, 0], masked_average(features, masks)) < 1e-6
    assert valid.sum(1).tolist() == [1] * len(counts) and set(index.unique().tolist()) == {-1, 0}


def test_masks_of_a_graph_do_not_touch_each_other():
    masks = np.zeros((3, 65, 97), bool)
    masks[0, 8:50, 16:90], masks[1, 40:64, :30], masks[2, 3:60, 60:] = True, True, True
    seeds, counts = seeds_in_graph(torch.from_numpy(masks), (9, 13), 4, 3)
    for mask, found, count in zip(masks, seeds, counts.tolist(), strict=True):
        wanted = place_seeds(mask, (9, 13), 4, 3)
        assert count == len(wanted) and np.array_equal(found[:count].numpy(), wanted)


@pytest.mark.parametrize("turned", [False, True])
def test_seeds_of_a_graph_in_a_long_thin_object(turned):
    """The farthest place may be farther away than any side of the shorter axis."""
    mask = np.ones((3, 90), bool)
    mask[:, 0] = mask[:, 89] = False
    mask[0, 0] = mask[2, 89] = True  # the box is the whole grid, and its background lies at its ends
    mask = np.ascontiguousarray(mask.T if turned else mask)
    wanted = place_seeds(mask, mask.shape, 5, 10)
    found, count = seeds_in_graph(torch.from_numpy(mask)[None], mask.shape, 5, 10)
    assert count.tolist() == [5] and np.array_equal(found[0].numpy(), wanted)


def test_panels_show_the_seeds_that_count_and_no_others():
    torch.manual_seed(0)
    head = ASGNet({"stage1": 8, "stage2": 8, "stage3": 8}, width=8, sizes=(7,), cells=4, prototypes=5).eval()
    masks = torch.zeros(1, 2, 49, 49, dtype=torch.int64)
    masks[0, 0, 8:32, 8:32] = 1  # nine cells: two seeds
    masks[0, 1, 4:45, 4:45] = 1  # enough cells for all five
    e = Encoded({"reduced": torch.randn(1, 8, 7, 7)}, {"reduced": torch.randn(1, 2, 8, 7, 7)}, masks, [0])
    superpixels, best = head.explain(e)
    shown = ~superpixels.points.isnan().any(-1)  # (B,K,N)
    assert shown.tolist() == [[[True, True, False, False, False], [True] * 5]]
    for k, first in ((0, 0), (1, 5)):  # colours of the second support go on after the first one's
        own = superpixels.values[0, k]
        assert {-1, first} <= set(own.unique().tolist()) <= {-1, *range(first, first + 5)}
        for n, (row, column) in enumerate(superpixels.points[0, k][shown[0, k]].long().tolist()):
            assert own[row, column] >= 0, n
    assert best.over == "query" and best.values.shape == (1, 7, 7)


def test_maps_of_other_sizes_are_resized_by_the_networks_corners():
    torch.manual_seed(0)
    head = ASGNet({"stage1": 4, "stage2": 6, "stage3": 8}, width=5, sizes=(7, 4)).eval()
    maps = {"stage3": torch.rand(1, 8, 7, 9), "stage2": torch.rand(1, 6, 13, 17)}
    encoded = []
    for corners in (True, False):
        head.corners = corners
        with torch.no_grad():
            encoded.append(head.encode(maps)["reduced"])
    weight = head.down_conv[0].weight.detach()
    wide = F.interpolate(maps["stage2"], size=(7, 9), mode="bilinear", align_corners=False)
    wanted = F.conv2d(torch.cat([maps["stage3"], wide], 1), weight)
    assert torch.allclose(encoded[1], wanted, atol=1e-6) and not torch.allclose(encoded[0], wanted, atol=1e-3)
