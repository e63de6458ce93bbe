"""Plans as files: written by one process, run by another, and refused line by line where they do not fit."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from fss.cli import main
from fss.data.plan import plan_hash
from fss.data.planfile import plan_text, read_plan, seeds_hash
from fss.data.source import open_source
from fss.errors import UserError
from fss.recipes import load_config
from fss.testing.plans import make_plans
from tests.make import TINY, make_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder set."""
    place = tmp_path_factory.mktemp("plans")
    make_folder(place / "set")
    return place


def planned(place):
    settings = [f"data.root={place / 'set'}", "data.min_pixels=100", "test.episodes=7", "test.runs=2"]
    config = load_config("folder", "prototype", [*settings, "test.shots=2"])
    source = open_source(config.data, "val")
    return make_plans(config, source), source


def test_what_is_written_is_read_again(place, tmp_path):
    plans, source = planned(place)
    (tmp_path / "plan.txt").write_text(plan_text(plans, source))
    again = read_plan(tmp_path / "plan.txt", source)
    assert again == plans and plan_hash(again, source) == plan_hash(plans, source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line.replace("\t", " "), "line 2: wanted seed, class, query and supports"),
        (lambda line: "\t".join(line.split("\t")[:3]), "line 2: wanted seed, class, query and supports"),
        (
            lambda line: f"2147483648\t{line.partition(chr(9))[2]}",
            "line 2: the seed '2147483648' is no whole",
        ),
        (lambda line: f"-1\t{line.partition(chr(9))[2]}", "line 2: the seed '-1' is no whole"),
        (lambda line: "x" + line, "line 2: the seed 'x"),
        (lambda line: "9" * 12 + line, "line 2: the seed '9.*no whole number below 2147483648"),
        (lambda line: line + "\n", "has runs of .* episodes; make them equal"),
        (lambda line: line.replace("kind 1", "kind 4"), "line 2: class 'kind 4' is not one of this fold's"),
        (lambda line: line.rpartition("\t")[0] + "\tnowhere", "line 2: image 'nowhere' is not in the list"),
        (
            lambda line: line.rpartition("\t")[0] + "\t" + line.split("\t")[2],
            "line 2: the query stands",
        ),
        (lambda line: line.rpartition("\t")[0], r"mixes episodes of \[1, 2\] shots"),
    ],
)
def test_a_line_that_does_not_fit_is_named(place, tmp_path, change, message):
    plans, source = planned(place)
    lines = plan_text(plans, source).splitlines()
    lines[1] = change(lines[1])
    (tmp_path / "plan.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        read_plan(tmp_path / "plan.txt", source)


def test_a_support_may_come_twice(place, tmp_path):
    """As in episodes that others drew."""
    plans, source = planned(place)
    first = plans[0][0]
    plans[0][0] = replace(first, supports=(first.supports[1],) * 2)
    (tmp_path / "plan.txt").write_text(plan_text(plans, source))
    assert read_plan(tmp_path / "plan.txt", source) == plans


def test_an_image_without_the_class_is_named(place, tmp_path):
    plans, source = planned(place)
    class_id = plans[0][0].class_id
    bare = next(
        n for n, row in zip(source.index.names, source.index.pixels, strict=True) if not row[class_id]
    )
    lines = plan_text(plans, source).splitlines()
    lines[1] = lines[1].rpartition("\t")[0] + f"\t{bare}"
    (tmp_path / "plan.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=f"line 2: image '{bare}' shows no {source.classes[class_id - 1]}"):
        read_plan(tmp_path / "plan.txt", source)


def test_empty_and_missing_files(place, tmp_path):
    _, source = planned(place)
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    with pytest.raises(UserError, match="holds no episode"):
        read_plan(tmp_path / "empty.txt", source)
    with pytest.raises(UserError, match="cannot be read"):
        read_plan(tmp_path / "nowhere.txt", source)


def test_a_plan_of_one_process_is_run_by_another_with_equal_counts(place, tmp_path):
    quick = [s for s in TINY if not s.startswith("head.")] + [f"data.root={place / 'set'}"]
    plan = tmp_path / "plan.txt"
    write = [sys.executable, "-m", "fss", "plan", "--data", "folder", str(plan), *quick]
    done = subprocess.run(write, capture_output=True, text=True)
    assert done.returncode == 0 and "12 episodes" in done.stdout, done.stderr
    found = []
    for name, settings in (("drawn", []), ("read", [f"test.plan={plan}"])):
        where = [f"output={tmp_path / name}", *settings]
        assert main(["test", "--data", "folder", "--head", "prototype", *quick, *where]) == 0
        (path,) = (tmp_path / name).rglob("result.json")
        result = json.loads(path.read_text())
        found.append((result["protocol"]["plan_sha256"], result["scores"]["counts"]))
    assert found[0] == found[1]


def test_other_shots_than_asked_for_and_an_existing_file_are_refused(place, tmp_path, capsys):
    quick = [s for s in TINY if not s.startswith("head.")] + [f"data.root={place / 'set'}"]
    plan = str(tmp_path / "plan.txt")
    assert main(["plan", "--data", "folder", plan, *quick]) == 0
    assert main(["plan", "--data", "folder", plan, *quick]) == 2
    assert "plan.txt exists" in capsys.readouterr().err
    test = ["test", "--data", "folder", "--head", "prototype", "--shots", "2", *quick]
    assert main([*test, f"test.plan={plan}", f"output={tmp_path}"]) == 2
    assert "holds 1-shot episodes; ask for test.shots=1" in capsys.readouterr().err


def test_seeds_are_whole_numbers_of_31_bits_and_comments_and_blank_lines_are_passed_over(place, tmp_path):
    plans, source = planned(place)
    lines = plan_text(plans, source).splitlines()
    assert lines[0].startswith("# seed, class, query image") and lines[8] == "" and len(lines) == 16
    for number, seed in ((1, 2**31 - 1), (2, 0)):
        lines[number] = f"{seed}\t{lines[number].partition(chr(9))[2]}"
    lines[4:4] = ["# a remark"]
    (tmp_path / "plan.txt").write_text("\ufeff" + "\n".join(["", *lines, "", ""]) + "\n", encoding="utf-8")
    again = read_plan(tmp_path / "plan.txt", source)
    assert [d.seed for d in again[0][:2]] == [2**31 - 1, 0]
    assert [[d.images for d in run] for run in again] == [[d.images for d in run] for run in plans]


def test_seeds_have_a_hash_of_their_own(place):
    plans, source = planned(place)
    (first, *others), *runs = plans
    other = [[replace(first, seed=first.seed + 1), *others], *runs]
    assert plan_hash(other, source) == plan_hash(plans, source) and seeds_hash(other) != seeds_hash(plans)
    assert seeds_hash([[first, *others, *runs[0]]]) != seeds_hash(plans) == seeds_hash(planned(place)[0])
