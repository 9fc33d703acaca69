# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Agents can look and ask with the tools of MCP, over HTTP and standard input, and no more."""

import ast
import asyncio
import base64
import inspect
import io
import json
import os
import select
import subprocess
import sys
import textwrap
import time
from unittest.mock import Mock

import numpy as np
import pytest
from comparison import iou
from PIL import Image as Pillow

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
pytest.importorskip("mcp", reason="mcp is not installed: run scripts/setup")

from kosmos_msgs.msg import GroundedCaption
from mcp import MCPError, StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.server.mcpserver.exceptions import ToolError
from web_client import PATIENCE, PHRASE, QUESTION, Robot

from kosmos_ros.settings import MAX_ENTRIES
from kosmos_ros.web import agents
from kosmos_ros.web.agent_server import MOST_BODY, agent_server
from kosmos_ros.web.agents import LONGEST_SIDE, TOOLS, Tools
from kosmos_ros.web.broker import Broker
from kosmos_ros.web.looks import CAPTION
from kosmos_ros.web.pictures import jpeg

LOOKING = {"cameras", "look", "ask", "find", "describe", "wait_for_event"}
STDIO = StdioServerParameters(
    command=sys.executable, args=["-m", "kosmos_ros.cli", "mcp"], env=dict(os.environ)
)


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    return Robot(tmp_path_factory.mktemp("robot"))


def with_client(robot, transport, use, mode="auto"):
    """Run `use(client)` with a client of the SDK."""

    async def main():
        target = stdio_client(STDIO) if transport == "stdio" else f"{robot.server.address}mcp"
        async with Client(target, mode=mode) as client:
            return await use(client)

    return asyncio.run(main())


def call(robot, name, transport="http", **arguments):
    return with_client(robot, transport, lambda client: client.call_tool(name, arguments))


def box_of(phrase):
    box = phrase["boxes"][0]
    return [box["x_min"], box["y_min"], box["x_max"], box["y_max"]]


def truth(robot):
    words, (x_min, y_min, x_max, y_max) = robot.truth[0]
    return words, [x_min * 640, y_min * 480, x_max * 640, y_max * 480]


# What agents can do ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_the_clients_of_the_sdk_find_the_tools_and_use_them(robot, transport, mode):
    async def use(client):
        tools = (await client.list_tools()).tools
        for _ in range(20):  # a new program may receive a caption before its first image
            look = await client.call_tool("look", {"camera": "front"})
            if len(look.content) > 1:
                break
        return tools, look

    tools, look = with_client(robot, transport, use, mode)
    assert {tool.name for tool in tools} == LOOKING
    for tool in tools:
        assert tool.annotations.read_only_hint
        assert not tool.annotations.destructive_hint
        assert tool.description
        assert tool.output_schema["type"] == "object"
    assert not look.is_error
    words, box = truth(robot)
    found = {phrase["text"]: phrase for phrase in look.structured_content["phrases"]}
    assert iou(box_of(found[words]), box) > 0.7
    text, image = look.content
    assert json.loads(text.text) == look.structured_content
    assert image.mime_type == "image/jpeg"
    assert Pillow.open(io.BytesIO(base64.b64decode(image.data))).size == (640, 480)


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_cameras_are_listed_with_their_state(robot, transport):
    async def use(client):
        for _ in range(20):  # a new program may receive the diagnostics late
            found = (await client.call_tool("cameras")).structured_content
            if found["state"] == "ready" and found["cameras"][0]["level"] != "unknown":
                break
        return found

    found = with_client(robot, transport, use)
    assert found["state"] == "ready"
    for camera in found["cameras"]:
        assert camera["level"] == "ok", camera
        assert camera["images_per_second"] > 0
    assert [(camera["name"], camera["topic"]) for camera in found["cameras"]] == [
        ("front", "/front/image_raw"),
        ("rear", "/rear/image_raw"),
    ]


def test_a_region_is_asked_about_and_described(robot):
    words, box = truth(robot)
    answer = call(robot, "ask", question="What is it?", camera="front", region=box)
    assert words.split(maxsplit=1)[1] in answer.structured_content["text"]
    corners = dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True))
    described = call(robot, "describe", camera="front", region={**corners, "score": 0.5})
    assert words.split(maxsplit=1)[1] in described.structured_content["text"]


def test_phrases_are_found_or_have_no_boxes(robot):
    words, box = truth(robot)
    found = call(robot, "find", phrases=[words, "a blue dog"], camera="front")
    present, absent = found.structured_content["phrases"]
    assert iou(box_of(present), box) > 0.7
    assert absent == {"text": "a blue dog", "boxes": []}


def test_a_detailed_description_is_longer(robot):
    brief, detailed = (
        call(robot, "describe", camera="front", detailed=detailed).structured_content["text"]
        for detailed in (False, True)
    )
    assert brief.startswith("An image of")
    assert detailed.startswith("The image shows")


def test_an_agent_can_wait_for_an_event(robot):
    found = call(robot, "wait_for_event", camera="rear", subject=QUESTION, timeout=60)
    event = found.structured_content["event"]
    assert (event["camera"], event["subject"], event["kind"]) == ("rear", QUESTION, "answered")
    assert event["answer"] != event["previous"]


def test_a_wait_that_times_out_has_no_event(robot):
    found = call(robot, "wait_for_event", camera="front", subject=PHRASE, timeout=0.1)
    assert not found.is_error
    assert found.structured_content == {"event": None, "reason": "no event within 0.1 s"}


@pytest.mark.parametrize("camera", ["front", ""])
def test_a_wait_for_a_subject_that_no_parameter_contains_ends_at_once_with_the_reason(
    robot, camera
):
    arguments = {"camera": camera, "subject": "a red sqare", "timeout": 300}
    found = call(robot, "wait_for_event", **arguments)
    assert not found.is_error
    assert found.structured_content == {
        "event": None,
        "reason": "no event can have the subject 'a red sqare', because the parameters phrases "
        f"and questions have only '{PHRASE}', '{QUESTION}'; leave subject empty to wait also for "
        "entries that are added later",
    }


ARGUMENTS = "its arguments are question, camera, region, history and stamp"
REGION = (
    "region must be a list of 4 entries, each a number, or an object with x_min, y_min, x_max and "
    "y_max, got "
)
CORNERS = {"x_min": 1, "y_min": 2, "x_max": 8, "y_max": 9}
LONE = "must not contain null characters or lone surrogates"
TEXT = "a text of 1 to 1000 characters"
WAIT = "timeout must be a number greater than 0 and at most 300, got "
ERRORS = [
    ("look", {"camera": "side"}, "camera must be one of front, rear, got 'side'"),
    ("ask", {"question": "Why?"}, "camera must be one of front, rear, got ''"),
    (
        "ask",
        {"question": "Why?", "regions": [0, 0, 9, 9]},
        f"ask has no argument 'regions'; {ARGUMENTS}",
    ),
    ("ask", {"camera": "front"}, f"ask requires the argument question; {ARGUMENTS}"),
    ("ask", {"question": ""}, f"question must be {TEXT}, got ''"),
    ("ask", {"question": 7}, f"question must be {TEXT}, got 7"),
    ("ask", {"question": "x" * 1001}, f"question must be {TEXT}, got 1001 characters"),
    ("ask", {"question": "Why?", "history": ["x", 7]}, f"history[1] must be {TEXT}, got 7"),
    (
        "ask",
        {"question": "Why?", "history": ["x"] * 41},
        f"history must be a list of at most 40 entries, each {TEXT}, got 41 entries",
    ),
    ("ask", {"question": "What is it?", "region": [0, 0, 1]}, f"{REGION}[0, 0, 1]"),
    ("ask", {"question": "What is it?", "region": {"x_min": 1}}, REGION + "{'x_min': 1}"),
    (
        "ask",
        {"question": "Why?", "camera": "front", "stamp": "now"},
        "stamp must be seconds, a dot and nine digits of nanoseconds, got 'now'",
    ),
    ("find", {"phrases": []}, f"phrases must be a list of 1 to 100 entries, each {TEXT}, got []"),
    (
        "find",
        {"phrases": ["x"] * 101},
        f"phrases must be a list of 1 to 100 entries, each {TEXT}, got 101 entries",
    ),
    ("ask", {"question": "a\0b"}, f"question {LONE}, got 'a\\x00b'"),
    ("find", {"phrases": ["x", "\0"]}, f"phrases[1] {LONE}, got '\\x00'"),
    ("describe", {"detailed": "yes"}, "detailed must be true or false, got 'yes'"),
    ("describe", {"detailed": 1}, "detailed must be true or false, got 1"),
    ("describe", {"region": [0, 0, True, 9]}, f"{REGION}[0, 0, True, 9]"),
    ("describe", {"region": [0, 0, "8", 9]}, f"{REGION}[0, 0, '8', 9]"),
    ("describe", {"region": {**CORNERS, "x_max": "8"}}, f"{REGION}{CORNERS | {'x_max': '8'}}"),
    (
        "describe",
        {"camera": "front", "detailed": True, "region": [0, 0, 9, 9]},
        "detailed describes the whole frame only; leave out region or detailed",
    ),
    (
        "look",
        {"camera": "x" * 101},
        "camera must be a text of at most 100 characters, got 101 characters",
    ),
    ("cameras", {"camera": "front"}, "cameras has no argument 'camera'; it has none"),
    ("wait_for_event", {"timeout": 301}, f"{WAIT}301"),
    ("wait_for_event", {"timeout": 0}, f"{WAIT}0"),
    ("wait_for_event", {"timeout": True}, f"{WAIT}True"),
    ("wait_for_event", {"timeout": "5"}, f"{WAIT}'5'"),
    (
        "set_parameter",
        {"value": 1},
        "tool must be one of cameras, look, ask, find, describe, wait_for_event, "
        "got 'set_parameter'",
    ),
]


@pytest.mark.parametrize(("name", "arguments", "message"), ERRORS)
def test_a_wrong_argument_is_named_in_one_sentence_with_what_it_must_be(name, arguments, message):
    async def test():
        broker = Broker("/kosmos", asyncio.get_running_loop())
        broker.node_client = Mock()
        broker.described({}, {}, {"front": "/front", "rear": "/rear"})
        broker.state({"state": "ready", "message": ""})
        with pytest.raises(ToolError) as refused:
            await agent_server(broker).call_tool(name, arguments)
        assert str(refused.value) == message

    asyncio.run(test())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ask", {"question": "Why <s>?", "camera": "front"}, "contains the reserved tag <s>"),
        ("ask", {"question": "Why?", "regions": [1]}, "ask has no argument 'regions'"),
        ("set_parameter", {"value": 1}, "got 'set_parameter'"),
    ],
)
@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_an_error_is_a_result_with_the_reason(robot, transport, name, arguments, message):
    result = call(robot, name, transport, **arguments)
    assert result.is_error
    assert message in result.content[0].text
    assert "Error executing tool" not in result.content[0].text


def test_agents_learn_that_a_tool_has_no_further_arguments(robot):
    async def use(client):
        return (await client.list_tools()).tools

    for tool in with_client(robot, "http", use):
        assert tool.input_schema["additionalProperties"] is False


def test_a_large_picture_is_made_smaller():
    async def test():
        broker = present_broker()
        looking = asyncio.ensure_future(Tools(broker).look())
        await asyncio.sleep(0)
        broker.picture(("", "1.000000000"), jpeg(np.zeros((1000, 2000, 3), np.uint8)))
        broker.part(("", "1.000000000"), CAPTION, GroundedCaption(caption="night"))
        return await looking

    text, image = asyncio.run(test()).content
    assert json.loads(text.text)["caption"] == "night"
    picture = Pillow.open(io.BytesIO(base64.b64decode(image.data)))
    assert picture.size == (LONGEST_SIDE, LONGEST_SIDE // 2) == (1024, 512)


# Messages that cannot be read --------------------------------------------------------------------

CALL = r'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"ask","arguments":%s}}'


@pytest.fixture(scope="module")
def lines():
    """Return a function that sends one line to `kosmos mcp` and returns its reply."""
    words = [sys.executable, "-m", "kosmos_ros.cli", "mcp"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as process:

        def reply_to(line):
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert select.select([process.stdout], [], [], PATIENCE)[0], f"no reply to {line}"
            return json.loads(process.stdout.readline())

        version = {"protocolVersion": "2025-06-18", "capabilities": {}}
        params = {**version, "clientInfo": {"name": "test", "version": "1"}}
        begin = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        assert "result" in reply_to(json.dumps(begin))
        yield reply_to
        process.stdin.close()


@pytest.mark.parametrize(
    ("line", "id_", "code", "reason"),
    [
        (CALL % r'{"question":"\ud800"}', 7, -32700, "a line must be JSON: unexpected end of hex"),
        ("garbage", None, -32700, "a line must be JSON: expected value at line 1 column 1"),
        ('{"jsonrpc":"2.0","id":"\\ud800","method":', None, -32700, "a line must be JSON: "),
        ('{"jsonrpc":"2.0","id":"\\ud800"}', None, -32700, "a line must be JSON: "),
        ("[" * 5000, None, -32700, "a line must be JSON: recursion limit exceeded"),
        ('{"id":"a","method":"ping"}', "a", -32600, "a line must be a message of JSON-RPC 2.0"),
        ('{"jsonrpc":"2.0","id":8}', 8, -32600, "a line must be a message of JSON-RPC 2.0"),
        ("[]", None, -32600, "a line must be a message of JSON-RPC 2.0"),
        ("7", None, -32600, "a line must be a message of JSON-RPC 2.0"),
    ],
)
def test_a_line_that_is_no_message_gets_a_reply(lines, line, id_, code, reason):
    reply = lines(line)
    assert reply["id"] == id_
    assert reply["error"]["code"] == code
    assert reply["error"]["message"].startswith(reason)


def test_an_empty_line_gets_no_reply(lines):
    reply = lines('\n  \n{"jsonrpc":"2.0","id":9,"method":"ping"}')
    assert (reply["id"], reply["result"]) == (9, {})


def test_a_request_that_is_too_large_is_refused_with_the_limit(robot):
    async def use(client):
        with pytest.raises(MCPError, match="^a request must have at most 2097152 bytes$"):
            await client.call_tool("ask", {"question": "x" * MOST_BODY})

    with_client(robot, "http", use)


def test_the_longest_valid_request_is_accepted(robot):
    longest = json.dumps(["\N{GRINNING FACE}" * 1000] * MAX_ENTRIES)
    assert len(longest) < MOST_BODY
    refused = call(robot, "find", phrases=["x" * 1001] * MAX_ENTRIES, camera="front")
    assert "phrases[0] must be" in refused.content[0].text


# What agents cannot do --------------------------------------------------------------------------


def test_the_server_has_no_other_tools_resources_or_prompts():
    async def all_of_them():
        loop = asyncio.get_running_loop()
        server = agent_server(Broker("/kosmos", loop))
        return (
            {tool.name for tool in await server.list_tools()},
            [*await server.list_resources(), *await server.list_resource_templates()],
            await server.list_prompts(),
        )

    assert asyncio.run(all_of_them()) == (LOOKING, [], [])
    assert set(TOOLS) == LOOKING


USED = {"cameras", "camera_health", "node_state", "present"}  # values
USED |= {
    "next",
    "watching",
    "answer",
    "look_json",
    "picture_of",
    "check_camera",
    "value",
}  # methods that look and ask


def test_tools_use_nothing_of_the_broker_that_sets_or_publishes():
    tree = ast.parse(inspect.getsource(agents))
    of_broker = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Attribute) and node.value.attr == "_broker")
            or (isinstance(node.value, ast.Name) and node.value.id == "broker")
        )
    }
    assert of_broker == USED
    called = {
        node.func.attr
        for method in (Broker.answer, Broker.next, Broker.watching, Broker._watch, Broker._cancel)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method))))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Attribute)
        and node.func.value.attr == "node_client"
    }
    assert called == {"post", "ask", "want", "cancel"}


PUBLISHING = {"kosmos_ros.web.node_client", "kosmos_ros.web.goals", "kosmos_ros.web.live"}


def test_agents_import_no_ros_but_the_goal():
    imported = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(inspect.getsource(agents)))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if "_msgs" in (node.module or "") or node.module.startswith(("rclpy", "kosmos_ros.ros"))
    }
    assert imported == {("kosmos_msgs.action", "Generate")}
    clients = [
        alias.name
        for node in ast.walk(ast.parse(inspect.getsource(agents)))
        if isinstance(node, ast.ImportFrom) and node.module in PUBLISHING
        for alias in node.names
    ]
    assert clients == ["GONE"]


def present_broker():
    """Return a broker whose node is present and has sent its diagnostics."""
    broker = Broker("/kosmos", asyncio.get_running_loop())
    broker.node_client = Mock()
    broker.described({}, {}, {"": "/image"})
    broker.state({"state": "ready", "message": ""})
    broker.health({}, {"": HEALTHY})
    return broker


HEALTHY = {"level": "ok", "message": "fine", "values": {"image rate (Hz)": "9.00"}, "sample": {}}
EVENT = {
    "camera": "", "stamp": "1.000000000", "time": 1.0, "kind": "appeared", "subject": "a cat",
    "answer": "", "previous": "", "phrases": [], "sent": "5",
}  # fmt: skip


def test_only_an_event_that_is_published_after_the_call_ends_the_wait():
    async def test():
        broker = present_broker()
        before = time.monotonic()
        waiting = asyncio.ensure_future(Tools(broker).wait_for_event())
        await asyncio.sleep(0)
        broker.event({**EVENT, "subject": "a dog"}, before - 0.001)
        await asyncio.sleep(0)
        assert not waiting.done()
        broker.event(EVENT, time.monotonic())
        assert (await waiting).event.subject == "a cat"

    asyncio.run(test())


def test_the_event_of_a_bag_that_plays_again_ends_the_wait():
    async def test():
        broker = present_broker()
        broker.event(EVENT, time.monotonic())
        waiting = asyncio.ensure_future(Tools(broker).wait_for_event(timeout=5))
        await asyncio.sleep(0)
        broker.event(EVENT, time.monotonic())
        assert (await waiting).event.subject == "a cat"

    asyncio.run(test())


def test_a_subject_of_any_camera_can_be_waited_for_as_the_node_reads_it():
    async def test():
        broker = present_broker()
        broker.described(
            {},
            {"front.phrases": ["a dog\n"], "rear.questions": ["Why?"], "rear.phrases": None},
            {"front": "/front", "rear": "/rear"},
        )
        broker.health({}, {"front": HEALTHY, "rear": HEALTHY})
        tools = Tools(broker)
        for camera, subject in (("front", "a dog"), ("", "Why?"), ("rear", "")):
            found = await tools.wait_for_event(camera, subject, timeout=0.01)
            assert found.reason == "no event within 0.01 s"
        refused = await tools.wait_for_event("front", "Why?", timeout=300)
        assert "have only 'a dog';" in refused.reason
        broker.changed({"front.questions": ["Why?"]})
        assert (await tools.wait_for_event("front", "Why?", timeout=0.01)).reason == (
            "no event within 0.01 s"
        )
        broker.described({}, {}, {"": "/image"})
        broker.health({}, {"": HEALTHY})
        assert "are empty;" in (await tools.wait_for_event("", "Why?", timeout=300)).reason

    asyncio.run(test())


def test_the_rate_of_an_idle_cameras_images_is_unknown_and_not_zero():
    async def test():
        broker = present_broker()
        idle = {**HEALTHY, "values": {"image rate (Hz)": "unknown"}}
        broker.health({}, {"": idle})
        (camera,) = (await Tools(broker).cameras()).cameras
        assert camera.images_per_second is None

    asyncio.run(test())


def test_cameras_waits_for_the_first_diagnostics():
    async def test():
        broker = present_broker()
        broker.camera_health = {}
        listing = asyncio.ensure_future(Tools(broker).cameras())
        await asyncio.sleep(0)
        assert not listing.done()
        broker.health({}, {"": HEALTHY})
        (camera,) = (await listing).cameras
        assert (camera.level, camera.message, camera.images_per_second) == ("ok", "fine", 9.0)

    asyncio.run(test())


def test_cameras_says_why_a_level_is_unknown(monkeypatch):
    monkeypatch.setattr(agents, "HEALTH_TIMEOUT", 0.01)
    monkeypatch.setattr(agents, "FIND_TIMEOUT", 0.01)

    async def test():
        broker = present_broker()
        broker.camera_health = {}
        (camera,) = (await Tools(broker).cameras()).cameras
        assert camera.level == "unknown"
        assert camera.message.startswith("no diagnostics of this camera have arrived yet")
        broker.health({}, {"": HEALTHY})
        broker.state({"state": "gone", "message": "it has ended"})
        (camera,) = (await Tools(broker).cameras()).cameras
        assert (camera.level, camera.message) == ("unknown", "it has ended")

    asyncio.run(test())


def test_too_many_calls_at_a_time_are_refused():
    async def test():
        tools = Tools(present_broker())
        waiting = [asyncio.ensure_future(tools.wait_for_event()) for _ in range(agents.MOST_CALLS)]
        await asyncio.sleep(0)
        with pytest.raises(ToolError, match="at most 8 calls may run"):
            await tools.wait_for_event()
        ended = waiting.pop()
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
        assert (await tools.wait_for_event(timeout=0.01)).event is None
        for each in waiting:
            each.cancel()

    asyncio.run(test())


def test_a_camera_without_a_name_must_not_be_named():
    async def test():
        with pytest.raises(ToolError, match="camera must be empty, got 'front'"):
            await Tools(present_broker()).wait_for_event(camera="front")

    asyncio.run(test())


def test_an_agent_of_another_site_gets_403(robot):
    headers = {
        "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
    }  # fmt: skip
    for wrong in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert robot.server.get("/mcp", "POST", **headers, **wrong).status == 403
