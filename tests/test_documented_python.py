"""The Python on docs/python-api.md runs as it stands, block after block, on a tiny set."""

import re
from pathlib import Path

import fss
from fss.cli import main
from tests.make import TINY, make_folder

ROOT = Path(__file__).parent.parent


def blocks(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if not b.startswith("# not run")]


def test_python_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "set")
    head = ["--head", "prototype", "network=base", "head.level=neck", "head.embed=4"]
    tiny = [s for s in TINY if not s.startswith("head.")]
    assert main(["train", "--data", "folder", "data.root=set", *head, *tiny]) == 0
    (found,) = Path("results/folder/fold0").glob("prototype*/best.pt")
    load = fss.load_protocol

    def small(data, **given):
        assert data == "shapes" and given == {"fold": 0, "shots": 1, "runs": 5, "episodes": 200}
        tiny = ("data.root=set", "data.size=49", "data.workers=0", "data.min_pixels=100")
        return load("folder", *tiny, fold=0, shots=1, runs=2, episodes=5)

    monkeypatch.setattr(fss, "load_protocol", small)
    there = {"CHECKPOINT": found}
    for code in blocks("python-api.md"):
        exec(compile(code, "docs/python-api.md", "exec"), there)  # one after another, as a reader would
    assert Path("results/external/brightness_fold0.json").is_file()
    assert len(there["protocol"]) == 10 and there["batch"].query_image.shape == (5, 3, 49, 49)
    assert there["logits"].shape == (1, 2, 49, 49) and "auxiliary" in there["out"].losses
    assert main(["report", "results/external", str(found.parent)]) == 2  # other episodes
