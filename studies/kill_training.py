"""Kill training again and again, at chosen places, and hold what comes of it against a run without kills.

`python studies/kill_training.py OUT.json` trains a base network and CWT on it, one as RePRI's, then the
other heads that learn, on a few small pictures that it draws, with one process and with two. Each kill is
a SIGKILL, at a place that is printed: in a step, in a validation, in the middle of a write. The same
command then goes on, to the next kill. At the end weights, optimisers, log, TensorBoard's curves and
pictures and the test's counts must be those of a run that nobody stopped: every bit. Programs are forked
from this one, which has imported everything but done nothing.
"""

import argparse
import io
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fss.cli import main as fss
from fss.runs import checkpoint, distributed
from fss.runs.checkpoint import read
from fss.runs.folders import environment
from fss.training import pipeline  # noqa: F401  # so that no run has to import it
from fss.training.fit import Fit

SETTINGS = (
    "backbone.weights=random", "neck.channels=16", "data.size=49", "data.workers=0",
    "data.min_pixels=100", "pretrain.batch=4", "train.batch=2", "train.validation_episodes=4",
    "test.episodes=6", "test.runs=1", "test.checkpoint=best", "precision=fp32", "device=cpu",
)  # fmt: skip
HEADS = {
    "cwt": ("head.steps=10",),
    "asgnet": ("head.width=8", "head.sizes=[7,4]", "head.cells=2"),
    "pfenet": ("head.width=8", "head.sizes=[7,4]"),
    "hsnet": ("train.augment=none",),
    "dcama": ("head.heads=4", "train.augment=none"),
    "bam": ("head.width=8", "data.novel_in_train=background"),
    "hdmnet": ("head.width=8", "head.embed=8", "data.novel_in_train=background"),
    # 40 steps are four epochs of the same 20 episodes.
    "votes_decoder": (
        "head.width=8",
        "train.shots=2",
        "train.same_episodes=true",
        "train.cache=true",
        "train.augment=none",
        "train.validation_classes=1",
        "train.epochs=4",
        "train.episodes=20",
    ),
    "repri": ("neck.classifier_bias=true", "pretrain.view=whole", "pretrain.smoothing=others"),
}
# A head's trainings that are killed. BAM's and HDMNet's base network is CWT's, and killed under it alone.
STAGES = {
    "cwt": ("base", "cwt"),
    "repri": ("base",),
    **{head: (head,) for head in ("asgnet", "pfenet", "hsnet", "dcama", "bam", "hdmnet", "votes_decoder")},
}
# Once a training, in its first validation, when no checkpoint is there yet.
FIRST = ("best.pt half written", "best.pt written, last.pt not yet")
# Over and over. What stands behind the bar may be of a process that is not the main one.
ANYWHERE = ("before the step", "after the step's update", "in the validation")
IN_MAIN = ("its line of log added", "last.pt half written", "last.pt whole, not yet in its place",
           "last.pt written")  # fmt: skip
PLACES = (*ANYWHERE, *IN_MAIN)
_BETWEEN = 4  # steps from one checkpoint to the next


class Kill(NamedTuple):
    """A kill to come: the first time that a training comes by `place` at `step` or later.

    Attributes:
        rank: of the process that is killed there.
        alone: whether only it is, as by the system's want of memory; else all, as where a machine goes down.
    """

    training: str
    place: str
    step: int
    rank: int = 0
    alone: bool = False

    def text(self, step: int) -> str:
        """Where it fell."""
        who = f"process {self.rank} alone" if self.alone else "all processes"
        return f"{self.training}, step {step}: {self.place}, {who}"


def planned(training: str, count: int, steps: int, processes: int) -> list[Kill]:
    """`count` kills, spread over a training's steps and over the places."""
    first = [Kill(training, place, 0) for place in FIRST[: max(count - len(PLACES), 0)]]
    rest, kills = count - len(first), []
    for i in range(rest):
        place = PLACES[(i + processes + len(training)) % len(PLACES)]  # few kills: others in each training
        rank = i % processes if place in ANYWHERE else 0
        # From the first checkpoint on, and with steps left over: what a place asks for may come later.
        step = _BETWEEN + i * (steps - 3 * _BETWEEN) // rest
        kills.append(Kill(training, place, step, rank, alone=processes > 1 and i % 3 == 0))
    return first + kills


def arm(kill: Kill, said: Path) -> None:
    """Put the kill into this process: `said` then holds the step at which it fell."""
    wanted = "base" if kill.training == "base" else "few-shot"

    def pass_by(place: str, stage: str, step: int) -> None:
        if place == kill.place and stage == wanted and step >= kill.step and distributed.rank() == kill.rank:
            said.write_text(str(step))
            os.kill(os.getpid(), signal.SIGKILL)

    def at(fit: Fit, place: str) -> None:
        pass_by(place, fit.about["stage"], fit.budget.step)

    _around(Fit, "_learn", lambda fit, *_: at(fit, "before the step"),
            lambda fit, *_: at(fit, "after the step's update"))  # fmt: skip
    _around(Fit, "_validate", lambda fit, *_: _after_validating(fit, at))
    _around(Fit, "_save_now_and_then", lambda fit: at(fit, "its line of log added"))
    names = {"best.pt": "best.pt written, last.pt not yet", "last.pt": "last.pt written"}
    _around(Fit, "save", after=lambda fit, name: at(fit, names[name]))
    _arm_writes(pass_by)


def _around(
    owner: Any, name: str, before: Callable = lambda *_: None, after: Callable = lambda *_: None
) -> None:
    plain = getattr(owner, name)

    def watched(*arguments: Any, **named: Any) -> Any:
        before(*arguments)
        found = plain(*arguments, **named)
        after(*arguments)
        return found

    setattr(owner, name, watched)


def _after_validating(fit: Fit, at: Callable[[Fit, str], None]) -> None:
    """The score is known, and nothing is written of it."""
    validate = fit.validate

    def watched(*arguments: Any) -> float:
        score = validate(*arguments)
        at(fit, "in the validation")
        return score

    fit.validate = watched


def _arm_writes(pass_by: Callable[[str, str, int], None]) -> None:
    """Kills while a checkpoint is written: in the middle of its bytes, and before it takes its place."""
    plain, written = torch.save, {}

    def save(content: dict[str, Any], path: Path) -> None:
        whole = io.BytesIO()
        plain(content, whole)
        name = path.name.split(".")[1]
        written[name] = (content["about"]["stage"], content["step"])
        path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
        pass_by(f"{name}.pt half written", *written[name])
        path.write_bytes(whole.getvalue())

    torch.save = save
    _around(checkpoint, "_shift", lambda path, _: pass_by(
        f"{path.name} whole, not yet in its place", *written[path.stem]))  # fmt: skip


class Run(NamedTuple):
    """A command and its processes."""

    arguments: tuple[str, ...]
    processes: int
    log: Path

    def go(self, kill: Kill | None = None) -> int | None:
        """Run it; returns the step at which it was killed, None where it came to its end.

        Raises:
            RuntimeError: it failed of itself.
        """
        said = self.log.with_suffix(".killed")
        said.unlink(missing_ok=True)
        port = _free_port()
        children = [self._fork(rank, port, kill, said) for rank in range(self.processes)]
        codes = _wait(children, alone=kill is not None and kill.alone)
        if said.exists():
            return int(said.read_text())
        if any(codes):
            raise RuntimeError(
                f"{' '.join(self.arguments)} ended with {codes}\n{self.log.read_text()[-3000:]}"
            )
        return None

    def _fork(self, rank: int, port: int, kill: Kill | None, said: Path) -> int:
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            with self.log.open("a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            if self.processes > 1:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(self.processes),
                                  MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))  # fmt: skip
            if kill:
                arm(kill, said)
            code = fss(self.arguments)
        finally:
            sys.stdout.flush()
            os._exit(code)


def _wait(children: list[int], alone: bool) -> list[int]:
    """The exit codes. Where one process fails the others are ended: at once, or asked, as by torchrun."""
    left, codes, asked = dict.fromkeys(children), {}, None
    while left:
        for child in list(left):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
                del left[child]
        if any(codes.values()) and asked is None:
            asked = time.monotonic()
            for child in left:
                os.kill(child, signal.SIGTERM if alone else signal.SIGKILL)
        elif asked is not None and time.monotonic() - asked > 20:
            for child in left:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[child] for child in children]


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def draw(root: Path, classes: int = 4, train: int = 16, val: int = 12) -> Path:
    """A set in the `folder` layout: two coloured boxes an image."""
    names = [f"p{n:02d}" for n in range(train + val)]
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(names):
        random = np.random.default_rng(n)
        image, mask = random.integers(90, 160, (48, 64, 3)).astype(np.uint8), np.zeros((48, 64), np.uint8)
        for side in range(2):
            label = (n + side) % classes + 1
            top, left = random.integers(2, 12), side * 32 + random.integers(2, 8)
            box = np.s_[top : top + 24, left : left + 20]
            image[box], mask[box] = np.random.default_rng(1000 + label).integers(0, 256, 3), label
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        Image.fromarray(mask).save(root / "SegmentationClass" / f"{name}.png")
    (root / "classes.txt").write_text("".join(f"kind {c}\n" for c in range(1, classes + 1)))
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names[:train]) + "\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names[train:]) + "\n")
    return root


def left_by(output: Path, training: str) -> dict[str, Any]:
    """All that a training leaves which no clock decides: bits of its checkpoints, log, curves, counts."""
    (folder,) = output.glob(f"folder/fold0/{training}*_random*")
    found: dict[str, Any] = {"log.jsonl": (folder / "log.jsonl").read_text()}
    for name in ("best.pt", "last.pt"):
        content = read(folder / name)
        kept = {k: content[k] for k in ("model", "optimizer", "step", "best", "validated", "lines", "about")}
        found |= {f"{name} {k}": v for k, v in kept.items()}
    events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        found[f"curve {tag}"] = [(e.step, e.value) for e in events.Scalars(tag)]
    for tag in events.Tags()["images"]:
        found[f"picture {tag}"] = [(e.step, e.encoded_image_string) for e in events.Images(tag)]
    for path in folder.glob("test_*/result.json"):
        found["result.json scores"] = json.loads(path.read_text())["scores"]
        found["episodes.csv"] = path.with_name("episodes.csv").read_text()
    found["parts left over"] = sorted(p.name for p in folder.rglob("*.part"))
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of what is not the same in both, to the last bit."""
    return [k for k in sorted(one.keys() | other.keys()) if not _same(one.get(k), other.get(k))]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def measure(
    head: str, processes: int, count: int, steps: int, backbone: str, place: Path
) -> list[dict[str, Any]]:
    """Kill a head's run `count` times in each of its trainings; what came of each."""
    validations = max(steps // _BETWEEN, 1)
    budget = (f"pretrain.epochs={steps / 4:g}", f"pretrain.validations={validations}", "train.epochs=1",
              f"train.episodes={2 * steps}", f"train.validations={validations}")  # fmt: skip
    where = ("train", "--data", "folder", "--head", head, f"data.root={place / 'set'}")
    settings = (*SETTINGS, f"backbone.type={backbone}", *budget, *HEADS[head])
    outputs = {name: place / f"{head}{processes}_{name}" for name in ("whole", "cut")}
    whole, cut = (
        Run((*where, f"output={out}", *settings), processes, out.with_suffix(".txt"))
        for out in outputs.values()
    )
    whole.go()
    rows = []
    for training in STAGES[head]:
        fell = []
        for kill in planned(training, count, steps, processes):
            step = cut.go(kill)
            if step is None:
                break
            fell.append(kill.text(step))
            print(f"{head}, {processes} process(es), kill {len(fell)} of {count}: {fell[-1]}", flush=True)
        rows.append(
            {"head": head, "training": training, "processes": processes, "kills": len(fell), "where": fell}
        )
    cut.go()
    for row in rows:
        one, other = (left_by(out, row["training"]) for out in outputs.values())
        row |= {"compared": len(one), "different": differences(one, other)}
        said = f"different: {', '.join(row['different'])}" if row["different"] else "every bit the same"
        print(
            f"{row['training']}, {processes} process(es), {row['kills']} kills: {said} (of {row['compared']})"
        )
    return rows


def main() -> int:
    """0 where all kills fell and nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="result file")
    parser.add_argument("--kills", type=int, default=20, help="in each training (default: 20)")
    parser.add_argument("--steps", type=int, default=40, help="of each training (default: 40)")
    parser.add_argument("--backbone", default="resnet18", help="of all networks (default: resnet18)")
    parser.add_argument("--heads", default=",".join(HEADS), help="(default: all that learn, and repri)")
    parser.add_argument("--processes", default="1,2", help="numbers of them (default: 1,2)")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp())
    try:
        draw(place / "set")
        rows = [
            row
            for processes in map(int, options.processes.split(","))
            for head in options.heads.split(",")
            for row in measure(head, processes, options.kills, options.steps, options.backbone, place)
        ]
    finally:
        shutil.rmtree(place)
    about = {
        "date": date.today().isoformat(), "backbone": options.backbone, "steps": options.steps, "rows": rows,
        "environment": environment(torch.device("cpu")),
    }  # fmt: skip
    options.out.write_text(json.dumps(about, indent=1) + "\n")
    return int(any(row["different"] or row["kills"] < options.kills for row in rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
