"""Scoring from Python: a protocol, its episodes, and the score of whatever answers them.

The docstring of `evaluate` says what a model of anyone's gets and must return.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fss.config import Config
from fss.data.canvas import Canvas
from fss.data.episodes import PictureSet
from fss.data.plan import Draw
from fss.data.source import Source, open_source
from fss.episode import Episode
from fss.errors import UserError
from fss.heads import HEADS, Features
from fss.model import FewShotModel, frozen_checksum
from fss.ops import normalise
from fss.recipes import load_config
from fss.report.protocol import protocol_name
from fss.report.table import console_table
from fss.runs import distributed
from fss.runs.folders import environment
from fss.runs.precision import wants_half
from fss.testing.evaluate import Answer, Evaluation, add_up, feature_store
from fss.testing.evaluate import evaluate as score_ours
from fss.testing.features import FeatureStore, Ready, Supports
from fss.testing.plans import make_plans
from fss.testing.supports import make_supports
from fss.testing.test import measured
from fss.testing.test import protocol as told_protocol
from fss.writing import write_text

Model = Callable[[Episode], Tensor]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Protocol:
    """Test episodes, and the rules by which answers to them are scored; iterating gives the episodes.

    Attributes:
        plans: the episodes of every run: images, class and seed. Episode i of run r is a function of
            (seed, r, i) and the data alone.
    """

    config: Config
    source: Source
    plans: list[list[Draw]]

    @property
    def name(self) -> str:
        """The settings that make numbers comparable, in a line."""
        return protocol_name(told_protocol(self.config, self.source, self.plans, "external"))

    def __len__(self) -> int:
        """Episodes of all runs."""
        return sum(map(len, self.plans))

    def __iter__(self) -> Iterator[Episode]:
        """Every episode, B = 1, as of `episodes`."""
        return self.episodes()

    def episodes(self, batch: int = 1) -> Iterator[Episode]:
        """Every episode, run by run, on the CPU and with the query's mask: to look at, or to learn from.

        Args:
            batch: episodes at once; a run's last batch may have fewer.
        """
        store = self._store(self._supports()[0])
        chunks = (plan[i : i + batch] for plan in self.plans for i in range(0, len(plan), batch))
        for ready in store.episodes(chunks):
            yield self._episode(ready, ready.query_mask)

    def _store(self, supports: Supports | None) -> FeatureStore:
        """The images themselves as features, kept as features are."""
        c = self.config
        pictures = PictureSet(self.source, Canvas.of(c.data), originals=c.test.label_size == "original")
        return FeatureStore(pictures, _Images(), _CPU, c.cache_gib, c.data.workers, supports)

    def _supports(self) -> tuple[Supports | None, dict[str, Any] | None]:
        """Masks made from strokes, where the settings ask for them, as `fss test` makes them."""
        if self.config.test.support == "mask":
            return None, None
        device = distributed.start(self.config.device)
        half = wants_half(self.config.precision, device)
        return make_supports(self.config, self.source, self.plans, device, half) or (None, None)

    def _episode(self, ready: Ready, query_mask: Tensor | None) -> Episode:
        names, draws = self.source.index.names, ready.draws
        meta = {
            "seed": [d.seed for d in draws],
            "class": [self.source.classes[d.class_id - 1] for d in draws],
            "query": [names[d.query] for d in draws],
            "supports": [[names[i] for i in d.supports] for d in draws],
        }
        e = ready.encoded
        query, support = normalise(e.query["image"]), normalise(e.support["image"])
        return Episode(
            query, query_mask, support, e.support_masks, ready.class_id.clone(), e.photo, e.base_class, meta
        )


class _Images:
    """An encoder that leaves images as they are, for models of anyone's."""

    alike, cuts, corners = True, False, True
    query_only: tuple[str, ...] = ()

    def query(self, image: Tensor) -> Features:
        return {"image": image}

    def support(self, image: Tensor, mask: Tensor) -> Features:
        return {"image": image}


@dataclass(frozen=True)
class Score:
    """The scores, in percent. `content` is what `save` writes, and what `fss report` reads."""

    content: dict[str, Any]

    @property
    def miou(self) -> float:
        """Mean over runs of the mean over classes of the foreground IoU."""
        return float(self.content["scores"]["miou"])

    @property
    def fb_iou(self) -> float:
        """Mean over runs of the mean of background and foreground IoU."""
        return float(self.content["scores"]["fb_iou"])

    @property
    def interval(self) -> float | None:
        """Half the width of the 95% interval of `miou` over runs; None for a single run."""
        value = self.content["scores"]["interval"]
        return None if value is None else float(value)

    @property
    def per_class(self) -> dict[str, float]:
        """Class name -> IoU, over all runs together."""
        return dict(self.content["scores"]["per_class"])

    def save(self, path: str | Path) -> Path:
        """Write a `result.json`, whole or not at all."""
        write_text(Path(path), json.dumps(self.content, indent=2) + "\n")
        return Path(path)

    def __str__(self) -> str:
        """The table that `fss test` prints."""
        return console_table(self.content)


def load_protocol(
    data: str = "shapes", *settings: str, fold: int | None = None, shots: int | None = None,
    runs: int | None = None, episodes: int | None = None, recipes: Sequence[str] = (),
) -> Protocol:  # fmt: skip
    """The protocol of a data set, as `fss test` has it; what is left out is as the recipe says.

    Args:
        data: configs/data/NAME.yaml, or a YAML file.
        settings: further ones as on the command line: "data.root=my_photos", "test.label_size=original".
        fold: whose classes are held out.
        shots: support images an episode.
        runs, episodes: how many runs of how many episodes.
        recipes: further recipes, as of `--config`.

    Raises:
        UserError: unknown or impossible settings, data that is missing or unfit, too few images of a class.
    """
    named = {"data.fold": fold, "test.shots": shots, "test.runs": runs, "test.episodes": episodes}
    given = [f"{key}={value}" for key, value in named.items() if value is not None]
    config = load_config(data, "prototype", [*settings, *given], recipes)
    source = open_source(config.data, "val", config.output / "cache")
    return Protocol(config, source, make_plans(config, source))


def evaluate(
    model: Model | FewShotModel, protocol: Protocol, name: str | None = None, batch: int | None = None
) -> Score:
    """Score a model, anyone's, on the novel classes of a protocol.

    The model is called with one `fss.Episode` after another, on the CPU: images normalised, as of
    `fss.ops.normalise` (`fss.to_rgb` makes RGB of 0..255), top left on a black canvas S x S, or all over it
    with data.resize=squash or stretch; support masks of 0, 1, and 255 where the canvas is empty; without the
    query's mask. `episode.meta["seed"]` holds a number for each, for whatever is random in the model. It
    returns logits (B,2,h,w), background first, of any size and on any device: they are resized to what is
    scored, as those of our own heads are.

    A torch module is put into evaluation mode. Gradients are the model's own affair (`torch.no_grad`).
    A `FewShotModel` is scored as `fss test` does it, features computed once per image.

    Args:
        name: of the model in tables; default: the callable's own, or the head's of a `FewShotModel`.
        batch: episodes at once (default: 1; for a `FewShotModel` test.batch, and changes no number).

    Raises:
        UserError: what is returned is no such tensor, or not finite; a `FewShotModel` that was trained on
            a class that is novel here; a name that belongs to a head of the framework.
    """
    if batch is not None and batch < 1:
        raise UserError(f"batch={batch}; allowed: 1 and more")
    config, source, plans = protocol.config, protocol.source, protocol.plans
    supports, supports_told = protocol._supports()
    sees = isinstance(model, FewShotModel) and model.head.sees_query_mask
    if isinstance(model, FewShotModel):
        about, device = _about_ours(model, protocol, name), next(model.parameters()).device
        out = _run_ours(model, protocol, batch or config.test.batch, supports, device)
    else:
        about, device = _about_any(model, name), _CPU
        out = _run_any(model, about.head["type"], protocol, batch or 1, supports)
    return Score({
        **measured(told_protocol(config, source, plans, about.kind, sees), out, source),
        "head": about.head,
        "checkpoint": about.checkpoint,
        "shots": {"train": about.shots, "test": config.test.shots},
        **({"supports": supports_told} if supports_told else {}),
        "frozen_sha256": about.frozen,
        "precision": about.precision,
        "config": {**about.network, **config.model_dump(mode="json", include={"data", "test"})},
        "environment": environment(device),
    })  # fmt: skip


@dataclass(frozen=True)
class _About:
    """A result's account of the model that was scored; fields as of `result.json`."""

    head: dict[str, Any]
    kind: str = "external"
    checkpoint: dict[str, Any] = field(default_factory=lambda: {"external": True})
    shots: int | None = None
    frozen: str = "external"
    precision: str = "external"
    network: dict[str, Any] = field(default_factory=dict)  # sections of the configuration


def _about_any(model: Model, name: str | None) -> _About:
    own = getattr(model, "__name__", type(model).__name__)
    usable = own.isidentifier() and own not in HEADS
    return _About({"type": _checked_name(name) if name else own if usable else "external"})


def _about_ours(model: FewShotModel, protocol: Protocol, name: str | None) -> _About:
    """By the model's checkpoint, where it is of one.

    Raises:
        UserError: it was trained on a class that is novel here.
    """
    told = model.told
    novel = {protocol.source.classes[c - 1] for c in protocol.source.novel}
    trained_on = sorted(novel.intersection(told.get("base_classes", ())))
    if trained_on and protocol.config.data.fold != -1:
        raise UserError(
            f"this model was trained on {', '.join(trained_on)}, novel in fold {protocol.config.data.fold} "
            f"of {protocol.config.data.name}; take its own, fold={told.get('fold')}"
        )
    frozen, precision = frozen_checksum(model), "bf16" if model.bf16 else "fp32"
    if not told:
        head = {"type": _checked_name(name) if name else type(model.head).__name__}
        parts = {"backbone": model.backbone, "neck": model.neck}
        network = {k: {"type": type(part).__name__} for k, part in parts.items() if part is not None}
        return _About(head, frozen=frozen, precision=precision, network=network)
    head = dict(told["head"]) | ({"type": _checked_name(name)} if name else {})
    network = {"backbone": told["backbone"], "neck": told.get("neck") or {}}
    return _About(head, "file", told, told.get("shots"), frozen, precision, network)


def _checked_name(name: str) -> str:
    if name in HEADS or not re.fullmatch(r"\w[\w .,+()=@/-]*", name):
        raise UserError(
            f"name={name!r} is a head of the framework, or holds other signs than letters, digits and "
            " .,+()=@/-_; tables need another name"
        )
    return name


def _run_ours(
    model: FewShotModel, protocol: Protocol, batch: int, supports: Supports | None, device: torch.device
) -> Evaluation:
    config, source = protocol.config, protocol.source
    model = model.to(memory_format=torch.channels_last)
    store = feature_store(model, source, config, device, supports=supports)
    return score_ours(model, store, protocol.plans, len(source.classes), batch, config.test.label_size)


def _run_any(
    model: Model, name: str, protocol: Protocol, batch: int, supports: Supports | None
) -> Evaluation:
    """Ask a model of anyone's, and hold what it returns against what it must be."""
    module = getattr(model, "__self__", model)  # of a bound method such as `network.forward`
    if isinstance(module, nn.Module):
        module.eval()

    def answer(ready: Ready) -> Answer:
        logits = model(protocol._episode(ready, None))
        return Answer(_checked_logits(logits, len(ready.draws), name), {}, ())

    store, classes = protocol._store(supports), len(protocol.source.classes)
    return add_up(answer, store, protocol.plans, classes, batch, protocol.config.test.label_size)


def _checked_logits(logits: Any, episodes: int, name: str) -> Tensor:
    wanted = f"wanted a floating point tensor of logits (B,2,h,w), background first, with B = {episodes}"
    if not isinstance(logits, Tensor):
        raise UserError(f"{name} returned {type(logits).__name__}; {wanted}")
    if (
        not logits.is_floating_point()
        or logits.dim() != 4
        or logits.shape[:2] != (episodes, 2)
        or not logits.numel()
    ):
        raise UserError(f"{name} returned {logits.dtype} of shape {tuple(logits.shape)}; {wanted}")
    return logits.detach()
