# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What every test of a node needs: a domain of its own, and waiting for events."""

import faulthandler
import gc
import os
import sys
import time

# Before any message is imported: types of fields are checked only when this is set.
os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
# One for each worker of a run, and not the next one, which test_neighbours takes; programs that a
# worker starts, some of which read this file, have that of the worker.
os.environ["ROS_DOMAIN_ID"] = os.environ.setdefault(
    "ROS_DOMAIN_ID_OF_" + os.environ.get("PYTEST_XDIST_WORKER", "gw0"),
    str(
        (
            int(os.environ.get("ROS_DOMAIN_ID", 1 + os.getpid() % 101))
            + 13 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
            - 1
        )
        % 101
        + 1
    ),
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Threads of several processes on a few cores wait for each other, ten times longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# Hypothesis's own: the same examples in every run, however long one takes on a busy machine.
settings.load_profile("ci")

PATIENCE = 60.0  # s, far longer than anything takes


def pytest_addoption(parser):
    parser.addoption("--faults", metavar="FILE", help="write the table of faults with its results")


def pytest_configure(config):
    config.addinivalue_line("markers", "fault(N, ...): tests rows N, ... of faults.py")
    if path := config.getoption("--faults"):
        if config.getoption("numprocesses", None):
            raise pytest.UsageError("--faults needs -n 0: workers tell of no file that is skipped")
        from fault_report import FaultReport

        config.pluginmanager.register(FaultReport(path))


class Bench:
    """A node under test and a client node, spun by the test itself."""

    def __init__(self, *nodes):
        from rclpy.executors import SingleThreadedExecutor

        self.executor = SingleThreadedExecutor()
        self.nodes = nodes
        for node in nodes:
            self.executor.add_node(node)

    def until(self, condition, what="the condition"):
        """Spin until `condition()` is true and give its value."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            if time.monotonic() > end:
                faulthandler.dump_traceback(file=sys.__stderr__)
                pytest.fail(f"{what} did not come true in {PATIENCE} s")
            self.executor.spin_once(timeout_sec=0.1)
        return value

    def call(self, client, request):
        """The response of a service."""
        assert client.wait_for_service(PATIENCE)
        future = client.call_async(request)
        self.until(future.done, f"an answer of {client.srv_name}")
        return future.result()


@pytest.fixture
def ros():
    """A context of rclpy for one test."""
    rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: scripts/setup does")
    rclpy.init()
    yield rclpy
    rclpy.try_shutdown()


@pytest.fixture
def start(ros):
    """Makes desks; ends their nodes."""
    from desk import Desk, FakeEngine
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    from kosmos_ros.ros.kosmos_node import KosmosNode

    desks = []

    def make(engine=None, load=None, cli_args=None, wait=True, **values):
        engine = engine or FakeEngine()
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = KosmosNode(
            load=load or (lambda settings: engine),
            parameter_overrides=overrides,
            cli_args=cli_args,
        )
        desk = Desk(engine, node, Node("client"))
        desks.append(desk)
        if load is None and wait:
            desk.until(lambda: node._message == "ready", "a model at work")
        return desk

    yield make
    while desks:
        desk = desks.pop()
        desk.engine.free.set()
        assert desk.node.stop(10)
        desk.node.destroy_node()
        desk.client.destroy_node()
    desk = None
    # rcl keeps one log publisher for a node's name: that of an old node must not live on.
    gc.collect()
