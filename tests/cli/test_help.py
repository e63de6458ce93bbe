"""Help: every verb's, whatever verbs there are; and what `fss` says to nothing and to nonsense."""

import re
import shlex
import sys

import pytest

from fss.cli import GROUPS, VERBS, main, verb_parser
from fss.recipes import load_config


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("verb", VERBS)
def test_help_holds_examples_and_fits(verb, capsys):
    text = help_of(capsys, verb, "--help")
    assert VERBS[verb].examples and all(line in text for line in VERBS[verb].examples)
    assert [line for line in text.splitlines() if len(line) > 100] == []
    assert text == help_of(capsys, "help", verb)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_what_it_is(verb):
    assert [a.dest for a in verb_parser(verb)._actions if not a.help] == []


@pytest.mark.parametrize("line", [line for verb in VERBS.values() for line in verb.examples])
def test_examples_parse(line):
    program, verb, *arguments = shlex.split(line)
    assert program == "fss"
    options, unknown = verb_parser(verb).parse_known_intermixed_args(arguments)
    assert unknown == []
    settings = [a for a in arguments if re.match(r"[a-z_]+\.\w+=", a)]
    data, head = (getattr(options, name, None) for name in ("data", "head"))
    load_config(data or "shapes", head or "cwt", settings)


@pytest.mark.parametrize("verb", VERBS)
def test_first_example_is_of_the_verb_itself(verb):
    assert VERBS[verb].examples[0].split()[:2] == ["fss", verb]


def test_top_help_groups_every_verb(capsys):
    text = help_of(capsys, "--help")
    assert text == help_of(capsys, "help")
    assert max(map(len, text.splitlines())) <= 80
    for verb in VERBS:
        assert len(re.findall(rf"^  {verb} ", text, re.MULTILINE)) == 1
    assert all(f"\n{title}:\n" in text for title in GROUPS)


def test_every_verb_has_its_group():
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(set(named)) and set(VERBS) <= set(named)


def test_nothing_asked_for_prints_the_help(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == "" and "start here:" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--suport", "a", "--query", "b", "--out", "c"], "--suport, did you mean --support?"),
        (["trian"], "unknown verb 'trian', did you mean train?"),
        (["run_folds", "--data", "shapes"], "did you mean run-folds?"),
        (["help", "reprot"], "did you mean report?"),
        (["xyz"], f"unknown verb 'xyz'; there are: {', '.join(VERBS)}"),
        (["--data", "shapes"], "unknown option --data; a verb comes first"),
    ],
)
def test_no_such_verb(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_package_that_is_missing_is_named(monkeypatch, capsys):
    def run(options, arguments):
        import a_package_that_is_not_there  # noqa: F401

    monkeypatch.setitem(VERBS, "plan", VERBS["plan"]._replace(run=run))
    assert main(["plan", "plan.txt"]) == 2
    assert "package a_package_that_is_not_there is not installed; `fss doctor`" in capsys.readouterr().err


def test_a_module_of_ours_that_is_missing_is_a_bug(monkeypatch):
    def run(options, arguments):
        import fss.nothing_of_the_kind  # noqa: F401

    monkeypatch.setitem(VERBS, "plan", VERBS["plan"]._replace(run=run))
    with pytest.raises(ModuleNotFoundError):
        main(["plan", "plan.txt"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions take no notes yet")
def test_a_bug_keeps_its_traceback_and_points_at_the_doctor(monkeypatch):
    def run(options, arguments):
        raise RuntimeError("operator nms does not exist")

    monkeypatch.setitem(VERBS, "plan", VERBS["plan"]._replace(run=run))
    with pytest.raises(RuntimeError, match="nms") as error:
        main(["plan", "plan.txt"])
    assert "`fss doctor`" in "".join(error.value.__notes__)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "folder", "--root", "x", "--val", "30%"], "--val: '30%'; wanted a number, such as 0.5"),
        (["predict", "--seed", "1", "--size", "big"], "--size: 'big'; wanted a whole number"),
    ],
)
def test_numbers_that_are_none_are_told_in_plain_words(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2 and said in " ".join(capsys.readouterr().err.split())
