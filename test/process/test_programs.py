# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Programs and nodes that tests start end with them, and runs of the tests do not meet."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import conftest
import psutil
import pytest
from programs import RUNNING, Program

PYTHON = Path(sys.executable)
SLEEPER = "import time; print('up', flush=True); time.sleep(1000)"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(1000)
"""
STARTER = f"""
import os, sys
from pathlib import Path
from programs import Program
child = Program(Path(sys.executable), "-c", {SLEEPER!r})
child.says("up")
print(child.process.pid, flush=True)
os._exit(0)
"""


def until_gone(process):
    """Wait until a process has ended."""
    end = time.monotonic() + conftest.PATIENCE
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(process).status() != "zombie":
            assert time.monotonic() < end, psutil.Process(process)
            time.sleep(0.01)


def test_a_program_obeys_sigint_that_its_parent_ignores():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Program(PYTHON, "-c", SLEEPER) as program:
            program.says("up")
            assert program.stop() == -signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_program_that_is_left_takes_its_children_along():
    with Program(PYTHON, "-u", "-c", PARENT) as program:
        child = int(program.says(""))
    until_gone(child)


def test_a_program_ends_with_the_process_that_started_it():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", STARTER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    until_gone(int(done.stdout))


def test_a_failed_test_leaves_no_program():
    before = {*RUNNING}
    program = Program(PYTHON, "-c", SLEEPER)
    program.says("up")
    conftest._end_all_but(conftest.NODES.alive, before)
    assert program.process.poll() is not None
    assert before == RUNNING


def test_a_failed_test_leaves_no_node(ros):
    kept = ros.create_node("kept")
    before = [*conftest.NODES.alive]
    assert before[-1] is kept
    ros.create_node("left")
    conftest._end_all_but(before, RUNNING)
    assert conftest.NODES.alive == before
    spinner = conftest.Spinner(kept)
    spinner.until(lambda: kept.get_node_names() == ["kept"], "a graph without the other node")


@pytest.mark.parametrize("first", [1, 50, 101])
def test_workers_and_their_neighbours_have_domains_of_their_own(first):
    workers = [f"gw{number}" for number in range(conftest.WORKERS)]
    own = [
        conftest.own_domain({"ROS_DOMAIN_ID": str(first), "PYTEST_XDIST_WORKER": worker})
        for worker in workers
    ]
    both = own + [domain % 101 + 1 for domain in own]  # as test_neighbours does
    assert own[0] == first
    assert len(set(both)) == len(both)
    assert set(both) <= set(range(1, 102))
