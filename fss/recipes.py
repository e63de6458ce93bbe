"""From recipes and overrides to one checked configuration.

Differences are laid over each other, later ones winning: the schema's defaults, `configs/head/HEAD.yaml`,
`configs/data/DATA.yaml`, recipes named with `--config`, then `key=value` from the command line. After a data
set's or a named recipe comes its NAME_HEAD.yaml, where there is one. An unknown key is an error that names
the nearest one.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from fss import reading
from fss.config import Config
from fss.errors import UserError, rule
from fss.parts import nearest
from fss.spelling import modern


def config_folders() -> list[Path]:
    """Where recipes are looked for: the working folder's configs/, then the project's own."""
    package = Path(__file__).resolve().parent
    return [Path("configs"), package / "configs", package.parent / "configs"]


def find_recipe(kind: str, name: str) -> Path:
    """Path of `configs/KIND/NAME.yaml`, or of `NAME` itself where that is a YAML file.

    Raises:
        UserError: there is no such recipe; the message lists those that exist.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise UserError(f"no configuration file {name}")
        return Path(name)
    for folder in config_folders():
        path = folder / kind / f"{name}.yaml"
        if path.is_file():
            return path
    names = recipe_names(kind)
    own = f". For a folder of your own: --data folder data.root={name}" if Path(name).is_dir() else ""
    raise UserError(
        f"unknown {kind or 'recipe'} {name!r}{nearest(name, names)}; there are: {', '.join(names)}"
        + (own if kind == "data" else "")
    )


def recipe_names(kind: str) -> list[str]:
    """Names of the recipes of a kind: "data", "head", or "" for those of `--config`."""
    return sorted({p.stem for folder in config_folders() for p in (folder / kind).glob("*.yaml")})


def load_config(data: str, head: str, overrides: Sequence[str] = (), extra: Sequence[str] = ()) -> Config:
    """Build the configuration for a data set and a head, both by name or YAML path.

    Args:
        overrides: `section.key=value` strings, values in YAML.
        extra: further recipes `configs/NAME.yaml`, or YAML paths, laid over those of data and head.

    Raises:
        UserError: an unknown recipe or key, a value out of range, a file that is no YAML mapping.
    """
    files = [find_recipe("head", head), find_recipe("data", data)]
    files += _with_head(files[1], head_of=files[0])
    for name in extra:
        files.append(find_recipe("", name))
        files += _with_head(files[-1], head_of=files[0])
    tree: dict[str, Any] = {}
    for path in files:
        merge(tree, modern(read_yaml(path), tree.get("network")), str(path))
    recipe = dict(tree["head"]) if isinstance(tree.get("head"), dict) else {}
    for text in overrides:
        merge(tree, modern(_parse_override(text), tree.get("network")), text)
    config = validate(tree)
    changed = {k: v for k, v in config.head.options.items() if recipe.get(k) != v}
    return config.model_copy(update={"variant": ",".join(f"{k}={changed[k]}" for k in sorted(changed))})


def _with_head(recipe: Path, head_of: Path) -> list[Path]:
    """What a recipe has to add for one head: its NAME_HEAD.yaml, where there is one."""
    both = [folder / f"{recipe.stem}_{head_of.stem}.yaml" for folder in config_folders()]
    return [path for path in both if path.is_file()][:1]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file; `UserError` names the file where it is none."""
    tree = reading.read_yaml(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold a mapping (section: ...), got {type(tree).__name__}")
    return tree


def merge(tree: dict[str, Any], difference: Mapping[str, Any], source: str) -> None:
    """Lay nested `difference` over `tree` in place. A part of another type starts afresh.

    Raises:
        UserError: a section that is no mapping, which would drop all that was said of it; names `source`.
    """
    for key, value in difference.items():
        section = Config.model_fields.get(key)
        if section is None or not isinstance(section.default, BaseModel):
            tree[key] = value
        elif value is None:  # a section's name with nothing below it
            continue
        elif not isinstance(value, Mapping):
            raise UserError(
                f"{source}: {key} must be a section ({key}: {{name: value}}), got {_short(value)}"
            )
        else:
            old = tree.setdefault(key, {})
            before = old.get("type")
            if key in _PARTS and before and _family(value.get("type", before)) != _family(before):
                _start_afresh(old, key)
            old.update(value)


_PARTS = ("backbone", "neck", "head")


def _family(name: Any) -> str:
    """A part's name without the number at its end: a ResNet-50's options are a ResNet-101's, too."""
    return str(name).rstrip("0123456789")


def _start_afresh(section: dict[str, Any], key: str) -> None:
    """Another part's options are none of this one's; where its weights come from stays, and so does a
    width."""
    kept = {"backbone": ("weights",), "neck": ("channels",), "head": ()}[key]
    for option in [k for k in section if k not in kept]:
        del section[option]


def validate(tree: Mapping[str, Any]) -> Config:
    """Check a tree of settings against the schema; `UserError` says what is wrong, one line each."""
    try:
        return Config.model_validate(modern(tree))
    except ValidationError as error:
        raise UserError("\n".join(_explain(e) for e in error.errors())) from None


_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"{text!r} is not key=value, such as data.size=473")
    try:
        tree: Any = reading.load_yaml(value)
    except (ValueError, RecursionError, yaml.YAMLError):
        tree = value  # a path or name with YAML's own signs in it
    if isinstance(tree, str) and _EXPONENT.fullmatch(tree):
        tree = float(tree)  # YAML 1.1 takes 1e-3, without a point, for a string
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return tree


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        got = "" if isinstance(error["input"], BaseModel | dict) else f" (got {_short(error['input'])})"
        return f"{where}: {rule(error)}{got}"
    section: Any = Config
    for part in error["loc"][:-1]:
        section = section.model_fields[part].annotation
    names = list(section.model_fields)
    inner = [f"{name}.{where}" for name in names if where in _keys(section, name)]
    near = f", did you mean {' or '.join(inner)}?" if inner else nearest(error["loc"][-1], names)
    return f"unknown key {where}{near}; allowed: {', '.join(names)}"


def _keys(section: Any, name: str) -> Sequence[str]:
    """The keys of a section within a section; none where a key holds a value."""
    return tuple(getattr(section.model_fields[name].annotation, "model_fields", ()))
