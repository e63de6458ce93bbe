"""Training that is killed, damaged or starved goes on as if nothing had happened, or says what did."""

import contextlib
import json
import os
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

BACKBONE = "timm:test_resnet"  # the smallest there is

STUDIES = Path(__file__).parent.parent.parent / "studies"
SMALL = [*TINY, f"backbone.type={BACKBONE}", "train.episodes=20"]
WITHOUT_DROPOUT = ["head.dropout=0", "head.attention_dropout=0", "train.augment=none"]


def command(root, output, *settings):
    where = [f"data.root={root}", f"output={output}"]
    return [sys.executable, "-m", "fss", *train(*where, *settings)]


def train(*settings):
    return ["train", "--data", "folder", *SMALL, *settings]


def in_studies(*arguments):
    """A Python that finds the studies, run to its end."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{STUDIES}:{STUDIES.parent}"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def forked(*runs):
    """Runs one after another, each (arguments, processes): forked, so that all is imported once."""
    code = "import json, sys, tempfile; from pathlib import Path; from kill_training import Run\n"
    code += "log = Path(tempfile.mkdtemp()) / 'log'\n"
    code += "for arguments, processes in json.loads(sys.argv[1]): Run(tuple(arguments), processes, log).go()"
    in_studies("-c", code, json.dumps(runs))


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


def test_killed_in_both_trainings_and_resumed(tmp_path):
    """Eight kills, in base training and in CWT's, with one process and with three: no bit differs."""
    out = tmp_path / "kills.json"
    few = ["--processes", "1,3", "--kills", "2", "--steps", "12", "--heads", "cwt", "--backbone", BACKBONE]
    print(in_studies(STUDIES / "kill_training.py", out, *few))
    rows = json.loads(out.read_text())["rows"]
    assert [(r["training"], r["processes"], r["kills"]) for r in rows] == [
        ("base", 1, 2), ("cwt", 1, 2), ("base", 3, 2), ("cwt", 3, 2)
    ]  # fmt: skip
    assert all(row["compared"] > 15 and row["different"] == [] for row in rows)
    fell = [text for row in rows for text in row["where"]]
    assert len({text.partition(": ")[2] for text in fell}) > 4  # at unlike places
    assert all(
        int(text.partition("step ")[2].partition(":")[0]) >= 4 for text in fell
    )  # checkpoints are there


def curve(output, stage="cwt"):
    (folder,) = Path(output).glob(f"folder/fold0/{stage}*")
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["total"] for line in lines if "total" in line]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A set and a base network, whose training norms over its own share and so is made once."""
    place = tmp_path_factory.mktemp("base")
    where = [f"data.root={make_folder(place / 'set')}", f"output={place / 'out'}"]
    forked((["pretrain", "--data", "folder", *SMALL, *where], 1))
    (trained,) = place.glob("out/folder/fold0/base*/best.pt")
    (place / "base.pt").write_bytes(trained.read_bytes())
    return place


def test_shares_of_a_batch_add_up_to_the_batch(base, tmp_path):
    """One process, two accumulated parts, two processes: the same losses, balanced or not."""
    kinds = (("one", [], 1), ("parts", ["train.accumulate=2"], 1), ("two", [], 2))
    runs = [
        (train(*shared(base, balanced), f"output={tmp_path / name / balanced}", *more), processes)
        for balanced in ("true", "false")
        for name, more, processes in kinds
    ]
    forked(*runs)
    for balanced in ("true", "false"):
        for name in ("parts", "two"):
            like(tmp_path / "one" / balanced, tmp_path / name / balanced)


def test_two_nodes_add_up_to_the_batch(base, tmp_path):
    """Two agents of torchrun, which meet on this machine as two nodes would."""
    forked((train(*shared(base, "true"), f"output={tmp_path / 'one'}"), 1))
    arguments = [sys.executable, "-m", "fss", *train(*shared(base, "true"), f"output={tmp_path / 'nodes'}")]
    agents = [start(node(arguments, rank)) for rank in range(2)]
    assert [agent.wait(timeout=300) for agent in agents] == [0, 0]
    like(tmp_path / "one", tmp_path / "nodes")


def shared(base, balanced):
    """Settings of both, whose losses no dropout decides."""
    batch = ["train.batch=4", f"head.balanced={balanced}", f"network={base / 'base.pt'}"]
    return [*WITHOUT_DROPOUT, *batch, f"data.root={base / 'set'}"]


def like(one, other):
    assert len(curve(one)) == 5
    assert curve(other) == pytest.approx(curve(one), rel=1e-4), other
    assert episodes_run(other) == episodes_run(one)


def episodes_run(output):
    (result,) = Path(output).rglob("result.json")
    return json.loads(result.read_text())["scores"]["episodes_run"]


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


def test_an_image_that_vanishes_in_mid_run_is_named(base, tmp_path):
    root, output = make_folder(tmp_path / "set"), tmp_path / "out"
    arguments = command(root, output, f"network={base / 'base.pt'}", "train.episodes=100000")
    training = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(output.glob("folder/fold0/cwt*/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    gone = root / "JPEGImages/2007_000004.jpg"
    gone.unlink()
    error = training.communicate(timeout=120)[1]
    assert training.returncode == 2 and f"{gone} does not exist" in error and "Traceback" not in error


def test_a_loader_process_that_dies_is_told(base, tmp_path):
    output = tmp_path / "out"
    more = [f"network={base / 'base.pt'}", "train.episodes=100000", "data.workers=2"]
    arguments = command(base / "set", output, *more)
    training = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(output.glob("folder/fold0/cwt*/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = set()
    while not workers and time.monotonic() < deadline:
        workers = loaders(training.pid)
        time.sleep(1)
        workers &= loaders(training.pid)  # those of a validation are soon gone
    assert workers
    os.kill(workers.pop(), signal.SIGKILL)
    error = training.communicate(timeout=120)[1]
    assert training.returncode == 2 and "a loader process died" in error and "Traceback" not in error, error


def loaders(pid):
    """The children of a process that were forked from it and are no other program."""
    command = lambda p: Path(f"/proc/{p}/cmdline").read_bytes()  # noqa: E731
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            if command(child) == command(pid):
                found.add(int(child))
    return found
