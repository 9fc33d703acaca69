# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""config/kosmos.policy.xml allows exactly what real nodes have on the graph."""

import contextlib
import os
import re
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

import psutil
from programs import Program, parameters
from sensor_msgs.msg import CompressedImage, Image

from kosmos_ros.ros.conversions import Detection2DArray

ROOT = Path(__file__).parents[2]
POLICY = ElementTree.parse(ROOT / "config" / "kosmos.policy.xml")
PATIENCE = 60.0  # s
SERVICES_OF_ACTIONS = ("cancel_goal", "get_result", "send_goal")
TOPICS_OF_ACTIONS = ("feedback", "status")


def allowed(path):
    """Return the names that an enclave's profile allows, by kind, as the graph spells them."""
    (profile,) = POLICY.findall(f"enclaves/enclave[@path='{path}']/profiles/profile")
    own = profile.get("ns").rstrip("/") + "/"

    def names(of, verb):
        found = profile.findall(f"{of}s[@{verb}='ALLOW']/{of}")
        return {resolved(own, profile.get("node"), element.text) for element in found}

    executed, called = names("action", "execute"), names("action", "call")
    return {
        "publisher": names("topic", "publish") | hidden(executed, TOPICS_OF_ACTIONS),
        "subscriber": names("topic", "subscribe") | hidden(called, TOPICS_OF_ACTIONS),
        "service": names("service", "reply") | hidden(executed, SERVICES_OF_ACTIONS),
        "client": names("service", "request") | hidden(called, SERVICES_OF_ACTIONS),
    }


def resolved(namespace, node, name):
    """Return the full name of an expression, as sros2 reads it."""
    if name.startswith("~"):
        return namespace + node + name[1:]
    return name if name.startswith("/") else namespace + name


def hidden(actions, parts):
    return {f"{action}/_action/{part}" for action in actions for part in parts}


def graph(ros, name, expected):
    """Return what a node has on the graph: once it is as expected, or else after PATIENCE."""
    watcher = ros.create_node("watcher", enable_rosout=False)

    def look():
        try:
            return {
                kind: {
                    found
                    for found, _ in getattr(watcher, f"get_{kind}_names_and_types_by_node")(
                        name, "/"
                    )
                }
                for kind in expected
            }
        except RuntimeError:  # NodeNameNonExistentError of rclpy: not discovered yet
            return {}

    end = time.monotonic() + PATIENCE
    while (found := look()) != expected and time.monotonic() < end:
        ros.spin_once(watcher, timeout_sec=0.1)
    watcher.destroy_node()
    return found


@pytest.mark.fault(66)
def test_sros2_can_read_it():
    """sros2 takes everything inside <enclaves> for an enclave, even comments."""
    builder = ElementTree.TreeBuilder(insert_comments=True)
    parser = ElementTree.XMLParser(target=builder)
    root = ElementTree.parse(ROOT / "config" / "kosmos.policy.xml", parser).getroot()
    assert (root.tag, root.get("version")) == ("policy", "0.2.0")
    paths = [enclave.get("path") for enclave in root.find("enclaves")]
    assert paths == ["/kosmos", "/kosmos_web", "/listener"]


@pytest.mark.parametrize("camera", ["", "front"])
@pytest.mark.fault(66)
def test_the_node_has_exactly_what_its_policy_allows(ros, camera):
    """For a camera with a name, after the changes that docs/security.md lists."""
    expected = allowed("/kosmos")
    if Detection2DArray is None:
        expected["publisher"].remove("/kosmos/detections")
    if find_spec("type_description_interfaces") is None:  # before Iron
        expected["service"].remove("/kosmos/get_type_description")
    options = {"model": "shapes", "use_sim_time": "true"}
    if camera:
        options["cameras"] = f"[{camera}]"
        names = (
            "annotated|annotated/compressed|answers|captions|detections|enable|events|"
            "frame/compressed|phrases|text"
        )
        expected = {
            kind: {
                re.sub(f"^/kosmos/({names})$|^/(image)$", rf"/kosmos/{camera}/\1\2", name).replace(
                    f"/kosmos/{camera}/image", f"/{camera}/image"
                )
                for name in found
            }
            for kind, found in expected.items()
        }
    with Program("kosmos_node", *parameters(**options)) as node:
        assert graph(ros, "kosmos", expected) == expected, node.output


@contextlib.contextmanager
def page(server):
    """Show the page of a web_node, with the live images of the camera that has no name."""
    left = threading.Event()

    def watch():
        while not left.wait(0.5):  # s, less than the time until web_node ends a subscription
            server.get("/live/_.jpg")

    watching = threading.Thread(target=watch)
    with server.browser() as browser:
        browser.until("hello", lambda hello: hello["cameras"])
        watching.start()
        try:
            yield
        finally:
            left.set()
            watching.join()


@pytest.mark.parametrize("images", ["/image", "/image/compressed"])
def test_web_node_has_exactly_what_its_policy_allows(ros, client, images):
    """While a browser shows the page. Live images come from one of two topics."""
    web_client = pytest.importorskip("web_client", reason="websockets is not installed")
    expected = allowed("/kosmos_web")
    expected["subscriber"] -= {"/image", "/image/compressed"} - {images}
    if find_spec("type_description_interfaces") is None:  # before Iron
        expected["service"].remove("/kosmos_web/get_type_description")
    client.create_publisher(Image if images == "/image" else CompressedImage, images, 1)
    with Program("kosmos_node", *parameters(model="shapes")):
        server = web_client.Server(node="/kosmos", use_sim_time="true")
        with server.program, page(server):
            assert graph(ros, "kosmos_web", expected) == expected, server.program.output


@pytest.mark.fault(66)
def test_the_example_client_needs_exactly_what_its_policy_allows(ros, tmp_path):
    example = (ROOT / "docs" / "client.py").read_text()
    (tmp_path / "listener").write_text("#!/usr/bin/env python3\n" + example)
    (tmp_path / "listener").chmod(0o755)
    expected = allowed("/listener")
    with Program(tmp_path / "listener") as client:
        assert graph(ros, "listener", expected) == expected, client.output


def test_the_node_opens_no_sockets_except_those_of_dds():
    """Only UDP sockets without a peer: no TCP, no other server and no outgoing connection."""
    environment = os.environ | {"FASTDDS_BUILTIN_TRANSPORTS": "DEFAULT"}  # others may open TCP
    with Program("kosmos_node", *parameters(model="shapes"), env=environment) as node:
        node.says("active: accepting frames and requests")
        sockets = psutil.Process(node.process.pid).net_connections(kind="inet")
        assert sockets
        for socket in sockets:
            assert socket.type.name == "SOCK_DGRAM", socket
            assert not socket.raddr, socket
