"""Classifier weight transformer.

Lu, He, Zhu, Zhang, Song, Xiang, "Simpler is Better: Few-shot Semantic Segmentation with Classifier
Weight Transformer", ICCV 2021, https://arxiv.org/abs/2108.03032

Encoder and decoder are frozen after base-class training. For each episode a two-class linear
classifier is fitted to the support (the inner loop), then adapted to the query by attention.
"""

import functools
import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.episode import IGNORE
from fss.heads.base import Encoded, Head, HeadOutput, Panel
from fss.ops import class_weights, interpolation_matrix, repeat, without_foreground


class CWT(Head):
    """CWT on the neck's features.

    Args:
        transformer: adapt the classifier to the query (section 3.3); without, the support's classifier
            is used as it is and there is nothing to learn.
        steps, lr: of the inner loop's plain gradient descent.
        heads: of the attention; each is as wide as the features.
        start: "published", or "identity": an untrained transformer leaves the prediction as it is (see
            `WeightTransformer`).
        balanced: weight the foreground in the query loss by background / foreground pixels, as published.
            That asks for recall; without, the prediction's size is learned too, which mIoU rewards.
    """

    levels = ("neck",)

    def __init__(
        self,
        channels: Mapping[str, int],
        transformer: bool = True,
        steps: int = 200,
        lr: float = 0.1,
        heads: int = 4,
        attention_dropout: float = 0.1,
        dropout: float = 0.5,
        start: Literal["published", "identity"] = "published",
        balanced: bool = True,
    ) -> None:
        super().__init__(channels)
        if steps < 0 or heads < 1 or not 0 < lr < math.inf:
            raise ValueError(
                f"steps={steps}, heads={heads}, lr={lr}; allowed: steps >= 0, heads >= 1, lr > 0"
            )
        self.width, self.steps, self.lr = channels["neck"], steps, lr
        self.balanced_loss = balanced
        self.transformer: WeightTransformer | None = None
        if transformer:
            self.transformer = WeightTransformer(self.width, heads, attention_dropout, dropout, start)

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Section 3: fit to the support, adapt to the query, classify its pixels."""
        first, features = self._fit(episodes)
        with torch.autocast(features.device.type, enabled=False):
            logits = classify(self._adapt(first, features), features)
        return HeadOutput(logits, notes={"empty_support": without_foreground(episodes.support_masks)})

    def _fit(self, episodes: Encoded) -> tuple[Tensor, Tensor]:
        """The support's classifier (B,2,C), and the query's normalised features (B,C,h,w)."""
        masks, supports = episodes.support_masks, episodes.support["neck"]
        with torch.autocast(masks.device.type, enabled=False):
            first = torch.stack([first_weight(seed, self.width) for seed in episodes.seeds]).to(masks.device)
            weight = fit_classifier(supports.float(), masks, first, self.steps, self.lr, episodes.corners)
            return weight, F.normalize(episodes.query["neck"].float(), dim=1)

    def _adapt(self, weight: Tensor, features: Tensor) -> Tensor:
        return weight if self.transformer is None else self.transformer(weight, features)

    def explain(self, episodes: Encoded) -> list[Panel]:
        """The query's foreground probability by the support's classifier, and by the adapted one."""
        first, features = self._fit(episodes)
        maps = {"support's classifier": first}
        if self.transformer is not None:
            maps["adapted to the query"] = self._adapt(first, features)
        return [Panel(t, classify(w, features).softmax(1)[:, 1], "query") for t, w in maps.items()]


@functools.lru_cache(maxsize=1024)
def first_weight(seed: int, width: int) -> Tensor:
    """A classifier's first weights (2,C), uniform in +-1/sqrt(C): a function of the episode's seed.

    The cache lets a graph be exported, whose tracing cannot follow a generator, and spares a test's later
    runs.
    """
    weight = torch.rand(2, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return weight / width**0.5


def classify(weight: Tensor, features: Tensor) -> Tensor:
    """Classifier (B,2,C) on features (B,C,h,w): logits (B,2,h,w)."""
    return torch.einsum("bnc,bchw->bnhw", weight, features)


@torch.no_grad()
def fit_classifier(
    features: Tensor, masks: Tensor, weight: Tensor, steps: int = 200, lr: float = 0.1, corners: bool = True
) -> Tensor:
    """The inner loop: gradient descent on a bias-free two-class pixel classifier (section 3.2).

    With two classes the softmax depends on the rows' difference alone and their gradients are opposite,
    so the loop follows one logit map; upsampling is linear, its gradient the transpose. On a CPU episodes
    are fitted one after another, so that an episode's features stay in the cache for all its steps.

    Args:
        features: (B,K,C,h,w) float32, not normalised.
        masks: (B,K,H,W), 0, 1 and 255; logits are resized to H,W.
        weight: (B,2,C) first weights.
        corners: how logits are resized, as of `ops.resize`; aligned as published.

    Returns:
        (B,2,C) weights after `steps` updates by the mean loss, foreground weighted by
        `ops.class_weights`.
    """
    b, k, c, h, w = features.shape
    if b > 1 and features.device.type == "cpu":
        each = zip(features.split(1), masks.split(1), weight.split(1), strict=True)
        return torch.cat([fit_classifier(*one, steps, lr, corners) for one in each])
    pixels = features.permute(0, 1, 3, 4, 2).reshape(b, k * h * w, c)  # (B,Khw,C)
    rows = _Rows(h, masks.shape[-2], features, corners)
    across = interpolation_matrix(w, masks.shape[-1], features.device, corners)  # (W,w)
    share = rows.cut(_pixel_shares(masks).flatten(0, 1))  # (BK,h,R,W)
    missing = -rows.cut((masks == 1).to(features.dtype).flatten(0, 1)) * share
    total, difference = weight.sum(1), weight[:, 1] - weight[:, 0]  # (B,C)

    def step(difference: Tensor) -> Tensor:
        logits = torch.bmm(pixels, difference[:, :, None]).view(b * k, h, w)
        probability = rows.up(logits @ across.T).sigmoid_()  # (BK,h,R,W) of the foreground
        error = torch.addcmul(missing, probability, share, out=probability)  # one pass, not two
        error = rows.down(error) @ across  # (BK,h,w)
        gradient = torch.bmm(error.view(b, 1, -1), pixels)[:, 0]  # (B,C) of row 1; of row 0 its negative
        return difference.sub(gradient, alpha=2 * lr)

    difference = repeat(step, difference, steps)
    return torch.stack([total - difference, total + difference], 1) / 2


class _Rows:
    """`ops.resize` along one axis and its transpose, for maps (N,h,W) whose H - 1 is a multiple R of h - 1.

    A cell and the next one make the R pixels from the one up to the other: as many small products as there
    are cells, in place of one large matrix of zeros. The last cell is its own next one; what would be
    behind the image has no share. Other sizes go by the matrix, as one strip of H pixels.
    """

    def __init__(self, cells: int, pixels: int, like: Tensor, corners: bool) -> None:
        self.cells, self.pixels = cells, pixels
        self.whole = not corners or cells < 2 or (pixels - 1) % (cells - 1) > 0
        self.matrix = interpolation_matrix(cells, pixels, like.device, corners)  # (H,h)
        self.strip = pixels if self.whole else (pixels - 1) // (cells - 1)  # R
        self.ramp = torch.arange(self.strip, device=like.device) / self.strip  # (R,)
        self.ramps = torch.stack([1 - self.ramp, self.ramp])  # (2,R)
        self.following = (torch.arange(cells, device=like.device) + 1).clamp(max=cells - 1)  # (h,)

    def cut(self, maps: Tensor) -> Tensor:
        """Maps (N,H,W) as they are here, (N,h,R,W), padded with zeros."""
        if self.whole:
            return maps[:, None]
        padded = F.pad(maps, (0, 0, 0, self.cells * self.strip - self.pixels))
        return padded.unflatten(1, (self.cells, self.strip))

    def up(self, x: Tensor) -> Tensor:
        """(N,h,W) -> (N,h,R,W)."""
        if self.whole:
            return (self.matrix @ x)[:, None]
        return torch.lerp(x[:, :, None], x.index_select(1, self.following)[:, :, None], self.ramp[:, None])

    def down(self, x: Tensor) -> Tensor:
        """(N,h,R,W) -> (N,h,W), the transpose."""
        if self.whole:
            return self.matrix.T @ x[:, 0]
        own, following = (self.ramps @ x).unbind(2)
        own[:, 1:] += following[:, :-1]
        return own


def _pixel_shares(masks: Tensor) -> Tensor:
    """Each pixel's weight in the episode's weighted mean (B,K,H,W): 0 at 255, adding up to 1."""
    ratio = class_weights(masks)[:, 1, None, None, None]
    share = torch.where(masks == 1, ratio, 1.0) * (masks != IGNORE)
    return share / share.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)


class WeightTransformer(nn.Module):
    """W* = LayerNorm(W + Psi(softmax((W Wq)(F Wk)^T / sqrt(C)) (F Wv))), equation 4; Wq = Wk = Wv.

    Only two rows ask, so no pixel is ever projected: the queries are carried back through the
    projection to the features' space, and the attended mean feature forward through it. Parameter
    names are those of the published weights.

    The published start is far from the support's classifier: the layer norm takes each row's mean and
    length away, which shifts a classifier that has no bias, and the attention is close to uniform, so
    that both rows see the same. With `start="identity"` (ours), the norm keeps the rows' means and
    relative lengths, the output layer starts at zero, and the projection starts large enough for the
    rows to look at different pixels. The parameters are the same.
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        attention_dropout: float = 0.1,
        dropout: float = 0.5,
        start: str = "published",
    ) -> None:
        super().__init__()
        if start not in ("published", "identity"):
            raise ValueError(f"start={start!r}; allowed: published, identity")
        self.heads, self.restore = heads, start == "identity"
        self.w_qkvs = nn.Linear(width, heads * width, bias=False)
        self.fc = nn.Linear(heads * width, width)
        self.layer_norm = nn.LayerNorm(width, eps=1e-5)
        self.attention_dropout, self.dropout = nn.Dropout(attention_dropout), nn.Dropout(dropout)
        nn.init.normal_(self.w_qkvs.weight, std=(2 / (width + width)) ** 0.5)
        nn.init.xavier_normal_(self.fc.weight)
        if self.restore:
            nn.init.normal_(self.w_qkvs.weight, std=(_SHARPNESS / width**0.5) ** 0.5)
            nn.init.zeros_(self.fc.weight)
            nn.init.zeros_(self.fc.bias)

    def forward(self, weight: Tensor, features: Tensor) -> Tensor:
        """Weights (B,2,C) and normalised query features (B,C,h,w) -> adapted weights (B,2,C)."""
        b, n, c = weight.shape
        project = self.w_qkvs.weight.view(self.heads, c, c)  # (heads,out,in)
        pixels = features.flatten(2)  # (B,C,hw)
        asked = torch.einsum("bnc,goc,god->bgnd", weight, project, project)  # (B,heads,2,C)
        scores = asked.reshape(b, self.heads * n, c) @ pixels / c**0.5  # (B,heads*2,hw)
        attention = self.attention_dropout(scores.softmax(-1))
        seen = (attention @ pixels.mT).view(b, self.heads, n, c)  # mean features, unprojected
        values = torch.einsum("bgnd,god->bngo", seen, project).reshape(b, n, self.heads * c)
        rows = weight + self.dropout(self.fc(values))
        if not self.restore:
            return self.layer_norm(rows)
        deviation, mean = torch.std_mean(weight, -1, correction=0, keepdim=True)  # (B,2,1)
        length = deviation.mean(1, keepdim=True)  # one for both rows, so that the argmax stays
        return (self.layer_norm(rows) * deviation + mean) / length


_SHARPNESS = 30.0  # with "identity", the attention's scores start as about this times row . feature
