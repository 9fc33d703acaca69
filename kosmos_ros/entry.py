# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Start and end every program: standard streams, signals and exit codes.

Importing a program's module takes seconds and may fail. Therefore the streams and signals are
prepared first. Knows the names of these modules; no ROS and no model.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.util
import io
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import NoReturn

from kosmos_ros.sanitize import one_line

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BAD_PARAMETER, BAD_ARGUMENT, DEVICE_LOST, HUNG, BROKEN, CUT_OFF, ENVIRONMENT = range(1, 8)
"""Exit codes of the nodes; docs/interface.md explains them."""
FOLDER = "kosmos_ros.ros."  # start of the names of the nodes' modules, except web_node
STDOUT, STDERR = 1, 2  # file descriptors
INTERRUPTED, BROKEN_PIPE = 128 + signal.SIGINT, 128 + signal.SIGPIPE  # exit codes, as in shells

REMINDER = signal.SIGUSR1
"""Its number, 10 on Linux, is also the seconds in which a program must react to a signal."""

_THREADS = "allow more processes and threads (ulimit -u, TasksMax, --pids-limit), or end some"
_FILES = "allow more open files (ulimit -n, LimitNOFILE)"
_MEMORY = "free memory, or allow the process more (ulimit -v, MemoryMax, --memory)"
PACKAGES = {
    "rclpy": "ROS 2 is not set up in this shell; run 'source /opt/ros/DISTRO/setup.bash' and "
    "'source install/setup.bash' of the workspace",
    "kosmos_msgs": "build the workspace with kosmos_msgs and run 'source install/setup.bash'",
}
"""Package that every node needs: what to do if Python does not find it."""
WEB_PACKAGES = ("starlette", "uvicorn", "websockets", "mcp")
"""Optional packages, which only web_node and `kosmos mcp` need."""
INSTALL_WEB = f"{sys.executable} -m pip install {' '.join(WEB_PACKAGES)}"
OFFLINE_PACKAGES = {"rosbags.rosbag2": f"run '{sys.executable} -m pip install rosbags'"}
"""Optional packages, which only `kosmos bag` and `kosmos bags` need, and what to do if Python does
not find one."""
RAY_PACKAGES = {"ray": f"run '{sys.executable} -m pip install ray'"}
"""The same for `kosmos bags --ray`."""
USAGE = """\
usage: {name} [--ros-args [-p NAME:=VALUE] [-r FROM:=TO] [--params-file FILE] ...]

{about}

  -p NAME:=VALUE      set a parameter, such as {parameter}
  -r FROM:=TO         rename a topic, service or the node, such as {remap}
  --params-file FILE  read parameters from a YAML file

'ros2 param list {node}' and 'ros2 param describe {node} NAME' show the parameters of the running
node. {docs}"""
DOCS = "docs/interface.md has all parameters, topics, services and exit codes."
NODES = {
    "kosmos_node": {
        "about": "Describe camera images and answer questions about them with KOSMOS-2.",
        "node": "/kosmos",
        "parameter": "model:=shapes",
        "remap": "image:=/camera/image_raw",
    },
    "camera_node": {
        "about": "Publish drawn scenes, image files, a video or a camera as images.",
        "node": "/camera",
        "parameter": "source:=photo.jpg",
        "remap": "__node:=front",
    },
    "demo_node": {
        "about": "Use each interface of a running kosmos_node once, and print the results.",
        "node": "/kosmos_demo",
        "parameter": "cameras:=[front]",
        "remap": "__ns:=/robot1",
    },
    "web_node": {
        "about": "Show a running kosmos_node in a browser, and let agents look and ask.",
        "docs": "docs/web.md has its parameters, its security and the tools for agents.",
        "node": "/kosmos_web",
        "parameter": "port:=8080",
        "remap": "__ns:=/robot1",
    },
}
"""Name of a program: what its usage says. `docs` is DOCS unless it is given."""
REMEDIES = {
    "can't start new thread": _THREADS,
    "Resource temporarily unavailable": _THREADS,
    "Too many open files": _FILES,
    "Cannot allocate memory": _MEMORY,
    "bad_alloc": _MEMORY,
    "failed to map segment": _MEMORY,
    "MemoryError": _MEMORY,
    "log directory": "set ROS_LOG_DIR to a folder that this user can write to",
    "logging directory": "set HOME, or set ROS_LOG_DIR to a folder that this user can write to",
    "Unable to resolve peer": "correct ROS_STATIC_PEERS",
    "No space left on device": "free space on the disk",
    "_rclpy_pybind11": "run the Python for which ROS was built, not that of conda or of another "
    "virtual environment",
    "cannot open shared object file": "source the setup files of ROS and of this workspace",
    "No module named": "install it, or source the setup files of ROS and of this workspace",
}
"""Text of an error that the environment causes: remedy. The first text that matches counts."""


def kosmos() -> int:
    """Run the command kosmos. Ctrl-C raises KeyboardInterrupt in it.

    Its results must not be lost, so writing to a closed standard output fails.
    """
    _open_streams(output=os.O_RDONLY)
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    def start(main: Callable[[], int]) -> int:
        # A shell without job control lets its background commands ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else _interrupt)
        catch_signals()
        try:
            return main()
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    return run_program("kosmos_ros.cli", start)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but end at once during an import.

    A native module that is being imported may abort at an exception.
    """
    caller = frame
    while caller:
        if caller.f_code.co_filename.startswith("<frozen importlib"):
            leave(INTERRUPTED)
        caller = caller.f_back
    raise KeyboardInterrupt


def kosmos_node() -> int:
    """Run kosmos_node.

    The process ends after Python's exit handlers. The interpreter would take a second or two more
    to free the objects of torch, and launch reports an error if a node ends late.
    """
    codes: list[int] = []
    atexit.register(lambda: leave(codes[0]) if codes else None)  # called last
    codes.append(_run_node("kosmos_node"))
    return codes[0]


def camera_node() -> int:
    """Run camera_node."""
    return _run_node("camera_node")


def demo_node() -> int:
    """Run demo_node."""
    return _run_node("demo_node")


def web_node() -> int:
    """Run web_node, which needs a few more packages."""
    remedies = dict.fromkeys(WEB_PACKAGES, f"run '{INSTALL_WEB}'")
    return _run_node("web_node", "kosmos_ros.web.", remedies)


def _run_node(name: str, folder: str = FOLDER, remedies: Mapping[str, str] | None = None) -> int:
    """Run a node, or print its usage if the command line has --help.

    `remedies`: further packages that it needs, and what to do if Python does not find one.
    """
    _prepare()
    if _wants_help(sys.argv[1:]):
        print(USAGE.format(**{"name": name, "docs": DOCS, **NODES[name]}))
        return 0
    if missing := missing_package({**PACKAGES, **(remedies or {})}):
        print(f"{name}: {missing}", file=sys.stderr)
        return ENVIRONMENT
    # Before the import of rclpy, which ends the process for some values.
    if reason := importlib.import_module(f"{FOLDER}environment").wrong_variable():
        print(reason, file=sys.stderr)
        return BAD_ARGUMENT
    return run_program(f"{folder}{name}")


def _wants_help(words: Sequence[str]) -> bool:
    """Return whether --help or -h is among the arguments of the program itself."""
    own = itertools.takewhile(lambda word: word != "--ros-args", words)
    return any(word in ("-h", "--help") for word in own)


def missing_package(remedies: Mapping[str, str]) -> str:
    """Return which package Python does not find, and its remedy; empty if all are found."""
    for package, remedy in remedies.items():
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:  # the package around it is missing
            spec = None
        # A folder that is no package, such as the sources of kosmos_msgs, has no origin.
        if spec is None or spec.origin is None:
            return f"Python finds no package {package}: {remedy}"
    return ""


def run_program(
    module: str, start: Callable[[Callable[[], int]], int] = lambda main: main()
) -> int:
    """Import a module, call `start` with its `main`, and return the exit code.

    Signals have their default action during the import. If the environment lacks something that
    the program needs, prints one line and returns 7. For any other exception, prints a traceback
    and returns 5.
    """
    _prepare()
    try:
        return start(importlib.import_module(module).main)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:  # a library in Rust raises one for its own bug
        if not (reason := trouble(exc)):
            traceback.print_exc()
            return BROKEN
        print(f"{module.rpartition('.')[2]}: {reason}", file=sys.stderr)
        # Libraries that have not started completely may crash at a normal exit.
        leave(ENVIRONMENT)
        return ENVIRONMENT  # reached only in tests that replace os._exit


def leave(code: int) -> None:
    """End the process at once, without the exit handlers of Python and of native libraries."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def trouble(error: BaseException) -> str:
    """Return one line with an error that the environment causes, and its remedy.

    Returns an empty string if the error has another cause.
    """
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    remedy = next((remedy for part, remedy in REMEDIES.items() if part in text), "")
    ours = isinstance(error, (ImportError, MemoryError, OSError))
    # Other errors of rclpy, such as InvalidHandle, are bugs.
    if ours or remedy or "RCLError" in {kind.__name__ for kind in type(error).__mro__}:
        return one_line(text) + (f"; {remedy}" if remedy else "")
    return ""


def catch_signals() -> int:
    """Let SIGINT and SIGTERM write into a pipe, and return the file descriptor to read from.

    After such a signal, SIGALRM ends the process REMINDER seconds later, unless the caller sets
    another timer. No Python code is needed for that, because native code may block all of it: the
    kernel sends the signal REMINDER for each byte in the pipe, and its handler is the C library's
    `alarm`, which takes the signal's number as seconds.
    """
    import ctypes  # not earlier, since Ctrl-C prints a traceback until `run_program` begins
    import fcntl

    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # set_wakeup_fd requires it
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.signal.argtypes = ctypes.c_int, ctypes.c_void_p
        library.signal(REMINDER, ctypes.cast(library.alarm, ctypes.c_void_p))
        with contextlib.suppress(OSError):  # a sandbox's kernel may not have it
            fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(reader, fcntl.F_SETSIG, REMINDER)
            fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
    return reader


def output_failed(program: str, error: OSError, code: int = 1) -> NoReturn:
    """End the program with exit code `code` because standard output cannot be written."""
    # Python flushes again at exit, which would fail again. sys.stdout may be another stream.
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    if isinstance(error, BrokenPipeError):
        sys.exit(BROKEN_PIPE)
    try:
        print(f"{program}: standard output: {error.strerror}", file=sys.stderr, flush=True)
    except OSError:  # standard error may be on the same full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)
    sys.exit(code)


def _prepare() -> None:
    """Open the standard streams, and give signals their default action."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # With PYTHONUNBUFFERED, print would write a line and its newline separately, and
            # another program on the same pipe could write between them.
            stream.reconfigure(line_buffering=True, write_through=False)
    for number in (*SIGNALS, signal.SIGALRM):  # the parent may have ignored some
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the parent may have blocked some


def _open_streams(output: int = os.O_RDWR) -> None:
    """Open /dev/null in place of closed standard streams; `output` is standard output's mode.

    Otherwise a file or socket could get the number of a closed stream and receive its text.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The system chooses the lowest free number. Child processes inherit the stream.
            flags = output if name == "stdout" else os.O_RDWR
            os.set_inheritable(os.open(os.devnull, flags), True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False, errors="backslashreplace"))
