# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Say in one plain sentence which argument of a tool is wrong, and what it must be.

The sentence is made from the JSON schema that agents receive, so both say the same. Knows JSON
schemas; no tool and no connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kosmos_ros.sanitize import one_line, quoted
from kosmos_ros.web.looks import Json

Place = Sequence[int | str]
"""Where an argument is wrong: its name, and for an entry of a list also its index. The rest of
the place inside a value is not used."""


def names_of(schema: Json) -> str:
    """Return the names of a tool's arguments as words; `schema` is that of all arguments."""
    return _joined([*schema["properties"]], "and")


def unknown(tool: str, schema: Json, arguments: Mapping[str, object]) -> str:
    """Return which argument the tool does not have; empty: none."""
    strange = [name for name in arguments if name not in schema["properties"]]
    if not strange:
        return ""
    has = f"its arguments are {names_of(schema)}" if schema["properties"] else "it has none"
    return f"{tool} has no argument {quoted(strange[0])}; {has}"


def wrong(
    tool: str, schema: Json, arguments: Mapping[str, object], place: Place, reason: str = ""
) -> str:
    """Return why the argument at `place` is wrong; `reason`: more than the schema says."""
    name, *inside = place
    if name not in arguments:
        return f"{tool} requires the argument {name}; its arguments are {names_of(schema)}"
    rule, value = schema["properties"][name], arguments[str(name)]
    entries = rule.get("items")
    index = inside[0] if inside else None
    if entries and isinstance(index, int) and isinstance(value, list):
        name, rule, value = f"{name}[{index}]", entries, value[index]
    if reason:
        return one_line(f"{name} {reason}, got {quoted(value)}")
    definitions = schema.get("$defs", {})
    return one_line(f"{name} must be {_expected(rule, definitions)}, got {_got(rule, value)}")


def _got(rule: Json, value: object) -> str:
    """Return a wrong value, or its length if only that is wrong."""
    for kind, most, unit in ((str, "maxLength", "characters"), (list, "maxItems", "entries")):
        if isinstance(value, kind) and len(value) > rule.get(most, len(value)):
            return f"{len(value)} {unit}"
    return quoted(value)


def _expected(rule: Json, definitions: Json) -> str:
    """Return in words what the schema `rule` permits."""
    if "$ref" in rule:
        rule = definitions[rule["$ref"].rpartition("/")[2]]
    if "anyOf" in rule:
        permitted = [each for each in rule["anyOf"] if each.get("type") != "null"]
        return ", or ".join(_expected(each, definitions) for each in permitted)
    return _KINDS[rule["type"]](rule, definitions)


def _list(rule: Json, definitions: Json) -> str:
    count = _count(rule, "minItems", "maxItems", "entries")
    return f"a list{count}, each {_expected(rule['items'], definitions)}"


def _number(rule: Json, definitions: Json) -> str:
    limits = {
        "greater than": rule.get("exclusiveMinimum"), "at least": rule.get("minimum"),
        "at most": rule.get("maximum"),
    }  # fmt: skip
    words = [f"{word} {limit:g}" for word, limit in limits.items() if limit is not None]
    return " ".join(["a number", " and ".join(words)]).strip()


_KINDS: dict[str, Callable[[Json, Json], str]] = {
    "string": lambda rule, _: f"a text{_count(rule, 'minLength', 'maxLength', 'characters')}",
    "array": _list,
    "number": _number,
    "boolean": lambda rule, _: "true or false",
    "object": lambda rule, _: f"an object with {_joined(rule['required'], 'and')}",
}
"""Type in a JSON schema: words for what a schema of this type permits."""


def _count(rule: Json, least: str, most: str, unit: str) -> str:
    low, high = rule.get(least, 0), rule.get(most)
    if high is None:
        return f" of at least {low} {unit}" if low else ""
    if low == high:
        return f" of {high} {unit}"
    return f" of {low} to {high} {unit}" if low else f" of at most {high} {unit}"


def _joined(words: Sequence[str], last: str) -> str:
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end
