"""The verbs for one's own photos: predict and evaluate-own."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fss.cli.common import GPU, Verb, choose_gpus, parse_box, parse_point, run_options, settings_and_paths
from fss.errors import UserError

if TYPE_CHECKING:
    from fss.photos.annotations import Support
    from fss.photos.tiles import Tile

_MORE = """A mask is a grey or palette PNG as large as the photo: 0 background, 1, 2, ... the
classes, 255 left out; or black and white. With a CLASS, the mask has one label,
and several supports may show several classes. Of a JSON file it picks one. A
folder has cat.jpg and cat.png, or cat.png and cat_mask.png. A scribble is the same,
but 255 where nothing is drawn. Boxes are pixels from the top left.

Without --checkpoint the votes head compares ImageNet features of
EfficientNet-Lite0, which are installed with fss. A base network takes that
head, too; a head's checkpoint has its own.

Written per query: NAME_labels.png (pixels are labels), NAME_overlay.jpg, and per
class NAME_mask_CLASS.png (white on black) and NAME_probability_CLASS.png. Queries
that are done are passed over."""

_MORE_OF_EVALUATE = """Each photo in turn is segmented by all others, and held against its own mask.
Written: evaluation.json, and worst.jpg with the worst of them. Masks are those
that `fss predict` takes."""

_EACH: dict[str, Any] = {"nargs": "+", "action": "append", "default": []}


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = parser.add_argument_group("what to look for, each as often as there are examples")
    _support_option(what)
    what.add_argument("--scribble", metavar="IMG PNG [CLASS]", help="a photo and strokes on it", **_EACH)
    text = "a photo and boxes round the object, X0,Y0,X1,Y1"
    what.add_argument("--box", metavar="IMG BOX ... [CLASS]", help=text, **_EACH)
    text = "a photo and clicks on it, X,Y,LABEL with label 0 for background"
    what.add_argument("--points", metavar="IMG POINT ... [CLASS]", help=text, **_EACH)
    add("--query", nargs="+", required=True, metavar="PATH", help="photos to segment, or folders of them")
    text = "how strokes, boxes and clicks become masks (default: clustering)"
    add("--support-by", choices=("clustering", "grabcut", "drawn"), default="clustering", help=text)
    _network_options(parser)


def _support_option(group: Any) -> None:
    text = "a photo and its mask; or a folder of photos and masks of the same names, labelme's or COCO's JSON"
    group.add_argument("--support", metavar="IMG MASK [CLASS]", help=text, **_EACH)


def _network_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="the folder for the results")
    add("--checkpoint", type=Path, metavar="FILE", help="a trained or converted model")
    text = "without a checkpoint of its own, a head with nothing to learn (default: votes)"
    add("--head", default="votes", metavar="NAME", help=text)
    text = "probability above which a pixel is no background; auto: 0.5, moved where each of two or more "
    text += "supports, left out in turn, says so (default: auto)"
    add("--threshold", type=_number_or_auto(float), metavar="P", help=text)
    text = "look at photos in squares of so many pixels, overlapping by a quarter; 0: at whole photos; auto: "
    text += "squares where the supports' objects are small (default: auto)"
    add("--tile", type=_number_or_auto(int), metavar="PX", help=text)
    text = "longest side that the network sees (default: the checkpoint's, or 321)"
    add("--size", type=int, metavar="PX", help=text)
    run_options(parser, GPU)
    add("settings", nargs="*", metavar="key=value", help="settings, such as backbone.type=resnet101")


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    _support_option(parser.add_argument_group("what is annotated, as often as it takes"))
    _network_options(parser)


def _number_or_auto(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser of numbers, in which "auto" is None."""

    def parse(text: str) -> Any:
        try:
            return None if text == "auto" else kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}; allowed: auto, or a number") from None

    return parse


def _supports(options: argparse.Namespace) -> "Iterator[Support]":
    from fss.photos.annotations import Support
    from fss.photos.supports import supports_of

    for words in options.support:
        yield from supports_of(words)
    for words in options.scribble:
        if len(words) not in (2, 3):
            text = " ".join(words)
            raise UserError(f"--scribble {text}: wanted a photo, a scribble and perhaps a class's name")
        yield Support(Path(words[0]), Path(words[1]), words[2] if len(words) == 3 else None, "scribble")
    for image, words, name in _numbers(options.box):
        yield Support(image, [parse_box(word) for word in words], name, "box")
    for image, words, name in _numbers(options.points):
        yield Support(image, [parse_point(word) for word in words], name, "points")


def _numbers(given: list[list[str]]) -> Iterator[tuple[Path, list[str], str | None]]:
    """A photo, words of numbers, and the class after them, if any."""
    for image, *words in given:
        name = words.pop() if words and "," not in words[-1] else None
        if not words:
            raise UserError(f"{image}: wanted numbers with commas after the photo, such as 30,40,200,180")
        yield Path(image), words, name


def _predict(options: argparse.Namespace, arguments: list[str]) -> None:
    settings, paths = settings_and_paths([*options.query, *options.settings])
    settings += _settings_among([*options.support, *options.scribble, *options.box, *options.points])
    if not any((options.support, options.scribble, options.box, options.points)):
        raise UserError("give at least one --support IMG MASK (or --scribble, --box, --points)")
    supports = list(_supports(options))
    device = choose_gpus(options, arguments)
    settings += [f"device={device}"] if device else []

    from fss.photos.files import Job, run_predict

    run_predict(
        Job(
            supports, paths, options.out, options.checkpoint, options.head, options.threshold, _tile(options),
            options.size, options.support_by, tuple(settings),
        )
    )  # fmt: skip


def _settings_among(groups: list[list[str]]) -> list[str]:
    """Settings taken out of the words of supports, behind which argparse leaves them."""
    found: list[str] = []
    for words in groups:
        more, _ = settings_and_paths(words[1:])
        found, words[:] = found + more, [word for word in words if word not in more]
    return found


def _tile(options: argparse.Namespace) -> "Tile":
    return "auto" if options.tile is None else options.tile or None


def _evaluate(options: argparse.Namespace, arguments: list[str]) -> None:
    settings, words = settings_and_paths(options.settings)
    settings += _settings_among(options.support)
    if words:
        raise UserError(f"{words[0]} is not key=value; annotated photos are named with --support")
    if not options.support:
        raise UserError(
            "give at least one --support: a folder of photos and masks, or IMG MASK twice or more"
        )
    device = choose_gpus(options, arguments)
    settings += [f"device={device}"] if device else []

    from fss.photos.evaluate import run_evaluation
    from fss.photos.files import warn_of_doubts
    from fss.photos.prediction import check_threshold
    from fss.photos.predictor import Predictor
    from fss.photos.supports import supports_of

    check_threshold(0.5 if options.threshold is None else options.threshold)
    supports = [support for given in options.support for support in supports_of(given)]
    predictor = Predictor(options.checkpoint, head=options.head, settings=settings, size=options.size)
    warn_of_doubts(predictor)
    run_evaluation(predictor, supports, options.out, options.threshold, _tile(options))


VERBS = {
    "evaluate-own": Verb(
        "tell how good masks of your own photos will be, from those that are annotated",
        _evaluate_options, _evaluate,
        ("fss evaluate-own --support annotated --out evaluated",
         "fss evaluate-own --support a.jpg a.png --support b.jpg b.png --out evaluated"), _MORE_OF_EVALUATE,
    ),
    "predict": Verb(
        "segment your own photos from a few annotated ones", _options, _predict,
        ("fss predict --support cat.jpg cat_mask.png --query photos --out predicted",
         "fss predict --support a.jpg a.png cat --support b.jpg b.png dog --query c.jpg --out predicted",
         "fss predict --support a.jpg a.png --query c.jpg --out predicted --checkpoint best.pt",
         "fss predict --support annotated --query photos --out predicted",
         "fss predict --scribble cat.jpg cat_scribble.png --query photos --out predicted",
         "fss predict --box cat.jpg 30,40,200,180 --query huge.jpg --tile 1024 --out predicted"), _MORE,
    ),
}  # fmt: skip
