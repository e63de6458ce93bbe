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


def test_of_mixed_results_a_command_names_those_of_one_protocol(tmp_path, capsys):
    for fold in range(4):
        one, other = load(f"fold{fold}_cwt_1shot"), load(f"fold{fold}_cwt_1shot", protocol__min_pixels=7)
        for name, result in (("one", one), ("two", other)):
            path = tmp_path / f"fold{fold}" / name / "result.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(result.content))
    assert main(["report", str(tmp_path)]) == 2
    command = capsys.readouterr().err.strip().splitlines()[-1].partition("Such as: fss ")[2]
    assert command == f"report {tmp_path}/fold*/one/result.json"
    found = [str(path) for path in tmp_path.glob("fold*/one/result.json")]
    assert len(found) == 4 and main(["report", *found]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores__runs": []}, "scores.runs: List should have at least 1 item"),
        (
            {"scores__runs": [{"miou": float("nan")}] * 5},
            "scores.runs.0.miou: wanted a finite number",
        ),
        ({"scores__runs": [{"miou": 1.0}]}, "1 runs, where the protocol says 5"),
        ({"protocol": {}}, "protocol.data: Field required"),
        ({"protocol__fold": 9}, "fold 9 of 4 does not exist"),
        ({"shots": 3}, "shots: wanted a mapping"),
        ({"head": None}, "head: wanted a mapping"),
        ({"config": None}, "config: wanted a mapping"),
    ],
)
def test_odd_files_are_named_with_the_odd_part(changes, message, tmp_path):
    (tmp_path / "odd.json").write_text(json.dumps(load("fold0_cwt_1shot", **changes).content))
    with pytest.raises(UserError, match=f"odd.json is no result of a test: .*{message}"):
        read_results([tmp_path / "odd.json"])


@pytest.mark.parametrize("format", [".md", ".csv", ".html"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores__miou": 99.0}, "miou is 99.0000, where its runs give 62.1"),
        ({"scores__miou": 250}, "scores.miou: allowed: 100.0 or less"),
        ({"scores__runs": [{"miou": 99.0}] * 5, "scores__miou": 99.0, "scores__interval": 0.0},
         "miou is 99.0000, where its classes give 62.0"),
        ({"scores__runs": [{"miou": -50}] * 5}, "scores.runs.0.miou: allowed: 0.0 or more"),
        ({"scores__runs": [{"miou": 1e308}] * 5}, "scores.runs.0.miou: allowed: 100.0 or less"),
        ({"scores__interval": 9.0}, "interval is 9.0000, where its runs give 1.0"),
        ({"scores__fb_iou": 99.0}, "fb_iou is 99.0000, where its runs give 76"),
        ({"scores__fb_iou": float("inf")}, "scores.fb_iou: wanted a finite"),
        ({"scores__per_class__star_stripes": 99.0}, "IoU of class 'star_stripes' is 99.0000"),
        ({"scores__counts__star_stripes__union": [1, 1]}, "an intersection larger than its union"),
        ({"scores__counts__star_stripes__union": [1, -1]}, "union.1: allowed: 0 or more"),
        ({"scores__counts__other": {"intersection": [1, 1], "union": [1, 1]}}, "has an IoU or counts"),
        ({"protocol__episodes": 10**9}, "1000 episodes, where the protocol says 5000000000"),
        ({"protocol__runs": 10**9}, "5 runs, where the protocol says 1000000000"),
    ],
)  # fmt: skip
def test_a_result_that_contradicts_itself_is_refused_by_name(changes, message, format, tmp_path, capsys):
    (tmp_path / "odd.json").write_text(json.dumps(load("fold0_cwt_1shot", **changes).content))
    words = ["report", str(tmp_path / "odd.json"), "--out", str(tmp_path / f"table{format}")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "odd.json is no result of a test: " in said and message in said
    assert not (tmp_path / f"table{format}").exists()


def test_many_episodes_may_be_unevenly_spread_over_classes(tmp_path):
    changes = {"protocol__episodes": 10**5, "scores__episodes_run": 5 * 10**5}
    (tmp_path / "odd.json").write_text(json.dumps(load("fold0_cwt_1shot", **changes).content))
    assert read_results([tmp_path / "odd.json"])


def test_a_single_run_equals_its_classes(tmp_path):
    changes = {"protocol__runs": 1, "scores__episodes_run": 200, "scores__interval": None}
    content = load("fold0_cwt_1shot", **changes, scores__runs=[{"miou": 62.4}], scores__miou=62.4).content
    (tmp_path / "odd.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"miou is 62.4000, where its classes give 62.0"):
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


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"config__backbone__layers": 101}, "backbone.type=resnet101"),
        ({"config__neck__channels": 512}, "neck.channels=512"),
        ({"precision": "fp32"}, "precision=fp32"),
        ({"checkpoint__base__weights": "some/where/r50.pth"}, "weights=r50.pth"),
        ({"checkpoint__base__backbone_sha256": "e" * 64}, "weights_sha256=eeeeeeee"),
        ({"config__pretrain__seconds": 1000}, "pretrain.seconds=1000"),
        ({"config__pretrain__epochs": 3}, "pretrain.epochs=3"),
        ({"config__train__seconds": 6.5}, "train.seconds=6.5"),
        ({"config__train__episodes": 7}, "train.episodes=7"),
        ({"config__train__lr": 0.5}, "train.lr=0.5"),
        ({"checkpoint__batch": 9}, "train.batch=9"),
        ({"config__seed": 4, "checkpoint__seed": 4}, "train.seed=4"),
        ({"checkpoint__base__precision": "fp32"}, "pretrain.precision=fp32"),
    ],
)
def test_a_row_is_one_network_and_one_training(changes, label):
    rows = make_rows([*folds("cwt", which=(0, 1, 2)), load("fold3_cwt_1shot", **changes)])
    assert sorted(list(row.folds) for row in rows) == [[0, 1, 2], [3]]
    (other,) = [row.label for row in rows if 3 in row.folds]
    assert other.split()[1:] == [label] and all(row.miou is None for row in rows)
    both = make_rows([load("fold0_cwt_1shot"), load("fold0_cwt_1shot", **changes)])
    assert len({row.label for row in both}) == 2  # on one fold, too


def test_settings_that_change_no_number_part_nothing():
    other = {"config__train__accumulate": 2, "config__pretrain__keep": 9, "config__train__seconds": 60}
    rows = make_rows([*folds("cwt", which=(0, 1, 2)), load("fold3_cwt_1shot", **other)])
    assert [row.label for row in rows] == ["cwt"]


def test_of_a_given_file_the_file_tells_how_it_was_trained():
    given = {"protocol__selection": "a given file"}
    same = [load("fold0_cwt_1shot", **given), load("fold1_cwt_1shot", **given, config__train__seconds=1)]
    assert [row.label for row in make_rows(same)] == ["cwt"]
    other = load("fold1_cwt_1shot", **given, checkpoint__batch=3)
    assert [r.label for r in make_rows([same[0], other])] == ["cwt train.batch=3", "cwt train.batch=8"]


def test_a_training_is_compared_among_those_that_had_one():
    heads = make_rows([load("fold0_cwt_1shot"), load("fold0_cwt_plain_1shot", head__transformer=True)])
    assert [row.label for row in heads] == ["cwt", "cwt"] and {r.trained for r in heads} == {1, None}


def test_a_checksum_is_named_where_nothing_else_differs():
    other = load(
        "fold0_cwt_1shot", checkpoint__base__weights="r50.pth", checkpoint__base__backbone_sha256="e"
    )
    labels = [row.label for row in make_rows([load("fold0_cwt_1shot"), other])]
    assert labels == ["cwt weights=r50.pth", "cwt weights=random"]


def test_steps_that_differ_between_folds_are_said():
    results = folds("cwt")
    assert "Checkpoints of cwt: of step 339 to 401." in markdown(make_rows(results), results)
    assert "Checkpoints of" not in markdown(make_rows(results[:1]), results[:1])


def test_names_from_results_break_out_of_no_table(tmp_path, capsys):
    name = "=x|<script>`\n"
    content = load("fold0_cwt_1shot", head__type=f"a:{name}", protocol__data=f"set {name}").content
    for part in ("per_class", "counts"):
        content["scores"][part] = {f"{name} {k}": v for k, v in content["scores"][part].items()}
    (tmp_path / "odd.json").write_text(json.dumps(content))
    content["config"]["tag"] = "other"
    (tmp_path / "other.json").write_text(json.dumps(content))
    texts = {}
    for kind in (".md", ".csv", ".html"):
        for more in ([], ["--compare"]):
            out = tmp_path / f"t{len(more)}{kind}"
            files = [str(tmp_path / f) for f in ("odd.json", "other.json")[: len(more) + 1]]
            assert main(["report", *files, *more, "--out", str(out)]) == 0, capsys.readouterr().err
            texts[out.name] = out.read_text()
    for text in (v for k, v in texts.items() if not k.endswith(".csv")):
        assert "<script>`" not in text and "&lt;script&gt;" in text
    assert r"| =x\|&lt;script&gt;\` " in texts["t0.md"]
    for text in (texts["t0.csv"], texts["t1.csv"]):
        assert not any(line.startswith("=") for line in text.splitlines())
    assert "'=x" in texts["t0.csv"] and "'=x" in texts["t1.csv"]


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
