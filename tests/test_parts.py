"""Parts by name, for each kind: found, checked against their signature, and told what is wrong with them."""

import re
import sys

import pytest
from torch import nn

from fss.backbones import KIND as BACKBONES
from fss.backbones import make_backbone
from fss.cli import main
from fss.errors import UserError
from fss.heads import KIND as HEADS
from fss.necks import KIND as NECKS
from fss.parts import Kind, check_methods, import_class, nearest
from tests.make import make_folder

KINDS = pytest.mark.parametrize("kind", [BACKBONES, NECKS, HEADS], ids=lambda kind: kind.name)
# A class of each kind, with a setting of each sort.
BODY = """
from fss.backbones.base import Backbone
from fss.heads import Head
from fss.necks import Neck

class Mine({base}):
    def __init__(self, {given}width: int = 3, *, gain: float, mode: str = "fast"):
        super().__init__({arguments})
        self.width, self.gain, self.mode = width, gain, mode
"""
GIVEN = {"backbone": "", "neck": "inputs, ", "head": "channels, "}
ARGUMENTS = {"backbone": "", "neck": "inputs, 4", "head": "channels"}
NETWORK = {"backbone": {}, "neck": {"inputs": {"stage4": 4}}, "head": {"channels": {"neck": 4}}}


def text_of(kind):
    return BODY.format(base=kind.base.__name__, given=GIVEN[kind.name], arguments=ARGUMENTS[kind.name])


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Write a file of a new name into the working folder; returns its import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))

    def write(text, name="Mine"):
        module = f"part_{abs(hash((str(tmp_path), text)))}"
        (tmp_path / f"{module}.py").write_text(text)
        return f"{module}:{name}"

    return write


@KINDS
def test_every_name_of_the_table_is_found(kind):
    for name in kind.table:
        assert issubclass(kind.find(name), kind.base)
        kept = kind.options(name, {})
        assert kind.options(name, kept) == kept and not set(kind.given) & set(kept)


@KINDS
def test_an_unknown_name_is_answered_with_the_nearest(kind):
    first = next(iter(kind.table))
    message = f"unknown {kind.name} '{first}x', did you mean {first}?; allowed: {first}, "
    with pytest.raises(UserError, match=re.escape(message)) as told:
        kind.find(f"{first}x")
    assert str(told.value).endswith("or package.module:Class")
    with pytest.raises(UserError, match=f"unknown {kind.name} 'qqq'; allowed"):
        kind.find("qqq")


@KINDS
def test_a_class_in_the_working_folder_is_made_with_its_settings(kind, file):
    path = file(text_of(kind))
    part = kind.make(path, {"gain": "1e-3"}, **NETWORK[kind.name])  # as YAML reads 1e-3
    assert (part.width, part.gain, part.mode) == (3, 1e-3, "fast")
    assert kind.options(path, {"gain": 2, "width": 5}) == {"width": 5, "gain": 2.0, "mode": "fast"}


@KINDS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gian": 1}, "takes no 'gian', did you mean gain?; allowed: width, gain, mode"),
        ({"zzz": 1}, "takes no 'zzz'; allowed: width, gain, mode"),
        ({"gain": 1, "width": "much"}, "width='much': wanted a whole number"),
        ({"gain": "loud"}, "gain='loud': wanted a number"),
        ({"gain": float("nan")}, "gain=nan is no plain value"),
    ],
)
def test_settings_that_do_not_fit_name_part_and_file(kind, file, options, message):
    path = file(text_of(kind))
    with pytest.raises(UserError, match=re.escape(message)) as told:
        kind.make(path, options, **NETWORK[kind.name])
    module = path.partition(":")[0]
    assert str(told.value).startswith(f"{kind.name} '{path}' (") and f"{module}.py)" in str(told.value)


@KINDS
def test_a_setting_that_is_needed(kind, file):
    with pytest.raises(UserError, match=f"needs gain; set {kind.name}.gain=..."):
        kind.make(file(text_of(kind)), {}, **NETWORK[kind.name])


@KINDS
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package\n", r"cannot import .*part_\d+\.py, line 1 \(ModuleNotFoundError"),
        ("x = 1\ny = 1 / 0\n", r"cannot import .*part_\d+\.py, line 2 \(ZeroDivisionError"),
        ("x = (\n", r"cannot import .*part_\d+\.py, line 1 \(SyntaxError"),
        ("import json\n\njson.loads('{')\n", r"cannot import .*part_\d+\.py, line 3 \(JSONDecodeError"),
        ("class Other: pass\n", r"part_\d+\.py has no class Mine; it has Other"),
        ("y = 1\n", r"part_\d+\.py has no class Mine; it has none"),
        ("class Mine: pass\n", r"Mine in .*part_\d+\.py is no subclass of fss\."),
        ("def Mine(): pass\n", r"Mine in .*part_\d+\.py is no subclass of fss\."),
    ],
)
def test_a_file_that_fails_is_named(kind, file, text, message):
    with pytest.raises(UserError, match=f"^{kind.name} '.*{message}"):
        kind.find(file(text))


@KINDS
def test_a_class_of_another_kind_is_refused(kind, file):
    others = {"backbone": NECKS, "neck": HEADS, "head": BACKBONES}
    path = file(text_of(others[kind.name]))
    base = f"fss.{kind.name}s.{kind.base.__name__}"
    with pytest.raises(UserError, match=rf"Mine in .*part_\d+\.py is no subclass of {base}$"):
        kind.find(path)
    names = {
        "backbone": "fss.heads.cwt:CWT",
        "neck": "fss.heads.cwt:CWT",
        "head": "fss.necks.ppm:PyramidPooling",
    }
    with pytest.raises(UserError, match="is no subclass of"):
        kind.find(names[kind.name])


@pytest.mark.parametrize("kind", [NECKS, HEADS], ids=lambda kind: kind.name)
def test_what_comes_from_the_network_must_be_taken(kind, file):
    path = file(text_of(kind).replace(GIVEN[kind.name], "", 1))
    with pytest.raises(UserError, match=f"__init__ must take {kind.given[0]}, and hand it on"):
        kind.find(path)
    with pytest.raises(UserError, match=f"takes no '{kind.given[0]}'"):  # it is no setting
        kind.options(file(text_of(kind)), {kind.given[0]: {}})


@KINDS
def test_a_module_that_is_nowhere_says_where_it_is_looked_for(kind):
    with pytest.raises(
        UserError, match=r"cannot import nowhere\.mine .*Run from the folder that holds nowhere"
    ):
        kind.find("nowhere.mine:Mine")


@KINDS
@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ValueError('too\\nmany')", "too$"),
        ("RuntimeError('no memory')", "no memory$"),
        ("KeyError('stage9')", r"__init__ fails with KeyError\('stage9'\); it must begin with super"),
    ],
)
def test_a_constructor_that_fails_is_one_line(kind, file, error, message):
    path = file(text_of(kind) + f"        raise {error}\n")
    with pytest.raises(UserError, match=rf"part_\d+\.py\): {message}"):
        kind.make(path, {"gain": 1.0}, **NETWORK[kind.name])


@KINDS
def test_a_default_that_no_checkpoint_can_keep(kind, file):
    path = file(text_of(kind).replace('mode: str = "fast"', "mode=object"))
    with pytest.raises(UserError, match="mode=<class 'object'> is no plain value"):
        kind.make(path, {"gain": 1.0}, **NETWORK[kind.name])


@KINDS
def test_annotations_that_cannot_be_checked_are_let_through(kind, file):
    text = text_of(kind).replace(
        "width: int = 3, *, gain: float", "width: 'Nowhere' = 3, *more: int, gain=1.0"
    )
    path = file(text.replace('"fast"', '"fast", **others'))
    assert kind.options(path, {"width": "much"}) == {"width": "much", "gain": 1.0, "mode": "fast"}


def test_families_take_the_rest_of_the_name_as_first_argument(file):
    text = "from {} import Base\n\nclass Mine(Base):\n    def __init__(self, name, size: int = 1):\n"
    path = file("class Base: pass\n", "Base")
    module = path.partition(":")[0]
    mine = file(text.format(module) + "        self.name, self.size = name, size\n")
    kind = Kind("thing", {"one": mine}, import_class("thing", path)[0], prefixes={"zoo": mine})
    part = kind.make("zoo:bear", {"size": 2})
    assert (part.name, part.size) == ("bear", 2) and kind.options("zoo:bear", {}) == {"size": 1}
    with pytest.raises(UserError, match="takes no 'name'"):
        kind.options("zoo:bear", {"name": "wolf"})
    with pytest.raises(UserError, match="unknown thing 'zo'; allowed: one, zoo:NAME, or package"):
        kind.find("zo")


def test_methods_are_held_against_the_base_class(file):
    path = file(text_of(HEADS) + "\n    def encode(self, features, more): pass\n")
    check_methods(HEADS, path, {"forward": 2})
    with pytest.raises(
        UserError, match=r"encode\(self, features, more\) does not fit encode\(self, features"
    ):
        check_methods(HEADS, path, {"encode": 2})
    with pytest.raises(UserError, match="encode must be a method"):
        check_methods(HEADS, file(text_of(HEADS) + "\n    encode = 5\n"), {"encode": 2})


def test_a_backbone_that_does_not_tell_its_levels(file):
    forward = "\n    def forward(self, images, levels=()): return {}\n"
    with pytest.raises(UserError, match=r"__init__ must set self.channels, a mapping"):
        make_backbone(file(text_of(BACKBONES) + forward), None, {"gain": 1.0})


def test_nearest():
    assert nearest("stpes", ["steps", "lr"]) == ", did you mean steps?" and nearest("q", ["steps"]) == ""
    assert nearest("PFENet", ["pfenet"]) == ", did you mean pfenet?"


@pytest.mark.parametrize("kind", ["backbone", "neck", "head"])
def test_on_the_command_line_it_is_one_line_and_code_2(kind, file, tmp_path, capsys):
    root = make_folder(tmp_path / "set")
    given = [f"data.root={root}", "data.size=49", "backbone.weights=random", f"output={tmp_path / 'out'}"]
    for path in (file("import no_such_package\n"), "qqq"):
        assert main(["train", "--data", "folder", *given, f"{kind}.type={path}"]) == 2
        error = capsys.readouterr().err
        assert f"fss: error: {kind} '{path}'" in error or f"unknown {kind} 'qqq'" in error
        assert "Traceback" not in error and error.strip().count("\n") == 0


def test_parts_are_modules_that_learn():
    assert all(issubclass(kind.base, nn.Module) for kind in (BACKBONES, NECKS, HEADS))
