"""Training that is killed, damaged or starved goes on as if nothing had happened, or says what did."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fss.errors import UserError
from fss.runs import checkpoint
from fss.runs.identity import require
from tests.make import TINY, make_folder

KILLS = int(
    os.environ.get("FSS_KILLS", 2)
)  # more of them: FSS_KILLS=20 pytest tests/training/test_survival.py
LONGER = [f"train.episodes={20 * KILLS}", f"train.validations={3 * KILLS}", "train.keep=1",
          f"pretrain.epochs={3 * KILLS}", f"pretrain.validations={3 * KILLS}"]  # fmt: skip
SHORT = ["train.episodes=20", "train.validations=1", "pretrain.validations=1"]
WITHOUT_DROPOUT = ["head.dropout=0", "head.attention_dropout=0", "train.augment=none"]


def command(root, output, *settings, processes=1):
    launch = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        if processes > 1
        else []
    )
    where = [f"data.root={root}", f"output={output}"]
    return [
        sys.executable,
        *launch,
        "-m",
        "fss",
        "train",
        "--data",
        "folder",
        *where,
        *TINY,
        *LONGER,
        *settings,
    ]


def run(arguments):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, env=env)


def start(arguments):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(arguments, env=env, start_new_session=True, **quiet)


def end_of(output, stages=("base", "cwt")):
    """Weights and logs of both trainings, and the counts of the test."""
    weights, logs = {}, {}
    for stage in stages:
        (folder,) = Path(output).glob(f"folder/fold0/{stage}*")
        weights[stage] = torch.load(folder / "last.pt", weights_only=True)["model"]
        logs[stage] = (folder / "log.jsonl").read_text()
    (result,) = Path(output).rglob("result.json")
    return weights, logs, json.loads(result.read_text())["scores"]


def same(a, b):
    return all(torch.equal(v, b[s][k]) for s, part in a.items() for k, v in part.items())


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_moments_and_resumed(tmp_path, processes):
    """SIGKILL soon after a save, or while the program starts; weights, logs and counts are as without."""
    root = make_folder(tmp_path / "set")
    done = run(command(root, tmp_path / "whole", *LONGER, processes=processes))
    assert done.returncode == 0, done.stderr
    draw, killed = random.Random(processes), 0
    while killed < KILLS:
        training, saved = (
            start(command(root, tmp_path / "cut", *LONGER, processes=processes)),
            stamps(tmp_path),
        )
        early = draw.random() < 0.2
        while not early and training.poll() is None and stamps(tmp_path) == saved:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 3 if early else 1))
        if training.poll() is not None:
            break  # it came to its end first
        kill_tree(training.pid)
        training.wait()
        killed += 1
    done = run(command(root, tmp_path / "cut", *LONGER, processes=processes))
    assert done.returncode == 0, done.stderr
    (weights, logs, scores), (weights2, logs2, scores2) = end_of(tmp_path / "whole"), end_of(tmp_path / "cut")
    assert killed and same(weights, weights2) and logs == logs2 and scores == scores2
    steps = [json.loads(line) for line in logs["cwt"].splitlines()]
    assert [s["step"] for s in steps if "query" in s] == list(range(10 * KILLS))
    assert len([s for s in steps if "validation" in s]) == 3 * KILLS + 1
    assert not list((tmp_path / "cut").rglob("*.part"))
    print(f"{killed} kills, {len(steps)} lines of log")


def kill_tree(pid):
    """A process and all below it, which torchrun puts into sessions of their own."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    for each in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    while any(Path(f"/proc/{each}").exists() and "Z" not in state(each) for each in found):
        time.sleep(0.01)


def state(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def stamps(place):
    return [p.stat().st_mtime_ns for p in (place / "cut").rglob("last.pt")]


def curve(output, stage="cwt"):
    (folder,) = Path(output).glob(f"folder/fold0/{stage}*")
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["total"] for line in lines if "total" in line]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A set and a base network, whose training norms over its own share and so is made once."""
    place = tmp_path_factory.mktemp("base")
    assert run(command(make_folder(place / "set"), place / "out", *SHORT)).returncode == 0
    (trained,) = place.glob("out/folder/fold0/base*/best.pt")
    (place / "base.pt").write_bytes(trained.read_bytes())
    return place


@pytest.mark.parametrize("balanced", [True, False])
def test_shares_of_a_batch_add_up_to_the_batch(base, tmp_path, balanced):
    """One process, two accumulated parts, two processes, two agents as two nodes: the same losses."""
    settings = [*SHORT, *WITHOUT_DROPOUT, f"head.balanced={balanced}".lower(), "train.batch=4"]
    settings.append(f"network={base / 'base.pt'}")
    for name, more, processes in (("one", [], 1), ("parts", ["train.accumulate=2"], 1), ("two", [], 2)):
        done = run(command(base / "set", tmp_path / name, *settings, *more, processes=processes))
        assert done.returncode == 0, done.stderr
    names = ["parts", "two"]
    if balanced:
        agents = [
            start(node(command(base / "set", tmp_path / "nodes", *settings), rank)) for rank in range(2)
        ]
        assert [agent.wait(timeout=300) for agent in agents] == [0, 0]
        names.append("nodes")
    wanted, scores = curve(tmp_path / "one"), end_of(tmp_path / "one", ["cwt"])[2]
    assert len(wanted) == 5
    for name in names:
        assert curve(tmp_path / name) == pytest.approx(wanted, rel=1e-4), name
        assert end_of(tmp_path / name, ["cwt"])[2]["episodes_run"] == scores["episodes_run"]


def node(arguments, rank):
    """The command as one of two agents of one process each, which meet on this machine."""
    meet = ["--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1", "--master_addr=127.0.0.1"]
    return [arguments[0], "-m", "torch.distributed.run", *meet, f"--master_port={PORT}", *arguments[1:]]


PORT = 29000 + os.getpid() % 2000


def write(path, value, keep=1):
    state = {
        "facts": {},
        "settings": {},
        "optimizer": {},
        "step": 0,
        "spent": 0.0,
        "best": 0.0,
        "validated": 0,
    }
    model = torch.nn.Linear(64, 64)
    torch.nn.init.constant_(model.weight, value)
    checkpoint.save(path, {"stage": "base"}, model, keep=keep, **state)


def test_the_last_ones_are_kept(tmp_path):
    for value in range(5):
        write(tmp_path / "last.pt", value, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "last-1.pt",
        "last-2.pt",
        "last.json",
        "last.pt",
    ]
    values = [checkpoint.read(tmp_path / f"last{n}.pt")["model"]["weight"][0, 0] for n in ("", "-1", "-2")]
    assert values == [4, 3, 2]


def test_a_single_wrong_bit_is_found(tmp_path):
    for value in range(2):
        write(tmp_path / "last.pt", value, keep=2)
    content = bytearray((tmp_path / "last.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"checksum of .* is wrong\. Rename last-1\.pt"):
        checkpoint.read(tmp_path / "last.pt")
    assert checkpoint.read(tmp_path / "last-1.pt")["model"]["weight"][0, 0] == 0


def test_lists_and_tuples_of_options_are_the_same(tmp_path):
    write(tmp_path / "last.pt", 0)
    content = checkpoint.read(tmp_path / "last.pt")
    about = content["about"] | {"head": {"type": "asgnet", "sizes": [7, 4]}}
    require(about, {"head": {"type": "asgnet", "sizes": (7, 4)}}, "last.pt")
    with pytest.raises(UserError, match=r"head is asgnet with sizes=\[7, 4\], wanted .* sizes=\[7, 3\]"):
        require(about, {"head": {"type": "asgnet", "sizes": (7, 3)}}, "last.pt")


class Evil:
    """Makes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_checkpoint_never_runs(tmp_path):
    torch.save({"format": 1, "about": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="no checkpoint that can be read safely"):
        checkpoint.read(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_in_the_middle_of_a_write(tmp_path, monkeypatch):
    """The file grows to a limit that the system sets, as on a full disk; the one before it stays."""
    import resource

    write(tmp_path / "last.pt", 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        with pytest.raises(UserError, match=r"cannot write .*the one before it, if any, is intact"):
            write(tmp_path / "last.pt", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert checkpoint.read(tmp_path / "last.pt")["model"]["weight"][0, 0] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.json", "last.pt"]


def test_an_image_that_vanishes_in_mid_run_is_named(tmp_path):
    root, output = make_folder(tmp_path / "set"), tmp_path / "out"
    training = subprocess.Popen(
        command(root, output, *SHORT, "train.episodes=100000"), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(output.glob("folder/fold0/cwt*/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    gone = root / "JPEGImages/2007_000004.jpg"
    gone.unlink()
    error = training.communicate(timeout=120)[1]
    assert training.returncode == 2 and f"{gone} does not exist" in error and "Traceback" not in error


def test_a_loader_process_that_dies_is_told(tmp_path):
    root, output = make_folder(tmp_path / "set"), tmp_path / "out"
    arguments = command(root, output, *SHORT, "train.episodes=100000", "data.workers=2")
    training = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(output.glob("folder/fold0/cwt*/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
    workers = [int(c) for c in children if b"spawn_main" not in Path(f"/proc/{c}/cmdline").read_bytes()]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    error = training.communicate(timeout=120)[1]
    assert training.returncode == 2 and "a loader process died" in error and "Traceback" not in error, error
