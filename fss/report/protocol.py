"""Names and numbers for protocols; scores may be compared if the numbers are equal."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

# Fields that may differ inside one table: folds are its columns, shots its parts, and the choice of the
# checkpoint is a column. Plans must agree if fold and shots do.
FREE = ("fold", "shots", "plan_sha256", "selection")


def protocol_id(protocol: Mapping[str, Any]) -> str:
    """A number of eight digits for all fields in which the results of one table must agree."""
    fixed = {k: v for k, v in protocol.items() if k not in FREE and v is not None}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:8]


def protocol_name(protocol: Mapping[str, Any]) -> str:
    """One line with the settings that most often make scores incomparable, and with the protocol's number."""
    p = protocol
    folds = f"{p['folds']} {p.get('scheme', '')} folds"
    if p.get("fold") == -1:
        folds = "every class"
    elif p.get("trained_on"):
        folds += f" of {p['trained_on']}, its classes left out"
    sampling = str(p.get("sampling", "plan")).partition(",")[0]
    parts = [
        f"{p['data']}, {folds}",
        f"{p['runs']} x {p['episodes']} episodes by {sampling}, seed {p['seed']}",
        f"labels at {p['label_size']}, images {_seen(p)} {p.get('image_size')} px",
        f"novel classes in training images: {p.get('novel_in_training')}",
    ]
    if boundary := p.get("boundary_in_training"):
        parts.append(f"255 in training masks: {boundary}")
    if p.get("train_masks"):
        parts.append(f"trained on masks {p['train_masks']!r}, tested on true ones")
    if support := p.get("support"):
        parts.append(f"supports: {support['kind']} by {support['method']}")
    if label := p.get("query_label"):
        parts.append(f"the query's own label is {label}")
    return f"{'; '.join(parts)} [{protocol_id(p)}]"


def _seen(protocol: Mapping[str, Any]) -> str:
    return {"squash": "squashed to", "stretch": "stretched to"}.get(str(protocol.get("resize")), "at")


_NOVEL = {
    "background": "Where training images show held-out classes, those are background.",
    "ignore": "Where training images show held-out classes, those pixels are left out.",
    "drop_image": "Images that show held-out classes are not trained on.",
}


def protocol_words(protocol: Mapping[str, Any], folds: Sequence[int], shots: Sequence[int]) -> str:
    """The protocol in whole sentences; `folds` and `shots` are those that are shown."""
    p, several = protocol, "s" if len(folds) > 1 else ""
    kept = f"one that fold{several} {listed(folds)} of {p['data']} ({p['folds']} {p.get('scheme', '')} folds)"
    kept += f" keep{'' if several else 's'} out of training"
    if p["fold"] == -1:
        kept = f"any of {p['data']}"
    elif p.get("trained_on"):
        kept = (
            f"one of {p['data']} that training on {p['trained_on']} (fold{several} {listed(folds)}) never saw"
        )
    images = (
        "1 image with its mask" if list(shots) == [1] else f"{listed(shots, 'or')} images with their masks"
    )
    said = [
        f"An episode shows the model {images} and asks for the same class in another image.",
        f"The class is {kept}.",
        f"There are {p['runs']} runs of {p['episodes']} episodes, seed {p['seed']}:",
        f"{p.get('sampling', 'drawn at random')}.",
        f"Images are seen {_seen(p)} {p.get('image_size', '?')} px, "
        f"and scored on labels at {p['label_size']}" + (" size." if p["label_size"] == "original" else "."),
        "A class's IoU is the intersection of predicted and true foreground over their union, both summed "
        "over its episodes; mIoU is the mean over classes, FB-IoU that of foreground and background.",
        _NOVEL.get(str(p.get("novel_in_training")), ""),
    ]
    if novel := p.get("novel_in_base_training"):
        said.append(f"The base network was trained with held-out classes as {novel}.")
    if p.get("train_masks"):
        said.append(f"Training saw masks of another origin ({p['train_masks']}); tests use the true ones.")
    if support := p.get("support"):
        said.append(
            f"Supports have no true masks: {support['kind']}, made into masks by {support['method']}."
        )
    if p.get("boundary_in_training") == "background":
        said.append("Pixels of 255 in training masks, such as objects' boundaries, are background.")
    if p.get("query_label"):
        said.append("The head sees the query's own label, which tests alone have.")
    return " ".join(s for s in said if s)


def listed(values: Sequence[object], last: str = "and") -> str:
    """Values as a list in a sentence: `0, 1 and 2`."""
    texts = [str(v) for v in values]
    return f" {last} ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
