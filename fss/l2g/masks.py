"""Pseudo-masks as files: written once each, resumable, and measured where there are true masks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fss.backbones.frozen import checksum
from fss.bars import Bar
from fss.config import Config
from fss.data.files import png_bytes, read_image, read_mask
from fss.data.image_labels import LabelledImages
from fss.data.prepare.common import write
from fss.data.source import masks_folder
from fss.data.transforms import to_tensor
from fss.data.voc import voc_palette
from fss.episode import IGNORE
from fss.errors import UserError
from fss.l2g.networks import ResponseNet
from fss.l2g.quality import THRESHOLDS, Counts, image_counts, quality
from fss.l2g.responses import pseudo_mask, responses, scaled
from fss.l2g.train import about_pseudo, build_pseudo, open_weak
from fss.pictures.responses import draw_responses
from fss.runs import checkpoint, distributed
from fss.runs.folders import pseudo_folder
from fss.runs.identity import modern, require
from fss.writing import write_text

MADE_BY = "pseudo.json"


class Written(NamedTuple):
    """The outcome of writing: folder, images, how many were there before, and rows of quality if any."""

    folder: Path
    images: int
    kept: int
    rows: list[dict[str, Any]]


def write_pseudo(config: Config, device: torch.device, half: bool) -> Written:
    """Write the pseudo-mask and the confidence of every training image; what is there already is kept.

    `NAME.png` holds labels, `confidence/NAME.png` how much the image's classes respond at most (255 is all),
    `responses/` pictures of some images, `quality.json` scores against true masks where there are any.

    Raises:
        UserError: nothing is trained, or the folder holds anything else than these masks.
    """
    source, out = open_weak(config), masks_folder(config.data)
    network, told = _trained(config, source)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    thresholds = sorted({*THRESHOLDS, config.pseudo.background})
    if distributed.is_main():
        _claim(out, {**told, **_settings(config), "labels_sha256": source.checksum, "thresholds": thresholds})
    distributed.barrier()
    done = _Done(out)
    todo = [i for i, s in enumerate(source.samples) if s.name not in done.counts or not _both(out, s.name)]
    mine = todo[distributed.rank() :: distributed.world()]
    step = max(1, len(source.samples) // max(config.pseudo.pictures, 1))
    shown = set(range(0, len(source.samples), step)[: config.pseudo.pictures])
    for i in Bar(mine, "pseudo-masks", unit="image", disable=not distributed.is_main()):
        writer = _Image(network, source, i, config, device, half)
        done.add(source.samples[i].name, writer.write(out, thresholds, i in shown))
    distributed.barrier()
    rows = _quality(out, source, thresholds) if distributed.is_main() else []
    return Written(out, len(source.samples), len(source.samples) - len(todo), rows)


def _settings(config: Config) -> dict[str, Any]:
    p = config.pseudo
    return {
        "data": config.data.name,
        "fold": config.data.fold,
        "background": p.background,
        "maps": p.maps,
        "scales": list(p.scales),
        "flips": p.flips,
        "longest": p.longest,
    }


def _trained(config: Config, source: LabelledImages) -> tuple[ResponseNet, dict[str, Any]]:
    """The trained global network, and its account."""
    path = pseudo_folder(config) / "last.pt"
    if not path.is_file():
        raise UserError(f"no networks {path}; run `fss pseudo-label train` with the same settings first")
    content = checkpoint.read(path)
    backbones = modern(content["about"]).get("backbones", [{}])
    require(content["about"], about_pseudo(config, source, backbones), str(path))
    model = build_pseudo(config, len(source.base), backbones)
    checkpoint.fill(model, content, path)
    facts = content["facts"]
    told = {
        "network_sha256": checksum(model.network),
        "transfer": config.pseudo.transfer,
        "with_saliency": facts.get("with_saliency"),
        "steps": facts.get("steps"),
        "seed": content["about"].get("seed"),
    }
    return model.network, told


def _claim(out: Path, wanted: dict[str, Any]) -> None:
    """Make the folder for these masks, or find that it is theirs.

    Raises:
        UserError: it holds others, or anything else.
    """
    path = out / MADE_BY
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if out.is_dir() and any(out.iterdir()):
            raise UserError(
                f"{out} holds files that pseudo-label did not write; name another folder with "
                "data.train_masks=DIR"
            ) from None
        write_text(path, json.dumps(wanted, indent=1) + "\n")
        return
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); move {out} away to have it written anew") from None
    differ = [f"{k} {found.get(k)} (now {v})" for k, v in wanted.items() if found.get(k) != v]
    if differ:
        raise UserError(
            f"{out} holds other pseudo-masks: {', '.join(differ)}. Move it away to have it made anew, or "
            "name another folder with data.train_masks=DIR"
        )


def _both(out: Path, name: str) -> bool:
    return (out / f"{name}.png").is_file() and (out / "confidence" / f"{name}.png").is_file()


class _Done:
    """The written images and their counts: a line of JSON each, in a file of each process."""

    def __init__(self, out: Path) -> None:
        self.counts = _read_done(out)
        distributed.barrier()  # all processes have read before one writes
        self.path = out / f"done-{distributed.rank()}.jsonl"
        if self.path.is_file():  # a line that was cut short is dropped
            write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in _whole_lines(self.path)))

    def add(self, name: str, counts: Counts | None) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, counts]) + "\n")


def _read_done(out: Path) -> dict[str, Counts | None]:
    lines = [line for path in sorted(out.glob("done-*.jsonl")) for line in _whole_lines(path)]
    return {name: counts for name, counts in map(_parsed, lines)}


def _whole_lines(path: Path) -> Iterator[list[Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            name, counts = json.loads(line)
        except ValueError:
            continue
        yield [name, counts]


def _parsed(line: list[Any]) -> tuple[str, Counts | None]:
    name, counts = line
    return name, None if counts is None else {int(c): tuple(own) for c, own in counts.items()}


class _Image(NamedTuple):
    """One image and the network that tells where its classes are."""

    network: ResponseNet
    source: LabelledImages
    position: int
    config: Config
    device: torch.device
    half: bool

    def write(self, out: Path, thresholds: list[float], drawn: bool) -> Counts | None:
        """Write the image's files, the mask last; returns its counts, None without a true mask."""
        sample, p = self.source.samples[self.position], self.config.pseudo
        image = read_image(sample.image)
        present = torch.from_numpy(self.source.present[self.position])
        maps = torch.zeros(1, *image.shape[:2])
        if present.any():
            pixels = to_tensor(image).to(self.device)
            probable = p.maps == "probability"
            response = responses(self.network, pixels, p.scales, p.flips, p.longest, self.half, probable)
            maps = scaled(response, present.to(self.device)).cpu()
        numbers, confidence = (x.numpy() for x in pseudo_mask(maps, p.background))
        mask = self._values()[numbers]
        truth = self._truth()
        if drawn:
            heats = {self.source.base_names[c]: maps[c].numpy() for c in np.flatnonzero(present.numpy())}
            true = None if truth is None else read_mask(sample.mask)
            draw_responses(out / "responses" / f"{sample.name}.jpg", image, true, heats, mask)
        grey = (255 * confidence).round().astype(np.uint8)
        write(out / "confidence" / f"{sample.name}.png", png_bytes(grey))
        write(out / f"{sample.name}.png", png_bytes(mask, voc_palette()))
        if truth is None:
            return None
        return image_counts(maps.argmax(0).numpy() + 1, confidence, truth, thresholds)

    def _values(self) -> np.ndarray:
        """Number of a class (0 background) -> what stands for it in masks."""
        sample = self.source.samples[self.position]
        return np.array([0, *(min(sample.value(c), IGNORE) for c in self.source.base)], np.uint8)

    def _truth(self) -> np.ndarray | None:
        """The true mask in numbers of base classes, held-out ones 0, ignored -1; None where there is none."""
        sample = self.source.samples[self.position]
        if not sample.mask.is_file():
            return None
        number = {c: i for i, c in enumerate(self.source.base, 1)}
        table = np.zeros(256, np.int64)
        table[IGNORE] = -1
        if sample.label is not None:
            table[1] = number.get(sample.label, 0)
        else:
            table[list(number)] = list(number.values())
        return table[read_mask(sample.mask)]


def _quality(out: Path, source: LabelledImages, thresholds: list[float]) -> list[dict[str, Any]]:
    """Add up all images' counts, and write `quality.json`."""
    counts = [c for c in _read_done(out).values() if c is not None]
    if not counts:
        return []
    rows = quality(counts, thresholds, source.base_names)
    content = {"images": len(counts), "of": len(source.samples), "rows": rows}
    write_text(out / "quality.json", json.dumps(content, indent=1) + "\n")
    return rows
