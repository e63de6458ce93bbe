"""Run every documented command: `python scripts/run_docs.py [--only PATTERN] [--list] [--work DIR]`.

Commands stand in README.md, docs/, on top of recipes and scripts, and in `fss VERB --help`. They run in their
order in a folder that looks like a checkout in use (scripts/scratch.py), on tiny data and with budgets cut by
settings that are appended and printed. What ran well today is not run again, what failed is; --again starts
from an empty folder, which takes some 6 GB. CI parses all of them: tests/test_documented_commands.py.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

from documented import Command, documented
from scratch import ROOT, make

# What cannot run here, and why.
CANNOT = {
    r"^(sbatch|srun) ": "needs a SLURM cluster",
    r"^ssh ": "needs another machine",
    r"scripts/gpu_check\.sh": "needs a GPU",
    r"scripts/check\.sh": "runs all tests, which CI does",
    r"^(pip install|git clone) |weights=download": "needs a network",
}
_EPISODES = ["test.runs=1", "test.episodes=4", "data.workers=0"]
_FIT = ["seconds=2", "batch=4", "validations=1"]
_TRAIN = [
    *(f"{stage}.{x}" for stage in ("pretrain", "train") for x in [*_FIT, "keep=1"]),
    "train.validation_episodes=4", "data.size=97", "backbone.layers=18", "neck.channels=16", *_EPISODES,
]  # fmt: skip
_PSEUDO = [
    *(f"pseudo.{x}" for x in _FIT), "pseudo.resize=72", "pseudo.crop=64", "pseudo.local_crop=48",
    "pseudo.local_crops=4", "pseudo.longest=72", "pseudo.scales=[1.0]", "pseudo.flips=false",
    "pseudo.pictures=2", "pseudo.keep=1", "backbone.layers=18", "data.workers=0",
]  # fmt: skip
# Appended by what is run.
SHORT = {
    "train": _TRAIN,
    "test": _TRAIN,
    "pretrain": _TRAIN,
    "run-folds": _TRAIN,
    "plan": _EPISODES,
    "pseudo-label": _PSEUDO,
    "predict": ["--size", "97"],
    "demo": ["--no-browser", "--port", "0"],
    "export": ["--size", "97"],
    "cluster": ["--steps", "5"],
    "bench": ["--size", "49", "--runs", "1"],
    "measure_pseudo.py": ["--only-table"],
    "measure_necks.py": ["--steps", "2", "--start", "0", "--seeds", "1", "test.episodes=2", "data.workers=0"],
    "measure_supports.py": _TRAIN,
    "bench_growth.py": ["--runs", "1"],
    "bench_index.py": ["--masks", "100", "--runs", "1"],
    "bench_cluster.py": ["--steps", "1", "--published-steps", "2"],
}
# What serves until it is stopped, and what it prints once it does.
SERVERS = {"demo": "http://"}


def _best(work: Path) -> None:
    """A checkpoint of a head at hand, named as the commands name it."""
    found = sorted((work / "results/shapes/fold0").glob("cwt_resnet18_random_1shot/best.pt"))
    if found and not (work / "best.pt").exists():
        shutil.copy(found[0], work / "best.pt")


def _afresh(work: Path) -> None:
    """Photos were added since they were trained on: such a network is refused, and is to be deleted."""
    shutil.rmtree(work / "results/folder", ignore_errors=True)


def _no_plan(work: Path) -> None:
    """Another page's plan is not overwritten."""
    (work / "plan.txt").unlink(missing_ok=True)


def _external(work: Path) -> None:
    """The Python of the page that scores a model of one's own, run as it stands there."""
    page = (ROOT / "docs/python-api.md").read_text(encoding="utf-8")
    code = next(x for x in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "results/external" in x)
    if not (work / "results/external").exists():
        subprocess.run([sys.executable, "-c", code], cwd=work, env=os.environ | {"PYTHONPATH": str(ROOT)})


# What a person would have at hand, or would have done, before such a command.
BEFORE: dict[str, Callable[[Path], None]] = {
    r"(?<![/\w])best\.pt": _best,
    r"(train\.sh|train --data) folder ": _afresh,
    r"results/external": _external,
    r"fss plan .*plan\.txt": _no_plan,
}


def what(words: list[str]) -> str:
    """The verb or the script that a command runs."""
    if "-m" in words and words[words.index("-m") + 1] == "fss":
        return words[words.index("-m") + 2]
    named = [Path(w).name for w in words[:2]]
    if named[0] == "sh":
        return named[1].removesuffix(".sh")
    return named[1] if named[0] in ("fss", "python") and len(named) > 1 else named[0]


def appended(command: Command) -> str:
    """What cuts its budget: nothing where there is nothing to cut, or where its end is no argument."""
    if re.search(r"[|;<>&]", command.bare):
        return ""
    kind = what(command.words)
    if kind == "test" and "--checkpoint" in command.words:  # whose network is as it is
        return " ".join(_EPISODES)
    weak = kind == "train" and "data.train_masks=" in command.bare  # seconds of learning make poor masks
    return " ".join(
        [*SHORT.get(kind, []), *(["data.small_classes=drop", "data.min_pixels=1"] if weak else [])]
    )


def _smaller(text: str) -> str:
    """The command, with names of results as the smaller network that is trained here has them."""
    return re.sub(r"(results/\S*)resnet(?:50|101)", r"\1resnet18", text)


def _prune(work: Path) -> None:
    """Commands that read checkpoints read those of fold 0: the others would take gigabytes."""
    for path in work.glob("results*/*/fold[1-9]/**/*.pt"):
        path.unlink()


def refused(command: Command) -> str | None:
    """Why it cannot run here, if it cannot."""
    return next((why for pattern, why in CANNOT.items() if re.search(pattern, command.bare)), None)


def run(text: str, work: Path, log: Path, limit: float, sign: str | None = None) -> tuple[bool, float]:
    """Run one command line in the folder; whether it ended well within `limit` seconds, and its seconds.

    Args:
        sign: of a server: once it is printed the command has worked, and is stopped.
    """
    env = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT), "HOME": str(work)}
    env["PATH"] = f"{work / 'bin'}:{env['PATH']}"
    start = time.monotonic()
    with log.open("w") as out:
        shell = "bash" if "<(" in text else "sh"
        process = subprocess.Popen(
            [shell, "-c", text], cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = _ended(process, limit, sign and (lambda: sign in log.read_text(errors="replace")))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code is None:
        with log.open("a") as out:
            out.write(f"\nstopped after {limit:.0f} s\n")
    return code == 0, time.monotonic() - start


def _ended(process: subprocess.Popen, limit: float, serves: Callable[[], bool] | None) -> int | None:
    """A process's exit code, 0 once it `serves`; None where it takes longer than `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            return process.wait(1 if serves else limit)
        except subprocess.TimeoutExpired:
            if serves and serves():
                return 0
    return None


def _tail(log: Path, lines: int = 6) -> str:
    """The last lines of what a command printed, without what a progress bar wrote over itself."""
    text = log.read_text(errors="replace").rstrip().splitlines()[-lines:]
    return "\n".join(f"        {line.rpartition(chr(13))[2][:200]}" for line in text)


def select(pattern: str) -> list[Command]:
    """Documented commands whose place or text fits, each text once."""
    first: dict[str, Command] = {}
    for command in documented():
        if re.search(pattern, str(command)):
            first.setdefault(command.bare, command)
    return list(first.values())


def run_all(commands: list[Command], work: Path, limit: float, signs: Mapping[str, str] = SERVERS) -> int:
    """Run what has not run well today; the number of those that failed."""
    record = work / "ran.json"
    ran = json.loads(record.read_text()) if record.exists() else {}
    count = {"ok": 0, "ok before": 0, "cannot": 0, "failed": 0}
    (work / "logs").mkdir(exist_ok=True)
    began = time.monotonic()
    for number, command in enumerate(commands):
        more = appended(command)
        text, why = f"{_smaller(command.bare)} {more}".strip(), refused(command)
        if why or ran.get(text) == str(date.today()):
            state, told = ("cannot", why) if why else ("ok before", "")
        else:
            for pattern, prepare in BEFORE.items():
                if re.search(pattern, command.bare):
                    prepare(work)
            log = work / f"logs/{number:03d}.txt"
            good, seconds = run(text, work, log, limit, signs.get(what(command.words)))
            state, told = "ok" if good else "failed", f"{seconds:.1f} s"
            if good:
                ran[text] = str(date.today())
                record.write_text(json.dumps(ran, indent=1))
        count[state] += 1
        _prune(work)
        print(
            f"{state:<9} {told or '':>7}  {command.place}:{command.line}: {_smaller(command.bare)}",
            flush=True,
        )
        if state in ("ok", "failed") and more:
            print(f"        + {more}", flush=True)
        if state == "failed":
            print(f"{_tail(log)}\n        all of it: {log}", flush=True)
    told = ", ".join(f"{n} {state}" for state, n in count.items())
    print(f"{len(commands)} commands: {told}; {time.monotonic() - began:.0f} s")
    return count["failed"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="regular expression on place and command"
    )
    parser.add_argument("--list", action="store_true", help="print the commands and what is appended")
    text = "the folder to run in (default: fss-docs in the system's temporary folder)"
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fss-docs", help=text)
    parser.add_argument("--again", action="store_true", help="start from an empty folder")
    parser.add_argument("--limit", type=float, default=600, metavar="SECONDS", help="for one command")
    options = parser.parse_args()
    commands, work = select(options.only), options.work.resolve()
    if options.list:
        for command in commands:
            why = refused(command)
            print(f"{command}\n        {f'cannot run here: {why}' if why else '+ ' + appended(command)}")
        return 0
    if options.again and (work / "bin/fss").is_file():
        shutil.rmtree(work)
    if not work.exists():
        print(f"making {work}", flush=True)
        make(work)
    return 1 if run_all(commands, work, options.limit) else 0


if __name__ == "__main__":
    sys.exit(main())
