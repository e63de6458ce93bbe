"""The one schema of everything a run can be told, with defaults and ranges.

A configuration is made from differences, later ones winning: the defaults here, `configs/head/HEAD.yaml`,
`configs/data/DATA.yaml`, recipes named with `--config`, then `key=value` from the command line. After a data
set's or a named recipe comes its NAME_HEAD.yaml, where there is one. An unknown key is an error that names
the nearest one.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fss.errors import UserError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def _grid(size: int) -> int:
    if size % 8 != 1:
        near = size // 8 * 8 + 1
        raise ValueError(f"{size} is not 8n+1 (stride 8, aligned corners); nearest: {near}, {near + 8}")
    return size


class DataConfig(_Section):
    """Where the images are, which classes are held out, and how images are prepared."""

    name: str = Field("shapes", pattern=r"^\w[\w.-]*$")  # also of its folder below `output`
    # coco: as voc, with 80 classes; fss1000: a folder and masks of 0 and 1 for each class
    layout: Literal["voc", "coco", "folder", "shapes", "fss1000"] = "shapes"
    root: Path | None = None  # default: data/NAME
    mask_dir: str | None = None  # default: SegmentationClassAug where it exists, else SegmentationClass
    train_list: str = "ImageSets/Segmentation/train.txt"  # relative to here, or to root
    val_list: str = "ImageSets/Segmentation/val.txt"
    select_list: str | None = None  # images on which checkpoints are chosen; default: those of val_list
    train_sha256: str | None = None  # of the published list's sorted names; a mismatch is reported
    val_sha256: str | None = None
    fold: int = 0  # -1: every class is novel (testing only)
    # cross-domain (testing only): `fold` is of that set, and classes that it trains on are left out, by name
    trained_on: Literal["pascal", "coco", "coco_contiguous"] | None = None
    folds: int = Field(4, ge=1)
    scheme: Literal["contiguous", "interleaved"] = "contiguous"
    size: int = Field(473, ge=17)  # S, pixels; 8n+1
    min_pixels: int = Field(2048, ge=1)  # an image counts for a class from this area on, original pixels
    # what held-out classes are in training images: background (published), ignored pixels, or no image at all
    novel_in_train: Literal["background", "ignore", "drop_image"] = "background"
    small_classes: Literal["error", "drop"] = "error"  # classes with fewer than K+1 counting images
    workers: int | None = Field(None, ge=0)  # loader processes; default: up to 4, one a core

    @field_validator("size")
    @classmethod
    def _on_the_grid(cls, size: int) -> int:
        return _grid(size)

    @model_validator(mode="after")
    def _folds_of_the_set(self) -> "DataConfig":
        if self.layout == "fss1000" and self.folds != 1:
            raise ValueError(f"fss1000 is split by lists of classes, not into folds={self.folds}; allowed: 1")
        wanted = (4, "interleaved" if self.trained_on == "coco" else "contiguous")
        if self.trained_on and (self.folds, self.scheme) != wanted:
            raise ValueError(
                f"{self.trained_on} is trained on in folds={wanted[0]}, scheme={wanted[1]}; "
                f"got folds={self.folds}, scheme={self.scheme}"
            )
        return self

    @model_validator(mode="after")
    def _fold_in_range(self) -> "DataConfig":
        if not -1 <= self.fold < self.folds:
            raise ValueError(
                f"fold {self.fold} does not exist; allowed: 0..{self.folds - 1}, or -1 for all classes"
            )
        return self

    @property
    def folder(self) -> Path:
        """The data root: `root`, or data/NAME."""
        return self.root or Path("data") / self.name

    @property
    def trained_name(self) -> str:
        """The set that networks are trained on: this one, but for cross-domain tests."""
        return self.trained_on or self.name

    def list_of(self, split: str) -> str:
        """The list of a split: "train", "val", or "select"."""
        named = getattr(self, f"{split}_list")
        return str(named or self.val_list)


class BackboneConfig(_Section):
    """The frozen network's encoder."""

    layers: Literal[18, 34, 50, 101] = 50
    stem: Literal["auto", "deep", "plain"] = "auto"  # auto: whatever the weights have; deep when random
    weights: str = "auto"  # auto (initmodel/), download (torchvision), random, or a file
    stage1: bool = True  # learn the base classes first; false: frozen as the weights are, without a neck
    base: Path | None = None  # a base checkpoint (fss pretrain, fss convert) in place of stage 1's own
    vit: str = "none"  # ViT-B/16 beside it: none, auto (initmodel/), download (torchvision), random, a file
    vit_size: int = Field(224, ge=32, multiple_of=16)  # images are resized to this for it, pixels

    @model_validator(mode="after")
    def _base_is_used(self) -> "BackboneConfig":
        if self.base and not self.stage1:
            raise ValueError("base takes the place of stage 1; set backbone.stage1=true with it")
        return self


class NeckConfig(_Section):
    """The frozen network's decoder, between backbone and classifier."""

    type: Literal["ppm"] = "ppm"
    channels: int = Field(512, ge=8, le=8192)
    dropout: float = Field(0.1, ge=0, lt=1)


class HeadConfig(BaseModel):
    """A head by name or import path; all other keys are its constructor's keyword arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    type: str = "cwt"

    @property
    def options(self) -> dict[str, Any]:
        """The constructor's keyword arguments."""
        return dict(self.model_extra or {})


class ScheduleConfig(_Section):
    """How long and how fast to learn. The budget is epochs, or seconds, or whichever ends first."""

    epochs: float | None = Field(None, ge=0)
    seconds: float | None = Field(None, ge=0)
    batch: int = Field(1, ge=1)  # over all processes
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(1e-3, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(1e-4, ge=0, le=1)
    decay: Literal["constant", "cosine", "poly"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1)  # share of the budget
    # Spread evenly over the budget, the last at its end; stage 2 begins with one more.
    validations: int = Field(1, ge=1)
    accumulate: int = Field(1, ge=1)  # parts that a batch is computed in, one after another, to save memory
    keep: int = Field(2, ge=1)  # last checkpoints: last.pt, last-1.pt, ...

    @model_validator(mode="after")
    def _bounded(self) -> "ScheduleConfig":
        if self.epochs is None and self.seconds is None:
            raise ValueError("neither epochs nor seconds is set, so training would never end; set one")
        if self.nesterov and self.momentum == 0 and self.optimizer == "sgd":
            raise ValueError("nesterov needs a momentum above 0; set it, or nesterov=false")
        return self


class PretrainConfig(ScheduleConfig):
    """Stage 1, the base-class segmentation network. Defaults as in the line of work around CWT."""

    epochs: float | None = Field(100, ge=0)
    batch: int = Field(12, ge=2)  # pyramid pooling norms a single pixel, which one image alone cannot give
    lr: float = Field(2.5e-3, gt=0)
    decay: Literal["constant", "cosine", "poly"] = "cosine"
    validations: int = Field(20, ge=1)
    crop: int | None = Field(None, ge=17)  # pixels; default: data.size
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    scale: tuple[float, float] = (0.5, 2.0)
    rotate: float = Field(10.0, ge=0, le=180)  # degrees, either way
    vertical_flip: bool = True

    @model_validator(mode="after")
    def _views(self) -> "PretrainConfig":
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {list(self.scale)} must be [low, high] with 0 < low <= high")
        if self.crop is not None:
            _grid(self.crop)
        if self.batch < 2 * self.accumulate:
            raise ValueError(
                f"batch={self.batch} in accumulate={self.accumulate} parts leaves a single image"
            )
        return self


class TrainConfig(ScheduleConfig):
    """Stage 2, episodes. Defaults as published for CWT."""

    epochs: float | None = Field(20, ge=0)
    episodes: int | None = Field(6000, ge=1)  # in one epoch; null: as many as there are query images
    shots: int = Field(1, ge=1)
    nesterov: bool = True
    validations: int = Field(20, ge=1)
    validation_episodes: int = Field(1000, ge=1)
    # flips: CWT's; views: ASGNet's scales, rotations, crops, blur, left-right flips
    augment: Literal["flips", "views", "none"] = "flips"
    cache: bool = False  # keep the frozen features of un-augmented images; needs augment=none

    @model_validator(mode="after")
    def _cacheable(self) -> "TrainConfig":
        if self.cache and self.augment != "none":
            raise ValueError(
                "cache=true keeps features of un-augmented images; set train.augment=none with it"
            )
        return self


class TestConfig(_Section):
    """The protocol of the reported numbers."""

    episodes: int = Field(1000, ge=1)
    runs: int = Field(5, ge=1)
    shots: int = Field(1, ge=1)
    seed: int = Field(2021, ge=0, lt=2**31)
    label_size: Literal["network", "original"] = "network"  # each head's published one; `common`: original
    sampling: Literal["list", "class", "pair"] = "list"  # list: query images in turn (published); see Planner
    batch: int = Field(8, ge=1)  # episodes at once; changes no number
    checkpoint: Literal["best", "last", "both"] = "both"
    plan: Path | None = None  # episodes from a file (fss plan), in place of drawing them

    @field_validator("label_size", mode="before")
    @classmethod
    def _common(cls, size: Any) -> Any:
        return "original" if size == "common" else size


class Config(_Section):
    """Everything. `output` is the folder that receives all runs."""

    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    head: HeadConfig = HeadConfig()
    pretrain: PretrainConfig = PretrainConfig()
    train: TrainConfig = TrainConfig()
    test: TestConfig = TestConfig()
    seed: int = Field(2021, ge=0, lt=2**31)
    device: str = "auto"  # auto, cpu, cuda, cuda:N
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # of the frozen network and of stage 1
    cache_gib: float = Field(4.0, ge=0)  # memory for cached features, on the device that computes them
    output: Path = Path("results")
    variant: str = ""  # head options set beside the recipes, for folder names; filled in by itself
    tag: str = Field("", pattern=r"^[\w.-]*$")  # ends the name of stage 2's folder: two settings side by side

    def to_yaml(self) -> str:
        """The resolved copy that is saved with every run."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def config_folders() -> list[Path]:
    """Where recipes are looked for: the working folder's configs/, then the project's own."""
    package = Path(__file__).resolve().parent
    return [Path("configs"), package / "configs", package.parent / "configs"]


def find_recipe(kind: str, name: str) -> Path:
    """Path of `configs/KIND/NAME.yaml`, or of `NAME` itself where that is a YAML file.

    Raises:
        UserError: there is no such recipe; the message lists those that exist.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise UserError(f"no configuration file {name}")
        return Path(name)
    found = [folder / kind / f"{name}.yaml" for folder in config_folders()]
    for path in found:
        if path.is_file():
            return path
    names = sorted({p.stem for path in found for p in path.parent.glob("*.yaml")})
    raise UserError(
        f"unknown {kind or 'recipe'} {name!r}{_nearest(name, names)}; there are: {', '.join(names)}"
    )


def load_config(data: str, head: str, overrides: Sequence[str] = (), extra: Sequence[str] = ()) -> Config:
    """Build the configuration for a data set and a head, both by name or YAML path.

    Args:
        overrides: `section.key=value` strings, values in YAML.
        extra: further recipes `configs/NAME.yaml`, or YAML paths, laid over those of data and head.

    Raises:
        UserError: an unknown recipe or key, a value out of range, a file that is no YAML mapping.
    """
    files = [find_recipe("head", head), find_recipe("data", data)]
    files += _with_head(files[1], head_of=files[0])
    for name in extra:
        files.append(find_recipe("", name))
        files += _with_head(files[-1], head_of=files[0])
    tree: dict[str, Any] = {}
    for path in files:
        merge(tree, read_yaml(path), str(path))
    recipe = dict(tree["head"]) if isinstance(tree.get("head"), dict) else {}
    for text in overrides:
        merge(tree, _parse_override(text), text)
    config = validate(tree)
    changed = {k: v for k, v in config.head.options.items() if recipe.get(k) != v}
    return config.model_copy(update={"variant": ",".join(f"{k}={changed[k]}" for k in sorted(changed))})


def _with_head(recipe: Path, head_of: Path) -> list[Path]:
    """What a recipe has to add for one head: its NAME_HEAD.yaml, where there is one."""
    both = [folder / f"{recipe.stem}_{head_of.stem}.yaml" for folder in config_folders()]
    return [path for path in both if path.is_file()][:1]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file; `UserError` names the file where it is none."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold a mapping (section: ...), got {type(tree).__name__}")
    return tree


def merge(tree: dict[str, Any], difference: Mapping[str, Any], source: str) -> None:
    """Lay nested `difference` over `tree` in place. A head of another type starts afresh.

    Raises:
        UserError: a section that is no mapping, which would drop all that was said of it; names `source`.
    """
    for key, value in difference.items():
        section = Config.model_fields.get(key)
        if section is None or not isinstance(section.default, BaseModel):
            tree[key] = value
        elif value is None:  # a section's name with nothing below it
            continue
        elif not isinstance(value, Mapping):
            raise UserError(f"{source}: {key} must be a section ({key}: {{name: value}}), got {value!r}")
        else:
            old = tree.setdefault(key, {})
            if key == "head" and value.get("type", old.get("type")) != old.get("type"):
                old.clear()
            old.update(value)


def validate(tree: Mapping[str, Any]) -> Config:
    """Check a tree of settings against the schema; `UserError` says what is wrong, one line each."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(_explain(e) for e in error.errors())) from None


_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"{text!r} is not key=value, such as data.size=473")
    try:
        tree: Any = yaml.safe_load(value)
    except (ValueError, RecursionError, yaml.YAMLError):
        tree = value  # a path or name with YAML's own signs in it
    if isinstance(tree, str) and _EXPONENT.fullmatch(tree):
        tree = float(tree)  # YAML 1.1 takes 1e-3, without a point, for a string
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return tree


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        got = "" if isinstance(error["input"], BaseModel | dict) else f" (got {error['input']!r})"
        return f"{where}: {message}{got}"
    section: Any = Config
    for part in error["loc"][:-1]:
        section = section.model_fields[part].annotation
    names = list(section.model_fields)
    return f"unknown key {where}{_nearest(error['loc'][-1], names)}; allowed: {', '.join(names)}"


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ""
