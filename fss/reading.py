"""Files from elsewhere, read within bounds: no small file may ask for much memory or time."""

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from fss.errors import UserError, why

_JSON_BYTES = 4 << 20  # a result of 1,000 classes has a tenth of that
_JSON_DEPTH = 32  # a result has 8
_YAML_BYTES = 256 << 10  # the largest recipe has a hundredth of that
_YAML_DEPTH = 200  # brackets in each other; recipes have four
_BRACKETS = {"[": 1, "{": 1, "]": -1, "}": -1}
_YAML_VALUES = 10_000  # that one file may stand for, aliases written out


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file of ours; `what` it should be stands in messages, such as "a result".

    Raises:
        UserError: it cannot be read, is no JSON, or is larger or nested deeper than such files are.
    """
    try:
        content = json.loads(_text(path, _JSON_BYTES))
        if _deeper(content, _JSON_DEPTH):
            raise RecursionError
    except RecursionError:
        reason = f"it is nested deeper than {_JSON_DEPTH} levels, and none is"
    except UserError:
        raise
    except (OSError, ValueError) as error:
        reason = why(error)
    else:
        return content
    raise UserError(f"{path} cannot be read as {what} ({reason})")


def _deeper(content: Any, most: int) -> bool:
    """Whether lists and mappings lie in each other more than `most` deep."""
    level = [content]
    for _ in range(most + 1):
        inner = [x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list)]
        level = [value for values in inner for value in values]
    return bool(level)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: it cannot be read, is no YAML, is larger than recipes are, or stands for too many values.
    """
    try:
        return load_yaml(_text(path, _YAML_BYTES))
    except UserError:
        raise
    except RecursionError:
        why = "it is nested too deep"
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
    raise UserError(f"cannot read {path}: {why}")


def load_yaml(text: str) -> Any:
    """The value of a text in YAML.

    Raises:
        yaml.YAMLError: it is none, or its aliases stand for too many values.
        ValueError, RecursionError: as PyYAML has it, and for brackets nested so deep that it takes minutes.
    """
    depth = accumulate(_BRACKETS.get(letter, 0) for letter in text)
    if max(depth, default=0) > _YAML_DEPTH:
        raise RecursionError
    return yaml.load(text, _Bounded)


class _Bounded(yaml.SafeLoader):
    """PyYAML's safe loader without its one way to make much of little: aliases of aliases."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and _values(node, {}) > _YAML_VALUES:
            why = f"with its aliases written out it holds more than {_YAML_VALUES:,} values, the most allowed"
            raise yaml.YAMLError(why)
        return node


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, aliases written out; too many where it goes in a circle."""
    if id(node) not in known:
        known[id(node)] = _YAML_VALUES + 1  # until it is counted: who comes back here goes in a circle
        below: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            below = node.value
        elif isinstance(node, yaml.MappingNode):
            below = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_values(part, known) for part in below)
    return known[id(node)]


def _text(path: Path, most: int) -> str:
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UserError(f"{path} has more than {most:,} bytes; files of its kind have fewer, is it one?")
    return data.decode("utf-8")
