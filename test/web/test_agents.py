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
import sys
import textwrap
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from comparison import iou
from PIL import Image as Pillow

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
pytest.importorskip("mcp", reason="mcp is not installed: run scripts/setup")

from kosmos_msgs.msg import GroundedCaption
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from web_client import QUESTION, Robot

from kosmos_ros.web import agents
from kosmos_ros.web.agents import LONGEST_SIDE, TOOLS, Tools, agent_server
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
        look = await client.call_tool("look", {"camera": "front"})
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


def test_cameras_are_listed_with_their_state(robot):
    found = call(robot, "cameras").structured_content
    assert found["state"] == "ready"
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
    found = call(robot, "wait_for_event", subject="a thing that nobody looks for", timeout=0.1)
    assert not found.is_error
    assert found.structured_content == {"event": None}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ask", {"question": "Why <s>?", "camera": "front"}, "contains the reserved tag <s>"),
        ("ask", {"question": "Why?", "camera": "side"}, "one of front, rear, got 'side'"),
        ("ask", {"question": "Why?"}, "camera must be one of front, rear, got ''"),
        ("ask", {"question": "Why?", "camera": "front", "stamp": "now"}, "stamp must be seconds"),
        ("ask", {"question": ""}, "question"),
        ("ask", {"question": "x" * 1001, "camera": "front"}, "1000"),
        ("ask", {"question": "Why?", "history": ["x"] * 41}, "history"),
        ("ask", {"question": "What is it?", "camera": "front", "region": [0, 0, 1]}, "region"),
        (
            "ask",
            {"question": "What is it?", "camera": "front", "region": [0.1, 0.2, 0.5, 0.6]},
            "region",
        ),
        ("find", {"phrases": [], "camera": "front"}, "phrases"),
        ("find", {"phrases": ["x"] * 21, "camera": "front"}, "phrases"),
        ("describe", {"camera": "front", "detailed": True, "region": [0, 0, 9, 9]}, "leave out"),
        ("look", {"camera": "x" * 101}, "camera"),
        ("wait_for_event", {"timeout": 301}, "timeout"),
        ("wait_for_event", {"timeout": 0}, "timeout"),
        ("set_parameter", {"value": 1}, "set_parameter"),
    ],
)
def test_an_error_is_a_result_with_the_reason(robot, name, arguments, message):
    result = call(robot, name, **arguments)
    assert result.is_error
    assert message in result.content[0].text
    assert "Traceback" not in result.content[0].text


def test_a_large_picture_is_made_smaller():
    async def test():
        broker = Broker("/kosmos", asyncio.get_running_loop())
        broker.node_client = Mock()
        broker.described({}, {}, {"": "/image"})
        broker.state({"state": "ready", "message": ""})
        looking = asyncio.ensure_future(Tools(broker).look())
        await asyncio.sleep(0)
        broker.picture(("", "1.000000000"), jpeg(np.zeros((1000, 2000, 3), np.uint8)))
        broker.part(("", "1.000000000"), CAPTION, GroundedCaption(caption="night"))
        return await looking

    text, image = asyncio.run(test()).content
    assert json.loads(text.text)["caption"] == "night"
    picture = Pillow.open(io.BytesIO(base64.b64decode(image.data)))
    assert picture.size == (LONGEST_SIDE, LONGEST_SIDE // 2) == (1024, 512)


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
USED |= {"next", "watching", "answer", "look_json", "pictures"}  # methods that look and ask


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


def test_too_many_calls_at_a_time_are_refused():
    async def test():
        broker = Broker("/kosmos", asyncio.get_running_loop())
        broker.cameras, broker.node_state = {"": "/image"}, {"state": "ready", "message": ""}
        broker.node_client = SimpleNamespace(post=lambda call: None)
        tools = Tools(broker)
        waiting = [asyncio.ensure_future(tools.wait_for_event()) for _ in range(agents.MOST_CALLS)]
        await asyncio.sleep(0)
        with pytest.raises(agents.ToolError, match="at most 8 calls may run"):
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
        broker = Broker("/kosmos", asyncio.get_running_loop())
        broker.cameras, broker.node_state = {"": "/image"}, {"state": "ready", "message": ""}
        with pytest.raises(agents.ToolError, match="camera must be empty, got 'front'"):
            await Tools(broker).wait_for_event(camera="front")

    asyncio.run(test())


def test_an_agent_of_another_site_gets_403(robot):
    headers = {
        "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
    }  # fmt: skip
    for wrong in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert robot.server.get("/mcp", "POST", **headers, **wrong).status == 403
