"""Dense cross-query-and-support attention weighted mask aggregation.

Shi, Wei, Zhang, Lu, Ning, Chen, Ma, Zheng, ECCV 2022, https://arxiv.org/abs/2207.08549

Every query cell attends to every support cell, object and background alike, and guesses the mean of what it
sees of the supports' masks; a guess for each block of the network. Convolutions turn guesses, and features of
both images, into a mask. Several supports are more cells to attend to. Parameter names are those of the
published weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.heads.aggregation import Projections, aggregated
from fss.heads.base import Encoded, Features, Head, HeadOutput, Panel, blocks_of
from fss.heads.cells import as_computed, conv_of_resized
from fss.ops import resize, without_foreground

WIDTHS = (16, 64, 128)  # channels that a stage's guesses grow to
_SKIP = "skip"  # the name of a query's part of the first mixer
_SEEDS = 1000  # of an episode, one a block


class DCAMA(Head):
    """DCAMA on the blocks of stages 4, 3 and 2, and on the last of stage 1.

    Without foreground in any support all guesses are 0, and the answer is what the convolutions make of that
    and of the features ("empty_support").

    Args:
        strides: pixels between cells of the network's levels; 8 where nobody says.
        levels: three lists of feature maps, from coarse to fine, each list of one stride and width; None for
            all blocks of stages 4, 3 and 2, before their last ReLU where the network offers that, or the
            stages themselves where it offers no blocks. The last map of all joins the decoder.
        fine: the finer map that joins the decoder after it; None for the last block of stage 1.
        heads: of attention; they divide the widths of all `levels`.
        dropout: share of the coded cells' values, and of the attention's weights, dropped in training.
        shots: what joins the decoder of several supports' maps: their "largest" values, as published, or
            their "mean", which looks more like the one map that a training with one support has shown.
    """

    levels: tuple[str, ...] = ("stage4", "stage3", "stage2", "stage1")

    def __init__(
        self, channels: Mapping[str, int], strides: Mapping[str, int] | None = None,
        levels: list[list[str]] | None = None, fine: str | None = None, heads: int = 8, dropout: float = 0.5,
        shots: Literal["largest", "mean"] = "largest",
    ) -> None:  # fmt: skip
        stages = [blocks_of(stage, channels) for stage in DCAMA.levels]
        self.pyramid = stages[:3] if levels is None else levels
        self.fine = fine or stages[3][-1]
        self.levels = tuple(dict.fromkeys([*(x for group in self.pyramid for x in group), self.fine]))
        super().__init__(channels)
        _check(self.pyramid, channels, strides or {}, heads, dropout)
        self.middle, self.share, self.shots = self.pyramid[-1][-1], dropout, shots
        widths = [channels[group[0]] for group in reversed(self.pyramid)]  # from fine to coarse, as published
        self.DCAMA_blocks = nn.ModuleList(Projections(width, heads, dropout) for width in widths)
        four, three, two = map(len, self.pyramid)
        self.conv1, self.conv2 = _convs(four, (3, 3, 3), WIDTHS), _convs(three, (5, 3, 3), WIDTHS)
        self.conv3, wide = _convs(two, (5, 5, 3), WIDTHS), WIDTHS[-1]
        self.conv4, self.conv5 = (_convs(wide, (3, 3, 3), (wide,) * 3) for _ in range(2))
        # Inputs of the first mixer: guesses; query and supports at the middle; query and supports at the end.
        self.parts = [wide, *[channels[self.middle]] * 2, *[channels[self.fine]] * 2]
        self.mixer1 = nn.Sequential(*_mixer(sum(self.parts), 128, 64), nn.ReLU(inplace=True))
        self.mixer2 = nn.Sequential(*_mixer(64, 64, 16), nn.ReLU(inplace=True))
        self.mixer3 = nn.Sequential(*_mixer(16, 16, 2))

    def encode(self, features: Features) -> Features:
        """Queries {level: (B,J,h,w,d)}, and the features' part of the first mixer {_SKIP: (B,128,h,w)}."""
        with as_computed(features[self.fine]):
            out = {level: of.queries(features[level]) for of, level in self._projections()}
            _, middle, _, fine, _ = self._first_mixer()
            return out | {_SKIP: self._skipped(features[self.middle], middle, features[self.fine], fine)}

    def encode_support(self, features: Features) -> Features:
        """Keys {level: (B,J,h,w,d)}, and both maps that join the decoder, as they are."""
        with as_computed(features[self.fine]):
            out = {level: of.keys(features[level]) for of, level in self._projections()}
        return out | {_map_of(level): features[level] for level in (self.middle, self.fine)}

    def _projections(self) -> Iterator[tuple[Projections, str]]:
        """The projections of every level, from coarse to fine."""
        for of, group in zip(reversed(self.DCAMA_blocks), self.pyramid, strict=True):
            assert isinstance(of, Projections)
            for level in group:
                yield of, level

    def _first_mixer(self) -> tuple[Tensor, ...]:
        """The first mixer's kernels (128,.,3,3) of its five inputs."""
        return self.mixer1[0].get_parameter("weight").split(self.parts, 1)

    def _skipped(self, middle: Tensor, of_middle: Tensor, fine: Tensor, of_fine: Tensor) -> Tensor:
        """What two maps of an image add to the first mixer, each by its kernels: (B,128,h,w) of the finer's
        size."""
        size = (fine.shape[-2], fine.shape[-1])
        return F.conv2d(fine, of_fine, padding=1) + conv_of_resized(of_middle, middle, size, self.corners)

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Guesses of all blocks, then the decoder; logits are of the images' size."""
        guesses = self._guesses(episodes)
        with as_computed(episodes.query[_SKIP]):
            logits = self._mixed(self._refined(guesses), episodes)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return HeadOutput(logits, {}, {"empty_support": without_foreground(episodes.support_masks)})

    def _guesses(self, episodes: Encoded) -> list[Tensor]:
        """Each stage's guesses, from coarse to fine: (B,n,h,w) of its n blocks."""
        inside, first, out = (episodes.support_masks == 1).float(), 0, []
        with torch.autocast(inside.device.type, enabled=False):
            for group in self.pyramid:
                h, w = episodes.support[group[0]].shape[-3:-1]
                values = resize(inside, (h, w), episodes.corners).flatten(1)  # (B,Khw)
                each = [self._guess(episodes, level, values, first + i) for i, level in enumerate(group)]
                out.append(torch.stack(each, 1))
                first += len(group)
        return out

    def _guess(self, episodes: Encoded, level: str, values: Tensor, number: int) -> Tensor:
        """What the cells of one block guess, (B,h,w)."""
        query, dropout = episodes.query[level], self.share if self.training else 0.0
        each = [
            aggregated(
                query[b].flatten(1, 2),  # (J,N,d)
                keys.transpose(0, 1).flatten(1, 3),  # (J,Khw,d)
                values[b], dropout, _SEEDS * episodes.seeds[b] + number,
            )
            for b, keys in enumerate(episodes.support[level])
        ]  # fmt: skip
        return torch.stack(each).unflatten(1, query.shape[2:4])

    def _refined(self, guesses: Sequence[Tensor]) -> Tensor:
        """Guesses of three stages -> (B,128,h,w) of the last one's size."""
        four, three, two = guesses
        x = self.conv2(three) + resize(self.conv1(four), (three.shape[-2], three.shape[-1]), self.corners)
        x = self.conv3(two) + resize(self.conv4(x), (two.shape[-2], two.shape[-1]), self.corners)
        return self.conv5(x)

    def _mixed(self, x: Tensor, episodes: Encoded) -> Tensor:
        """The refined guesses (B,128,h,w) beside both images' features -> logits (B,2,H,W).

        The first mixer's convolution is the sum of its inputs' own: a query's was computed with the query.
        """
        size = (episodes.support_masks.shape[-2], episodes.support_masks.shape[-1])
        middle, fine = (self._joined(episodes.support[_map_of(level)]) for level in (self.middle, self.fine))
        of_guesses, _, of_middle, _, of_fine = self._first_mixer()
        beside = torch.cat([x, middle.to(x.dtype)], 1), torch.cat([of_guesses, of_middle], 1)
        skip = episodes.query[_SKIP] + self.mixer1[0].get_parameter("bias")[:, None, None]
        x = self.mixer1[1:](skip + self._skipped(*beside, fine, of_fine))
        x = self.mixer2(resize(x, (-(-size[0] // 2), -(-size[1] // 2)), self.corners))
        return self.mixer3(resize(x, size, self.corners))

    def _joined(self, maps: Tensor) -> Tensor:
        """One map for all shots: (B,K,C,h,w) -> (B,C,h,w)."""
        if maps.shape[1] == 1:
            return maps[:, 0]
        return maps.amax(1) if self.shots == "largest" else maps.mean(1)

    def explain(self, episodes: Encoded) -> list[Panel]:
        """The mean guess of each stage, and of them all."""
        means = [x.mean(1) for x in self._guesses(episodes)]
        titles = [group[0].partition(".")[0].replace("stage", "stage ") for group in self.pyramid]
        size = (means[-1].shape[-2], means[-1].shape[-1])
        every = torch.cat([resize(x[:, None], size, episodes.corners) for x in means], 1)
        named = [
            *((f"guess, {t}", x) for t, x in zip(titles, means, strict=True)),
            ("mean guess", every.mean(1)),
        ]
        return [Panel(title, x.clamp(0, 1), "query") for title, x in named]


def _map_of(level: str) -> str:
    """The name of a level's own map, beside that of its keys."""
    return f"{level} map"


def _convs(inputs: int, kernels: Sequence[int], widths: Sequence[int]) -> nn.Sequential:
    """Three times: convolution, group norm, ReLU."""
    layers: list[nn.Module] = []
    for kernel, width in zip(kernels, widths, strict=True):
        layers += [nn.Conv2d(inputs, width, kernel, padding=kernel // 2), nn.GroupNorm(4, width)]
        layers += [nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers)


def _mixer(inputs: int, middle: int, outputs: int) -> list[nn.Module]:
    """Two 3x3 convolutions and the ReLU between them."""
    first, second = nn.Conv2d(inputs, middle, 3, padding=1), nn.Conv2d(middle, outputs, 3, padding=1)
    return [first, nn.ReLU(inplace=True), second]


def _check(
    pyramid: Sequence[Sequence[str]], channels: Mapping[str, int], strides: Mapping[str, int], heads: int,
    dropout: float,
) -> None:  # fmt: skip
    kinds = [{(channels[level], strides.get(level, 8)) for level in group} for group in pyramid]
    if len(pyramid) != 3 or any(len(kind) != 1 for kind in kinds):
        raise ValueError(
            f"levels={list(pyramid)}; allowed: three lists of feature maps, from coarse to fine, each list "
            "of one stride and width"
        )
    widths = [channels[group[0]] for group in pyramid]
    if heads < 1 or any(width % heads for width in widths):
        raise ValueError(f"heads={heads}; allowed: 1 or more that divide the widths of levels, {widths}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}; allowed: 0 to below 1")
