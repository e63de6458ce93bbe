"""Every head that learns by one process, by two, and by two nodes.

`python studies/measure_processes.py OUT.json`. The nodes are two agents of torchrun that meet on this
machine (gloo). Dropout and augmentation are off, because processes draw them for their own shares. What
is compared: the largest relative difference of a step's loss, and the test's counts. Networks and
pictures are those of `kill_training.py`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from kill_training import HEADS, SETTINGS, Run, _free_port, draw
from torch import nn

from fss.cli import main as fss
from fss.data.shapes import draw_shapes
from fss.runs.folders import environment

LEARN = [head for head in HEADS if head != "repri"]
STEPS, TOLERANCE = 12, 1e-5
RUN = "--run-fss"
WITHOUT_DROPOUT = {
    "cwt": ("head.dropout=0", "head.attention_dropout=0"),
    **dict.fromkeys(("asgnet", "pfenet", "bam", "dcama"), ("head.dropout=0",)),
    "hdmnet": ("head.dropout=0", "head.noise=0"),
}


def leave_out_dropout() -> None:
    """Of layers whose share is no option: those of the published decoders."""
    for kind in (nn.Dropout, nn.Dropout2d):
        kind.forward = lambda _, x: x  # type: ignore[method-assign]


def trained(head: str, way: str, place: Path, backbone: str) -> Path:
    """Train and test a head; returns its output folder.

    All ways stand on the base network of the first: norms of base training see a process's share alone.
    """
    output, log = place / f"{head}_{way}", place / f"{head}_{way}.txt"
    budget = ("pretrain.epochs=1", "train.epochs=1", f"train.episodes={2 * STEPS}", "train.validations=1")
    own = (*HEADS[head], *WITHOUT_DROPOUT.get(head, ()), "train.augment=none")
    own = tuple(x for x in own if not x.startswith(("train.epochs", "train.episodes")))
    own = (*own, *(f"network={path}" for path in place.glob(f"{head}_one/folder/fold0/base*/best.pt")))
    words = (
        "train", "--data", "folder", "--head", head, f"data.root={place / 'set'}", f"output={output}",
        *SETTINGS, f"backbone.type={backbone}", *budget, *own,
    )  # fmt: skip
    if way == "nodes":
        _two_nodes(words, log)
    else:
        Run(words, 2 if way == "two" else 1, log).go()
    return output


def _two_nodes(words: tuple[str, ...], log: Path) -> None:
    """The command by two agents of torchrun, a process each."""
    port = _free_port()
    agents = []
    for rank in range(2):
        meet = ["--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1", "--master_addr=127.0.0.1"]
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *meet,
            f"--master_port={port}",
            __file__,
            RUN,
        ]
        with log.open("a") as out:
            agents.append(subprocess.Popen([*command, *words], stdout=out, stderr=out))
    codes = [agent.wait() for agent in agents]
    if any(codes):
        raise RuntimeError(f"{' '.join(words)} ended with {codes}\n{log.read_text()[-3000:]}")


def losses(output: Path, head: str) -> list[float]:
    """Of each step."""
    (folder,) = output.glob(f"folder/fold0/{head}*")
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["total"] for line in lines if "total" in line]


def counts(output: Path) -> dict[str, Any]:
    """Of the test: episodes, and pixels by class."""
    (path,) = output.rglob("result.json")
    scores = json.loads(path.read_text())["scores"]
    return {"episodes_run": scores["episodes_run"], "miou": scores["miou"]}


def compared(head: str, place: Path, backbone: str) -> dict[str, Any]:
    """A head by all three ways."""
    outputs = {way: trained(head, way, place, backbone) for way in ("one", "two", "nodes")}
    every = {way: losses(output, head) for way, output in outputs.items()}
    tests = {way: counts(output) for way, output in outputs.items()}
    row: dict[str, Any] = {"head": head, "steps": len(every["one"])}
    for way in ("two", "nodes"):
        pairs = zip(every["one"], every[way], strict=True)
        row[f"{way}_loss"] = float(f"{max(abs(a - b) / abs(a) for a, b in pairs):.2g}")
        row[f"{way}_episodes"] = tests[way]["episodes_run"] == tests["one"]["episodes_run"]
        row[f"{way}_miou"] = round(tests[way]["miou"] - tests["one"]["miou"], 4)
    return row


def shared_test(place: Path, episodes: int = 5000) -> dict[str, float]:
    """Seconds of a test of `votes` on `shapes` by one process and by two, a thread each, and their ratio."""
    words = (
        "test", "--data", "shapes", "--head", "votes", f"data.root={place / 'shapes'}", "data.size=129",
        "backbone.type=efficientnet_lite0", "network=weights", "test.runs=5",
        f"test.episodes={episodes // 5}", "precision=fp32", "device=cpu", "data.workers=0",
    )  # fmt: skip
    draw_shapes(place / "shapes")
    times: dict[str, float] = {"episodes": episodes}
    scores = []
    for name, processes in (("one", 1), ("two", 2)):
        output = place / f"test_{name}"
        start = time.perf_counter()
        Run((*words, f"output={output}"), processes, place / f"test_{name}.txt").go()
        times[f"{name}_seconds"] = round(time.perf_counter() - start, 2)
        scores.append(counts(output))
    assert scores[0] == scores[1], scores
    return times | {"ratio": round(times["one_seconds"] / times["two_seconds"], 2)}


def main() -> int:
    """0 where losses and numbers of episodes agree."""
    leave_out_dropout()
    if sys.argv[1:2] == [RUN]:  # a process of a node
        return fss(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--heads", default=",".join(LEARN), help="by name, separated by commas")
    parser.add_argument("--backbone", default="resnet18", help="of all networks")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        draw(Path(scratch) / "set")
        for head in options.heads.split(","):
            rows.append(compared(head, Path(scratch), options.backbone))
            print(json.dumps(rows[-1]), flush=True)
        shared = shared_test(Path(scratch))
        print(json.dumps(shared))
    about = {
        "date": date.today().isoformat(), "backbone": options.backbone, "rows": rows, "test": shared,
        "environment": environment(torch.device("cpu")),
    }  # fmt: skip
    options.out.write_text(json.dumps(about, indent=1) + "\n")
    far = [r["head"] for r in rows if max(r["two_loss"], r["nodes_loss"]) > TOLERANCE]
    return int(bool(far) or not all(r["two_episodes"] and r["nodes_episodes"] for r in rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
