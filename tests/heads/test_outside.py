"""Heads from outside the package: found by import path, and told what is wrong with them."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

import fss
from fss.cli import main
from fss.heads import KIND, Encoded, build_head, find_head
from tests.make import TINY, make_folder

ROOT = Path(__file__).parent.parent.parent
CHANNELS = {"stage3": 8, "neck": 4}
GOOD = """
import torch
from fss.heads import Head, HeadOutput

class Mine(Head):
    def __init__(self, channels, width: int = 3):
        super().__init__(channels)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, e):
        x = e.query["neck"].float().mean(1, keepdim=True) * self.scale
        return HeadOutput(torch.cat([-x, x], 1))
"""


@pytest.fixture
def head_file(tmp_path, monkeypatch):
    """Write a head file of a new name into the working folder; returns its import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))

    def write(text, name="Mine"):
        module = f"head_{abs(hash(text))}"
        (tmp_path / f"{module}.py").write_text(text)
        return f"{module}:{name}"

    return write


def test_example_trains_and_tests_by_its_yaml(tmp_path, monkeypatch):
    """As docs/add-a-head.md has it, from the checkout; nothing is installed for it."""
    monkeypatch.chdir(ROOT)
    root, output = make_folder(tmp_path / "set"), tmp_path / "results"
    tiny = [s for s in TINY if not s.startswith("head.")]
    run = ["--data", "folder", "--head", "examples/my_head/my_head.yaml", f"data.root={root}"]
    assert main(["train", *run, f"output={output}", *tiny]) == 0
    (folder,) = (output / "folder/fold0").glob("MyHead_*")
    (path,) = folder.glob("test_*/result.json")
    result = json.loads(path.read_text())
    assert result["head"] == {"type": "examples.my_head.my_head:MyHead", "width": 64}
    assert result["scores"]["episodes_run"] == 12
    assert main(["test", *run, f"output={output}", *tiny, "--shots", "2"]) == 0
    model = fss.load_model(folder / "best.pt")
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 49, 49), torch.rand(1, 1, 3, 49, 49), torch.ones(1, 1, 49, 49))
    assert logits.shape == (1, 2, 49, 49)


def test_the_page_shows_the_files_as_they_are():
    page = (ROOT / "docs/add-a-head.md").read_text()
    for kind, name in (("python", "my_head.py"), ("yaml", "my_head.yaml")):
        block = page.partition(f"```{kind}\n")[2].partition("```\n")[0]
        assert block == (ROOT / "examples/my_head" / name).read_text()


def test_example_yaml_names_its_own_file():
    head = yaml.safe_load((ROOT / "examples/my_head/my_head.yaml").read_text())["head"]
    options = {k: v for k, v in head.items() if k != "type"}
    assert KIND.options(head["type"], options) == options


def test_a_file_in_the_working_folder_is_found(head_file):
    head = build_head(head_file(GOOD), {"width": 5}, CHANNELS)
    assert head.learns and head.levels == ("neck",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import no_such_package\n",
            r"cannot import .*head_\d+\.py, line 1 \(ModuleNotFoundError: .*no_such",
        ),
        ("x = 1\ny = 1 / 0\n", r"cannot import .*head_\d+\.py, line 2 \(ZeroDivisionError"),
        ("x = (\n", r"cannot import .*head_\d+\.py, line 1 \(SyntaxError"),
        ("import json\njson.loads('{')\n", r"import .*head_\d+\.py, line 2 \(JSONDecodeError"),
        ("class Other: pass\n", r"head_\d+\.py has no class Mine; it has Other"),
        ("class Mine: pass\n", r"Mine in .*head_\d+\.py is no subclass of fss.heads.Head"),
        (GOOD.replace("def forward", "def forwards"), r"head_\d+\.py\) has no method forward\(self, episodes\)"),
        (
            GOOD.replace("def forward(self, e)", "def forward(self, query, support, e)"),
            r"head_\d+\.py\): forward\(self, query, support, e\) does not fit",
        ),
        (
            GOOD.replace("    def forward", "    levels = ()\n    def forward"),
            r"levels must name one feature map",
        ),
        (GOOD + "    encode = 5\n", r"encode must be a method\(self, features"),
        (GOOD.replace("channels, width", "width"), r"head_\d+\.py\): __init__ must take channels"),
    ],
)
def test_a_broken_file_is_named(head_file, text, message):
    with pytest.raises(fss.UserError, match=message):
        find_head(head_file(text))


def test_an_unknown_module_says_where_it_is_looked_for(head_file):
    head_file(GOOD)
    message = r"cannot import nowhere\.mine \(ModuleNotFoundError.*Run from the folder that holds nowhere"
    with pytest.raises(fss.UserError, match=message):
        find_head("nowhere.mine:Mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 3}, r"head_\d+\.py\) takes no 'widht', did you mean width\?; allowed: width"),
        ({"mode": "fast"}, r"head_\d+\.py\) takes no 'mode'"),
        ({"width": "much"}, r"head_\d+\.py\): width='much': Input should be a valid integer"),
    ],
)
def test_a_wrong_keyword_names_file_and_keyword(head_file, options, message):
    with pytest.raises(fss.UserError, match=message):
        build_head(head_file(GOOD), options, CHANNELS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("super().__init__(channels)", "pass"), r"AttributeError.*must begin with super"),
        (
            GOOD.replace("super().__init__(channels)", "super().__init__(channels); channels['nek']"),
            "KeyError",
        ),
        (GOOD.replace("width: int = 3", "w=float('nan')"), r"w=nan is no plain value"),
        (GOOD.replace("width: int = 3", "act=torch.nn.ReLU"), r"act=<class .*ReLU'> is no plain value"),
    ],
)
def test_a_constructor_that_fails_names_the_file(head_file, text, message):
    with pytest.raises(fss.UserError, match=r"head_\d+\.py\).*" + message):
        build_head(head_file(text), {}, CHANNELS)


def test_annotations_that_cannot_be_checked_are_let_through(head_file):
    path = head_file(GOOD.replace("width: int = 3", "width: 'Nowhere' = 3, *more: int, **others"))
    assert KIND.options(path, {"width": "much"}) == {"width": "much"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("HeadOutput(torch.cat([-x, x], 1))", "x"), r"must return a HeadOutput, not Tensor"),
        (
            GOOD.replace("HeadOutput(torch.cat([-x, x], 1))", "HeadOutput(None)"),
            r"floating point tensor, got None",
        ),
        (
            GOOD.replace(", x], 1))", ", x], 1), {'mine': 1.5})"),
            r"losses\['mine'\] must be a tensor of shape",
        ),
        (
            GOOD.replace(", x], 1))", ", x], 1), {}, {'a': True})"),
            r"notes\['a'\] must be a tensor of shape \(1,\)",
        ),
        (GOOD.replace("[-x, x]", "[x]"), r"logits must be \(B,2,h,w\) with B = 1, got \(1, 1, 5, 5\)"),
    ],
)
def test_a_wrong_answer_names_the_file(head_file, text, message):
    head = build_head(head_file(text), {}, CHANNELS)
    features = {"neck": torch.randn(1, 4, 5, 5)}
    support = {"neck": torch.randn(1, 1, 4, 5, 5)}
    with pytest.raises(fss.UserError, match=r"head_\d+\.py\).*" + message):
        head(Encoded(features, support, torch.ones(1, 1, 9, 9), [0]))


def test_a_level_that_the_network_lacks_is_named():
    with pytest.raises(fss.UserError, match=re.escape("it needs neck, and this network has stage1, stage2")):
        build_head("cwt", {}, {"stage1": 1, "stage2": 1})


def test_on_the_command_line_it_is_one_line_and_code_2(head_file, capsys):
    path = head_file("import no_such_package\n")
    assert main(["test", f"head.type={path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fss: error: head") and "Traceback" not in error
