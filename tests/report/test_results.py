"""Tables from result files: means only over whole sets of folds, and no mixing of protocols."""

import copy
import json
from pathlib import Path

import pytest

from fss.cli import main
from fss.errors import UserError
from fss.metrics import interval95
from fss.report.results import Result, compare, make_rows, read_results
from fss.report.tables import comma_separated, markdown

RESULTS = Path(__file__).parent.parent.parent / "docs/results"


def load(name, **changes):
    """A measured result, with dotted keys changed."""
    path = RESULTS / f"shapes_{name}.json"
    content = copy.deepcopy(json.loads(path.read_text()))
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = content
        for name in parents:
            part = part[name]
        part[last] = value
    return Result(path, content)


def plain(table):
    """A table without the blanks that align its columns."""
    return "\n".join(" ".join(line.split()) for line in table.splitlines())


def folds(head, shots=1, which=range(4)):
    return [load(f"fold{f}_{head}_{shots}shot") for f in which]


def test_rows_hold_every_fold_and_a_mean_with_its_own_interval():
    results = folds("cwt")
    (row,) = make_rows(results)
    assert (row.label, row.trained, row.tested, list(row.folds)) == ("cwt", 1, 1, [0, 1, 2, 3])
    for fold, result in enumerate(results):
        assert row.folds[fold].mean == pytest.approx(result.content["scores"]["miou"], abs=1e-3)
        assert row.folds[fold].interval == pytest.approx(result.content["scores"]["interval"], abs=1e-3)
    runs = [sum(r.runs[i] for r in results) / 4 for i in range(5)]
    assert row.miou.mean == pytest.approx(sum(runs) / 5) and row.miou.interval == interval95(runs)


def test_no_mean_where_a_fold_is_missing():
    results = folds("cwt", which=(0, 1, 3))
    (row,) = make_rows(results)
    assert row.miou is None and row.fb_iou is None
    assert "No mean where a fold is missing" in markdown([row], results)


def test_heads_of_one_kind_are_told_apart_by_what_differs():
    rows = make_rows([*folds("asgnet"), *folds("asgnet_one"), *folds("cwt"), *folds("cwt", 5)])
    assert [(r.label, r.tested) for r in rows] == [
        ("asgnet prototypes=1", 1), ("asgnet prototypes=5", 1), ("cwt", 1), ("cwt", 5),
    ]  # fmt: skip


def test_options_that_came_later_do_not_part_old_results_from_new():
    new = [load(f"fold{f}_asgnet_1shot", head__features="stages") for f in (0, 1)]
    (row,) = make_rows([*new, *folds("asgnet", which=(2, 3))])
    assert row.label == "asgnet" and row.miou is not None


def test_necks_are_told_apart():
    rows = make_rows([load("fold0_cwt_1shot"), load("fold0_cwt_1shot", config__neck__type="sfnet")])
    assert [r.label for r in rows] == ["cwt neck.type=ppm", "cwt neck.type=sfnet"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol__image_size": 473}, r"image_size: 97 \(.*\); 473 \("),
        ({"protocol__label_size": "original"}, r'label_size: "97 px canvas" \(.*\); "original"'),
        ({"protocol__episodes": 1000}, "episodes: 200"),
        ({"protocol__novel_in_training": "dropped"}, 'novel_in_training: "background"'),
        ({"protocol__plan_sha256": "f" * 64}, r"plan_sha256 in fold 0 with 1 shot\(s\)"),
    ],
)
def test_protocols_that_differ_are_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        make_rows([load("fold0_cwt_1shot"), load("fold0_asgnet_1shot", **changes)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores__runs": []}, "scores.runs: List should have at least 1 item"),
        (
            {"scores__runs": [{"miou": float("nan")}] * 5},
            "scores.runs.0.miou: Input should be a finite number",
        ),
        ({"scores__runs": [{"miou": 1.0}]}, "1 runs, where the protocol says 5"),
        ({"protocol": {}}, "protocol.data: Field required"),
        ({"protocol__fold": 9}, "fold 9 of 4 does not exist"),
        ({"shots": 3}, "shots: Input should be a valid dictionary"),
        ({"head": None}, "head: Input should be a valid dictionary"),
        ({"config": None}, "config: Input should be a valid dictionary"),
    ],
)
def test_odd_files_are_named_with_the_odd_part(changes, message, tmp_path):
    (tmp_path / "odd.json").write_text(json.dumps(load("fold0_cwt_1shot", **changes).content))
    with pytest.raises(UserError, match=f"odd.json is no result of a test: .*{message}"):
        read_results([tmp_path / "odd.json"])


def test_a_folder_of_renamed_results_is_read(tmp_path):
    for fold in range(4):
        (tmp_path / f"{fold}.json").write_text(json.dumps(load(f"fold{fold}_cwt_1shot").content))
    assert len(read_results([tmp_path])) == 4


def test_two_results_for_one_cell_are_refused():
    with pytest.raises(UserError, match="two results for cwt, fold 0, 1 shot"):
        make_rows([load("fold0_cwt_1shot"), load("fold0_cwt_1shot")])


def test_a_tag_makes_another_row():
    rows = make_rows([load("fold0_cwt_1shot"), load("fold0_cwt_1shot", config__tag="long")])
    assert [r.label for r in rows] == ["cwt", "cwt (long)"]


def test_best_and_last_checkpoint_stand_in_rows_of_their_own():
    last = {"protocol__selection": "last checkpoint"}
    results = [*folds("cwt"), *(load(f"fold{f}_cwt_1shot", **last) for f in range(4)), *folds("prototype")]
    rows = make_rows(results)
    assert [(r.label, r.checkpoint) for r in rows] == [("cwt", "best"), ("cwt", "last"), ("prototype", "")]
    assert all(r.miou for r in rows)


def test_other_networks_are_noted():
    results = [load("fold0_cwt_1shot"), load("fold0_asgnet_1shot", frozen_sha256="0" * 64)]
    assert "Frozen networks differ between rows in fold 0." in markdown(make_rows(results), results)


def test_formats_hold_the_same_cells():
    results = [*folds("cwt"), *folds("prototype")]
    rows = make_rows(results)
    lines = comma_separated(rows, results).splitlines()
    assert (
        lines[0] == "head,checkpoint,trained,tested,fold 0,fold 1,fold 2,fold 3,mean,FB-IoU"
        and len(lines) == 3
    )
    for cell in lines[1].split(","):
        assert cell in markdown(rows, results)


def test_published_numbers_stand_beside_with_their_source():
    results = [load(f"fold{f}_cwt_5shot", protocol__data="pascal") for f in range(4)]
    text = plain(markdown(make_rows(results), results))
    assert "| RePRI (paper) | | | 5-shot | 64.6 | 71.4 | 71.1 | 59.3 | 66.6 | |" in text
    assert "1-shot | 59.8" not in text and "published numbers, each on a protocol of its own" in text
    assert "RePRI" not in markdown(make_rows(folds("cwt")), folds("cwt"))


def test_pairs_are_compared_run_by_run():
    first, second = load("fold0_cwt_1shot"), load("fold0_asgnet_1shot")
    got = compare(first, second)
    pairs = [b - a for a, b in zip(first.runs, second.runs, strict=True)]
    assert got.miou.mean == pytest.approx(sum(pairs) / 5) and got.miou.interval == interval95(pairs)
    assert got.per_class.keys() == first.content["scores"]["per_class"].keys()
    with pytest.raises(UserError, match="different folds or shots"):
        compare(first, load("fold1_cwt_1shot"))


def test_command_line_writes_tables_and_compares(tmp_path, capsys):
    files = [str(RESULTS / f"shapes_fold{f}_cwt_1shot.json") for f in range(4)]
    assert main(["report", *files]) == 0
    assert "| cwt | best | 1-shot | 1-shot |" in plain(capsys.readouterr().out)
    for name in ("table.md", "table.csv", "table.html"):
        assert main(["report", *files, "--out", str(tmp_path / name)]) == 0
        assert "cwt" in (tmp_path / name).read_text()
    other = str(RESULTS / "shapes_fold0_asgnet_1shot.json")
    assert main(["report", "--compare", files[0], other]) == 0
    assert "star_stripes +18.56" in plain(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere cannot be read as a result"),
        (["EMPTY"], "no result.json below"),
        (["LIST"], "is no result of a test"),
        (["--compare", "ONE"], "--compare takes two results"),
        (["LIST", "--out", "table.pdf"], "allowed are names in .md, .csv, .html"),
    ],
)
def test_mistakes_are_told(arguments, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[]")
    names = {
        "ONE": str(RESULTS / "shapes_fold0_cwt_1shot.json"),
        "EMPTY": str(tmp_path / "empty"),
        "LIST": str(tmp_path / "list.json"),
    }
    assert main(["report", *(names.get(a, a) for a in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_every_class_and_folds_never_share_a_mean():
    with pytest.raises(UserError, match=r"every class \(fold -1\) and over folds"):
        make_rows([*folds("cwt", which=(0, 1)), load("fold0_cwt_1shot", protocol__fold=-1)])
