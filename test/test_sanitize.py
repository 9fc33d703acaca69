# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Text from outside in messages and logs is one line, without control characters, and bounded."""

import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_ros.errors import KosmosError
from kosmos_ros.images.decode import decode_compressed, decode_raw
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.sanitize import (
    MAX_LINE,
    MAX_VALUE,
    first_line,
    format_error,
    format_traceback,
    one_line,
    quoted,
)
from kosmos_ros.serving.node_settings import FIELDS, check_name
from kosmos_ros.settings import validated

EVIL = "x\n[ERROR] forged\r\x1b[2J\x9b2J\u202e\x00" * 1000
ANY = st.text(st.characters(codec=None), max_size=3 * MAX_VALUE)


def harmless(text):
    assert text.isprintable(), text[:200]
    assert len(text) <= MAX_LINE * 10, len(text)  # an escape takes up to ten characters
    return True


@given(ANY)
def test_any_text_is_shown_in_one_printable_bounded_line(text):
    for made in (quoted(text), quoted([text]), one_line(text, MAX_VALUE)):
        assert harmless(made)
        assert len(made) <= 10 * MAX_VALUE + 2


@pytest.mark.parametrize("value", [["x" * 100], ("x" * 100,), [["x"] * 100], list(range(100))])
def test_a_long_list_is_quoted_like_the_start_of_its_repr(value):
    assert quoted(value, 20) == repr(value)[:17] + "..."


def test_quoting_a_huge_list_makes_no_huge_text():
    class Counted(int):
        shown = 0

        def __repr__(self):
            Counted.shown += 1
            return super().__repr__()

    assert quoted([Counted(7)] * 100_000).endswith("7, 7,...")
    assert Counted.shown <= MAX_VALUE
    assert quoted(["x" * 10_000_000] * 3) == repr(["x" * 100])[: MAX_VALUE - 3] + "..."


def test_errors_are_formatted_in_one_line():
    assert format_error(KosmosError(EVIL)) == one_line(EVIL)
    assert format_error(LookupError(EVIL)) == f"LookupError: {one_line(EVIL)}"
    assert first_line(RuntimeError("CUDA error: gone\nSet CUDA_LAUNCH_BLOCKING=1")) == (
        "CUDA error: gone"
    )
    assert first_line(MemoryError()) == "MemoryError"


def test_a_traceback_has_the_place_and_one_line_for_the_message():
    def fails():
        raise LookupError(EVIL)

    with pytest.raises(LookupError) as raised:
        fails()
    *calls, said = format_traceback(raised.value).splitlines()
    assert calls[0] == "Traceback (most recent call last):"
    assert any("in fails" in call for call in calls)
    assert said == f"LookupError: {one_line(EVIL)}"


@pytest.mark.parametrize("function", [quoted, one_line])
def test_only_text_longer_than_the_limit_is_cut(function):
    for length in (0, 1, 9, 10):
        assert function("x" * length, 10).strip("'") == "x" * length
    for length in (11, 1000):
        assert function("x" * length, 10).strip("'") == "x" * 7 + "..."


def test_values_that_are_not_strings_are_cut_by_their_repr():
    assert quoted([1, 2, 3, 4], 12) == "[1, 2, 3, 4]"
    assert quoted([1, 2, 3, 4], 11) == "[1, 2, 3..."
    assert quoted(None) == "None"


def test_the_default_limits():
    assert quoted("x" * MAX_VALUE) == repr("x" * MAX_VALUE)
    assert quoted("x" * (MAX_VALUE + 1)).endswith("...'")
    assert one_line("x" * MAX_LINE) == "x" * MAX_LINE
    assert one_line("x" * (MAX_LINE + 1)) == "x" * (MAX_LINE - 3) + "..."
    assert first_line(ValueError("x" * 300)) == "x" * 300
    assert first_line(ValueError("x" * 301)) == "x" * 297 + "..."


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), max_size=MAX_VALUE))
def test_plain_text_is_not_changed(text):
    assert one_line(text, MAX_VALUE) == text
    assert quoted(text) == repr(text)


@pytest.mark.parametrize(
    "act",
    [
        lambda: prompts.caption(EVIL),
        lambda: prompts.question(EVIL[:500]),
        lambda: prompts.question("What is it?\x1b[2J", [(0, 1)]),
        lambda: prompts.question("What?", [(0, 1)], [EVIL[:40]]),
        lambda: prompts.phrase_grounding("\x1b[2J" * 20),
        lambda: prompts.phrase_grounding("<patch_index_" + "1" * 400 + ">"),
        lambda: prompts.raw("<image>\x1b[2J"),
        lambda: check_name(EVIL),
        lambda: validated(FIELDS["task"], EVIL),
        lambda: validated(FIELDS["max_rate"], EVIL),
        lambda: validated(FIELDS["cameras"], [EVIL]),
        lambda: validated(FIELDS["cameras"], [1.0] * 10_000),
        lambda: decode_raw(b"", 1, 1, EVIL, 1, False, 1),
        lambda: decode_compressed(b"\x1b[2J" * 9, EVIL, 1),
        lambda: decode_compressed(b"\xff\xd8\xff\x1b[2J" * 9, EVIL, 1),
    ],
)
def test_errors_about_text_from_outside_are_harmless(act):
    with pytest.raises(KosmosError) as raised:
        act()
    assert harmless(str(raised.value))
    assert len(str(raised.value)) < 1200


def test_text_from_outside_forges_no_lines_of_the_log_and_of_responses(ros):
    from conftest import Spinner
    from kosmos_msgs.srv import Ask, Generate
    from programs import Program, parameters
    from rclpy.node import Node
    from sensor_msgs.msg import Image

    client = Node("client")
    spinner = Spinner(client)
    camera = client.create_publisher(Image, "image", 1)
    options = {"model": "shapes", "always_on": "true", "image_reliability": "reliable"}
    evil = EVIL.replace("\x00", "")  # NUL ends a string in a message
    encoding = evil[:1000]  # longer ones are refused by their length
    with Program("kosmos_node", *parameters(**options)) as node:
        node.says("active: accepting frames and requests")
        spinner.until(camera.get_subscription_count, "a subscription")
        camera.publish(Image(width=1, height=1, step=3, encoding=encoding, data=bytes(3)))
        warning = node.says("is not supported")
        assert re.fullmatch(r"\[WARN\] \[[0-9.]+\] \[kosmos\]: /image: encoding 'x\\n.*", warning)
        assert harmless(warning)
        ask = client.create_client(Ask, "/kosmos/ask")
        generate = client.create_client(Generate, "/kosmos/generate")
        for service, request in (
            (ask, Ask.Request(question="What?", camera=evil)),
            (ask, Ask.Request(question=evil)),
            (ask, Ask.Request(question="What?" + evil[:80])),
            (generate, Generate.Request(prompt=evil[:80])),
        ):
            response = spinner.call(service, request)
            assert not response.success
            assert harmless(response.message)
        assert node.stop() == 0
        assert not [text for text in node.lines if text.startswith("[ERROR]") or "\x1b" in text]
    client.destroy_node()


def test_names_of_other_nodes_are_harmless_and_only_some_are_shown(start):
    """The graph has the names that other nodes give themselves."""
    from rclpy.qos import QoSProfile

    publisher = SimpleNamespace(
        topic_type=f"sensor_msgs/msg/{EVIL}",
        node_namespace=f"/{EVIL}",
        node_name=EVIL,
        qos_profile=QoSProfile(depth=1),
    )
    harness = start()
    harness.node.get_publishers_info_by_topic = lambda topic: [publisher] * 1000
    warning = harness.node.cameras[""].subscription._describe_silence()
    assert "1000 publishers" in warning
    assert harmless(warning)
    assert len(warning) < 5000
