"""L2G's two networks learn from image-level labels; their responses become pseudo-masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from fss.backbones.frozen import checksum
from fss.backbones.weights import load_strict
from fss.bars import Bar
from fss.config import BackboneConfig, Config
from fss.data.image_labels import LabelledImages, open_labelled_images
from fss.data.labelled import epoch_batches
from fss.data.lists import list_checksum
from fss.data.loading import load_batches
from fss.data.saliency import find_saliency, saliency_checksum
from fss.errors import UserError
from fss.l2g.correlation import PixelCorrelation
from fss.l2g.crops import boxes, cut
from fss.l2g.networks import (
    L2G,
    ResponseNet,
    classification_loss,
    image_logits,
    parameter_groups,
    transfer_loss,
    transfer_target,
)
from fss.l2g.views import Views, ViewSet, stack
from fss.metrics import mean_average_precision
from fss.model import build_backbone
from fss.randomness import seeded
from fss.runs import checkpoint, distributed
from fss.runs.folders import open_folder, pseudo_folder
from fss.runs.identity import modern, require
from fss.training.base import refuse_other_domain, require_base_classes
from fss.training.fit import Fit, Losses


def train_pseudo(config: Config, device: torch.device, half: bool) -> Path:
    """Train the networks that write pseudo-masks, or go on, or find it done; returns their folder.

    Raises:
        UserError: data, labels, saliency or weights are missing or unfit, or the folder holds another run.
    """
    train, val = open_weak(config), open_labelled_images(config.data, "val", cache=config.output / "cache")
    saliency = None
    if config.pseudo.transfer and config.pseudo.saliency:
        saliency = find_saliency(config.data, config.pseudo.saliency, train.samples)
    folder, p = pseudo_folder(config), config.pseudo
    with seeded(config.seed):
        model = _fresh_or_empty(config, folder, train)
    model = model.to(device).to(memory_format=torch.channels_last)
    about = {
        **about_pseudo(config, train, settled(model)),
        "seed": config.seed,
        "weights": config.backbone.weights,
        "labels_sha256": train.checksum,
        "saliency_sha256": saliency_checksum(train.samples, saliency) if saliency else None,
    }
    batch = distributed.global_batch(min(p.batch, len(train.samples)), p.accumulate)
    facts = {
        "backbone_sha256": checksum(model.network.backbone),
        "with_saliency": sum(path is not None for path in saliency or ()),
        "precision": "bf16" if half else "fp32",
        "batch": batch,
        "processes": distributed.world(),
    }

    def validate(writer: SummaryWriter | None, step: int) -> float:
        return image_map(model.local or model.network, val, config, device, half)

    fit = Fit(
        model, p, max(1, len(train.samples) // batch), folder, about, facts, validate, device, config.seed,
        parameter_groups(model, p.lr_factors), "mAP of image labels",
    )  # fmt: skip
    if fit.done:
        return folder
    if distributed.is_main():
        open_folder(folder, config, device)
        print(_told(config, train, saliency, fit, folder))
    keys = epoch_batches(len(train.samples), batch, config.seed, fit.budget.step)
    mine = (share for k in keys for share in distributed.my_shares(k, p.accumulate))
    batches = load_batches(ViewSet(train, saliency, p, config.seed), mine, stack, config.data.workers)
    fit.run(batches, _step(model, train, config, device, half), "pseudo-labels")
    return folder


def open_weak(config: Config) -> LabelledImages:
    """The training images with their image-level labels.

    Raises:
        UserError: as `open_labelled_images`; no base classes, or no image that shows one.
    """
    refuse_other_domain(config)
    require_base_classes(config)
    train = open_labelled_images(config.data, "train", config.pseudo.labels, config.output / "cache")
    if not train.present.any():
        raise UserError(f"no image of {config.data.train_list} shows a base class of fold {config.data.fold}")
    return train


def about_pseudo(config: Config, source: LabelledImages, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The account that a checkpoint of the networks must give to be the wanted one."""
    p = config.pseudo
    return {
        "stage": "pseudo",
        "data": config.data.name,
        "fold": config.data.fold,
        "base_classes": list(source.base_names),
        "backbones": [
            {**settled, **{k: v for k, v in config.backbone.options.items() if v != "auto"}, "type": name}
            for name, settled in zip(_names(config), found, strict=True)
        ],
        "level": p.level,
        "transfer": p.transfer,
        "correlation": p.correlation,
        "train_list_sha256": list_checksum(source.samples),
    }


def _names(config: Config) -> tuple[str, ...]:
    """Backbones of the global network, and of the local one where there is one."""
    first = config.pseudo.backbone or config.backbone.type
    return (first, config.pseudo.local_backbone or first) if config.pseudo.transfer else (first,)


def settled(model: L2G) -> list[dict[str, Any]]:
    """The options of each network's backbone that its weights decided."""
    return [net.backbone.settled() for net in (model.network, model.local) if net is not None]


def build_pseudo(config: Config, classes: int, found: Sequence[Mapping[str, Any]] | None = None) -> L2G:
    """The networks with their backbones' weights; empty ones of the given parts, for a checkpoint to fill."""
    nets = []
    for i, name in enumerate(_names(config)):
        options = (
            config.backbone.options if found is None else {k: v for k, v in found[i].items() if k != "type"}
        )
        part = BackboneConfig(type=name, weights=config.backbone.weights, **options)
        backbone = build_backbone(part, weights=found is None)
        p = config.pseudo
        correlation = PixelCorrelation(backbone.channels, p.correlation_cells) if p.correlation else None
        nets.append(ResponseNet(backbone, classes, correlation, p.frozen_norms, p.level))
    return L2G(nets[0], nets[1] if len(nets) > 1 else None)


def _fresh_or_empty(config: Config, folder: Path, source: LabelledImages) -> L2G:
    last = folder / "last.pt"
    if last.is_file():
        content = checkpoint.read(last)
        found = modern(content["about"]).get("backbones", [{}])
        require(content["about"], about_pseudo(config, source, found), str(last))
        return build_pseudo(config, len(source.base), found)
    model = build_pseudo(config, len(source.base))
    if config.pseudo.start:
        _start_from(config.pseudo.start, model, source)
    return model


def _start_from(path: Path, model: L2G, source: LabelledImages) -> None:
    """Give both networks the weights of a classification network that was trained alone.

    Raises:
        UserError: the file is another kind of checkpoint, of other classes, or its network does not fit.
    """
    content = checkpoint.read(path)
    wanted = {"stage": "pseudo", "transfer": False, "base_classes": list(source.base_names)}
    require(content["about"], wanted, str(path))
    state = {k.removeprefix("network."): v for k, v in content["model"].items()}
    for net in (model.network, model.local):
        if net is not None:
            load_strict(net, state, str(path))


def _told(
    config: Config, source: LabelledImages, saliency: list[Path | None] | None, fit: Fit, folder: Path
) -> str:  # fmt: skip
    """Two lines on the training that begins."""
    lines = [
        f"pseudo-labels: {len(source.base)} base classes, {len(source.samples)} images with image-level "
        f"labels ({int((~source.present.any(1)).sum())} show none of them), {fit.budget} -> {folder}"
    ]
    if not config.pseudo.transfer:
        return "\n".join([*lines, "global network alone, by the classification loss"])
    found = sum(path is not None for path in saliency or ())
    text = f"shape transfer for {found} images with saliency maps, attention transfer alone for the other "
    return "\n".join([*lines, f"{text}{len(source.samples) - found}"])


def _step(model: L2G, source: LabelledImages, config: Config, device: torch.device, half: bool) -> Any:
    network, p = distributed.parallel(model, device), config.pseudo
    stride = model.network.stride

    def step(batch: Views) -> Losses:
        images, labels = batch.images.to(device, non_blocking=True).float(), batch.labels.to(device)
        names = lambda: [source.samples[i].name for i in batch.positions.tolist()]  # noqa: E731
        weight = labels.new_tensor(float(len(labels)))
        crops = cut(images, batch.corners, p.local_crop) if p.transfer else None  # (B*N,3,L,L)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            overall, local = network(images, crops)
        if local is None:
            return Losses({"classification": classification_loss(overall, labels)}, weight, names)
        n = batch.corners.shape[1]
        labels = labels.repeat_interleave(n, 0)  # (B*N,C)
        salient = cut(batch.saliency, batch.corners, p.local_crop).to(device)  # (B*N,1,L,L)
        known = batch.known.repeat_interleave(n).to(device)
        target = transfer_target(local, labels, salient, known)
        transfer = transfer_loss(overall, boxes(batch.corners, p.local_crop).to(device), target, stride)
        each = {"transfer": p.weight * transfer, "classification": classification_loss(local, labels)}
        return Losses(each, weight, names)

    return step


@torch.inference_mode()
def image_map(
    network: ResponseNet, source: LabelledImages, config: Config, device: torch.device, half: bool
) -> float:
    """How well the mean responses of the network that classifies tell which base classes an image shows: mAP,
    percent. Image-level labels alone, so that no mask is looked at.
    """
    scores = torch.zeros(source.present.shape, device=device)
    keys = [(-1, i) for i in range(len(source.samples))][distributed.rank() :: distributed.world()]
    batches = [keys[i : i + 8] for i in range(0, len(keys), 8)]
    loaded = load_batches(ViewSet(source, None, config.pseudo, 0), batches, stack, config.data.workers)
    for batch in Bar(loaded, "image labels", len(batches), leave=False, disable=not distributed.is_main()):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            response = network(batch.images.to(device))
        scores[batch.positions.to(device)] = image_logits(response)
    scores = distributed.sum_over_processes(scores)
    return mean_average_precision(scores.cpu(), torch.from_numpy(source.present))
