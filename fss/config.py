"""The one schema of everything a run can be told, with defaults and ranges; `fss.recipes` fills it."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Resize = Literal["pad", "squash", "stretch"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Part(BaseModel):
    """A part by name or import path; all other keys are its constructor's keyword arguments (`fss.parts`)."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)
    type: str

    @property
    def options(self) -> dict[str, Any]:
        """The constructor's keyword arguments that were set."""
        return dict(self.model_extra or {})


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
    size: int = Field(473, ge=17)  # S, pixels; what the backbone can take
    # how images come to S x S: padded (published by most), or their aspect ratio lost, squashed by PIL, which
    # smooths where it shrinks (HSNet), or stretched by OpenCV, which does not (HDMNet)
    resize: Resize = "pad"
    min_pixels: int = Field(2048, ge=1)  # an image counts for a class from this area on, original pixels
    # what held-out classes are in training images: background (published), ignored pixels, or no image at all
    novel_in_train: Literal["background", "ignore", "drop_image"] = "background"
    # the same for base training, where it differs (BAM); null: as novel_in_train
    novel_in_base: Literal["background", "ignore", "drop_image"] | None = None
    # what 255 in training masks is, such as VOC's boundaries: left out, or background (published by RePRI)
    boundary_in_train: Literal["ignore", "background"] = "ignore"
    small_classes: Literal["error", "drop"] = "error"  # classes with fewer than K+1 counting images
    # what training reads: the true masks, those of `fss pseudo-label`, or a folder with a NAME.png per image
    train_masks: str = Field("true", min_length=1)
    workers: int | None = Field(None, ge=0)  # loader processes; default: up to 4, one a core

    @field_validator("train_masks", mode="before")
    @classmethod
    def _yes(cls, masks: Any) -> Any:
        return "true" if masks is True else masks  # YAML's `true`

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
    def _novel_in_masks(self) -> "DataConfig":
        for key in ("novel_in_train", "novel_in_base"):
            if self.train_masks != "true" and getattr(self, key) not in ("background", None):
                raise ValueError(
                    f"train_masks={self.train_masks}: such masks know base classes alone, so where held-out "
                    f"ones are is unknown and {key}={getattr(self, key)} cannot be done; allowed: background"
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
    def for_base(self) -> "DataConfig":
        """The same as base training sees it."""
        novel = self.novel_in_base or self.novel_in_train
        return self.model_copy(update={"novel_in_train": novel, "novel_in_base": None})

    @property
    def trained_name(self) -> str:
        """The set that networks are trained on: this one, but for cross-domain tests."""
        return self.trained_on or self.name

    @property
    def masks_name(self) -> str | None:
        """What training's masks are called in folders' names and protocols; None for the true ones."""
        return None if self.train_masks == "true" else Path(self.train_masks).absolute().name

    def list_of(self, split: str) -> str:
        """The list of a split: "train", "val", or "select"."""
        named = getattr(self, f"{split}_list")
        return str(named or self.val_list)


class BackboneConfig(Part):
    """The frozen network's encoder: a name of `BACKBONES`, timm:NAME, or package.module:Class."""

    type: str = "resnet50"
    weights: str = "auto"  # auto (installed, or in initmodel/), download, random, or a file


class NeckConfig(Part):
    """The frozen network's decoder, between backbone and classifier: a name of `NECKS`, or an import path."""

    type: str = "ppm"


class HeadConfig(Part):
    """The few-shot method: a name of `HEADS`, or an import path."""

    type: str = "cwt"


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
    decay: Literal["constant", "cosine", "poly", "step"] = "constant"  # step: a tenth in the second half
    warmup: float = Field(0.0, ge=0, lt=1)  # share of the budget
    # Spread evenly over the budget, the last at its end; training on episodes begins with one more.
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


def _check_scale(scale: tuple[float, float]) -> None:
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(f"scale {list(scale)} must be [low, high] with 0 < low <= high")


class PretrainConfig(ScheduleConfig):
    """Base training, of a network for the base classes. Defaults as in the line of work around CWT."""

    epochs: float | None = Field(100, ge=0)
    batch: int = Field(12, ge=2)  # pyramid pooling norms a single pixel, which one image alone cannot give
    lr: float = Field(2.5e-3, gt=0)
    decay: Literal["constant", "cosine", "poly", "step"] = "cosine"
    validations: int = Field(20, ge=1)
    size: int | None = Field(None, ge=17)  # of whole images, where heads see others; default: data.size
    crop: int | None = Field(None, ge=17)  # pixels; default: that size
    backbone_factor: float = Field(1.0, ge=0, le=100)  # on the backbone's learning rate
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    # which classes share it: all, the true one too, as in PyTorch; or the others alone (published by RePRI)
    smoothing: Literal["all", "others"] = "all"
    # crop: scaled, rotated, cropped; whole: as in tests (published by RePRI). Both are flipped
    view: Literal["crop", "whole"] = "crop"
    scale: tuple[float, float] = (0.5, 2.0)
    rotate: float = Field(10.0, ge=0, le=180)  # degrees, either way
    vertical_flip: bool = True

    @model_validator(mode="after")
    def _views(self) -> "PretrainConfig":
        _check_scale(self.scale)
        if self.view == "whole" and self.crop is not None:
            raise ValueError(f"view=whole shows images at data.size; leave out crop={self.crop}")
        if self.batch < 2 * self.accumulate:
            raise ValueError(
                f"batch={self.batch} in accumulate={self.accumulate} parts leaves a single image"
            )
        return self


class TrainConfig(ScheduleConfig):
    """Training on episodes. Defaults as published for CWT."""

    epochs: float | None = Field(20, ge=0)
    episodes: int | None = Field(6000, ge=1)  # in one epoch; null: as many as there are query images
    shots: int = Field(1, ge=1)
    nesterov: bool = True
    validations: int = Field(20, ge=1)
    validation_episodes: int = Field(1000, ge=1)
    # base classes, at random, that training leaves out, and on whose training images it validates; 0: it
    # validates on novel classes of the test images (published)
    validation_classes: int = Field(0, ge=0)
    # list: query images in turn, a class at random among theirs (published); class: a class at random, then
    # one of its images
    sampling: Literal["list", "class"] = "list"
    # every epoch has the same episodes, in an order of its own, and `Head.prepare` runs once for each; needs
    # cache=true
    same_episodes: bool = False
    # flips: CWT's; views: ASGNet's scales, rotations, crops, blur, left-right flips; whole_views: the same of
    # the whole image, which then comes to S x S as data.resize has it (HDMNet)
    augment: Literal["flips", "views", "whole_views", "none"] = "flips"
    scale: tuple[float, float] = (0.9, 1.1)  # of views, on the image's own size
    cache: bool = False  # keep the frozen features of un-augmented images; needs augment=none

    @model_validator(mode="after")
    def _scaled(self) -> "TrainConfig":
        _check_scale(self.scale)
        return self

    @model_validator(mode="after")
    def _cacheable(self) -> "TrainConfig":
        if self.cache and self.augment != "none":
            raise ValueError(
                "cache=true keeps features of un-augmented images; set train.augment=none with it"
            )
        if self.same_episodes and not self.cache:
            raise ValueError(
                "same_episodes=true has un-augmented images; set train.cache=true train.augment=none with it"
            )
        return self


class PseudoConfig(ScheduleConfig):
    """Pseudo-masks from image-level labels. Defaults as published for L2G."""

    epochs: float | None = Field(10, ge=0)
    batch: int = Field(3, ge=1)
    nesterov: bool = True
    weight_decay: float = Field(5e-4, ge=0, le=1)
    decay: Literal["constant", "cosine", "poly", "step"] = "step"
    lr_factors: tuple[float, float, float, float] = (1, 2, 10, 20)  # backbone, its biases, new layers, theirs
    validations: int = Field(5, ge=1)
    backbone: str | None = None  # of the global network; default: backbone.type
    local_backbone: str | None = None  # of the local one; default: as the global one
    start: Path | None = None  # last.pt of a run with transfer=false that both networks start from
    level: Literal["stage3", "stage4"] = "stage4"  # whose features are classified
    frozen_norms: int = Field(0, ge=0, le=5)  # parts, stem first, whose norms stay as the weights have them
    correlation: bool = False  # the pixel correlation module
    correlation_cells: int = Field(56, ge=2)  # its affinity is computed on at most that many cells squared
    labels: Path | None = None  # lines `image, class, class`; default: the classes that the masks show
    saliency: Path | None = None  # folder of grey PNGs named as the images: shape transfer where there is one
    transfer: bool = True  # false: the global network alone, by the classification loss
    weight: float = Field(10.0, ge=0)  # of the transfer loss
    resize: int = Field(512, ge=16)  # the short side, pixels
    crop: int = Field(448, ge=16)
    local_crop: int = Field(320, ge=8)
    local_crops: int = Field(6, ge=1)
    placement: Literal["corners", "random", "uniform"] = "corners"  # corners: those, the rest at random
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)  # brightness, contrast, saturation, hue
    flip: bool = False  # left-right in training
    # From here on: how response maps become masks.
    # response: the maps themselves, as published; probability: their softmax, which the transfer loss teaches
    maps: Literal["response", "probability"] = "response"
    scales: tuple[float, ...] = Field((0.5, 1.0, 1.5, 2.0), min_length=1)
    flips: bool = True
    longest: int = Field(1024, ge=16)  # larger images are computed at this longer side, times the scales
    background: float = Field(0.25, gt=0, lt=1)  # a pixel is background where no class responds more
    pictures: int = Field(24, ge=0)  # images whose response maps are drawn

    @model_validator(mode="after")
    def _sizes(self) -> "PseudoConfig":
        if not self.local_crop <= self.crop <= self.resize:
            raise ValueError(
                f"local_crop={self.local_crop}, crop={self.crop}, resize={self.resize}: each must be at most "
                "the next"
            )
        if self.placement == "corners" and self.local_crops < 4:
            raise ValueError(
                f"local_crops={self.local_crops} leaves corners out; take 4 or more, or another placement"
            )
        if not all(0.1 <= scale <= 4 for scale in self.scales):
            raise ValueError(f"scales {list(self.scales)}: each must be from 0.1 to 4")
        if min(self.lr_factors) < 0 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError("lr_factors and jitter must not be negative, hue's jitter at most 0.5")
        return self


class TestConfig(_Section):
    """The protocol of the reported numbers."""

    episodes: int = Field(1000, ge=1)
    runs: int = Field(5, ge=1)
    shots: int = Field(1, ge=1)
    seed: int = Field(2021, ge=0, lt=2**31)
    label_size: Literal["network", "original"] = "network"  # each head's published one; `common`: original
    # list: query images in turn (published); class, pair: see Planner; hsnet_*: HSNet's draws on PASCAL, COCO
    sampling: Literal["list", "class", "pair", "hsnet_pairs", "hsnet_classes"] = "list"
    batch: int = Field(8, ge=1)  # episodes at once; changes no number
    checkpoint: Literal["best", "last", "both"] = "both"
    plan: Path | None = None  # episodes from a file (fss plan), in place of drawing them
    # what supports are annotated with; all but masks are simulated from them, by the seed above
    support: Literal["mask", "scribble", "box", "points"] = "mask"
    # how a mask is made of it; drawn: a box filled, strokes and points alone with the rest ignored
    support_by: Literal["clustering", "grabcut", "drawn"] = "clustering"

    @field_validator("label_size", mode="before")
    @classmethod
    def _common(cls, size: Any) -> Any:
        return "original" if size == "common" else size


class Config(_Section):
    """Everything. `output` is the folder that receives all runs."""

    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    # What heads stand on: "base" (backbone and neck, trained on the base classes first), "weights" (the
    # backbone as it comes, without a neck), or a base checkpoint's file.
    network: str = Field("base", min_length=1)
    neck: NeckConfig = NeckConfig()
    head: HeadConfig = HeadConfig()
    pretrain: PretrainConfig = PretrainConfig()
    pseudo: PseudoConfig = PseudoConfig()
    train: TrainConfig = TrainConfig()
    test: TestConfig = TestConfig()
    seed: int = Field(2021, ge=0, lt=2**31)
    device: str = "auto"  # auto, cpu, cuda, cuda:N
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # of the frozen network, and of base training
    cache_gib: float | None = Field(None, ge=0)  # RAM for kept features; default: half of what is free
    output: Path = Path("results")
    variant: str = ""  # head options set beside the recipes, for folder names; filled in by itself
    tag: str = Field("", pattern=r"^[\w.-]*$")  # ends the name of a head's folder: two settings side by side

    @property
    def base_size(self) -> int:
        """S of the base network, pixels."""
        return self.pretrain.size or self.data.size

    @property
    def with_neck(self) -> bool:
        """Whether heads stand on a network that was trained on the base classes, and so has a neck."""
        return self.network != "weights"

    @property
    def base_file(self) -> Path | None:
        """The base checkpoint that is given in place of one's own."""
        return None if self.network in ("base", "weights") else Path(self.network)

    def to_yaml(self) -> str:
        """The resolved copy that is saved with every run."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
