"""What the command line's verbs do, start to end, each a few calls long."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fss.config import Config, HeadConfig
from fss.data.check import check_set, check_text
from fss.data.plan import plan_hash
from fss.data.planfile import plan_text
from fss.data.prepare.coco import prepare_coco
from fss.data.prepare.common import Prepared
from fss.data.prepare.folder import prepare_folder
from fss.data.prepare.fss1000 import prepare_fss1000
from fss.data.prepare.pascal import prepare_pascal
from fss.data.source import open_source
from fss.engine import distributed
from fss.engine.checkpoint import read
from fss.engine.convert import KINDS, convert
from fss.engine.export import account_of, export
from fss.engine.precision import wants_half
from fss.engine.pretrain import pretrain
from fss.engine.run import base_folder, fold_folder, train_folder, write_text
from fss.engine.test import make_plans, test
from fss.engine.train import train
from fss.engine.trained import learns, load_base_with, load_model
from fss.errors import UserError
from fss.heads import Head, find_head, head_options
from fss.recipes import load_config, validate
from fss.report import tables
from fss.report.overlay import class_sheet, file_name
from fss.report.page import report_page
from fss.report.results import compare, make_rows, read_results
from fss.report.table import console_table, one_line


class Pictures(NamedTuple):
    """Which pictures a test draws: of its episodes, and of how the head comes to its answer."""

    visualize: bool = False
    explain: bool = False


def run_pretrain(config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures) -> None:
    """Stage 1."""
    _base(config, device)


def run_train(config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures) -> None:
    """Stage 1 where it is missing, stage 2, and a test of what came out."""
    _check_head(config, pictures)
    if config.backbone.stage1 and not config.backbone.base:
        there = (base_folder(config) / "last.pt").is_file()
        _say(f"base network {'found' if there else 'missing, trained first'}: {base_folder(config)}")
        _base(config, device)
    folder = train(config, device, wants_half(config.precision, device))
    _say(f"stage 2: done -> {folder}" if folder else "stage 2: this head has nothing to learn")
    _test(config, device, folder, pictures)


def _check_head(config: Config, pictures: Pictures) -> None:
    """What is wrong with a head, or with what is asked of it, should not wait for stage 1 to end."""
    head_options(config.head.type, config.head.options)
    aligned = config.backbone.stage1 and config.neck.aligned
    if pictures.explain and not aligned and find_head(config.head.type).explain is Head.explain:
        raise UserError(f"head {config.head.type!r} has no explain(); leave out --explain")


def _base(config: Config, device: torch.device) -> None:
    folder = pretrain(config, device, wants_half(config.precision, device))
    content = read(folder / "best.pt")
    band = content["facts"].get("base_boundary_miou")  # older checkpoints have none
    near = "" if band is None else f", {band:.2f} within 3 pixels of boundaries"
    _say(f"stage 1: base-class mIoU {content['best']:.2f}{near} -> {folder}")


def run_test(config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures) -> None:
    """A test of a given checkpoint, or of those that training left, and where everything lies."""
    _check_head(config, pictures)
    if checkpoint:
        _test_one(config, device, checkpoint, pictures)
    else:
        _test(config, device, None, pictures)


def _test(config: Config, device: torch.device, folder: Path | None, pictures: Pictures) -> None:
    """Best and last checkpoint, or what the settings name; of `folder`, else wherever training left them."""
    first, *others = _each_checkpoint(config)
    _test_one(first, device, folder / f"{first.test.checkpoint}.pt" if folder else None, pictures)
    for other in others:
        path = folder / f"{other.test.checkpoint}.pt" if folder else None
        _test_one(other, device, path, Pictures(), brief=True)


def _each_checkpoint(config: Config) -> list[Config]:
    """The settings, once for each checkpoint that is to be tested."""
    if config.test.checkpoint != "both":
        return [config]
    kinds = ("best", "last") if learns(config) else ("best",)
    tests = [config.test.model_copy(update={"checkpoint": kind}) for kind in kinds]
    return [config.model_copy(update={"test": test}) for test in tests]


def _test_one(
    config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures, brief: bool = False
) -> None:
    half = wants_half(config.precision, device)
    folder, result = test(config, device, half, checkpoint, pictures.visualize, pictures.explain)
    if brief:
        _say(f"{one_line(result)}\nresult:   {folder / 'result.json'}")
    else:
        _say(f"\n{console_table(result)}\n\nresult:   {folder / 'result.json'}")
    if pictures.visualize or pictures.explain:
        _say(f"pictures: {folder / 'visualize'}, the best, median and worst in contact_sheet.jpg")


def run_convert(
    kind: str, inputs: Sequence[Path], out: Path, data: str, settings: Sequence[str], extra: Sequence[str]
) -> None:
    """Published weights into a checkpoint, and how to use it."""
    if kind not in KINDS:
        raise UserError(f"--kind {kind!r}; allowed: {', '.join(KINDS)}")
    config = load_config(data, "asgnet" if kind == "asgnet" else "cwt", settings, extra)
    about = convert(kind, inputs, out, config)
    what = f"ResNet-{about['layers']}, {about['stem']} stem"
    if kind == "backbone":
        print(f"{out}: {what}. Use it with backbone.weights={out}")
        return
    on = f"{about['data']} fold {about['fold']}"
    if kind == "cwt-base":
        print(
            f"{out}: base network, {what}, {on}. Use it with backbone.base={out} (and backbone.stage1=true)"
        )
        return
    said = [text for text in settings if not text.startswith(("data.fold=", "train.shots="))]
    if about["head"] == "asgnet":
        said.append(f"head.context={about['head_options']['context']}")
    run = f"{data} {about['shots']} [0] {about['layers']} {about['fold']} --head {about['head']}"
    print(f"{out}: {about['head']}, {what}, {on}, {about['shots']} shot(s). Try it with")
    print(" ".join([f"  sh scripts/test.sh {run} --checkpoint {out}", *said]))


def run_export(
    path: Path, out: Path, shots: int, size: int | None, kind: str | None, seed: int, head: HeadConfig | None
) -> None:
    """A checkpoint, or one of stage 1 with a head, into a file that runs without this framework."""
    if out.resolve() == path.resolve():
        raise UserError(f"{out} is the checkpoint itself; name another file to write")
    model = load_base_with(path, head.type, head.options) if head else load_model(path)
    told = export(model, out, shots, size, kind, seed)
    check, query = told["check"], told["inputs"]["query"]["shape"]
    print(
        f"{out}: {told['checkpoint']['head']}, {shots} shot(s), {query[-1]} px, {told['format']}, "
        f"{out.stat().st_size / 1e6:.1f} MB\n"
        f"on {check['episodes']} episodes of noise: logits differ by {check['difference']:.1e} at most "
        f"({check['relative']:.1e} of the largest), {100 * check['equal']:.3f}% of the pixels are equal\n"
        f"inputs and outputs: {account_of(out)}"
    )


def run_folds(configs: Sequence[Config], device: torch.device, pictures: Pictures) -> None:
    """Train and test every fold, then their table; folds that are done already are left as they are."""
    for config in configs:
        found = [_finished(c) for c in _each_checkpoint(config)]
        other = config.data.trained_on  # nothing to train here
        done = all(found) and not any(pictures)
        what = f"done -> {found[0]}" if done else "tests" if other else "trains and tests"
        _say(f"fold {config.data.fold}: {what}")
        if not done:
            (run_test if other else run_train)(config, device, None, pictures)
    if distributed.is_main():
        every = [_finished(c) for config in configs for c in _each_checkpoint(config)]
        results = read_results([path for path in every if path])
        table = tables.markdown(make_rows(results), results)
        some = configs[0]
        out = some.output / some.data.name / f"{train_folder(some).name}_{some.test.shots}shot_test.md"
        write_text(out, table)
        print(f"\n{table}\ntable: {out}")


def _finished(config: Config) -> Path | None:
    """The result of a test with exactly these settings, if there is one."""
    for path in sorted(fold_folder(config).glob("*/test_*/result.json")):
        try:
            found = read_results([path])[0].content
            # As settings, not as text: a result older than some setting has it at its default.
            if found["head"]["type"] == config.head.type and validate(found["config"]) == config:
                return path
        except UserError:  # another head's damaged result is no obstacle
            continue
    return None


_PREPARE: dict[str, Callable[..., Prepared]] = {
    "pascal": prepare_pascal,
    "coco": prepare_coco,
    "fss1000": prepare_fss1000,
    "folder": prepare_folder,
}


def run_prepare(name: str, given: Mapping[str, Any]) -> None:
    """A benchmark's archives, or a user's own annotations, into masks and lists.

    Args:
        given: arguments of the preparation, those left out being None or False.
    """
    if name not in _PREPARE:
        raise UserError(f"cannot prepare {name!r}; allowed: {', '.join(_PREPARE)}")
    takes = signature(_PREPARE[name]).parameters
    given = {k: v for k, v in given.items() if v is not None and v is not False}
    if "lists" in takes:
        given.setdefault("lists", Path("lists") / name)
    unknown = sorted(given.keys() - takes.keys())
    needed = [k for k, p in takes.items() if p.default is p.empty and k not in given]
    if unknown or needed:
        raise UserError(
            f"prepare {name}: "
            + "; ".join(
                [f"--{k.replace('source', 'from')} is not for this" for k in unknown]
                + [f"say --{k.replace('source', 'from')}, too" for k in needed]
            )
        )
    done = _PREPARE[name](**given)
    counts = ", ".join(f"{file} {count} images" for file, count in done.lists.items())
    print(f"{done.made} masks made, {done.kept} kept; lists: {counts}")
    print(f"use it with data.root={done.root}; read it all with: fss check-data {name} data.root={done.root}")
    if done.problems:
        raise UserError("\n".join([f"{len(done.problems)} problems, their images left out:", *done.problems]))


def run_check(config: Config) -> None:
    """Everything that is wrong with a data set; a class's images on a sheet each."""
    found = check_set(config.data, config.test.shots)
    print(check_text(found, config.data))
    folder = config.output / config.data.name / "check"
    split = found.splits.get("train", found.splits["val"])
    for c, name in enumerate(found.classes, 1):
        best = np.argsort(-split.pixels[:, c], kind="stable")
        shown = [split.samples[i] for i in best if split.pixels[i, c] > 0]
        class_sheet(folder / f"{c:02}_{file_name(name)}.jpg", shown, c)
    print(f"\na sheet of images per class: {folder}")
    problems = found.all_problems
    if problems:
        raise UserError("\n".join([f"{len(problems)} problems:", *problems]))
    print("no problems found")


def run_plan(config: Config, out: Path) -> None:
    """The episodes of a test as a text file that `test.plan` takes."""
    if out.exists():
        raise UserError(f"{out} exists; name another file, or delete it")
    source = open_source(config.data, "val", config.output / "cache")
    plans = make_plans(config, source)
    write_text(out, plan_text(plans, source))
    print(f"{sum(map(len, plans))} episodes, plan {plan_hash(plans, source)[:12]} -> {out}")


def run_bench(
    names: Sequence[str] | None, runs: int, json: bool, size: int, layers: int, device: str, precision: str
) -> None:
    """Medians and ratios as a table, or medians of ours as one line of JSON."""
    from fss.bench import run as bench
    from fss.bench.cases import Setting

    if size % 8 != 1 or size < 33:
        raise UserError(f"--size {size}: allowed are 8n+1 from 33 on, such as {max(size // 8 * 8, 32) + 1}")
    chosen = distributed.start(device)
    setting = Setting(size, layers, chosen, wants_half(precision, chosen))
    found = bench.bench(setting, list(names or bench.DEFAULT), runs, compare=not json)
    print(bench.json_line(found) if json else bench.table(found, setting, runs))


def run_report(paths: Sequence[Path], out: Path | None, compared: bool, pictures: int) -> None:
    """A table of results, a page with at most `pictures` pictures, or the paired difference of two."""
    kind = tables.format_of(out) if out else ".md"
    if pictures < 0:
        raise UserError(f"--pictures {pictures}: allowed are 0 and above")
    results = read_results(paths)
    if compared and len(results) != 2:
        raise UserError(f"--compare takes two results, got {len(results)}")
    difference = compare(results[0], results[1]) if compared else None  # refuses what is no pair
    if kind == tables.PAGE:
        text = report_page(results, pictures)
    elif difference:
        text = tables.comparison_text(results[0], results[1], difference) + "\n"
    else:
        text = tables.FORMATS[kind](make_rows(results), results)
    if out:
        write_text(out, text)
        print(f"{len(results)} result{'' if len(results) == 1 else 's'} -> {out}")
    else:
        print(text, end="")


def _say(text: str) -> None:
    if distributed.is_main():
        print(text, flush=True)


VERBS: dict[str, Callable[..., None]] = {"pretrain": run_pretrain, "train": run_train, "test": run_test}
