# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Programs start and end properly in a broken environment: files, threads, streams, signals.

Each test of an environment breaks it for real, and a signal must end the process in every phase.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from conftest import PATIENCE, Spinner
from kosmos_msgs.srv import Ask
from programs import CHILD, Program, parameters

PYTHON = Path(sys.executable)
MODULES = {
    "camera_node": "kosmos_ros.ros.camera_node",
    "demo_node": "kosmos_ros.ros.demo_node",
    "kosmos_node": "kosmos_ros.ros.kosmos_node",
    "web_node": "kosmos_ros.web.web_node",
    "kosmos": "kosmos_ros.cli",
}
NODES = ("camera_node", "demo_node", "kosmos_node")


# The environment ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NODES)
@pytest.mark.fault(84)
def test_a_log_folder_that_cannot_be_written_is_code_7_and_named(name, tmp_path):
    file = tmp_path / "log"
    file.touch()
    with Program(name, env={**os.environ, "ROS_LOG_DIR": str(file)}) as program:
        assert program.ends() == 7, program.output
    (line,) = program.lines
    assert line.startswith(f"{name}: RCLError: failed to initialize logging: ")
    assert str(file) in line
    assert line.endswith("set ROS_LOG_DIR to a folder that this user can write to")


FEW_THREADS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                   void *(*begin)(void *), void *argument) {
  static int left = -1;
  static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  if (left < 0) left = atoi(getenv("THREADS_LEFT"));
  if (!real) real = dlsym(RTLD_NEXT, "pthread_create");
  return left-- > 0 ? real(thread, attributes, begin, argument) : (left = 0, EAGAIN);
}
"""


@pytest.fixture(scope="module")
def few_threads(tmp_path_factory):
    """Provide a library with which a process can start no more than THREADS_LEFT threads.

    The kernel's limits do not apply to root, or count the threads of other processes, too.
    """
    compiler = shutil.which("cc") or pytest.skip("cc is not installed")
    folder = tmp_path_factory.mktemp("threads")
    (folder / "threads.c").write_text(FEW_THREADS)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", "threads.so", "threads.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "threads.so"


@pytest.mark.parametrize("left", [0, 1])  # ROS's log takes the first one, signals the second one
@pytest.mark.fault(84)
def test_a_lack_of_threads_is_code_7_and_named(few_threads, left):
    environment = {**os.environ, "LD_PRELOAD": str(few_threads), "THREADS_LEFT": str(left)}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    with Program("camera_node", env=environment) as program:
        assert program.ends() == 7, program.output
    assert program.has("camera_node: RuntimeError: ")
    assert program.has("allow more processes and threads (ulimit -u, ")
    assert "Traceback" not in program.output


@pytest.mark.fault(84)
def test_a_lack_of_file_descriptors_is_code_7_and_named():
    limited = Path(shutil.which("prlimit") or pytest.skip("prlimit is not installed"))
    command = (sys.executable, "-m", MODULES["camera_node"])
    with Program(limited, "--nofile=8", *command) as program:
        assert program.ends() == 7, program.output
    assert program.has("Too many open files; allow more open files (ulimit -n, LimitNOFILE)")
    assert "Traceback" not in program.output


@pytest.mark.parametrize(
    "name, value",
    [("RMW_IMPLEMENTATION", "rmw_none_cpp"), ("RCUTILS_LOGGING_USE_STDOUT", "maybe")],
)
@pytest.mark.fault(108)
def test_a_variable_that_ros_cannot_use_is_code_2_and_named(name, value):
    with Program("camera_node", env={**os.environ, name: value}) as program:
        assert program.ends() == 2, program.output
    (line,) = program.lines
    assert line.startswith(f"{name} must be ") and f"got '{value}'" in line


def test_a_missing_home_is_code_7_and_named():
    environment = {**os.environ}
    for name in ("HOME", "ROS_HOME", "ROS_LOG_DIR"):
        environment.pop(name, None)
    with Program("camera_node", env=environment) as program:
        assert program.ends() == 7, program.output
    assert program.lines[-1].endswith(
        "set HOME, or set ROS_LOG_DIR to a folder that this user can write to"
    )


def test_a_parameter_file_for_another_name_is_reported(tmp_path):
    file = tmp_path / "camera.yaml"
    file.write_text("camera: {ros__parameters: {rate: 5.0}}")
    arguments = ("--ros-args", "-r", "__ns:=/robot", "--params-file", file)
    with Program("camera_node", *arguments) as program:
        line = program.says("has no section for /robot/camera")
    assert f"parameter file {file}" in line
    assert "its sections are /camera; rename the right one to /** or /robot/camera" in line


# Streams -----------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-", "<&-"])
@pytest.mark.fault(86)
def test_a_node_with_closed_streams_runs_until_a_signal(client, closed):
    """Without standard streams, a pipe or socket of the process would take their numbers."""
    script = f"exec {sys.executable} -m {MODULES['camera_node']} {closed}"
    with Program(Path(shutil.which("bash")), "-c", script) as program:
        Spinner(client).until(lambda: "camera" in client.get_node_names(), "a running node")
        links = [os.readlink(f"/proc/{program.process.pid}/fd/{number}") for number in range(3)]
        assert program.stop() == 0, program.output
    numbers = {"<": 0, ">": 1, "2": 2}
    for word in closed.split():
        assert links[numbers[word[0]]] == os.devnull
    assert not program.has("Traceback"), program.output


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-"])
@pytest.mark.parametrize("name", ["kosmos", "demo_node"])
@pytest.mark.fault(86)
def test_a_program_with_closed_streams_ends_with_its_own_code(name, closed, tmp_path):
    arguments = {
        "kosmos": f"ask {tmp_path}/missing.png What?",
        "demo_node": "--ros-args -p out:=/dev/null",
    }[name]
    script = f"exec {sys.executable} -m {MODULES[name]} {arguments} {closed}"
    with Program(Path(shutil.which("bash")), "-c", script) as program:
        assert program.ends() == 1, program.output
    assert not program.has("Traceback"), program.output


@pytest.mark.fault(86)
def test_a_reader_that_closes_the_pipe_does_not_end_the_node(client):
    """`kosmos_node 2>&1 | head -1` does so."""
    command = [*CHILD, PYTHON, "-m", MODULES["kosmos_node"], *parameters(model="shapes")]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, **pipe) as node, contextlib.ExitStack() as ends:
        ends.callback(node.kill)  # Popen would wait for a node that nobody has asked to end
        node.stdout.readline()
        node.stdout.close()
        answer = Spinner(client).call(client.create_client(Ask, "kosmos/ask"), Ask.Request())
        assert not answer.success
        node.send_signal(signal.SIGINT)
        assert node.wait(PATIENCE) == 0


SAY = "from kosmos_ros.ros.demo_node import _say; {}; [_say('a line') for _ in range(1000)]"


@pytest.mark.fault(86)
def test_a_full_disk_ends_the_demo_and_is_named():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [PYTHON, "-c", SAY.format("0")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    message = "demo_node: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_a_reader_that_closes_the_pipe_ends_the_demo_quietly():
    ready = "import sys; sys.stderr.write('up\\n'); sys.stdin.read()"
    command = [PYTHON, "-c", SAY.format(ready)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as demo:
        assert demo.stderr.readline() == "up\n"
        demo.stdout.close()
        demo.stdin.close()
        assert (demo.wait(PATIENCE), demo.stderr.read()) == (141, "")


# Signals -----------------------------------------------------------------------------------


@pytest.fixture
def slow_import(tmp_path):
    """Provide an environment in which the import of NumPy, which all programs need, hangs."""
    (tmp_path / "numpy.py").write_text("import time; print('importing'); time.sleep(1000)\n")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.fault(55)
def test_a_signal_during_imports_ends_the_program_quietly(name, sign, slow_import):
    with Program(PYTHON, "-u", "-m", MODULES[name], env=slow_import) as program:
        program.says("importing")
        assert program.stop(sign) == -sign
    assert program.lines == ["importing"]


HANG = """
import ctypes, sys, time
from kosmos_ros import entry
from kosmos_ros.ros import process
entry.REMINDER = 1  # SIGHUP, so 1 s
process.END_PATIENCE = 1.0

def hang_natively():
    "Lock a mutex twice while holding Python's global lock, as Fast DDS may do."
    print("hanging", flush=True)
    lock = ctypes.PyDLL(None).pthread_mutex_lock
    mutex = ctypes.create_string_buffer(1000)
    lock(mutex), lock(mutex)

def hang_in_python(*_):
    print("hanging", flush=True)
    time.sleep(1000)

"""
PHASES = {
    "init": "process.rclpy.init = lambda **_: hang_natively(); process.run(None, ['node'])",
    "constructor": "process.run(hang_natively, ['node'])",
    "callback": """
from rclpy.node import Node
def make():
    node = Node("hanging")
    node.finished = process.rclpy.task.Future()
    node.create_timer(0.01, hang_natively)
    return node
process.run(make, ["node"])
""",
    "stop": """
entry.REMINDER = process.signal.SIGUSR1  # signal 10, so 10 s
from rclpy.node import Node
def make():
    node = Node("hanging")
    node.finished = process.rclpy.task.Future()
    node.stop = lambda seconds: hang_natively()
    process.signal.raise_signal(process.signal.SIGINT)
    return node
process.run(make, ["node"])
""",
    "exit": """
import atexit
process.END_PATIENCE = 10.0
from rclpy.node import Node
def make():
    node = Node("hanging")
    node.finished = process.rclpy.task.Future()
    node.finished.set_result(3)
    node.stop = lambda seconds: True
    return node
atexit.register(hang_natively)
process.run(make, ["node"])
""",
    "command": """
import types
from kosmos_ros.entry import kosmos
def hang():
    try:
        hang_in_python()
    finally:
        hang_in_python()
sys.modules["kosmos_ros.cli"] = types.SimpleNamespace(main=hang)
sys.exit(kosmos())
""",
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.fault(85)
def test_a_signal_ends_a_process_that_hangs_in_any_phase(phase):
    with Program(PYTHON, "-c", HANG + PHASES[phase]) as program:
        program.says("hanging")
        assert program.stop() == -signal.SIGALRM, program.output


def test_a_hang_ends_even_if_the_parent_ignores_sigalrm():
    """A process inherits the signals that its parent ignores."""
    ignoring = "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
    with Program(PYTHON, "-c", ignoring + HANG + PHASES["command"]) as program:
        program.says("hanging")
        assert program.stop() == -signal.SIGALRM, program.output


def test_a_blocked_signal_still_ends_the_program():
    """A process inherits the signals that its parent blocks."""
    blocking = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [2, 15]); "
    blocking += "os.execv(sys.executable, [sys.executable, '-m', 'kosmos_ros.ros.camera_node'])"
    with Program(PYTHON, "-c", blocking) as program:
        program.says("publishing ")
        assert program.stop() == 0, program.output


@pytest.mark.fault(85)
def test_a_node_that_hangs_when_it_starts_ends_by_itself():
    code = HANG + "process.START_PATIENCE = 1.0\n" + PHASES["init"]
    with Program(PYTHON, "-c", code) as program:
        assert program.ends() == -signal.SIGALRM, program.output
    assert program.has("Current thread"), program.output  # the stacks


# The end -----------------------------------------------------------------------------------

LEAVES = """
import rclpy.task, sys
from rclpy.node import Node
from kosmos_ros.ros import process

class Leaving(Node):
    def stop(self, seconds):
        return {ended}

    def destroy_node(self):
        print("destroyed", flush=True)
        super().destroy_node()

def make():
    node = Leaving("leaving")
    node.finished = rclpy.task.Future()
    node.finished.set_result(3)
    return node

sys.exit(process.run(make, ["node"]))
"""


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.fault(109)
def test_a_node_leaves_the_graph_before_its_process_ends(ended):
    """Otherwise other nodes see it for another 20 s, also the one that replaces it."""
    with Program(PYTHON, "-c", LEAVES.format(ended=ended)) as program:
        assert program.ends() == 3, program.output
    assert program.has("destroyed")


def test_kosmos_node_ends_without_the_exit_of_the_interpreter():
    """It takes a second or two to free the objects of torch."""
    code = """
import atexit, sys, types
from kosmos_ros.entry import kosmos_node
class Kept:
    def __del__(self):
        print("freed", flush=True)
kept = Kept()
def main():
    atexit.register(print, "exit handler")
    return 3
sys.modules["kosmos_ros.ros.kosmos_node"] = types.SimpleNamespace(main=main)
sys.exit(kosmos_node())
"""
    with Program(PYTHON, "-c", code) as program:
        assert program.ends() == 3
    assert program.lines == ["exit handler"]


@pytest.mark.fault(110)
def test_ctrl_c_during_an_import_of_the_command_raises_nothing_in_the_module(tmp_path):
    """A native module may abort at an exception."""
    module = "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\n"
    (tmp_path / "native.py").write_text(module + "except BaseException:\n    print('raised')\n")
    code = """
import importlib, sys, types
from kosmos_ros.entry import kosmos
main = lambda: print("before") or importlib.import_module("native")
sys.modules["kosmos_ros.cli"] = types.SimpleNamespace(main=main)
sys.exit(kosmos())
"""
    with Program(PYTHON, "-c", code, cwd=tmp_path) as program:
        assert program.ends() == 130
    assert program.lines == ["before"]


@pytest.mark.fault(109)
def test_a_loading_model_does_not_delay_the_end(start, monkeypatch):
    loading, waits = threading.Event(), []
    node = start(load=lambda settings: loading.wait()).node
    monkeypatch.setattr(node.host, "join", lambda seconds: waits.append(seconds))
    assert not node.stop(PATIENCE)
    assert waits == [0.0]
    monkeypatch.undo()
    loading.set()
