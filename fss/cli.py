"""The command line: parse, build, call. No logic."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import fss
from fss.errors import UserError

if TYPE_CHECKING:
    from fss.config import Config

_SETTINGS = "settings: any key of the configuration as section.key=value, such as test.episodes=200"
_PUBLISHED = """kinds:
  backbone   ImageNet ResNet-50/101, deep or plain stem        one file
  cwt-base   PSPNet of base classes, CWT's first stage         one file
  cwt        that and the classifier weight transformer        two files
  asgnet     the whole ASGNet, pyramid or ASPP                 one file

The files do not tell what they were trained on: say so with --data, --fold and --shots."""


class Verb(NamedTuple):
    """What a verb does in a line, its options, what runs it, and how it is used."""

    help: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, list[str]], None]
    examples: tuple[str, ...]
    more: str = _SETTINGS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 if it worked, 2 for a mistake of the user's, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = _parser().parse_args(arguments[:1]).verb
    options, unknown = _verb_parser(verb).parse_known_intermixed_args(arguments[1:])
    try:
        if unknown:
            raise UserError(f"unknown option {unknown[0]}; see `fss {verb} --help`")
        VERBS[verb].run(options, arguments)
        return 0
    except (UserError, OSError) as error:  # OSError: no permission, no space
        print(f"fss: error: {error}".replace("\n", "\n  "), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nfss: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {name:<10} {verb.help}" for name, verb in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="fss",
        description=fss.__doc__,
        usage="fss VERB [options] [section.key=value ...]",
        epilog=f"verbs:\n{verbs}\n\n`fss VERB --help` tells a verb's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do")
    parser.add_argument("--version", action="version", version=f"fss {fss.__version__}")
    return parser


def _verb_parser(name: str) -> argparse.ArgumentParser:
    verb = VERBS[name]
    examples = "\n".join(f"  {line}" for line in verb.examples)
    parser = argparse.ArgumentParser(
        prog=f"fss {name}",
        description=verb.help,
        epilog=f"examples:\n{examples}\n\n{verb.more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=name)
    verb.options(parser)
    return parser


def _pretrain_options(parser: argparse.ArgumentParser) -> None:
    _what(parser)
    add = parser.add_argument
    add("settings", nargs="*", metavar="section.key=value", help="settings of the configuration")
    add("--head", default="cwt", metavar="NAME", help="configs/head/NAME.yaml, or a YAML file (default: cwt)")
    add("--layers", metavar="N", help="of the ResNet: 18, 34, 50, 101")
    add("--gpus", metavar="LIST", help="[0], 0, [0,1], 0,1 or cpu; several start one process each")
    parser.set_defaults(checkpoint=None, visualize=False, explain=False)


def _train_options(parser: argparse.ArgumentParser) -> None:
    _pretrain_options(parser)
    add = parser.add_argument
    add("--visualize", action="store_true", help="one picture per tested episode, and a contact sheet")
    add("--explain", action="store_true", help="pictures of how the head comes to its answer, too")


def _test_options(parser: argparse.ArgumentParser) -> None:
    _train_options(parser)
    text = "test this one (default: what training left)"
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help=text)


def _convert_options(parser: argparse.ArgumentParser) -> None:
    _what(parser)
    parser.set_defaults(data=None)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="the authors' file or files, then the checkpoint to write")
    add("--kind", required=True, metavar="KIND", help="backbone, cwt-base, cwt or asgnet")


def _plan_options(parser: argparse.ArgumentParser) -> None:
    _what(parser)
    parser.add_argument("paths", nargs="+", metavar="FILE", help="the plan to write")


def _check_options(parser: argparse.ArgumentParser) -> None:
    _what(parser)
    parser.add_argument("paths", nargs="+", metavar="NAME", help="configs/data/NAME.yaml, or a YAML file")


def _prepare_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", metavar="NAME", help="pascal, coco, fss1000, or folder for annotations of your own")
    text = "the data root: holds the archive, or will with --download; folder: is written"
    add("--root", type=Path, required=True, metavar="DIR", help=text)
    text = "where the lists of images go (default: lists/NAME)"
    add("--lists", type=Path, metavar="DIR", help=text)
    text = "pascal, coco: fetch what is missing with torchvision's downloaders"
    add("--download", action="store_true", help=text)
    add("--sbd", type=Path, metavar="DIR", help="pascal: holds SBD (default: sbd/ in the root)")
    text = "fss1000: holds trn.txt, val.txt, test.txt, lists of class names (default: the root)"
    add("--splits", type=Path, metavar="DIR", help=text)
    text = "folder: COCO-style JSON file, folder of labelme's JSON files, or folder of mask PNGs"
    add("--from", type=Path, dest="source", metavar="PATH", help=text)
    text = "folder: where the images are (default: beside the annotations)"
    add("--images", type=Path, metavar="DIR", help=text)
    text = "folder: the share of images that become test images (default: 0.5)"
    add("--val", type=float, metavar="SHARE", help=text)


def _report_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="RUN", help="result.json files, or folders that hold some")
    text = "write the table there, as .md, .csv or .html (default: Markdown on the screen)"
    add("--out", type=Path, metavar="FILE", help=text)
    add("--compare", action="store_true", help="two results of one plan, in pairs: second less first")


def _bench_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", metavar="CASE,...", help="cases (default: all with one shot)")
    add("--runs", type=int, default=3, metavar="N", help="of each way, after one to warm up (default: 3)")
    add("--json", action="store_true", help="median seconds of fss alone, as one line of JSON")
    add("--size", type=int, default=473, metavar="PX", help="of images, 8n+1 (default: 473)")
    add("--layers", type=int, default=50, choices=(50, 101), help="of the ResNet (default: 50)")
    add("--gpus", metavar="N", help="[0], 0 or cpu (default: a GPU where there is one)")
    add("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of the frozen network")


def _what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "configs/data/NAME.yaml, or a YAML file"
    add("--data", default="shapes", metavar="NAME", help=text)
    add("--fold", metavar="N", help="the fold whose classes are held out")
    add("--shots", metavar="K", help="support images per episode")
    text = "a further recipe, configs/NAME.yaml or a YAML file"
    add("--config", action="append", default=[], metavar="NAME", help=text)


def parse_gpus(text: str) -> list[int] | None:
    """GPU numbers from `[0,1]`, `0,1`, `[0]` or `0`; None for `cpu`.

    Raises:
        UserError: anything else.
    """
    bare = text.strip().strip("[]").replace(" ", "")
    if bare == "cpu":
        return None
    if not re.fullmatch(r"\d+(,\d+)*", bare):
        raise UserError(f"GPUs {text!r}: allowed are [0], [0,1], 0, 0,1 or cpu")
    numbers = [int(n) for n in bare.split(",")]
    if len(set(numbers)) < len(numbers):
        raise UserError(f"GPUs {text!r}: each number once")
    return numbers


def _choose_gpus(options: argparse.Namespace, arguments: list[str]) -> str | None:
    """The device that `--gpus` names; None where it names none. Several GPUs: become torchrun."""
    if options.gpus is None:
        return None
    gpus = parse_gpus(options.gpus)
    if gpus is None:
        return "cpu"
    import torch

    count = torch.cuda.device_count()
    if count == 0:
        print(f"no CUDA here: GPUs {options.gpus} are not used, running on the CPU", flush=True)
        return "cpu"
    absent = [n for n in gpus if n >= count]
    if absent:
        raise UserError(f"GPU {absent[0]} does not exist; this machine shows {count}, numbered from 0")
    if len(gpus) == 1:
        return f"cuda:{gpus[0]}"
    if "LOCAL_RANK" not in os.environ:
        _become_torchrun(gpus, arguments)
    return "cuda"


def _become_torchrun(gpus: list[int], arguments: list[str]) -> None:
    """Start one process per GPU in this one's place; numbers are those of the GPUs shown to it."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = shown.split(",") if shown else [str(n) for n in range(max(gpus) + 1)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[n] for n in gpus)
    processes = f"--nproc_per_node={len(gpus)}"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", processes, "-m", "fss"]
    os.execv(sys.executable, [*torchrun, *arguments])


def _config(options: argparse.Namespace, *more: str) -> "Config":
    from fss.config import load_config

    named = {"data.fold": options.fold, "backbone.layers": options.layers}
    named |= {f"{section}.shots": options.shots for section in ("train", "test")}
    overrides = [f"{key}={value}" for key, value in named.items() if value is not None]
    return load_config(options.data, options.head, [*overrides, *options.settings, *more], options.config)


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    config = _config(options)
    if options.verb == "run-folds" and (options.fold is not None or config.data.fold != 0):
        raise UserError("run-folds runs every fold; leave out --fold and data.fold")
    device_name = _choose_gpus(options, arguments) or config.device

    from fss.data.loading import loaders_watched
    from fss.engine import distributed, verbs

    device = distributed.start(device_name)
    try:
        pictures = verbs.Pictures(options.visualize, options.explain)
        with loaders_watched():
            if options.verb == "run-folds":
                folds = range(config.data.folds)
                verbs.run_folds([_config(options, f"data.fold={f}") for f in folds], device, pictures)
            else:
                verbs.VERBS[options.verb](config, device, options.checkpoint, pictures)
    finally:
        distributed.stop()


def _convert(options: argparse.Namespace, arguments: list[str]) -> None:
    settings, paths = _settings_and_paths(options.paths)
    if len(paths) < 2:
        raise UserError("convert needs the authors' file or files, then the checkpoint to write")
    if options.kind != "backbone" and None in (options.data, options.fold):
        raise UserError("say what the files were trained on, such as --data pascal --fold 0")
    named = {"data.fold": options.fold, "train.shots": options.shots}
    settings += [f"{key}={value}" for key, value in named.items() if value is not None]

    from fss.engine import verbs

    verbs.run_convert(options.kind, paths[:-1], paths[-1], options.data or "pascal", settings, options.config)


def _prepare(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.engine import verbs

    given = {k: v for k, v in vars(options).items() if k not in ("verb", "name")}
    verbs.run_prepare(options.name, given)


def _plan(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.config import load_config
    from fss.engine import verbs

    settings, paths = _settings_and_paths(options.paths)
    if len(paths) != 1:
        raise UserError(f"plan writes one file, got {len(paths)} names")
    named = {"data.fold": options.fold, "test.shots": options.shots}
    settings += [f"{key}={value}" for key, value in named.items() if value is not None]
    verbs.run_plan(load_config(options.data, "prototype", settings, options.config), paths[0])


def _check(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.config import load_config
    from fss.engine import verbs

    settings, names = _settings_and_paths(options.paths)
    if len(names) != 1:
        raise UserError("check-data takes one name, such as pascal")
    settings += [f"test.shots={options.shots}"] if options.shots else []
    verbs.run_check(load_config(str(names[0]), "prototype", settings, options.config))


def _settings_and_paths(texts: Sequence[str]) -> tuple[list[str], list[Path]]:
    settings = [text for text in texts if re.match(r"[a-z_]+(\.\w+)*=", text)]
    return settings, [Path(text) for text in texts if text not in settings]


def _bench(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.engine import verbs

    names = options.only.split(",") if options.only else None
    device = _choose_gpus(options, arguments) or "auto"
    verbs.run_bench(
        names, options.runs, options.json, options.size, options.layers, device, options.precision
    )


def _report(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.engine import verbs

    verbs.run_report(options.paths, options.out, options.compare)


VERBS = {
    "train": Verb(
        "stage 1 where it is missing, stage 2, and a test", _train_options, _run,
        ("fss train --data shapes --fold 0 --layers 50 --shots 1",
         "fss train --data pascal --fold 0 --head asgnet --gpus 0,1"),
    ),
    "test": Verb(
        "test a head on the classes held out", _test_options, _run,
        ("fss test --data pascal --fold 0 --shots 5 --head cwt --visualize",
         "fss test --data shapes --head asgnet --visualize --explain"),
    ),
    "pretrain": Verb(
        "stage 1 alone: a segmentation network learns the base classes", _pretrain_options, _run,
        ("fss pretrain --data folder data.root=my_photos data.size=321",),
    ),
    "run-folds": Verb(
        "train and test every fold, and put their table together", _train_options, _run,
        ("fss run-folds --data pascal --head cwt --layers 50 --shots 1",),
    ),
    "prepare": Verb(
        "make masks and lists from official archives, or from annotations of your own",
        _prepare_options, _prepare,
        ("fss prepare pascal --root data/voc --download",
         "fss prepare coco --root data/coco --download",
         "fss prepare fss1000 --root fewshot_data --splits class_lists",
         "fss prepare folder --root my_photos --from labelme_json",
         "fss prepare folder --root my_photos --from masks --images photos --val 0.3"), "",
    ),
    "check-data": Verb(
        "read a whole data set and tell all that is wrong with it", _check_options, _check,
        ("fss check-data pascal", "fss check-data folder data.root=my_photos --shots 5"),
    ),
    "plan": Verb(
        "write the episodes of a test as a text file that others can run", _plan_options, _plan,
        ("fss plan --data pascal --fold 0 --shots 5 plan.txt",
         "fss test --data pascal --fold 0 --shots 5 test.plan=plan.txt"),
    ),
    "report": Verb(
        "a table of results over heads, folds and shots, or a paired comparison", _report_options, _report,
        ("fss report results/pascal --out table.html",
         "fss report --compare ONE/result.json OTHER/result.json"), "",
    ),
    "bench": Verb(
        "time the methods against a plain rendering of them, in turn", _bench_options, _bench,
        ("fss bench", "fss bench --only cwt_train_1shot,asgnet_train_1shot --runs 5 --json"), "",
    ),
    "convert": Verb(
        "make a checkpoint from published weights", _convert_options, _convert,
        ("fss convert --kind asgnet best.pth asgnet.pt --data pascal --fold 0 --shots 1",
         "fss convert --kind cwt pspnet.pth transformer.pth cwt.pt --data pascal --fold 0"), _PUBLISHED,
    ),
}  # fmt: skip
