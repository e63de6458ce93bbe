"""All that a head may ask of the framework, one small head for each: later methods need no other contract.

Each gets the same from whole episodes, from kept encodings and from kept frozen features, and from its own
checkpoint.
"""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones.resnet import ResNet
from fss.cli import main
from fss.data.canvas import Canvas
from fss.data.episodes import EpisodeSet, PictureSet
from fss.data.plan import Draw
from fss.data.source import open_source
from fss.episode import IGNORE, Episode, collate
from fss.errors import UserError
from fss.heads import Head, HeadOutput
from fss.model import BaseSegmenter, build_model
from fss.necks import make_neck
from fss.ops import binary_mask, normalise, resize
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.identity import Identity
from fss.runs.models import load_model
from fss.testing.features import FeatureStore, FrozenEncoding, WholeEncoding, encode_now
from tests.backbones.test_fold import unsettled
from tests.conftest import relative_error
from tests.make import TINY, make_folder
from tests.test_contract import Patches

SIZE = 49


class Asking(Head):
    """What it answers follows from all that it gets of queries and supports; it keeps the last episodes."""

    levels = ("stage3",)

    def forward(self, episodes):
        self.saw = episodes
        supports = sum(x.float().mean((1, 2, 3, 4)) for x in episodes.support.values())[:, None, None, None]
        x = sum(x.float().mean((1, 2, 3))[:, None, None, None] for x in episodes.query.values()) + supports
        x = x * resize(episodes.query[self.levels[0]].float().mean(1, True), (7, 7)) + self.more(episodes)
        return HeadOutput(torch.cat([-x, x], 1))

    def more(self, episodes):
        return 0.0


class CutAtStage4(Asking):
    levels = ("stage4", "stage3")
    support_cut = "stage4"


class CutBlock(Asking):
    levels = ("stage4.0:sum", "stage3", "neck")
    support_cut = "stage4"


class CutImage(Asking):
    levels = ("stage1", "stage4")
    support_cut = "image"


class EncodesMask(Asking):
    """A support's map weighs what its mask covers, once it is encoded."""

    levels = ("stage3", "neck:sum", "base")
    support_cut = "image"
    encodes_mask = True
    query_only = ("base",)

    def encode_support(self, features):
        self.levels_seen, mask = set(features), features["mask"]
        assert mask.dtype == torch.uint8 and set(mask.unique().tolist()) <= {0, 1, 255}
        share = (mask == 1).float().mean((1, 2))[:, None, None, None]
        return {name: features[name].float() * share for name in ("stage3", "neck:sum")}


class BaseLogits(Asking):
    levels = ("stage3", "base")
    query_only = ("base",)


class Photo(Asking):
    def more(self, episodes):
        return F.adaptive_avg_pool2d(episodes.photo.float()[:, None], (7, 7))


class BaseClass(Asking):
    def more(self, episodes):
        return episodes.base_class[:, None, None, None].float()


class Unlike(Asking):
    """Queries through one convolution, supports through another."""

    def __init__(self, channels):
        super().__init__(channels)
        self.of_query, self.of_support = (nn.Conv2d(channels["stage3"], n, 1) for n in (4, 6))

    def encode(self, features):
        return {"stage3": self.of_query(features["stage3"].float())}

    def encode_support(self, features):
        return {"stage3": self.of_support(features["stage3"].float())}


class Blocks(Asking):
    levels = ("stage3.1", "stage3.1:sum", "stage3.0", "stage2.0:sum")


class NeckSum(Asking):
    levels = ("neck", "neck:sum")


class Groups(Asking):
    """A part that learns ten times as fast."""

    def __init__(self, channels):
        super().__init__(channels)
        self.slow, self.fast = (nn.Parameter(torch.ones(())) for _ in range(2))

    def more(self, episodes):
        return self.slow + self.fast

    def groups(self):
        return [{"params": [self.slow], "factor": 1.0}, {"params": [self.fast], "factor": 10.0}]


class GroupsWithout(Groups):
    def groups(self):
        return super().groups()[1:]


class AsksNetwork(Asking):
    """Looks at an image that is in no data set."""

    def more(self, episodes):
        image = torch.zeros(len(episodes), 3, 33, 33)
        image[..., 16:] = 200
        self.got = episodes.network(image)
        return self.got["stage3"].float().mean((1, 2, 3))[:, None, None, None]


class Everything(Groups):
    """One that asks for all of it at once, and learns."""

    levels = ("stage4", "stage3.0:sum", "neck:sum", "neck", "base")
    support_cut = "stage4"
    query_only = ("base",)

    def __init__(self, channels):
        super().__init__(channels)
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, features):
        return {k: x.float() * self.scale for k, x in features.items()}

    def encode_support(self, features):
        return {k: x.float() * self.scale**2 for k, x in features.items()}

    def more(self, episodes):
        known = episodes.photo.float().mean() + episodes.base_class.float().mean()
        mine = episodes.network(torch.zeros(1, 3, 33, 33))["stage4"].float().mean()
        return self.slow * known + self.fast * mine

    def groups(self):
        return [{"params": [self.slow, self.scale], "factor": 1.0}, {"params": [self.fast], "factor": 10.0}]


EVERY = (
    CutAtStage4, CutBlock, CutImage, EncodesMask, BaseLogits, Photo, BaseClass, Unlike, Blocks, NeckSum,
    Groups, AsksNetwork, Everything,
)  # fmt: skip


def path_of(head):
    return f"tests.heads.test_asks:{head.__name__}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("asks") / "set")


def config_of(root, head=Asking, *settings):
    given = [f"data.root={root}", "data.fold=1", f"head.type={path_of(head)}", *settings]
    return load_config("folder", "cwt", [*(s for s in TINY if not s.startswith("head.")), *given])


@pytest.fixture(scope="module")
def sources(root):
    config = config_of(root)
    return {split: open_source(config.data, split) for split in ("train", "val")}


def segmenter():
    torch.manual_seed(0)
    backbone = ResNet(18, "plain")
    return unsettled(BaseSegmenter(backbone, make_neck("ppm", backbone.channels, {"channels": 16}), 4))


def build(head, base=None):
    base = base or segmenter()
    return build_model(path_of(head), {}, base.backbone, base.neck, classifier=base.classifier).eval()


def draws_of(source, class_id, count=3, shots=2):
    there = [i for i in range(len(source.samples)) if (source.mask(i) == class_id).any()]
    return [
        Draw(class_id, there[i], tuple(there[(i + j + 1) % len(there)] for j in range(shots)), i)
        for i in range(count)
    ]


def whole(source, draws):
    """The episodes of un-augmented images as tensors, as `FeatureStore` has them."""
    pictures = {i: PictureSet(source, Canvas(SIZE)).load(i) for d in draws for i in d.images}
    made = []
    for d in draws:
        views = [pictures[i] for i in d.images]
        images = torch.stack([v.image for v in views])
        masks = binary_mask(torch.stack([v.labels for v in views])[None], torch.tensor([d.class_id]))[0]
        photo = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
        photo[:, : views[0].photo[0], : views[0].photo[1]] = True
        number = torch.tensor([source.base_number(d.class_id)])
        made.append(
            Episode(images[:1], masks[:1], images[None, 1:], masks[None, 1:], torch.tensor([d.class_id]),
                    photo, number)
        )  # fmt: skip
    return collate(made)


def stored(model, source, draws, encoding, supports=None):
    store = FeatureStore(
        PictureSet(source, Canvas(SIZE)),
        encoding(model),
        torch.device("cpu"),
        1e9,
        workers=0,
        supports=supports,
    )
    (ready,) = store.episodes([draws])
    encoded = replace(ready.encoded, network=model.extract)
    return encode_now(model.head, encoded) if encoding is FrozenEncoding else encoded


def answers(model, source, draws):
    """Logits by way of whole episodes, of kept encodings, of kept frozen features."""
    out = [model.output(whole(source, draws), [d.seed for d in draws]).logits]
    for encoding in (WholeEncoding, FrozenEncoding):
        out.append(model.head(stored(model, source, draws, encoding)).logits)
    return out


@torch.no_grad()
def seen(model, source, draws):
    """What the head saw of whole episodes."""
    model.output(whole(source, draws), [d.seed for d in draws])
    return model.head.saw


@pytest.mark.parametrize("head", EVERY)
@pytest.mark.parametrize("split", ["train", "val"])
@torch.no_grad()
def test_whole_episodes_and_kept_features_are_one(sources, head, split):
    source, model = sources[split], build(head)
    for class_id in (source.base if split == "train" else source.novel)[:1]:
        plain, *kept = answers(model, source, draws_of(source, class_id))
        assert plain.std() > 1e-4
        for logits in kept:
            assert relative_error(logits, plain) < 1e-5


@pytest.mark.parametrize("head", EVERY)
@torch.no_grad()
def test_a_checkpoint_answers_as_the_model_that_it_is_of(root, sources, head, tmp_path):
    model, source = build(head), sources["val"]
    for parameter in model.head.parameters():
        nn.init.normal_(parameter)
    settings = ["backbone.stem=plain", "neck.channels=16"]
    about = Identity.of_few_shot(config_of(root, head, *settings), source.base_names).account()
    state = {"settings": {}, "optimizer": {}, "step": 0, "spent": 0.0, "best": 0.0, "validated": 0}
    checkpoint.save(tmp_path / "best.pt", about, model, facts={}, **state)
    draws = draws_of(source, source.novel[0])
    again = load_model(tmp_path / "best.pt")
    seeds = [d.seed for d in draws]
    assert torch.equal(again.output(whole(source, draws), seeds).logits,
                       model.output(whole(source, draws), seeds).logits)  # fmt: skip


@torch.no_grad()
def test_stage_4_of_supports_comes_from_the_object_alone(sources):
    source, model = sources["val"], build(CutAtStage4)
    draws = draws_of(source, source.novel[0])
    e, saw, net = whole(source, draws), seen(model, source, draws), model.backbone
    images, masks = e.support_images.flatten(0, 1), e.support_masks.flatten(0, 1)
    plain = net(images, ("stage3", "stage4"))
    inside = F.interpolate((masks == 1).float()[:, None], (7, 7), mode="bilinear", align_corners=True)
    assert torch.allclose(saw.support["stage3"].flatten(0, 1), plain["stage3"], rtol=1e-4, atol=1e-4)
    by_hand = net.layer4(plain["stage3"] * inside)
    assert torch.allclose(saw.support["stage4"].flatten(0, 1), by_hand, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(by_hand, plain["stage4"], rtol=1e-2, atol=1e-2)
    block = seen(build(CutBlock), source, draws).support["stage4.0:sum"].flatten(0, 1)
    assert torch.allclose(block, net.layer4[0].sum(plain["stage3"] * inside), rtol=1e-4, atol=1e-4)
    query = net(e.query_image, ("stage4",))["stage4"]
    assert torch.allclose(saw.query["stage4"], query, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_mask_that_is_soft_on_the_cells_weights_them():
    model, net = build(CutAtStage4), segmenter().backbone
    images, masks = 255 * torch.rand(2, 3, 50, 71), (torch.rand(2, 50, 71) > 0.5).long()
    masks[:, 30:33] = IGNORE
    stage3 = net(images, ("stage3",))["stage3"]
    inside = F.interpolate(
        (masks == 1).float()[:, None], stage3.shape[2:], mode="bilinear", align_corners=True
    )
    assert ((inside > 0) & (inside < 1)).any()
    by_hand = net.layer4(stage3 * inside)
    assert relative_error(model.extract(images, masks)["stage4"], by_hand) < 1e-5


@pytest.mark.parametrize("levels", [("stage3", "stage4"), ("stage4", "stage2")])
@torch.no_grad()
def test_what_stands_outside_cannot_change_a_cut_stage_4(levels):
    """On patches of 16 pixels that share none: another background changes stages up to 3, and not stage 4."""
    torch.manual_seed(0)
    model = build_model(path_of(CutAtStage4), {}, Patches()).eval()
    model.head.levels = levels
    images = 255 * torch.rand(2, 3, 64, 64)
    masks = torch.zeros(2, 64, 64, dtype=torch.int64)
    masks[:, 16:48, 16:64], masks[:, :16] = 1, IGNORE
    other = torch.where((masks == 1)[:, None], images, 255 * torch.rand(2, 3, 64, 64))
    a, b = (model.encode_support(x, masks) for x in (images, other))
    assert torch.equal(a["stage4"], b["stage4"]) and (a["stage4"] != 0).any()
    (shallow,) = set(levels) - {"stage4"}
    assert not torch.equal(a[shallow], b[shallow])
    assert torch.equal(a[shallow], model.extract(images)[shallow])
    assert not torch.equal(a["stage4"], model.extract(images)["stage4"])


@torch.no_grad()
def test_cut_images_are_zero_outside_once_they_are_normalised(sources):
    source, model = sources["val"], build(CutImage)
    model.as_stored, inputs = True, []
    model.backbone.layer0.register_forward_pre_hook(lambda _, given: inputs.append(given[0].clone()))
    draws = draws_of(source, source.novel[0], count=1, shots=3)
    e = whole(source, draws)
    model.output(e, [0])
    query, supports = inputs
    inside = (e.support_masks[0] == 1)[:, None].expand_as(supports)
    assert torch.equal(query, normalise(e.query_image))
    assert (supports[~inside] == 0).all()
    assert torch.equal(supports[inside], normalise(e.support_images[0])[inside])


@torch.no_grad()
def test_supports_are_encoded_with_their_masks_where_a_head_asks_for_it(sources):
    source, model = sources["val"], build(EncodesMask)
    draws = draws_of(source, source.novel[0])
    e, saw = whole(source, draws), seen(model, source, draws)
    assert model.head.levels_seen == {"stage3", "neck:sum", "mask"} and "mask" not in saw.query
    frozen = model._network()(e.support_images[0], ("stage3",), e.support_masks[0], "image")["stage3"]
    share = (e.support_masks[0] == 1).float().mean((1, 2))[:, None, None, None]
    assert torch.allclose(saw.support["stage3"][0], frozen * share, rtol=1e-4, atol=1e-4)
    assert len(share.unique()) > 1


@torch.no_grad()
def test_the_neck_is_computed_once_for_its_sum_and_the_base_logits(sources, monkeypatch):
    source, base, calls = sources["val"], segmenter(), []
    model = build(EncodesMask, base)
    image = whole(source, draws_of(source, source.novel[0])).query_image
    wanted, network = base(image), model._network()
    before = type(network.neck).before_relu
    monkeypatch.setattr(type(network.neck), "before_relu", lambda own, x: calls.append(own) or before(own, x))
    found = model.extract(image)["base"]
    assert len(calls) == 1 and torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_base_logits_are_those_of_the_base_network(sources):
    base, source = segmenter(), sources["val"]
    draws = draws_of(source, source.novel[0])
    wanted = base(whole(source, draws).query_image)
    model = build(BaseLogits, base)
    for saw in (seen(model, source, draws), stored(model, source, draws, WholeEncoding),
                stored(model, source, draws, FrozenEncoding)):  # fmt: skip
        assert torch.allclose(saw.query["base"], wanted, rtol=1e-4, atol=1e-4)
        assert set(saw.support) == {"stage3"}
    assert not model.classifier.training and not any(p.requires_grad for p in model.classifier.parameters())
    assert {"classifier.weight"} <= set(model.state_dict())
    assert build(NeckSum, segmenter()).classifier is None  # who does not ask for it does not keep it


@pytest.mark.parametrize("augment", ["none", "flips"])
@torch.no_grad()
def test_photo_in_training_is_the_part_of_the_canvas_that_it_fills(sources, augment):
    saw, e = trained_on(sources["train"], SIZE, augment)
    assert saw.photo[:, :32, :48].all() and saw.photo.sum() == 3 * 32 * 48
    assert (e.query_image.movedim(1, -1)[~saw.photo] == 0).all()


@torch.no_grad()
def test_photo_in_training_on_views_is_what_is_no_padding(sources):
    saw, e = trained_on(sources["train"], 81, "views")  # larger than the photos of 48 x 64 pixels
    assert all(0.3 < share < 0.6 for share in saw.photo.float().mean((1, 2)))
    mean = (torch.tensor([0.485, 0.456, 0.406]) * 255).round()
    off = (e.query_image.movedim(1, -1).float() - mean).abs().amax(-1)  # of every pixel from the padding
    inside = -F.max_pool2d(-saw.photo.float(), 7, 1, 3) == 1  # away from the rim, which interpolation mixes
    outside = F.max_pool2d(saw.photo.float(), 7, 1, 3) == 0
    assert (off[outside] < 1.5).all() and outside.any()
    assert (off[inside] > 1.5).float().mean() > 0.9


def trained_on(source, size, augment):
    """What the head saw of three augmented episodes, and these."""
    model, draws = build(Photo), draws_of(source, source.base[0])
    e = collate([EpisodeSet(source, Canvas(size), augment).load(d) for d in draws])
    model.output(e, [d.seed for d in draws], training=True)
    saw = model.head.saw
    assert saw.photo.dtype == torch.bool and saw.photo.shape == (3, size, size)
    assert saw.photo[e.query_mask != IGNORE].all() and torch.equal(saw.query_mask, e.query_mask)
    return saw, e


@pytest.mark.parametrize("encoding", [WholeEncoding, FrozenEncoding])
@torch.no_grad()
def test_photo_in_testing(sources, encoding):
    source = sources["val"]
    saw = stored(build(Photo), source, draws_of(source, source.novel[0]), encoding)
    assert saw.photo[:, :32, :48].all() and saw.photo.sum() == 3 * 32 * 48


@torch.no_grad()
def test_base_class_is_the_row_of_the_base_classifier_and_minus_1_for_novel_ones(sources):
    train, val = sources["train"], sources["val"]
    model = build(BaseClass)
    assert len(train.base) == 3 and train.base != [1, 2, 3]  # fold 1 holds another class out than the last
    for number, class_id in enumerate(train.base):
        draws = draws_of(train, class_id)
        e = collate([EpisodeSet(train, Canvas(SIZE)).load(d) for d in draws])
        model.output(e, [d.seed for d in draws], training=True)
        assert model.head.saw.base_class.tolist() == [number] * 3
        assert stored(model, train, draws, FrozenEncoding).base_class.tolist() == [number] * 3
    draws = draws_of(val, val.novel[0])
    assert stored(model, val, draws, WholeEncoding).base_class.tolist() == [-1] * 3
    assert model.encoded(replace(whole(val, draws), base_class=None), [0, 1, 2]).base_class is None


@torch.no_grad()
def test_queries_and_supports_encoded_differently(sources):
    source, model = sources["val"], build(Unlike)
    draws = draws_of(source, source.novel[0])
    e, frozen = whole(source, draws), model.backbone
    query = model.head.of_query(frozen(e.query_image, ("stage3",))["stage3"])
    support = model.head.of_support(frozen(e.support_images.flatten(0, 1), ("stage3",))["stage3"])
    for saw in (seen(model, source, draws), stored(model, source, draws, WholeEncoding),
                stored(model, source, draws, FrozenEncoding)):  # fmt: skip
        assert torch.allclose(saw.query["stage3"], query, rtol=1e-4, atol=1e-4)
        assert torch.allclose(saw.support["stage3"].flatten(0, 1), support, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoding", [WholeEncoding, FrozenEncoding])
@torch.no_grad()
def test_an_image_is_query_and_support_of_two_classes_in_one_store(sources, encoding):
    """What is cut is kept for each image and class, what is encoded otherwise for each role."""
    source = sources["val"]
    for head in (CutAtStage4, CutImage, Unlike, Everything):
        model = build(head)
        for parameter in model.head.parameters():
            nn.init.normal_(parameter)
        draws = [Draw(1, 0, (3, 4), 0), Draw(2, 3, (0, 4), 1), Draw(1, 4, (0, 3), 2), Draw(2, 4, (0, 3), 3)]
        encoded = stored(model, source, draws, encoding)
        wanted = model.output(whole(source, draws), range(4)).logits
        assert relative_error(model.head(encoded).logits, wanted) < 1e-5


@torch.no_grad()
def test_given_support_masks_are_asked_for_by_class(sources):
    source, model = sources["val"], build(Unlike)
    asked = []

    def supports(position, class_id):
        asked.append(class_id)
        mask = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
        mask[8:24, 8:24] = 1
        return mask

    draws = draws_of(source, source.novel[0])
    for encoding in (WholeEncoding, FrozenEncoding):
        saw = stored(model, source, draws, encoding, supports)
        assert (saw.support_masks.sum((-1, -2)) == 256).all()
    assert set(asked) == {source.novel[0]}
    cut = stored(build(CutImage), source, draws, WholeEncoding, supports).support["stage4"]
    true = stored(build(CutImage), source, draws, WholeEncoding).support["stage4"]
    assert not torch.allclose(cut, true)


@torch.no_grad()
def test_blocks_and_their_sums(sources):
    source, model = sources["val"], build(Blocks)
    draws = draws_of(source, source.novel[0])
    saw = seen(model, source, draws)
    wanted = model.backbone(whole(source, draws).query_image, ("stage3", "stage3.0"))
    for maps in (saw.query, saw.support):
        assert set(maps) == set(Blocks.levels)
        assert (maps["stage3.1:sum"] < 0).any() and torch.equal(maps["stage3.1:sum"].relu(), maps["stage3.1"])
    assert torch.allclose(saw.query["stage3.1"], wanted["stage3"], rtol=1e-4, atol=1e-4)  # the last block
    assert torch.allclose(saw.query["stage3.0"], wanted["stage3.0"], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_necks_sum(sources):
    source, base = sources["val"], segmenter()
    model, draws = build(NeckSum, base), draws_of(source, source.novel[0])
    saw = seen(model, source, draws)
    assert (saw.query["neck:sum"] < 0).any()
    for maps in (saw.query, saw.support):
        assert torch.equal(maps["neck:sum"].relu(), maps["neck"])
    image = whole(source, draws).query_image
    wanted = base.neck.before_relu(base.backbone(image))
    assert torch.allclose(saw.query["neck:sum"], wanted, rtol=1e-4, atol=1e-4)


def test_a_neck_without_a_sum_is_told():
    backbone = ResNet(18)
    with pytest.raises(UserError, match="it needs neck:sum, and this network has"):
        build_model(path_of(NeckSum), {}, backbone, make_neck("fpn", backbone.channels, {"channels": 16}))


@torch.no_grad()
def test_the_network_answers_about_an_image_of_the_heads_own(sources):
    source, model = sources["val"], build(AsksNetwork)
    draws = draws_of(source, source.novel[0])
    image = torch.zeros(3, 3, 33, 33)
    image[..., 16:] = 200
    wanted = model.backbone(image, ("stage3",))["stage3"]
    seen(model, source, draws)
    assert set(model.head.got) == {"stage3"}
    assert torch.allclose(model.head.got["stage3"], wanted, rtol=1e-4, atol=1e-4)
    with torch.enable_grad():  # also in training it is frozen
        model.output(whole(source, draws), [0, 1, 2], training=True)
    assert not model.head.got["stage3"].requires_grad


def test_a_parameter_in_no_group_is_told(root, tmp_path, capsys):
    tiny = [s for s in TINY if not s.startswith("head.")]
    run = ["--data", "folder", "--head", "prototype", *tiny, f"data.root={root}", f"output={tmp_path}"]
    assert main(["train", *run, "head.type=" + path_of(GroupsWithout)]) == 2
    assert "head GroupsWithout: groups() leaves out slow" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["train.augment=none", "train.cache=true"]])
def test_all_of_it_is_trained_tested_and_loaded(root, tmp_path, more):
    given = ["head.type=" + path_of(Everything), "network=base", f"data.root={root}", "data.fold=1"]
    tiny = [s for s in TINY if not s.startswith("head.")]
    run = ["--data", "folder", "--head", "prototype", *tiny, *given, f"output={tmp_path}", *more]
    assert main(["train", *run]) == 0
    (path,) = tmp_path.glob("folder/fold1/Everything_*/last.pt")
    content = checkpoint.read(path)
    groups = content["optimizer"]["param_groups"]
    assert [len(g["params"]) for g in groups] == [2, 1] and [g["factor"] for g in groups] == [1, 10]
    assert groups[1]["lr"] == pytest.approx(10 * groups[0]["lr"]) and groups[0]["lr"] > 0
    assert {"classifier.weight", "head.scale"} <= set(content["model"])
    (result,) = tmp_path.rglob("result.json")
    told = result.read_text()
    result.unlink()
    assert main(["test", *run]) == 0  # from the checkpoint alone
    assert json.loads(result.read_text())["scores"] == json.loads(told)["scores"]
