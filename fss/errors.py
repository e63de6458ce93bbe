"""The one exception for a user's mistake, and the schema's rules in its words."""

import json
from collections.abc import Mapping
from typing import Any


class UserError(ValueError):
    """A mistake that the user can mend: the message names the value, what is allowed and the fix.

    The command line prints the message alone and exits with code 2; every other exception is a
    bug of ours and keeps its traceback.
    """


_RULES = {
    "int_parsing": "wanted a whole number",
    "int_type": "wanted a whole number",
    "int_from_float": "wanted a whole number",
    "float_parsing": "wanted a number",
    "float_type": "wanted a number",
    "finite_number": "wanted a finite number",
    "bool_parsing": "wanted true or false",
    "bool_type": "wanted true or false",
    "string_type": "wanted text",
    "list_type": "wanted a list",
    "dict_type": "wanted a mapping (key: value)",
    "model_type": "wanted a mapping (key: value)",
    "literal_error": "allowed: {expected}",
    "greater_than": "allowed: more than {gt}",
    "greater_than_equal": "allowed: {ge} or more",
    "less_than": "allowed: less than {lt}",
    "less_than_equal": "allowed: {le} or less",
}


def why(error: Exception) -> str:
    """The reason why a file of text cannot be read, in plain words."""
    if isinstance(error, UnicodeDecodeError):
        return "it is no text in UTF-8; save it as UTF-8"
    if isinstance(error, json.JSONDecodeError):
        if not error.doc.strip():
            return "it is empty"
        return f"its JSON breaks off, or is malformed, at line {error.lineno}, column {error.colno}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


def rule(error: Mapping[str, Any]) -> str:
    """The rule that a value breaks, from one of pydantic's `ValidationError.errors()`."""
    said = _RULES.get(error["type"])
    return said.format(**error.get("ctx", {})) if said else error["msg"].removeprefix("Value error, ")
