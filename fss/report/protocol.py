"""A protocol's name and number: what a reader compares before the scores."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# What may differ inside one table: folds and shots are its columns and parts, and how a checkpoint was
# chosen is a column. Plans must agree where fold and shots do.
FREE = ("fold", "shots", "plan_sha256", "selection")


def protocol_id(protocol: Mapping[str, Any]) -> str:
    """Eight digits over all that one table must agree in; equal numbers, comparable scores."""
    fixed = {k: v for k, v in protocol.items() if k not in FREE and v is not None}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:8]


def protocol_name(protocol: Mapping[str, Any]) -> str:
    """The settings that most often make numbers incomparable, in a line, and the number of all of them."""
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
        f"labels at {p['label_size']}, images at {p.get('image_size')} px",
        f"novel classes in training images: {p.get('novel_in_training')}",
    ]
    if p.get("train_masks"):
        parts.append(f"trained on masks {p['train_masks']!r}, tested on true ones")
    if support := p.get("support"):
        parts.append(f"supports: {support['kind']} by {support['method']}")
    return f"{'; '.join(parts)} [{protocol_id(p)}]"
