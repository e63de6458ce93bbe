"""What the documentation tells users to type: verbs, options, settings, files and links that exist."""

import argparse
import contextlib
import io
import re
import shlex
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from fss import cli
from fss.backbones import BACKBONES
from fss.backbones import KIND as BACKBONE_KIND
from fss.cli.common import settings_and_paths
from fss.config import Config
from fss.errors import UserError
from fss.heads import HEADS
from fss.heads import KIND as HEAD_KIND
from fss.necks import KIND as NECK_KIND
from fss.necks import NECKS
from fss.recipes import load_config
from fss.spelling import backbone_name
from tests.documented import ROOT, Command, documented, in_header, in_page, pages, spans

FOLDERS = ("configs/", "examples/", "scripts/", "studies/", "tests/", "fss/")
# Programs that are none of ours: known to exist, their arguments are their own affair.
OTHERS = ("cat", "cd", "cp", "git", "ls", "mkdir", "ssh", "tensorboard", "uname", "which")
POSITIONS = {"train.sh": ("data", "fold", "gpus", "layers", "shots"),
             "test.sh": ("data", "shots", "gpus", "layers", "fold")}  # fmt: skip


def problems(text: str, loose: bool = False) -> list[str]:
    """What is wrong with a command line; `loose`: a fragment in a sentence, which may leave out arguments."""
    if inner := re.fullmatch(r"source <\((.*?)\)\s*(#.*)?", text):
        text = inner[1]
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        return [f"no shell reads this: {error}"]
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # CUDA_VISIBLE_DEVICES=0 fss ...
        words = words[1:]
    if ">" in words:
        words = words[: words.index(">")]
    missing = [w for w in words if w.startswith(FOLDERS) and not list(ROOT.glob(w))]
    return [f"{w} does not exist" for w in missing] + _by_program(words, loose)


def _by_program(words: list[str], loose: bool) -> list[str]:
    program, rest = words[0], words[1:]
    if program == "fss":
        return _fss(rest, loose)
    if program == "torchrun" or (program == "python" and rest[:1] == ["-m"]):
        if "-m" not in rest or rest[rest.index("-m") + 1 :][:1] != ["fss"]:
            return [] if program == "python" else ["torchrun starts something else than `-m fss`"]
        return _fss(rest[rest.index("-m") + 2 :], loose)
    if program == "sh":
        return _script(rest, loose)
    if program == "python" and rest and rest[0].endswith(".py"):
        return _python(rest)
    if program in ("pip", "sbatch"):
        extras = [e for w in rest for e in re.findall(r"\.\[([\w,]+)\]", w)]
        setup = (ROOT / "setup.py").read_text(encoding="utf-8")
        return [f"no extra {e}" for e in ",".join(extras).split(",") if e and f'"{e}":' not in setup]
    return [] if program in OTHERS else [f"unknown program {program}"]


def _script(words: list[str], loose: bool) -> list[str]:
    name, values = Path(words[0]).name, words[1:]
    if not (ROOT / words[0]).is_file():
        return [f"{words[0]} does not exist"]
    if name not in POSITIONS or (loose and not values):
        return []
    if len(values) < 5:
        return [f"{name} takes {', '.join(POSITIONS[name])}"]
    given = [w for key, value in zip(POSITIONS[name], values, strict=False) for w in (f"--{key}", value)]
    return _fss([name.removesuffix(".sh"), *given, *values[5:]], loose)


def _python(words: list[str]) -> list[str]:
    if not (ROOT / words[0]).is_file():
        return [f"{words[0]} does not exist"]
    source = (ROOT / words[0]).read_text(encoding="utf-8")
    options = [w.partition("=")[0] for w in words[1:] if w.startswith("--")]
    return [f"{words[0]} knows no {option}" for option in options if f'"{option}"' not in source]


def _fss(words: list[str], loose: bool) -> list[str]:
    if words in (["--help"], ["--version"]) or words[:1] == ["help"]:
        return []
    if not words or words[0] not in cli.VERBS:
        return [f"no verb {' '.join(words[:1])!r}"]
    parser, said = cli.verb_parser(words[0]), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            options, unknown = parser.parse_known_intermixed_args(words[1:])
        except SystemExit as stop:
            told = said.getvalue().strip().splitlines()
            if stop.code and loose and re.search("required|expected .*argument", told[-1]):
                known = {text for action in parser._actions for text in action.option_strings}
                return [f"no option {w}" for w in words if w.startswith("--") and w not in known]
            return told[-1:] if stop.code else []
    wrong = [f"no option {word}" for word in unknown]
    return wrong + _configured(options, settings_and_paths(words[1:])[0])


def _configured(options: argparse.Namespace, settings: list[str]) -> list[str]:
    """What the schema and the head say of a command's settings."""
    named = {"data.fold": "fold", "train.shots": "shots", "test.shots": "shots", "backbone.type": "layers"}
    given = [
        f"{k}={backbone_name(v) if o == 'layers' else v}"
        for k, o in named.items()
        if (v := getattr(options, o, None)) is not None
    ]
    data, head = getattr(options, "data", None) or "pascal", getattr(options, "head", None) or "cwt"
    if options.verb == "check-data":
        _, names = settings_and_paths(options.paths)
        data = str(names[0])
    recipes = getattr(options, "config", None) or []
    try:
        made = load_config(data, head, given + settings, recipes if isinstance(recipes, list) else [])
        HEAD_KIND.options(made.head.type, made.head.options)
        NECK_KIND.options(made.neck.type, made.neck.options)
        BACKBONE_KIND.options(made.backbone.type, made.backbone.options)
    except UserError as error:
        return [str(error)]
    return []


def _section(name: str) -> Any:
    field = Config.model_fields.get(name)
    known = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) if field else False
    return field.annotation if known else None


_KINDS = {"backbone": (BACKBONE_KIND, BACKBONES), "neck": (NECK_KIND, NECKS), "head": (HEAD_KIND, HEADS)}


def setting_problems(text: str) -> list[str]:
    """What is wrong with `section.key=value` in a sentence; values in capitals stand for others."""
    key, equals, value = text.partition("=")
    section, _, name = key.partition(".")
    model = _section(section)
    if section in _KINDS and name not in model.model_fields:
        kind, names = _KINDS[section]
        takers = [part for part in names if name in signature(kind.find(part)).parameters]
        return [] if takers else [f"no {section} takes {name}"]
    if name not in model.model_fields:
        return [f"{section} has no {name}"]
    if not equals or not value or re.search(r"[A-Z|]|\.\.\.", value):
        return []
    field = model.model_fields[name]
    try:
        given = yaml.safe_load(value)
        given = str(given).lower() if name == "train_masks" else given
        given = "original" if given == "common" else given
        TypeAdapter(Annotated[field.annotation, field]).validate_python(given)
    except ValidationError as error:
        return [f"{text}: {error.errors()[0]['msg']}"]
    return []


def is_setting(text: str) -> bool:
    match = re.fullmatch(r"(\w+)\.(\w+)(=\S+)?", text)
    return bool(match and _section(match[1]) and match[2] not in ("sh", "txt", "yaml", "py", "json", "key"))


def anchors(page: Path) -> set[str]:
    """Names that headings of a page get on the web: lower case, hyphens for blanks, no punctuation."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    """Relative links and pictures of a page that lead nowhere."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


OF_THE_PAST = ("CHANGELOG.md", "migrate.md")  # pages that name settings which are no more


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("command", documented(), ids=str)
def test_command_is_understood(command):
    assert problems(command.text) == []


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_page_names_what_exists(page):
    wrong = []
    options = known_options()
    for span in spans(page):
        if re.match(r"(fss|(sh|python) (?:scripts|studies)/\S+) (?!VERB|\.\.\.)", span.text):
            wrong += [f"{span}: {p}" for p in problems(span.text, loose=True)]
        elif is_setting(span.text) and page.name not in OF_THE_PAST:
            wrong += [f"{span}: {p}" for p in setting_problems(span.text)]
        elif match := re.match(r"--[a-z][\w-]*", span.text):
            wrong += [] if match[0] in options else [f"{span}: no such option"]
    assert wrong + broken_links(page) == []


def known_options() -> set[str]:
    """Options of all verbs, of the studies, and of torchrun."""
    verbs = [action for name in cli.VERBS for action in cli.verb_parser(name)._actions]
    studies = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "studies").glob("*.py"))
    found = {text for action in verbs for text in action.option_strings}
    return found | set(re.findall(r'"(--[a-z][\w-]*)"', studies)) | {"--version", "--nproc_per_node"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fss trian --data shapes", "no verb 'trian'"),
        ("fss train --data shapes --fast", "no option --fast"),
        ("fss train --data shape", "unknown data 'shape', did you mean shapes"),
        ("fss train --data shapes --head cwt head.stepz=3", "takes no 'stepz', did you mean steps"),
        ("fss test --data shapes test.episode=3", "unknown key test.episode, did you mean episodes"),
        ("fss test --data shapes test.runs=none # settings are read", "test.runs"),
        ("sh scripts/train.sh shapes 0 [0] 50", "train.sh takes data, fold, gpus, layers, shots"),
        ("sh scripts/train.sh shapes 7 [0] 50 1", "fold 7 does not exist"),
        ("sh scripts/trian.sh shapes 0 [0] 50 1", "scripts/trian.sh does not exist"),
        ("sh scripts/test.sh shapes 1 [0] 50 0 --head examples/no.yaml", "examples/no.yaml does not exist"),
        ("python studies/bench_index.py --rusn 3", "knows no --rusn"),
        ("torchrun --standalone --nproc_per_node=2 -m fss train --data pascal --vold 0", "no option --vold"),
        ("CUDA_VISIBLE_DEVICES=0 fss train --data shapes --shot 1 --layer", "expected one argument"),
        ("fss cluster photo.jpg", "required: OUT"),
        ("fss check-data pascal data.sise=97", "unknown key data.sise"),
        ("pip install '.[perpare]'", "no extra perpare"),
        ("flss train", "unknown program flss"),
        ("source <(fss completion bsh)  # in ~/.bashrc", "invalid choice: 'bsh'"),
        ("fss completion zsh --all > DIR/_fss", "no option --all"),
    ],
)
def test_checker_finds_what_is_wrong(text, reason):
    assert any(reason in problem for problem in problems(text)), problems(text)


def test_fragments_may_leave_out_arguments_but_not_invent_options():
    assert problems("fss cluster --watch 20", loose=True) == []
    assert problems("fss cluster --wach 20", loose=True) != []
    assert setting_problems("test.support=scribble") == [] == setting_problems("data.train_masks=DIR")
    assert setting_problems("test.support=scribbles") and setting_problems("test.suport=scribble")
    assert setting_problems("head.context=aspp") == [] and setting_problems("head.contexts=aspp")
    assert is_setting("neck.align=false") and not is_setting("test.sh") and not is_setting("fss.cli")


def test_links_and_anchors_are_followed(tmp_path):
    (tmp_path / "b.md").write_text("# B\n## Street photos, on a CPU\n```sh\n# no heading\n```\n")
    page = tmp_path / "a.md"
    page.write_text(
        "[b](b.md) ![c](c.jpg) [s](b.md#street-photos-on-a-cpu) [n](b.md#no-heading) [o](#a)\n# A\n"
    )
    assert broken_links(page) == ["c.jpg", "b.md#no-heading"]


def test_commands_are_found_where_they_stand(tmp_path):
    page, recipe = tmp_path / "a.md", tmp_path / "a.yaml"
    page.write_text(
        "`fss no`\n```sh\nfss a b \\\n    c  # why\n\n# only a comment\nfss d\n```\n```\nfss not\n```\n"
    )
    assert [(c.line, c.words) for c in in_page(page, tmp_path)] == [(3, ["fss", *"abc"]), (7, ["fss", "d"])]
    assert [s.text for s in spans(page, tmp_path)] == ["fss no"]
    recipe.write_text("# sh scripts/train.sh a\n# Of the fss kind.\n#   fss b\nx: 1\n# fss late\n")
    assert [c.text for c in in_header(recipe, tmp_path)] == ["sh scripts/train.sh a", "fss b"]
    assert Command("a", 1, "fss x '# no comment' # one").words == ["fss", "x", "# no comment"]
