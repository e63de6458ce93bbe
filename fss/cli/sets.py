"""Verbs about data sets: prepare, check-data, plan."""

import argparse
from pathlib import Path

from fss.cli.common import Verb, config_option, settings_and_paths, what_options
from fss.errors import UserError


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
    text = (
        "folder: masks, JSON of labelme, VIA, Supervisely or COCO, CVAT's XML or YOLO's outlines; a file or "
        "a folder of them"
    )
    add("--from", type=Path, dest="source", metavar="PATH", help=text)
    text = "folder: where the images are (default: beside the annotations)"
    add("--images", type=Path, metavar="DIR", help=text)
    text = "folder: leave out the image of an annotation that cannot be drawn (default), or that annotation"
    add("--leave-out", choices=("image", "annotation"), metavar="WHAT", help=text)
    text = "folder: the share of images that become test images (default: 0.5)"
    add("--val", type=float, metavar="SHARE", help=text)


def _check_options(parser: argparse.ArgumentParser) -> None:
    text = "data set: configs/data/NAME.yaml, or a YAML file; and settings"
    parser.add_argument("paths", nargs="+", metavar="NAME", help=text)
    group = parser.add_argument_group("what is run")
    group.add_argument(
        "--shots", metavar="K", help="support images that classes must suffice for (default: 1)"
    )
    config_option(group)


def _plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="FILE", help="the plan to write; and settings")
    what_options(parser)


def _prepare(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.data.prepare.run import run_prepare

    given = {k: v for k, v in vars(options).items() if k not in ("verb", "name")}
    run_prepare(options.name, given)


def _check(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.pictures.sheets import run_check
    from fss.recipes import load_config

    settings, names = settings_and_paths(options.paths)
    if len(names) != 1:
        raise UserError("check-data takes one name, such as pascal")
    settings += [f"test.shots={options.shots}"] if options.shots else []
    run_check(load_config(str(names[0]), "prototype", settings, options.config))


def _plan(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.recipes import load_config
    from fss.testing.plans import run_plan

    settings, paths = settings_and_paths(options.paths)
    if len(paths) != 1:
        raise UserError(f"plan writes one file, got {len(paths)} names")
    named = {"data.fold": options.fold, "test.shots": options.shots}
    settings += [f"{key}={value}" for key, value in named.items() if value is not None]
    run_plan(load_config(options.data, "prototype", settings, options.config), paths[0])


VERBS = {
    "prepare": Verb(
        "make masks and lists from official archives, or from annotations of your own",
        _prepare_options, _prepare,
        ("fss prepare pascal --root data/voc --download",
         "fss prepare coco --root data/coco --download",
         "fss prepare fss1000 --root fewshot_data --splits class_lists",
         "fss prepare folder --root my_photos --from labelme_json",
         "fss prepare folder --root my_photos --from masks --images photos --val 0.3",
         "fss prepare folder --root my_photos --from annotations.xml --leave-out annotation"), "",
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
}  # fmt: skip
