# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos_node as a process: start, end, exit codes, and steps of the system clock."""

import contextlib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

import numpy as np
from conftest import PATIENCE, Spinner
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask
from programs import Program, parameters
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from kosmos_ros.entry import CUT_OFF
from kosmos_ros.ros.conversions import image_message
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

PYTHON = Path(sys.executable)
SHAPES = parameters(model="shapes")

WITHOUT = """
import sys
sys.modules[{!r}] = None
from kosmos_ros.ros.kosmos_node import main
sys.exit(main(["kosmos_node", *sys.argv[1:]]))
"""


def clean(program):
    """Return whether the output has no error."""
    return not any(word in program.output for word in ("Traceback", "ERROR", "Exception"))


def until_mapped(process, library):
    """Wait until a process has loaded a library; skip the test if it never does."""
    end = time.monotonic() + PATIENCE
    while library not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        if time.monotonic() > end:
            pytest.skip(f"{library} is not loaded on this machine")
        time.sleep(0.001)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault(54)
def test_a_signal_to_an_idle_node_ends_it_cleanly(sign):
    with Program("kosmos_node", *SHAPES) as node:
        node.says("active: ")
        code = node.stop(sign)
    assert code == 0, node.output
    assert clean(node), node.output


@pytest.mark.parametrize("moment", ["active: ", "images from "])
@pytest.mark.fault(55)
def test_repeated_ctrl_c_ends_the_node_cleanly(moment):
    with Program("kosmos_node", *SHAPES) as node:
        node.says(moment)
        while node.process.poll() is None:
            node.process.send_signal(signal.SIGINT)
        code = node.ends()
    assert code == 0, node.output
    assert clean(node), node.output


@pytest.mark.parametrize("library", ["", "rclpy", "librcl.so", "librmw_"])
@pytest.mark.fault(55)
def test_sigterm_right_after_the_start_is_not_a_crash(library):
    with Program("kosmos_node", *SHAPES) as node:
        until_mapped(node.process, library)
        code = node.stop(signal.SIGTERM)
    assert code in (0, -signal.SIGTERM), node.output
    assert clean(node), node.output


def test_five_nodes_that_start_at_once_become_ready_and_end():
    """As at the start of a robot. The engine is a fake one: torch would need minutes."""
    broken = Path(__file__).parents[1] / "broken_node.py"
    with contextlib.ExitStack() as running:
        nodes = [
            running.enter_context(
                Program(PYTHON, "-u", broken, "never", "--ros-args", "-r", f"__ns:=/robot{number}")
            )
            for number in range(5)
        ]
        for node in nodes:
            node.says("active: ")
        for node in nodes:
            node.process.send_signal(signal.SIGINT)
        assert [node.ends() for node in nodes] == [0] * 5
        assert all(clean(node) for node in nodes)


@pytest.mark.fault(52)
def test_a_node_cut_off_from_shared_memory_ends_with_its_own_code():
    """Replace the node's port as Fast DDS does if it believes that the node is dead."""
    with Program("kosmos_node", *SHAPES) as node:
        node.says("active: ")
        links = []
        for link in Path(f"/proc/{node.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                links.append(os.readlink(link))
        locks = [link for link in links if re.fullmatch(r"/dev/shm/fast\w+_port\d+_el", link)]
        if not locks:
            pytest.skip("Fast DDS does not use shared memory on this machine")
        port = Path(locks[0].removesuffix("_el"))
        port.unlink()
        try:
            port.write_bytes(b"x")  # Fast DDS refuses such a file at once
            code = node.ends()
        finally:
            port.unlink(missing_ok=True)
    assert code == CUT_OFF == 6, node.output
    assert node.has(f"{port} has been replaced"), node.output
    assert "Traceback" not in node.output


@pytest.mark.fault(34)
def test_auto_without_a_gpu_uses_and_logs_the_cpu():
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with Program("kosmos_node", *parameters(model="shapes", device="auto"), env=hidden) as node:
        assert "device cpu, dtype float32" in node.says("model ready: ")
        assert node.stop() == 0


@pytest.mark.parametrize("missing", ["torch", "transformers"])
@pytest.mark.fault(35)
def test_a_node_without_torch_runs_and_names_the_install_command(client, missing):
    remedy = f"{sys.executable} -m pip install -r requirements.txt"
    with Program(PYTHON, "-u", "-c", WITHOUT.format(missing), *SHAPES) as node:
        node.says(remedy)
        asking, spinner = client.create_client(Ask, "kosmos/ask"), Spinner(client)
        question = Ask.Request(question="What is it?")
        # The remedy is logged before it is the reason for refusing requests.
        spinner.until(lambda: remedy in spinner.call(asking, question).message)
        code = node.stop()
    assert code == 0, node.output
    assert "Traceback" not in node.output


@pytest.fixture(scope="module")
def stepping(tmp_path_factory):
    """Provide a library that shifts a process's system clock by the seconds in an 8-byte file."""
    compiler = shutil.which("cc") or pytest.skip("cc is not installed")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(STEPPING)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "clock.so"


STEPPING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static long step(void) {
  static volatile long *seconds;
  if (!seconds) {
    int file = open(getenv("CLOCK_STEP"), O_RDONLY);
    seconds = mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
  }
  return *seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += step();
  return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (now) *now = exact.tv_sec;
  return exact.tv_sec;
}
"""


@pytest.mark.fault(28)
def test_a_step_of_the_system_clock_changes_no_rate_and_no_timeout(client, stepping, tmp_path):
    spinner = Spinner(client)
    camera = client.create_publisher(Image, "image", 1)
    asking = client.create_client(Ask, "kosmos/ask")
    captions = []
    client.create_subscription(GroundedCaption, "kosmos/captions", captions.append, 10)
    drawn = render(sample_scene(np.random.default_rng(3), 320, 240))
    file = tmp_path / "step"
    file.write_bytes(struct.pack("q", 0))
    environment = {**os.environ, "LD_PRELOAD": str(stepping), "CLOCK_STEP": str(file)}
    arguments = parameters(model="shapes", max_rate=20, request_timeout=2.0, stale_timeout=1.0)
    with Program("kosmos_node", *arguments, env=environment) as node:
        node.says("active: ")
        # The clock is never ahead of the kernel's, which some libraries wait for.
        for step in (0, -7200, -3600, -1800):
            with file.open("r+b") as clock:  # in place, since the node has mapped the file
                clock.write(struct.pack("q", step))
            silent = len(node.lines)
            header = Header(frame_id=f"{step}")

            def show(header=header):
                header.stamp.nanosec += 1
                camera.publish(image_message(drawn, header))

            timer = client.create_timer(0.05, show)
            captions.clear()
            # Captions of frames from before the step do not count.
            name = header.frame_id
            spinner.until(
                lambda name=name: [c.header.frame_id for c in captions].count(name) >= 3,
                "captions after a step",
            )
            client.destroy_timer(timer)
            newest = header.stamp.nanosec
            spinner.until(lambda newest=newest: captions[-1].header.stamp.nanosec == newest)
            late = captions[-1].latency.sec - client.get_clock().now().nanoseconds / 1e9
            assert abs(late - step) < PATIENCE  # the node sees the step
            # No frame is as new as max_age requires, so this request waits for its timeout.
            request = Ask.Request(question="What is it?")
            request.max_age.nanosec = 1
            assert "within 2 s" in spinner.call(asking, request).message
            node.says("no image on /image for", after=silent)
        # The program is killed here: DDS may wait long for its own end.
