"""Verbs around the work: report, bench, convert."""

import argparse
from pathlib import Path

from fss.cli.common import GPU, Verb, choose_gpus, run_options, settings_and_paths, what_options
from fss.errors import UserError

_PUBLISHED = """kinds:
  backbone   ImageNet ResNet-50/101, deep or plain stem        one file
  cwt-base   PSPNet of base classes, CWT's first stage         one file
  cwt        that and the classifier weight transformer        two files
  asgnet     the whole ASGNet, pyramid or ASPP                 one file
  pfenet     the whole PFENet                                  one file
  hsnet      the whole HSNet                                   one file
  dcama      the whole DCAMA                                   one file
  repri-base PSPNet of base classes as RePRI trained it        one file
  repri      the same, with the RePRI head on it               one file
  bam-base   PSPNet of base classes, BAM's first stage         one file
  bam        the whole BAM                                     one file
  hdmnet     the whole HDMNet                                  one file

The files do not tell what they were trained on: say so with --data, --fold and
--shots."""


def _report_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="RUN", help="result.json files, or folders that hold some")
    text = "write the table there, as .md or .csv, or a whole page as .html (default: Markdown on the screen)"
    add("--out", type=Path, metavar="FILE", help=text)
    add("--pictures", type=int, default=60, metavar="N", help="on a page, at most (default: 60)")
    add("--compare", action="store_true", help="two results of one plan, in pairs: second less first")


def _bench_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", metavar="CASE,...", help="cases (default: all with one shot)")
    add("--runs", type=int, default=3, metavar="N", help="of each way, after one to warm up (default: 3)")
    add("--json", action="store_true", help="median seconds of fss alone, as one line of JSON")
    add("--size", type=int, metavar="PX", help="of images (default: as each method is published)")
    add("--layers", choices=("50", "101"), help="of the ResNet (default: 50)")
    add("--out", type=Path, metavar="FILE", help="write what was measured there, as JSON")
    text = (
        "measure what such a file holds, and name the ratios that fell by more than 15%%; code 1 if any did"
    )
    add("--check", type=Path, metavar="FILE", help=text)
    add = run_options(parser, GPU).add_argument
    add("--precision", choices=("auto", "bf16", "fp32"), help="of the frozen network (default: auto)")


def _convert_options(parser: argparse.ArgumentParser) -> None:
    text = "the authors' file or files, then the checkpoint to write"
    parser.add_argument("paths", nargs="+", metavar="PATH", help=text)
    add = what_options(parser, data=None).add_argument
    text = "backbone, cwt-base, cwt, asgnet, pfenet, hsnet, dcama, repri-base, repri, bam-base, bam or hdmnet"
    add("--kind", required=True, metavar="KIND", help=text)


def _report(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.report.run import run_report

    run_report(options.paths, options.out, options.compare, options.pictures)


def _bench(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.bench.run import Given, run_bench

    given = Given(
        options.only.split(",") if options.only else None, options.runs, options.json, options.size,
        options.layers and f"resnet{options.layers}", choose_gpus(options, arguments) or "auto",
        options.precision, options.out, options.check,
    )  # fmt: skip
    if not run_bench(given):
        raise SystemExit(1)


def _convert(options: argparse.Namespace, arguments: list[str]) -> None:
    settings, paths = settings_and_paths(options.paths)
    if len(paths) < 2:
        raise UserError("convert needs the authors' file or files, then the checkpoint to write")
    from fss.exchange.convert import check_kind, run_convert

    check_kind(options.kind)
    given = {"--data pascal": options.data, "--fold 0": options.fold}
    missing = [text for text, value in given.items() if value is None]
    if options.kind != "backbone" and missing:
        raise UserError(f"say what the files were trained on, such as {' '.join(missing)}")
    named = {"data.fold": options.fold, "train.shots": options.shots}
    settings += [f"{key}={value}" for key, value in named.items() if value is not None]

    run_convert(options.kind, paths[:-1], paths[-1], options.data or "pascal", settings, options.config)


VERBS = {
    "report": Verb(
        "put results into a table or a page, or compare two of them in pairs", _report_options, _report,
        ("fss report results/shapes/fold*/*/test_1shot_5x200_* --out page.html",
         "fss report --compare ONE/result.json OTHER/result.json"), "",
    ),
    "bench": Verb(
        "time the methods against a plain rendering of them, in turn", _bench_options, _bench,
        ("fss bench", "fss bench --only cwt_train_1shot,asgnet_train_1shot --runs 5 --json",
         "fss bench --out times.json", "fss bench --check times.json"), "",
    ),
    "convert": Verb(
        "make a checkpoint from published weights", _convert_options, _convert,
        ("fss convert --kind asgnet best.pth asgnet.pt --data pascal --fold 0 --shots 1",
         "fss convert --kind cwt pspnet.pth transformer.pth cwt.pt --data pascal --fold 0"), _PUBLISHED,
    ),
}  # fmt: skip
