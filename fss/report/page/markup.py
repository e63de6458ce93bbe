"""HTML and SVG from Python: whatever is not markup already is escaped, so nothing can be forgotten."""

import html

_EMPTY = ("br", "img")  # elements that hold nothing and are not closed


class Markup(str):
    """Text that is markup, and stands in a page as it is."""

    __slots__ = ()


def tag(name: str, *inside: object, **attributes: object) -> Markup:
    """An element.

    Args:
        inside: text, which is escaped, or `Markup`, which is not; None is left out.
        attributes: `_` is written as `-`, but for one at the end, which is dropped (`class_`); None is
            left out, True stands without a value.
    """
    head = name + "".join(_attribute(k, v) for k, v in attributes.items() if v is not None and v is not False)
    if name in _EMPTY:
        return Markup(f"<{head}>")
    return Markup(f"<{head}>{join(*inside)}</{name}>")


def join(*parts: object) -> Markup:
    """Parts one after the other, escaped as in `tag`."""
    each = (p if isinstance(p, Markup) else html.escape(str(p)) for p in parts if p is not None)
    return Markup("".join(each))


def _attribute(key: str, value: object) -> str:
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
