"""All folds with one command, which goes on where it was stopped and ends in their table."""

import json

from fss.cli import main
from tests.make import TINY, make_folder


def test_every_fold_is_trained_tested_and_tabled_once(tmp_path, capsys):
    root = make_folder(tmp_path / "set", classes=4)
    quick = [s for s in TINY if not s.startswith("head.")] + [
        f"data.root={root}",
        f"output={tmp_path / 'out'}",
    ]
    run = ["run-folds", "--data", "folder", "--head", "prototype", "data.folds=2", *quick]
    assert (
        main(["test", "--data", "folder", "--head", "prototype", "--fold", "1", "data.folds=2", *quick]) == 0
    )
    capsys.readouterr()
    assert main(run) == 0
    out = capsys.readouterr().out
    assert "fold 0: trains and tests" in out and "fold 1: done -> " in out
    (table,) = (tmp_path / "out/folder").glob("prototype_*_1shot_test.md")
    heads = [cell.strip() for cell in table.read_text().splitlines()[0].strip("|").split("|")]
    assert heads == ["head", "checkpoint", "trained", "tested", "fold 0", "fold 1", "mean", "FB-IoU"]
    for path in (tmp_path / "out").rglob("result.json"):  # in the words of 0.1
        old = json.loads(path.read_text())
        old["config"]["backbone"] = {
            "layers": 18, "stem": "auto", "stride": 8, "weights": "random", "stage1": False, "base": None,
            "vit": "none", "vit_size": 224,
        }  # fmt: skip
        old["config"]["neck"] = {
            "type": "ppm", "channels": 16, "dropout": 0.1, "align": True, "stride": 8, "auxiliary": False,
            "gate": "conv", "options": {},
        }  # fmt: skip
        old["config"] |= {"cache_gib": 4.0, "pseudo": {"layers": None, "local_layers": None}}
        del old["config"]["network"]
        path.write_text(json.dumps(old))
    results = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("result.json")}
    assert len(results) == 2 and main(run) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("result.json")} == results
    for path in results:  # as a version wrote it that did not know of pseudo-masks
        content = json.loads(path.read_text())
        del content["config"]["pseudo"], content["config"]["data"]["train_masks"]
        path.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(run) == 0
    assert "fold 0: done -> " in (out := capsys.readouterr().out) and "fold 1: done -> " in out
