"""pydantic's validation errors in the words of the command line: key=value: what is allowed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from segfocal.config.schema import REGISTRIES
from segfocal.nearest import did_you_mean, nearest

# What pydantic adds to the place of an error to say which member of a union it tried.
UNION_MEMBER = re.compile(r"\[|\]|^(float|int|str|bool|none|literal|constrained-.*|nullable.*|Conditional)$")

SAID = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list, in brackets and quoted for the shell, as in '{key}=[{value}]'",
    "dataclass_type": "must be a mapping",
    "dict_type": "must be a mapping, as in {{0:0,255:1}}",
    "too_short": "must have at least {min_length} items, not {actual_length}",
    "too_long": "must have at most {max_length} items, not {actual_length}",
}


def lines_of(error: ValidationError, plain: Any) -> list[str]:
    """A line for each mistake; what several members of a union say of one value is joined by `or`."""
    said: dict[tuple[str, str], list[str]] = {}
    for item in error.errors(include_url=False):
        place = tuple(part for part in item["loc"] if not (isinstance(part, str) and UNION_MEMBER.search(part)))
        for head, text in _messages(item, place, plain):
            texts = said.setdefault((head, item["type"] if head == "" else ""), [])
            if text not in texts:
                texts.append(text)
    return [line for (head, _), texts in said.items() for line in (texts if not head else [f"{head}: " + " or ".join(texts)])]


def _messages(item: ErrorDetails, place: tuple[Any, ...], plain: Any) -> list[tuple[str, str]]:
    key = ".".join(str(part) for part in place)
    kind, context = item["type"], item.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        why = "nothing is built by the path of its code, but by a name" if place[-1] == "_target_" else "no such key"
        return [(f"{key}={_shown(item['input'])}", why + _nearest_key(place, plain))]
    if kind in ("value_error", "encoder"):  # said in full by __post_init__
        text = str(context["error"]) if kind == "value_error" else item["msg"]
        return [("", line) for line in text.splitlines()]
    if kind == "unknown_option":
        return [("", f"{key}={context['name']}: {item['msg']}")]
    if kind == "missing":
        return [(key, "is missing")]
    head = f"{key}={_shown(item['input'])}"
    if kind == "not_allowed":
        return [(head, f"allowed is {context['allowed']}")]
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        return [(head, "must be one of " + ", ".join(allowed) + (did_you_mean(str(item["input"]), allowed, most=0)))]
    bounds = {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    bounds |= {"key": key, "value": _shown(item["input"]) if isinstance(item["input"], str | int | float) else "1,2"}
    text = SAID[kind].format(**bounds) if kind in SAID else item["msg"][:1].lower() + item["msg"][1:]
    return [(head, text)]


def _nearest_key(place: tuple[Any, ...], plain: Any) -> str:
    siblings = plain
    for part in place[:-1]:
        siblings = siblings.get(part) if isinstance(siblings, Mapping) else None  # a list may stand for a mapping
    name, options = str(place[-1]), _keys_of_options(place)
    if having := [option for option, keys in options.items() if name in keys]:
        return f" of this option; it is one of {place[0]}={', '.join(having)}"
    known = [str(key) for key in siblings if key != name] if isinstance(siblings, Mapping) else []
    elsewhere = nearest(name, {key for keys in options.values() for key in keys})
    if nearest(name, known) or not elsewhere:
        return did_you_mean(name, known)
    having = [option for option, keys in options.items() if elsewhere[0] in keys]
    return f"; did you mean {elsewhere[0]}, of {place[0]}={' or '.join(having)}?"


def _keys_of_options(place: tuple[Any, ...]) -> dict[str, set[str]]:
    """The keys of each option of a group."""
    registry = next((found for found in REGISTRIES if [found.group] == list(place[:-1])), None)
    return {name: {field.name for field in dataclasses.fields(cls)} for name, cls in (registry.classes() if registry else {}).items()}


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
