# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Check environment variables of ROS before it starts. Knows no node.

For a wrong value, ROS and Fast DDS end the process, repeat an error forever or say nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ament_index_python import get_resources

from kosmos_ros.sanitize import one_line, quoted

MAX_DOMAIN = 232  # the largest domain whose ports exist
PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def wrong_variable() -> str:
    """Return the reason why ROS cannot start with a variable; empty: none."""
    for name, (is_valid, expected) in VARIABLES.items():
        if (value := os.environ.get(name)) and not is_valid(value):
            return f"{name} must be {expected()}, got {quoted(value)}; correct it or unset it"
    if _is_enforced() and not os.environ.get("ROS_SECURITY_KEYSTORE"):
        return (
            "ROS_SECURITY_KEYSTORE must be the folder of the keys, because "
            "ROS_SECURITY_STRATEGY is Enforce; set it, or set ROS_SECURITY_ENABLE=false"
        )
    return ""


def warn_of_missing_profiles() -> None:
    """Print a warning for each variable that names no file of profiles. Fast DDS goes on."""
    for name in PROFILES:
        if (path := os.environ.get(name)) and not os.path.isfile(path):
            text = f"{name} must be a file, got {one_line(path, 200)}; Fast DDS uses its defaults"
            print(text, file=sys.stderr)


def _middlewares() -> list[str]:
    return sorted(set(get_resources("rmw_typesupport")) - {"rmw_implementation"})


def _is_middleware(name: str) -> bool:
    installed = _middlewares()
    return not installed or name in installed


def _is_domain(text: str) -> bool:
    return text.isdecimal() and len(text) < 10 and int(text) <= MAX_DOMAIN


def _is_enforced() -> bool:
    variables = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}
    return all(os.environ.get(name) == value for name, value in variables.items())


_SWITCH: tuple[Callable[[str], bool], Callable[[], str]] = (
    lambda value: value in ("0", "1"),
    lambda: "0 or 1",
)
VARIABLES: dict[str, tuple[Callable[[str], bool], Callable[[], str]]] = {
    "ROS_DOMAIN_ID": (_is_domain, lambda: f"a number from 0 to {MAX_DOMAIN}"),
    "RMW_IMPLEMENTATION": (
        _is_middleware,
        lambda: f"an installed middleware ({', '.join(_middlewares())})",
    ),
    "RCUTILS_LOGGING_USE_STDOUT": _SWITCH,
    "RCUTILS_LOGGING_BUFFERED_STREAM": _SWITCH,
    "RCUTILS_COLORIZED_OUTPUT": _SWITCH,
}
"""Variable: whether a value is valid, and which ones are."""
