# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Find rules of the command line that were meant to set parameters. Knows no node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kosmos_ros.sanitize import MAX_VALUE, one_line

_REMAP = ("-r", "--remap")
_RULE = ":="


def mistaken_remaps(words: Sequence[str], is_parameter: Callable[[str], bool]) -> list[str]:
    """Return a warning for each remap rule whose first name is a parameter of the node.

    `words` is a command line. Such a rule changes nothing, because no topic has the name of a
    parameter, and the parameter keeps its value.
    """
    lines = []
    for option, rule in _rules(words):
        name, _, value = rule.partition(_RULE)
        name = name.rpartition(":")[2]  # without the node that the rule is for
        if option in _REMAP and is_parameter(name):
            shown = one_line(f"{name}{_RULE}{value}", MAX_VALUE)
            lines.append(
                f"-r {shown} renames a topic, but {name} is a parameter and keeps its value; "
                f"did you mean -p {shown}?"
            )
    return lines


def bare_rule(words: Sequence[str]) -> str:
    """Return the first rule of a command line that has no option before it; empty: none."""
    return next((rule for option, rule in _rules(words) if not option.startswith("-")), "")


def _rules(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each NAME:=VALUE among the arguments of ROS, and the word before it."""
    in_ros, before = False, ""
    for word in words:
        if not in_ros:
            in_ros, before = word == "--ros-args", ""
            continue
        if word == "--":
            in_ros = False
        elif _RULE in word:
            yield before, word
            word = ""
        before = word
