"""Hypercorrelation squeeze network.

Min, Kang, Cho, "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021,
https://arxiv.org/abs/2104.01538

Every query cell is compared with every cell of the support's object, on every block of the network; what
learns is how that stack of 4D correlations is squeezed into a mask. No feature reaches it.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fss.heads.base import Encoded, Features, Head, HeadOutput, Panel, blocks_of
from fss.heads.cells import as_computed
from fss.heads.pivot import WIDTHS, Mix, Pass, Squeeze, likeness
from fss.ops import foreground, resize, without_foreground

_EPS = 1e-5  # added to lengths
_IN_TESTING = 4  # passes at once on a GPU


class HSNet(Head):
    """HSNet on the blocks of stages 4, 3 and 2.

    Args:
        strides: pixels between cells of the network's levels; 8 where nobody says.
        levels: three lists of feature maps, from coarse to fine, each list of one stride; None for all
            blocks of stages 4, 3 and 2, before their last ReLU where the network offers that, or the stages
            themselves where it offers no blocks.
        shots: how several supports come to one answer in testing: by "vote" of their masks, as published,
            or by the "mean" of their logits, which is what training with several shots always takes.
    """

    levels: tuple[str, ...] = ("stage4", "stage3", "stage2")
    learns_from_support = False

    def __init__(
        self,
        channels: Mapping[str, int],
        strides: Mapping[str, int] | None = None,
        levels: list[list[str]] | None = None,
        shots: Literal["vote", "mean"] = "vote",
    ) -> None:
        groups = [blocks_of(stage, channels) for stage in HSNet.levels] if levels is None else levels
        pixels = [{(strides or {}).get(level, 8) for level in group} for group in groups]
        if len(groups) != 3 or any(len(found) != 1 for found in pixels):
            raise ValueError(
                f"levels={levels}; allowed: three lists of feature maps, from coarse to fine, each list of "
                "one stride"
            )
        self.pyramid = groups
        self.levels = tuple(dict.fromkeys(level for group in groups for level in group))
        super().__init__(channels)
        self.shots = shots
        self.encoder_layer4, self.encoder_layer3, self.encoder_layer2 = (
            Squeeze(len(group), found.pop()) for group, found in zip(groups, pixels, strict=True)
        )
        self.encoder_layer4to3, self.encoder_layer3to2 = Mix(), Mix()
        wide, thin = WIDTHS[-1], WIDTHS[-1] // 2
        self.decoder1 = nn.Sequential(*_convs(wide, wide, thin), nn.ReLU(inplace=True))
        self.decoder2 = nn.Sequential(*_convs(thin, thin, 2))

    def encode(self, features: Features) -> Features:
        """Directions {level: (B,C,h,w)}, and lengths {_length(level): (B,1,h,w)}."""
        out = {}
        for level in self.levels:
            x = features[level].float()
            length = x.norm(dim=1, keepdim=True)
            out[level] = (x / (length + _EPS)).to(features[level].dtype)
            out[_length(level)] = length
        return out

    def forward(self, episodes: Encoded) -> HeadOutput:
        """All supports of all episodes, each a pass of its own; then their votes."""
        with as_computed(episodes.query[self.levels[0]]):
            logits = self._logits(episodes).float()
        return HeadOutput(
            self._joined(logits, episodes), {}, {"empty_support": without_foreground(episodes.support_masks)}
        )

    def _logits(self, episodes: Encoded) -> Tensor:
        """Logits of the passes, (B,K,2,2h,2w)."""
        b, k = episodes.support_masks.shape[:2]
        passes = [(i, j) for i in range(b) for j in range(k)]
        at_once = self._at_once(episodes.support_masks.is_cuda)
        parts = [passes[first : first + at_once] for first in range(0, b * k, at_once)]
        return torch.cat([self._squeezed(episodes, part) for part in parts]).unflatten(0, (b, k))

    def _at_once(self, on_gpu: bool) -> int:
        """Passes in one tensor: what is in work stays small on a CPU, and fills a GPU."""
        if on_gpu:
            return 1000 if self.training else _IN_TESTING
        return 1

    def _squeezed(self, episodes: Encoded, which: Sequence[tuple[int, int]]) -> Tensor:
        """Logits (P,2,2h,2w) of P passes, each an episode and a shot of it."""
        squeezes: tuple[Squeeze, ...] = (self.encoder_layer4, self.encoder_layer3, self.encoder_layer2)
        four, three, two = (
            squeeze.of_features([self._compared(episodes, group, i, k) for i, k in which])
            for group, squeeze in zip(self.pyramid, squeezes, strict=True)
        )
        return self.decode(four, three, two)

    def decode(self, four: Tensor, three: Tensor, two: Tensor) -> Tensor:
        """Squeezed maps of P passes, (P,h,w,u,v,C) of stages 4, 3, 2 -> logits (P,2,2h,2w) of the last."""
        four, three, two = self._on_one_support([four, three, two])
        x = self.encoder_layer4to3.of_two(four, three, self.corners)
        x = self.encoder_layer3to2.of_two(x, two, self.corners)
        x = self.decoder1(x.mean((3, 4)).permute(0, 3, 1, 2))  # (P,64,h,w)
        return cast(Tensor, self.decoder2(resize(x, (2 * x.shape[-2], 2 * x.shape[-1]), self.corners)))

    def _compared(self, episodes: Encoded, group: Sequence[str], i: int, k: int) -> Pass:
        """Episode i's query and its support k, on the maps of a group."""
        query, support = ([maps[level][i] for level in group] for maps in (episodes.query, episodes.support))
        support = [x[k] for x in support]
        mask = (episodes.support_masks[i, k] == 1).float()[None, None]
        soft = resize(mask, (support[0].shape[-2], support[0].shape[-1]), self.corners)[0]  # (1,u,v)
        lengths = [episodes.support[_length(level)][i, k] for level in group]
        # A masked feature's direction: feature times mask, over the length of that.
        return Pass(query, support, [(x + _EPS) * soft / (x * soft + _EPS) for x in lengths])

    def _on_one_support(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (P,h,w,u,v,C) whose supports have the smallest of their sizes."""
        size = min(x.shape[3] for x in maps), min(x.shape[4] for x in maps)
        out = []
        for x in maps:
            flat = resize(x.flatten(0, 2).permute(0, 3, 1, 2), size, self.corners)  # (Phw,C,u,v)
            out.append(flat.permute(0, 2, 3, 1).unflatten(0, x.shape[:3]))
        return out

    def _joined(self, logits: Tensor, episodes: Encoded) -> Tensor:
        """Logits of the passes (B,K,2,h,w) -> those of the episodes."""
        if logits.shape[1] == 1:
            return logits[:, 0]
        if self.training or self.shots == "mean":
            return logits.mean(1)
        return vote(self._masks(logits, episodes))

    def _masks(self, logits: Tensor, episodes: Encoded) -> Tensor:
        """Each pass's mask at the images' size: (B,K,2,h,w) -> (B,K,H,W) of 0 and 1."""
        size = (episodes.support_masks.shape[-2], episodes.support_masks.shape[-1])
        return foreground(logits.flatten(0, 1), size, self.corners).unflatten(0, logits.shape[:2])

    def explain(self, episodes: Encoded) -> list[Panel]:
        """Each query cell's best correlation with any support, on every stage; the share of votes."""
        panels = []
        b, k = episodes.support_masks.shape[:2]
        for group in self.pyramid:
            each = [likeness(self._compared(episodes, group, i, j)) for i in range(b) for j in range(k)]
            best = torch.stack(each)  # (BK,h,w)
            title = group[0].partition(".")[0].replace("stage", "stage ")
            panels.append(Panel(f"best correlation, {title}", best.unflatten(0, (b, k)).amax(1), "query"))
        logits = self._logits(episodes)
        if k == 1:
            return [*panels, Panel("foreground", logits[:, 0].softmax(1)[:, 1], "query")]
        return [*panels, Panel("votes", self._masks(logits, episodes).float().mean(1), "query")]


def vote(masks: Tensor) -> Tensor:
    """Masks (B,K,H,W) of 0 and 1 -> logits (B,2,H,W) whose argmax is their vote.

    A pixel is foreground where it has half as many votes as the pixel of its image that has most, or more.
    """
    votes = masks.sum(1).float()  # (B,H,W)
    most = votes.amax((1, 2), keepdim=True).clamp(min=1)
    lead = (2 * votes - most + 0.5) / most  # whole numbers and a half: no tie
    return torch.stack([torch.zeros_like(lead), lead], 1)


def _length(level: str) -> str:
    """Under which name the lengths of a level's cells are kept."""
    return f"{level} length"


def _convs(inputs: int, middle: int, outputs: int) -> list[nn.Module]:
    """Two 3x3 convolutions and the ReLU between them."""
    first, second = nn.Conv2d(inputs, middle, 3, padding=1), nn.Conv2d(middle, outputs, 3, padding=1)
    return [first, nn.ReLU(inplace=True), second]
