# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Notice parameter files that have nothing for a node, which ROS ignores. Knows only their YAML.

A section `kosmos:` belongs to the node /kosmos alone, and not to /robot/kosmos.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from kosmos_ros.sanitize import one_line

PARAMETERS = "ros__parameters"  # the key below the name of a node
WILDCARDS = {"/**": r"(/\w+)*", "/*": r"/\w+"}
MAX_PATH, MAX_SECTIONS = 200, 200  # characters in a warning


def unmatched(words: Sequence[str], node: str) -> list[str]:
    """Return a warning for each parameter file of a command that has no section for `node`.

    `words` are the command's arguments and `node` is the node's full name.
    """
    warnings = []
    for word, file in itertools.pairwise(words):
        sections = _sections(file) if word == "--params-file" else []
        if sections and not any(_matches(section, node) for section in sections):
            names = one_line(", ".join(sections), MAX_SECTIONS)
            warnings.append(
                f"parameter file {one_line(file, MAX_PATH)} has no section for {node}, so none of "
                f"its values are used; its sections are {names}; "
                f"rename the right one to /** or {node}"
            )
    return warnings


def _sections(file: str) -> list[str]:
    """Return the names of the nodes in a parameter file; none if it cannot be read."""
    if not os.path.isfile(file):  # a named pipe has been read by ROS, and would block
        return []
    try:
        with open(file, encoding="utf-8") as stream:
            return list(_names(yaml.safe_load(stream)))
    except (OSError, ValueError, yaml.YAMLError):  # ValueError: a date that does not exist
        return []  # ROS reports it, or reads it in another way


def _names(tree: Any, above: str = "") -> Iterator[str]:
    """Yield the full name of each node below `above`."""
    if not isinstance(tree, dict):
        return
    for name, value in tree.items():
        path = f"{above}/{str(name).strip('/')}"
        if isinstance(value, dict) and PARAMETERS in value:
            yield path
        yield from _names(value if name != PARAMETERS else None, path)


def _matches(section: str, node: str) -> bool:
    pattern = re.sub(r"/\*\*?", lambda wildcard: WILDCARDS[wildcard[0]], section)
    return re.fullmatch(pattern, node) is not None
