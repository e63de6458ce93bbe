"""HSNet's parts against the authors' numbers, and its fast ways against plain ones."""

import json

import numpy as np
import pytest
import torch

from fss.heads import Encoded
from fss.heads.hsnet import HSNet, vote
from fss.heads.pivot import Blocks, CenterPivot, Pass, Squeeze, correlations
from fss.ops import segmentation_loss
from tests.conftest import bits, images, relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint


def state_of(numbers):
    return seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"]))["state_dict"]


def cells_first(x):
    """(B,C,h,w,u,v) -> (B,h,w,u,v,C)."""
    return x.permute(0, 2, 3, 4, 5, 1).contiguous()


def channels_first(x):
    return x.permute(0, 5, 1, 2, 3, 4)


@pytest.mark.parametrize("name", ["k3s2", "k5s4"])
def test_a_block_gives_the_published_numbers(name, fixture_numbers):
    numbers = fixture_numbers(f"hsnet_pivot_{name}")
    wanted = {k: torch.from_numpy(v) for k, v in numbers.items() if v.dtype == np.float32}
    x = wanted["input"].requires_grad_()
    block = Blocks(x.shape[1], [16], [int(numbers["support_stride"])])
    block.load_state_dict(state_of(numbers))
    assert block[0].kernel == int(numbers["kernel"]) and block[1].num_groups == int(numbers["groups"])
    assert relative_error(channels_first(block[0](cells_first(x))).detach(), wanted["convolved"]) < 1e-5
    out = channels_first(block(cells_first(x)))
    assert relative_error(out.detach(), wanted["output"]) < 1e-5
    (out * images(numbers["output_weight_seed"], *out.shape)).sum().backward()
    conv = block[0]
    found = conv.conv1.weight.grad, conv.conv2.weight.grad, conv.conv1.bias.grad, x.grad
    names = ("conv1_weight", "conv2_weight", "conv1_bias", "input")
    for gradient, name in zip(found, names, strict=True):
        assert relative_error(gradient, wanted[f"gradient_{name}"]) < 1e-4


def hpn(numbers):
    """The squeeze of a fixture, and its input (stages 4, 3, 2)."""
    levels = [[f"stage{s}.{i}" for i in range(n)] for s, n in zip((4, 3, 2), numbers["inputs"], strict=True)]
    strides = {level: stride for group, stride in zip(levels, (32, 16, 8), strict=True) for level in group}
    head = HSNet(dict.fromkeys(strides, 8), strides, levels)
    head.load_state_dict(state_of(numbers))
    pyramid = [
        images(seed, int(numbers["batch"]), int(n), *[int(size)] * 4).clamp(0)
        for seed, n, size in zip(numbers["input_seeds"], numbers["inputs"], numbers["sizes"], strict=True)
    ]
    return head, [cells_first(x) for x in pyramid]


@pytest.mark.parametrize("name", ["hpn50", "hpn50_tiny"])
def test_the_squeeze_gives_the_published_numbers(name, fixture_numbers):
    """One ends on supports of 2 x 2 cells, the other on a single cell."""
    numbers = fixture_numbers(f"hsnet_{name}")
    head, pyramid = hpn(numbers)
    head, pyramid = head.double(), [x.double() for x in pyramid]  # gradients of sums that nearly cancel
    squeezes = head.encoder_layer4, head.encoder_layer3, head.encoder_layer2
    four, three, two = (squeeze(x) for squeeze, x in zip(squeezes, pyramid, strict=True))
    half = head.encoder_layer4to3.of_two(four, three, True)
    mixed = head.encoder_layer3to2.of_two(half, two, True)
    logits = head.decode(four, three, two)
    found = {"squeezed4_every2": four, "squeezed3_every4": three, "squeezed2_every8": two,
             "mixed43_every4": half, "mixed432_every8": mixed}  # fmt: skip
    for key, value in found.items():
        every = int(key.partition("_every")[2])
        assert relative_error(channels_first(value[:, ::every, ::every]).detach(), numbers[key]) < 1e-4
    assert relative_error(logits.detach(), numbers["logits"]) < 1e-4
    loss = segmentation_loss(logits, bits(numbers["target"], logits.shape[-1]), False)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(numbers["loss"]), rel=1e-5)
    parameters = dict(head.named_parameters())
    norms = [float(parameters[k].grad.norm()) for k in json.loads(str(numbers["gradient_names"]))]
    assert relative_error(norms, numbers["gradient_norms"]) < 1e-4
    for key in ("decoder2.2.weight", "encoder_layer4.0.conv1.weight"):
        wanted = numbers["gradient_" + key.replace(".", "_")]
        assert relative_error(parameters[key].grad, wanted) < 1e-4


def test_correlations_are_the_published_ones(fixture_numbers):
    numbers = fixture_numbers("hsnet_correlation")
    counts, channels, sizes = numbers["blocks"], numbers["channels"], numbers["sizes"]
    mask = bits(numbers["mask"], numbers["mask_size"][1])[:, None]  # (B,1,H,W)
    levels, shapes = [[], [], []], {}
    for i, (count, c, size) in enumerate(zip(counts, channels, sizes, strict=True)):
        levels[2 - i] = [f"stage{i + 2}.{j}" for j in range(count)]
        shapes |= {level: (int(numbers["batch"]), int(c), *map(int, size)) for level in levels[2 - i]}
    head = HSNet({k: v[1] for k, v in shapes.items()}, {}, levels)
    seeds = numbers["feature_seeds"]
    query, support = (
        head.encode({
            level: images(seed + i, *shape) * float(numbers["feature_scale"][i])
            for i, (level, shape) in enumerate(shapes.items())
        })
        for seed in seeds
    )  # fmt: skip
    e = Encoded(query, {k: v[:, None] for k, v in support.items()}, mask, [0])
    for stage, group in zip((4, 3, 2), levels, strict=True):
        given = head._compared(e, group, 0, 0)
        got = correlations(given.cells(), given.cut(*map(range, given.support[0].shape[1:])))  # (hw,n,u,v)
        wanted = torch.from_numpy(numbers[f"correlation{stage}"])[0]  # (n,h,w,u,v)
        for i, each in enumerate(wanted.flatten(1, 2)):
            assert torch.allclose(got[:, i], each, atol=1e-6)
            assert each.norm() == 0 or relative_error(got[:, i], each) < 1e-4


@pytest.mark.parametrize("shots", [2, 5])
def test_votes_are_the_published_ones(shots, fixture_numbers):
    numbers = fixture_numbers(f"hsnet_vote_{shots}shot")
    masks, wanted = (bits(numbers[k], numbers["width"]) for k in ("shot_predictions", "prediction"))
    logits = vote(masks)
    assert torch.equal(logits.argmax(1), wanted)
    assert (logits[:, 1] != logits[:, 0]).all()
    assert wanted.sum((1, 2)).tolist() == numbers["foreground_pixels"].tolist()


@pytest.mark.parametrize(("shots", "most", "votes", "answer"), [
    (5, 3, 2, 1), (5, 3, 1, 0), (2, 2, 1, 1), (2, 1, 1, 1), (5, 5, 2, 0), (5, 5, 3, 1), (5, 0, 0, 0),
])  # fmt: skip
def test_half_of_the_most_votes_suffices(shots, most, votes, answer):
    masks = torch.zeros(1, shots, 1, 2, dtype=torch.int64)
    masks[0, :most, 0, 0] = 1
    masks[0, :votes, 0, 1] = 1
    assert int(vote(masks).argmax(1)[0, 0, 1]) == answer


def directions(n, c, h, w, seed=0):
    return [torch.nn.functional.normalize(images(seed + i, c, h, w), dim=0) for i in range(n)]


@pytest.mark.parametrize(("stride", "kernel"), [(4, 5), (2, 3)])
@pytest.mark.parametrize("place", ["inside", "corner", "nothing", "all"])
def test_correlations_in_parts_equal_those_held_whole(stride, kernel, place, monkeypatch):
    """Values and gradients, whatever part of the support the object covers, on maps that are not square."""
    monkeypatch.setattr("fss.heads.pivot._ON_CPU", 500)
    squeeze = Squeeze(3, 8 if stride == 4 else 32)
    conv = squeeze[0]
    assert (conv.stride, conv.kernel) == (stride, kernel)
    query, support = directions(3, 6, 5, 7), directions(3, 6, 11, 14, 9)
    mask = torch.zeros(11, 14)
    top, bottom, left, right = {"inside": (3, 6, 6, 9), "corner": (9, 11, 0, 1), "nothing": (0, 0, 0, 0),
                                "all": (0, 11, 0, 14)}[place]  # fmt: skip
    mask[top:bottom, left:right] = 0.5
    whole = correlations([q.flatten(1).mT for q in query], [x * mask for x in support])  # (hw,n,u,v)
    whole = whole.permute(0, 2, 3, 1).unflatten(0, (5, 7))[None]  # (1,h,w,u,v,n)
    weight = images(3, 5, 7, -(-11 // stride), -(-14 // stride), 16)
    answers = []
    for out in (conv(whole)[0], conv.of_features(Pass(query, support, [mask[None]] * 3))):
        conv.zero_grad()
        (out * weight).sum().backward()
        answers.append([out.detach(), *(p.grad.clone() for p in conv.parameters())])
    for plain, ours in zip(*answers, strict=True):
        assert torch.allclose(plain, ours, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 1), (1, 2)])
def test_tiny_supports_take_one_matrix(size):
    conv = CenterPivot(6, 8, 3, 1)
    x = images(0, 2, 3, 4, *size, 6)
    cells = x.flatten(0, 2).permute(0, 3, 1, 2)
    wanted = conv.conv2(cells).permute(0, 2, 3, 1).reshape(2, 3, 4, *size, 8)
    assert torch.allclose(conv._over_support(x), wanted, atol=1e-5)


def test_an_object_that_no_output_sees_leaves_the_biases():
    """Of 4 rows, outputs of stride 4 and kernel 5 see the first three."""
    torch.manual_seed(0)
    pivot, x, y = CenterPivot(1, 3, 5, 4), torch.rand(2, 6, 5), torch.rand(2, 4, 5)
    behind, there = torch.zeros(1, 4, 5), torch.zeros(1, 4, 5)
    behind[:, 3], there[:, 2] = 1, 1
    with torch.no_grad():
        out = [pivot.of_features(Pass([x], [y], [mask])) for mask in (behind, there)]
    biases = (pivot.conv1.bias + pivot.conv2.bias).detach()
    assert torch.allclose(out[0], biases.expand_as(out[0])) and not torch.allclose(out[1], out[0])


@pytest.mark.parametrize("cells", [(1, 1), (1, 3), (2, 4), (3, 2), (9, 5)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 4)])
def test_what_no_output_sees_of_a_kernel_is_left_out(cells, kernel, stride):
    torch.manual_seed(0)
    pivot, x = CenterPivot(4, 6, kernel, stride).double(), torch.rand(2, 3, 2, *cells, 4).double()
    wanted = pivot.conv2(x.flatten(0, 2).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).unflatten(0, (2, 3, 2))
    with torch.no_grad():
        assert torch.allclose(pivot._over_support(x), wanted)
