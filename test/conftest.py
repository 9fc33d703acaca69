# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The environment of the tests: ROS domains, tiers, and fixtures that end what a test starts."""

import contextlib
import faulthandler
import functools
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

import chromium as browsers
import pytest
from hypothesis import settings
from programs import RUNNING

WORKERS = 50  # at most; each has two of the 101 domains that are safe on Linux


def own_domain(environment):
    """Return the ROS domain of the pytest worker with these environment variables.

    The following domain, which test_neighbours uses, is the worker's, too.
    """
    first = int(environment.get("ROS_DOMAIN_ID", 1 + os.getpid() % 101))
    worker = int(environment.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return (first + 2 * worker - 1) % 101 + 1


# A program that a worker starts, some of which read this file, keeps the worker's domain.
DOMAIN_OF_WORKER = "ROS_DOMAIN_ID_OF_" + os.environ.get("PYTEST_XDIST_WORKER", "gw0")
os.environ["ROS_DOMAIN_ID"] = os.environ.setdefault(DOMAIN_OF_WORKER, str(own_domain(os.environ)))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
# rclpy reads this when a message is imported, and then checks the types of fields.
os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# With more threads than cores, threads of several processes wait ten times longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's background commands ignore Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis' own profile: the same examples in every run, and no deadline on a busy machine.
settings.load_profile("ci")

PATIENCE = 60.0  # s, far longer than any step takes
RESPONSE_TIMEOUT = 15.0  # s until a request is sent again
LONG_TIMEOUTS = {"request_timeout": 600.0, "stale_timeout": 600.0}
"""Parameters of a node on a machine that may pause for seconds."""

FOLDER = Path(__file__).parent
TIERS = {
    "": "unit",
    "benchmark": "ros slow",
    "commands": "unit slow",
    "images/test_memory.py": "unit slow",
    "kosmos2/test_hub.py": "process",
    "kosmos2/test_tokenizer.py": "unit slow",
    "offline/bags/test_bag_messages.py": "ros",
    "offline/bags/test_node_events.py": "unit slow",
    "offline/browser": "process browser",
    "process": "process",
    "repository/test_docs.py": "process",
    "repository/test_fuzz.py": "ros slow",
    "repository/test_matrix.py": "process",
    "repository/test_scripts.py": "process",
    "ros": "ros",
    "serving/test_drafted_streams.py": "unit slow",
    "test_cli.py": "process",
    "training/test_model.py": "unit slow",
    "web": "process",
    "web/browser": "process browser",
    "web/test_broker.py": "ros",
    "web/test_goals.py": "ros",
    "web/test_live.py": "ros",
    "web/test_looks.py": "unit",
    "web/test_messages.py": "ros",
    "web/test_node_client.py": "ros",
    "web/test_outbox.py": "unit",
    "web/test_pictures.py": "unit",
    "web/test_security.py": "unit",
}
"""Marks of the tests in a folder or file; the longest path counts."""
LONG = ("process", "slow")
MARKS = {
    "unit": "needs neither rclpy nor a process of this project",
    "ros": "uses rclpy in the process of pytest",
    "process": "starts programs of this project as processes",
    "browser": "opens a page in a headless Chromium",
    "slow": "takes seconds, as all tests of Hypothesis do; --fast leaves it out",
    "fault(N, ...)": "tests rows N, ... of faults.py",
}


def marks_of(path):
    """Return the marks of a test file; `path` is relative to the folder of the tests."""
    places = ("" if place == Path() else place.as_posix() for place in (path, *path.parents))
    return next(TIERS[place] for place in places if place in TIERS).split()


def pytest_addoption(parser):
    parser.addoption("--faults", metavar="FILE", help="write the table of faults with its results")
    parser.addoption("--fast", action="store_true", help="run the unit tests that are not slow")


def pytest_configure(config):
    for mark, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")
    workers = config.getoption("numprocesses", None) or 0
    if workers > WORKERS:
        raise pytest.UsageError(f"-n must be at most {WORKERS}: each worker needs two ROS domains")
    if path := config.getoption("--faults"):
        if workers:
            raise pytest.UsageError("--faults needs -n 0: workers do not report skipped files")
        from fault_report import FaultReport

        config.pluginmanager.register(FaultReport(path))


def pytest_ignore_collect(collection_path, config):
    # Importing rclpy and its messages takes longer than many unit tests.
    if not config.getoption("--fast") or collection_path.suffix != ".py":
        return None
    return marks_of(collection_path.relative_to(FOLDER)) != ["unit"] or None


@pytest.hookimpl(tryfirst=True)  # -m selects by marks
def pytest_collection_modifyitems(config, items):
    for item in items:
        tier, *others = marks_of(item.path.relative_to(FOLDER))
        # A file of unit tests may have a few tests of its subject in a node or a process.
        if tier == "unit" and "ros" in item.fixturenames:
            tier = "ros"
        for mark in others if item.get_closest_marker("process") else (tier, *others):
            item.add_marker(mark)
        if getattr(item.obj, "is_hypothesis_test", False):
            item.add_marker("slow")
    # Files that take long come first, so that no worker waits long for the last one. -n starts
    # them in this order.
    long = {item.path for item in items for mark in item.iter_markers() if mark.name in LONG}
    items.sort(key=lambda item: item.path not in long)
    if config.getoption("--fast"):
        fast, others = [], []
        for item in items:
            quick = item.get_closest_marker("unit") and not item.get_closest_marker("slow")
            (fast if quick else others).append(item)
        config.hook.pytest_deselected(items=others)
        items[:] = fast


class Spinner:
    """An executor that the test itself spins while it waits."""

    def __init__(self, *nodes):
        from rclpy.executors import SingleThreadedExecutor

        self.executor = SingleThreadedExecutor()
        self.nodes = nodes
        for node in nodes:
            self.executor.add_node(node)

    def until(self, condition, what="the condition"):
        """Spin until `condition()` is true and return its value."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            if time.monotonic() > end:
                faulthandler.dump_traceback(file=sys.__stderr__)
                pytest.fail(f"{what} did not come true in {PATIENCE} s")
            self.executor.spin_once(timeout_sec=0.1)
        return value

    def call(self, client, request):
        """Return the response of a service. Repeat the request until one arrives.

        rmw_fastrtps drops the response to a client that the service has not discovered within
        100 ms (rmw_response.cpp, __rmw_send_response). So the service may get a request twice; its
        own timeout must be shorter than RESPONSE_TIMEOUT.
        """
        assert client.wait_for_service(PATIENCE)
        futures, sent_at = [], float("-inf")

        def responded():
            nonlocal sent_at
            if time.monotonic() > sent_at + RESPONSE_TIMEOUT:
                sent_at = time.monotonic()
                futures.append(client.call_async(request))
            return next((future for future in futures if future.done()), None)

        return self.until(responded, f"a response of {client.srv_name}").result()


class Nodes:
    """The rclpy nodes of this process that have not been destroyed."""

    def __init__(self):
        self.alive = []
        self._tracking = False

    def track(self):
        """Notice nodes that are made from now on. Imports nothing."""
        if self._tracking or "rclpy.node" not in sys.modules:
            return
        self._tracking = True
        node = sys.modules["rclpy.node"].Node
        make, destroy = node.__init__, node.destroy_node

        def made(self_, *arguments, **options):
            make(self_, *arguments, **options)
            self.alive.append(self_)

        def destroyed(self_):
            from rclpy.action import ActionClient

            self.alive[:] = [each for each in self.alive if each is not self_]
            # rclpy does not destroy action clients. One that a failed test did not destroy keeps
            # the whole node on the network, where later tests meet it.
            for waitable in [*self_.waitables]:
                if isinstance(waitable, ActionClient):
                    waitable.destroy()
            destroy(self_)

        node.__init__, node.destroy_node = made, destroyed


NODES = Nodes()


def _end_all_but(nodes, programs):
    """End the programs and destroy the nodes that are not among these."""
    for program in RUNNING - programs:
        program.__exit__()
    for node in [node for node in NODES.alive if not any(node is kept for kept in nodes)]:
        node.destroy_node()


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_by_the_file():
    """End what the file's fixtures started, also if their set-up failed half-way."""
    NODES.track()
    nodes, programs = [*NODES.alive], {*RUNNING}
    yield
    _end_all_but(nodes, programs)


@pytest.fixture(autouse=True)
def _nothing_left_by_the_test(_nothing_left_by_the_file):
    """End what the test started, also if it failed."""
    NODES.track()
    nodes, programs = [*NODES.alive], {*RUNNING}
    yield
    _end_all_but(nodes, programs)


@pytest.fixture
def ros():
    """Provide rclpy with a context for one test."""
    pytest.importorskip("rclpy.node", reason="rclpy is not installed: run scripts/setup")
    import rclpy

    NODES.track()
    nodes = [*NODES.alive]
    rclpy.init()
    yield rclpy
    _end_all_but(nodes, RUNNING)  # nodes before their context
    rclpy.try_shutdown()


@pytest.fixture
def kosmos(capsys):
    """Return a function that runs the command: exit code, JSON lines, standard error."""

    from kosmos_ros import cli

    def run(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as exc:
            code = exc.code
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return run


@pytest.fixture
def client(ros):
    """Provide a node of the test."""
    from rclpy.node import Node

    node = Node("client")
    yield node
    node.destroy_node()


@pytest.fixture
def spinner(client):
    """Provide a Spinner for the test's node."""
    return Spinner(client)


@pytest.fixture
def start(ros):
    """Provide a function that starts KosmosNode and returns its NodeHarness; end the nodes.

    `values` are parameters; without `cli_args`, LONG_TIMEOUTS replaces some defaults. `load`
    replaces the loading of the engine; it is then up to the test to wait for the model.
    """
    from node_harness import FakeEngine, NodeHarness
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    from kosmos_ros.ros import kosmos_node, lifecycle
    from kosmos_ros.ros.kosmos_node import KosmosNode
    from kosmos_ros.serving.availability import Phase

    def end(engine, node, harnesses):
        engine.unblock()
        host = node.host
        if harnesses:  # `stop` does not wait for a model that is loading
            harnesses[0].until(
                lambda: host.settled or host.availability.phase is Phase.UNCONFIGURED,
                "the end of loading",
            )
        with pytest.MonkeyPatch.context() as patch:
            # The test sends no more requests.
            patch.setattr(kosmos_node, "LAST_REQUESTS", 0.0)
            patch.setattr(kosmos_node, "LAST_SPINS", 0)
            # Otherwise the garbage collector may destroy the state machine during the next test.
            patch.setattr(lifecycle, "LAST_TRANSITION_TIMEOUT", PATIENCE)
            stopped = node.stop(PATIENCE)
            node.destroy_node()
        assert stopped

    with contextlib.ExitStack() as ends:

        def make(engine=None, load=None, cli_args=None, wait=True, **values):
            engine = engine or FakeEngine()
            values = LONG_TIMEOUTS | values if cli_args is None else values
            overrides = [Parameter(name, value=value) for name, value in values.items()]
            node = KosmosNode(
                load=load or (lambda settings: engine),
                parameter_overrides=overrides,
                cli_args=cli_args,
            )
            harnesses = []  # keeps its executor alive until the node has stopped
            ends.callback(end, engine, node, harnesses)
            client = Node("client")
            ends.callback(client.destroy_node)
            harness = NodeHarness(engine, node, client)
            harnesses.append(harness)
            if load is None and wait:
                harness.wait_for_model()
            return harness

        yield make
    # rcl keeps one log publisher for each node name; the next node needs its own.
    gc.collect()


@pytest.fixture(scope="module")  # its event loop would be in the way of other files
def chromium():
    """A headless Chromium."""
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def open_page(address, chromium):
    """A function that opens the page; errors of its scripts fail the test."""
    contexts, errors = [], []

    ready = "body[data-ready=yes]"

    def new(address=address, viewport=None, before=None, until=ready, **options):
        context = chromium.new_context(
            viewport=viewport or browsers.DESK, reduced_motion="reduce", **options
        )
        contexts.append(context)
        context.set_default_timeout(browsers.PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(error))
        if before:
            before(page)
        page.goto(address)
        page.wait_for_selector(until)
        return page

    yield new
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture(scope="module")
def loaded_once():
    """The command loads each model once for all tests of a module."""
    from kosmos_ros.kosmos2.engine import Engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "load", functools.cache(Engine.load))
        yield
