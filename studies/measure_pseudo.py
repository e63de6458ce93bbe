"""What pseudo-masks are worth on `shapes`: `python studies/measure_pseudo.py OUT.json`.

First the pseudo-masks themselves, against the true masks of the training images: the global network alone,
by the classification loss; that network as the start (no ImageNet weights are used) of attention transfer,
and of shape transfer too, from the generator's imperfect saliency; and in place of them, classification for
as long as they cost. Then CWT and ASGNet, with base and episodic training on true masks and on
pseudo-masks, tested on novel classes with true masks.

Everything is kept below --work: the same command goes on where it was stopped, and OUT.json is written anew
after each part; the table is printed at the end. `--start-only` makes the masks of the first network
alone. Budgets are in steps, so that a busy machine changes no number.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from fss.cli import main as fss
from fss.errors import UserError
from fss.metrics import interval95
from fss.runs.folders import environment

SMALL = ["--data", "shapes", "--layers", "18", "--gpus", "cpu", "precision=auto"]
# Epochs of 37 steps of 16 images. A transfer step sees 3.25 times the pixels: 64 px, and four crops of 48 px.
START, TRANSFER, ALONE = 10, 3, 20
TAUGHT = ["pseudo.transfer=true", f"pseudo.epochs={TRANSFER}", "pseudo.maps=probability"]
ALONE_AGAIN = ["pseudo.transfer=false", f"pseudo.epochs={ALONE}"]
KINDS = {  # all but the start, in the order in which they are run
    "then shape transfer (imperfect saliency)": ("shape", [*TAUGHT, "pseudo.saliency=Saliency"]),
    "then attention transfer": ("attention", TAUGHT),
    "in place of them, classification for as long": ("alone", ALONE_AGAIN),
}
HEADS = {"cwt": "train.episodes=1600", "asgnet": "train.episodes=4000"}
EPISODES = ["pretrain.seconds=null", "pretrain.epochs=3", "train.seconds=null", "train.epochs=1",
            "neck.channels=128", "test.checkpoint=last", "test.runs=5", "test.episodes=50"]  # fmt: skip


def run(*arguments: str) -> None:
    """Run a command of fss; stops if it fails."""
    print("fss", *arguments, flush=True)
    if code := fss(arguments):
        raise SystemExit(code)


class Study:
    """All runs below one folder, and the table that their files give."""

    def __init__(self, work: Path, root: Path, fold: int) -> None:
        self.work, self.root, self.fold = work, root, fold

    def where(self, seed: int) -> list[str]:
        """Settings that all runs of a seed share."""
        return [
            f"data.root={self.root}",
            f"data.fold={self.fold}",
            f"output={self.work / f'seed{seed}'}",
            f"seed={seed}",
        ]

    def masks(self, kind: str, seed: int) -> Path:
        """The folder of a kind's pseudo-masks."""
        return self.work / f"masks{seed}" / kind

    def make_masks(self, seed: int, kinds: Sequence[str]) -> Iterator[None]:
        """Train and write the start and some kinds; yields after each."""
        common = ["--config", "shapes_pseudo", *SMALL, *self.where(seed), "pseudo.seconds=null"]
        begin = ["pseudo.transfer=false", f"pseudo.epochs={START}", "tag=start"]
        run("pseudo-label", "train", *common, *begin, f"data.train_masks={self.masks('start', seed)}")
        start = self.work / f"seed{seed}/shapes/fold{self.fold}/pseudo_resnet18_random_cam_start/last.pt"
        yield
        for kind, own in (k for k in KINDS.values() if k[0] in kinds):
            own = own if kind == "alone" else [*own, f"pseudo.start={start}"]
            target = [f"tag={kind}", f"data.train_masks={self.masks(kind, seed)}"]
            run("pseudo-label", "train", *common, *own, *target)
            yield

    def train_heads(self, masks: str, seed: int) -> Iterator[None]:
        """Base and episodic training of each head on one kind of masks, and tests; yields after each."""
        for head, budget in HEADS.items():
            of = "true" if masks == "true" else str(self.masks(masks, seed))
            run(
                "train",
                "--head",
                head,
                *SMALL,
                *self.where(seed),
                *EPISODES,
                budget,
                f"data.train_masks={of}",
                # Pseudo-masks may hold next to nothing of a class; masks of the test are true ones.
                f"data.small_classes={'error' if masks == 'true' else 'drop'}",
            )
            yield

    def told(self) -> dict[str, Any]:
        """All that was measured so far, for a file."""
        masks = [
            {"kind": p.parent.name, "seed": p.parent.parent.name, "steps": self._steps(p.parent),
             "rows": json.loads(p.read_text())["rows"]}
            for p in sorted(self.work.glob("masks*/*/quality.json"))
        ]  # fmt: skip
        return {
            "date": date.today().isoformat(), "fold": self.fold, "masks": masks, "heads": self._scores(),
            "environment": environment(torch.device("cpu")),
        }  # fmt: skip

    def _scores(self) -> list[dict[str, Any]]:
        """What heads came to: head, masks that they learnt from, scores, protocol."""
        found = []
        for path in sorted(self.work.glob(f"seed*/shapes/fold{self.fold}/*/test_1shot_*/result.json")):
            got = json.loads(path.read_text())
            masks = Path(got["protocol"].get("train_masks", "true")).name
            found.append({
                "head": got["head"]["type"], "masks": masks, "novel": got["scores"]["miou"],
                "base": got["checkpoint"]["base"]["base_miou"], "protocol": got["protocol_name"],
            })  # fmt: skip
        return found

    def table(self) -> str:
        """The Markdown table of all results so far."""
        return "\n".join([*self._quality_lines(), "", *self._head_lines()]) + "\n"

    def _quality_lines(self) -> list[str]:
        lines = [
            "| pseudo-masks | seeds | steps | mIoU at background 0.25 | with background | best threshold "
            "| mIoU there |",
            "|---|---|---|---|---|---|---|",
        ]
        start = ("global network alone, by classification", ("start", []))
        for title, (kind, _) in [start, *KINDS.items()]:
            found = [p.parent for p in sorted(self.work.glob(f"masks*/{kind}/quality.json"))]
            if found:
                lines.append(f"| {title} | {len(found)} | {' | '.join(self._quality_cells(found))} |")
        return lines

    def _quality_cells(self, folders: Sequence[Path]) -> list[str]:
        rows = [json.loads((p / "quality.json").read_text())["rows"] for p in folders]
        chosen = [next(r for r in own if r["background"] == 0.25) for own in rows]
        best = [max(own, key=lambda r: r["miou"]) for own in rows]
        return [
            self._steps(folders[0]),
            _number([r["miou"] for r in chosen]),
            _number([r["miou_with_background"] for r in chosen]),
            ", ".join(sorted({f"{r['background']:.2f}" for r in best})),
            _number([r["miou"] for r in best]),
        ]

    def _steps(self, folder: Path) -> str:
        """Steps of training, as the masks' own account tells; those of a transfer's start come before."""
        parts = [folder] if folder.name in ("alone", "start") else [folder.parent / "start", folder]
        return " + ".join(str(json.loads((p / "pseudo.json").read_text())["steps"]) for p in parts)

    def _head_lines(self) -> list[str]:
        lines = [
            "| head | trained on | seeds | novel mIoU, 1 shot | base mIoU of base training |",
            "|---|---|---|---|---|",
        ]
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        said = set()
        for got in self._scores():
            found.setdefault((got["head"], got["masks"]), []).append((got["novel"], got["base"]))
            said.add(got["protocol"])
        for (head, masks), every in sorted(found.items()):
            novel, base = ([pair[i] for pair in every] for i in (0, 1))
            lines.append(f"| {head} | {masks} masks | {len(every)} | {_number(novel)} | {_number(base)} |")
        return [*lines, "", *(f"protocol: {name}" for name in sorted(said))]


def _number(values: Sequence[float]) -> str:
    half = interval95(list(values))
    return f"{mean(values):.1f}" if half is None else f"{mean(values):.1f} ± {half:.1f}"


def main() -> None:
    """Run the missing parts, the most wanted first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--work", type=Path, default=Path("results/measure_pseudo"))
    parser.add_argument("--root", type=Path, default=Path("data/shapes"))
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument(
        "--seeds", type=int, default=3, help="of pseudo-masks and heads; those of shape transfer: one"
    )
    parser.add_argument("--start-only", action="store_true", help="the masks of the first network alone")
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    options = parser.parse_args()
    study = Study(options.work, options.root, options.fold)

    def parts() -> Iterator[None]:
        if options.start_only:
            for seed in range(1, options.seeds + 1):
                yield from study.make_masks(seed, ())
            return
        yield from study.make_masks(1, ("shape", "attention"))
        for masks in ("true", "start", "shape"):
            yield from study.train_heads(masks, 1)
        for seed in range(2, options.seeds + 1):
            yield from study.make_masks(seed, ("shape", "attention"))
            for masks in ("true", "start"):
                yield from study.train_heads(masks, seed)
        for seed in range(1, options.seeds + 1):
            yield from study.make_masks(seed, ("alone",))

    for _ in () if options.only_table else parts():
        options.out.write_text(json.dumps(study.told(), indent=1) + "\n", encoding="utf-8")
    options.out.write_text(json.dumps(study.told(), indent=1) + "\n", encoding="utf-8")
    print(study.table(), end="")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
