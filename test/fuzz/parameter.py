# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: values of any type for every parameter."""

import array

from fuzz.source import Source, texts
from kosmos_ros.errors import ConfigError
from kosmos_ros.serving.node_settings import FIELDS
from kosmos_ros.settings import validated

NAMES = tuple(FIELDS)


def _scalar(source):
    draws = (source.text, source.integer, source.number, source.flag, lambda: None, source.rest)
    return source.choice(draws)()


def _value(source):
    return source.choice(
        (
            lambda: _scalar(source),
            lambda: source.many(source.text, 4),
            lambda: tuple(source.many(source.text, 4)),
            lambda: source.many(lambda: _scalar(source), 4),
            lambda: array.array("q", source.many(lambda: source.integer(-(2**63), 2**63 - 1), 4)),
            lambda: array.array("d", source.many(source.number, 4)),
            lambda: {source.text(): _scalar(source)},
        )
    )()


def _seed(name, value):
    return bytes([NAMES.index(name)]) + value


SEEDS = (
    *(_seed(name, bytes([0, kind, number])) for name in NAMES for kind in (1, 2, 3)
      for number in (0, 1, 4)),
    *(_seed(name, b"\0\0" + texts(text)) for name in NAMES
      for text in ("auto", "shapes", "What is it?", "<grounding> An image of")),
    *(_seed(name, kind + b"\2" + texts("left", "a dog")) for name in NAMES
      for kind in (b"\1", b"\2")),
    *(_seed(name, b"\3\4\0") for name in NAMES),
)  # fmt: skip
WORDS = (
    *(word.encode() for field in FIELDS.values() for word in field.metadata["choices"]),
    *(b"<phrase>", b"<s>", b"null", b"\xff"),
)


def run(data):
    source = Source(data)
    field = FIELDS[source.choice(NAMES)]
    try:
        value = validated(field, _value(source))
    except ConfigError:
        return False
    assert type(value) is type(field.default)
    limits, choices = field.metadata["limits"], field.metadata["choices"]
    assert not limits or limits[0] <= value <= limits[1]
    assert not choices or value in choices
    if isinstance(value, tuple):
        assert all(text and type(text) is str for text in value)
    assert validated(field, value) == value
    return True
