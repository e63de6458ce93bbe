"""What is timed: each case as the project does it, and as one would write it down (`plain`)."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fss.backbones import make_backbone
from fss.bench import (
    plain,
    plain_bam,
    plain_dcama,
    plain_hdmnet,
    plain_hsnet,
    plain_insid3,
    plain_pfenet,
    plain_repri,
)
from fss.data.canvas import Canvas
from fss.data.episodes import EpisodeSet
from fss.data.index import Index
from fss.data.lists import Sample, read_list
from fss.data.plan import Draw
from fss.data.shapes import draw_shapes
from fss.data.source import Source
from fss.episode import IGNORE, Episode
from fss.heads import Encoded
from fss.heads.repri import RePRI
from fss.model import FewShotModel, build_model
from fss.necks.ppm import PyramidPooling
from fss.ops import foreground, segmentation_loss, to_rgb
from fss.randomness import seeded

Step = Callable[[], object]
Plain = Callable[[FewShotModel, Episode, bool], tuple[Tensor, list[Tensor]]]


class Method(NamedTuple):
    """A head as it is timed: as published, untrained.

    Attributes:
        plain: (model, episodes, training) -> logits at image size, and those of auxiliary classifiers, whose
            losses' mean is added; None for this project's own heads, which have none to be held against.
        size: S of its publication, pixels.
        neck: whether it stands on the base network.
        backbone: options of the ResNet.
        batch: episodes in a training step.
        learns: whether there is a training step.
    """

    title: str
    plain: Plain | None
    size: int = 473
    neck: bool = False
    backbone: Mapping[str, Any] = MappingProxyType({})
    batch: int = 1
    learns: bool = True


METHODS = {
    "cwt": Method("CWT", plain.cwt, neck=True),
    "asgnet": Method("ASGNet", plain.asgnet, batch=4),
    "pfenet": Method("PFENet", plain_pfenet.pfenet, batch=4),
    "repri": Method("RePRI", plain_repri.repri, size=417, neck=True, learns=False),
    "insid3": Method("INSID3", plain_insid3.insid3, learns=False),
    # Four of the published batch's 20 episodes: one step of 20 takes minutes on a CPU.
    "hsnet": Method("HSNet", plain_hsnet.hsnet, size=400, backbone={"stride": 32}, batch=4),
    "bam": Method("BAM", plain_bam.bam, neck=True, batch=4),  # half of the published batch
    "hdmnet": Method("HDMNet", plain_hdmnet.hdmnet, neck=True, batch=4),
    "dcama": Method("DCAMA", plain_dcama.dcama, size=384, backbone={"stride": 32}, batch=2),  # of 12 a GPU
    "prototype": Method("prototype", None, size=321, neck=True, learns=False),
    "votes": Method("votes", None, size=321, learns=False),
    "votes_decoder": Method("votes with a decoder", None, size=321, batch=4),
}


_CLASSES = 16  # of a base network on PASCAL, background among them


class Setting(NamedTuple):
    """What all cases share.

    Attributes:
        size: S, pixels; None for that of each method's publication.
    """

    size: int | None
    backbone: str
    device: torch.device
    half: bool

    def of(self, head: str) -> int:
        """S of a head's cases."""
        return self.size or METHODS[head].size


class Pair(NamedTuple):
    """A case's two ways, if there is a plain one; calling either does one unit of work."""

    ours: Step
    plain: Step | None


def disc(size: int, count: int) -> Tensor:
    """Masks (count,S,S): an ellipse in each, an ignored strip at the bottom."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    ellipse = ((y - 0.45 * size) / (0.25 * size)) ** 2 + ((x - 0.5 * size) / (0.2 * size)) ** 2 < 1
    mask = ellipse.long()
    mask[-(size // 16) :] = IGNORE
    return mask.expand(count, -1, -1).clone()


def build(setting: Setting, head: str) -> FewShotModel:
    """An untrained model as published."""
    method = METHODS[head]
    with seeded(0):
        backbone = make_backbone(setting.backbone, "random", method.backbone)
        neck = PyramidPooling(backbone.channels) if method.neck else None
        classifier = nn.Conv2d(neck.channels, _CLASSES, 1) if neck else None
        model = build_model(head, {}, backbone, neck, setting.half, classifier)
    return model.to(setting.device).to(memory_format=torch.channels_last)


def episode(setting: Setting, head: str, batch: int, shots: int) -> Episode:
    """A batch of random images."""
    generator, s = torch.Generator().manual_seed(1), setting.of(head)
    images = to_rgb(torch.randn(batch, shots + 1, 3, s, s, generator=generator))
    masks = disc(s, batch * (shots + 1)).view(batch, shots + 1, s, s)
    each = Episode(images[:, 0], masks[:, 0], images[:, 1:], masks[:, 1:], torch.ones(batch))
    return each.to(setting.device)


def few_shot(setting: Setting, head: str, training: bool, shots: int) -> Pair:
    """A training step or a test episode with nothing cached."""
    method, size = METHODS[head], setting.of(head)
    model = build(setting, head).train(training)
    e = episode(setting, head, method.batch if training else 1, shots)
    target = e.query_mask if training else None
    balanced = model.head.balanced_loss
    copy = build(setting, head).train(training).to(memory_format=torch.contiguous_format)
    optimizer, copy_optimizer = (
        torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=1e-6) if training else None
        for m in (model, copy)
    )

    def learn(total: Tensor, by: torch.optim.Optimizer | None) -> float:
        assert by is not None
        by.zero_grad()
        total.backward()
        by.step()
        return float(total.detach())

    def ours() -> object:
        with torch.set_grad_enabled(training):
            out = model.output(e, range(len(e.query_image)), training)
        if not training:
            return foreground(out.logits, (size, size)).sum().item()
        assert target is not None
        return learn(segmentation_loss(out.logits, target, balanced) + sum(out.losses.values()), optimizer)

    def written(plainly: Plain) -> object:
        with torch.set_grad_enabled(training):
            logits, scales = plainly(copy, e, training)
        if not training:
            return logits.argmax(1).sum().item()
        assert target is not None
        each = [segmentation_loss(s, target, False) for s in scales]
        return learn(
            segmentation_loss(logits, target, balanced) + sum(each, torch.zeros(())) / max(len(each), 1),
            copy_optimizer,
        )

    return Pair(ours, partial(written, method.plain) if method.plain else None)


def cached(setting: Setting, head: str, episodes: int = 8) -> Pair:
    """A test episode whose images are encoded already, of `episodes` at once; plain: nothing is kept."""
    model = build(setting, head).eval()
    e = episode(setting, head, episodes, 1)
    with torch.no_grad():
        query = model.encode(e.query_image[:1])
        support = model.encode_support(e.support_images[0], e.support_masks[0])
    wide = lambda x: x.expand(episodes, *x.shape[1:])  # noqa: E731
    mine = {k: wide(v) for k, v in query.items()}
    theirs = {k: wide(v[:, None]) for k, v in support.items()}
    encoded = Encoded(mine, theirs, e.support_masks, range(episodes), model.corners, network=model.network)

    def ours() -> object:
        with torch.no_grad():
            logits = model.head(encoded).logits
            size = setting.of(head)
            return [foreground(x[None], (size, size)).sum().item() for x in logits]

    return Pair(ours, few_shot(setting, head, False, 1).plain)


def encode(setting: Setting, head: str) -> Pair:
    """One image through the frozen network and the head's own encoding."""
    model = build(setting, head).eval()
    copy = build(setting, head).eval().to(memory_format=torch.contiguous_format)
    image = episode(setting, head, 1, 1).query_image

    def ours() -> object:
        with torch.no_grad():
            return model.encode(image)

    return Pair(ours, lambda: plain.features(copy, image))


def repri_updates(setting: Setting, episodes: int = 8) -> Pair:
    """RePRI's part of a test episode, of `episodes` at once, on given features."""
    head, size, generator = RePRI({"neck": 512}), setting.of("repri"), torch.Generator().manual_seed(1)
    cells = (size - 1) // 8 + 1
    maps = torch.rand(episodes, 2, 512, cells, cells, generator=generator).to(setting.device)
    masks = disc(size, episodes)[:, None].to(setting.device)
    query, support = (head.encode({"neck": maps[:, i]}) for i in range(2))
    encoded = Encoded(query, {k: x[:, None] for k, x in support.items()}, masks, range(episodes))

    def ours() -> object:
        with torch.no_grad():
            return head(encoded).logits[0].sum().item()

    def written() -> object:
        everywhere = torch.zeros_like(masks[0])
        vector, threshold = plain_repri.updates(head, maps[0, 1:], maps[0, :1], masks[0], everywhere)
        logits = plain_repri.logits(vector, maps[0, :1], head.scale)
        return (logits - threshold).sum().item()

    return Pair(ours, written)


@contextmanager
def loading(setting: Setting) -> Iterator[Pair]:
    """One 1-shot training episode of 500 x 375 photos: read, flipped, resized, collated; one process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        draw_shapes(root, train=8, val=1, size=500)
        samples = [s._replace(name=str(i)) for i, s in enumerate(_cropped(root))]
        index = Index(tuple(s.name for s in samples), np.ones((8, 21), np.int32))
        source = Source(tuple("abcdefghijklmnopqrst"), [1], [2], samples, index, "", None)
        size = setting.size or 473
        data = EpisodeSet(source, Canvas(size))
        random = np.random.default_rng(0)
        draws = [Draw(1, i % 8, ((i + 1) % 8,), i) for i in range(8)]
        yield Pair(
            lambda: [data.load(draw) for draw in draws],
            lambda: [plain.load([samples[i] for i in d.images], 1, size, random) for d in draws],
        )


def _cropped(root: Path) -> list[Sample]:
    """The set's images at the size of PASCAL's photos."""
    from PIL import Image

    samples = read_list(root / "ImageSets/Segmentation/train.txt", root)
    for sample in samples:
        for path in (sample.image, sample.mask):
            with Image.open(path) as picture:
                cropped = picture.crop((0, 0, 500, 375))
            cropped.save(path, quality=95)
    return samples
