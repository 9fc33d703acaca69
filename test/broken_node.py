# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run kosmos_node with an engine that breaks: broken_node.py HOW [ARGUMENTS].

HOW: lost (the device is lost), bug (an exception ends the worker), hangs (a step never ends),
holds (it also keeps Python's lock). As the prefix of a launch file, the command is followed by the
path of the node that it replaces.
"""

import ctypes
import sys
import threading

from node_harness import FakeEngine

from kosmos_ros.errors import DeviceLostError
from kosmos_ros.ros.kosmos_node import KosmosNode
from kosmos_ros.ros.process import run


class Broken(FakeEngine):
    """An engine that works until a prompt contains "break"."""

    broken = False

    def memory(self):
        return 1 // 0 if self.broken else super().memory()

    def step(self):
        if any("break" in query.prompt for query in self.added):
            if sys.argv[1] == "lost":
                raise DeviceLostError("generation failed: CUDA error: an illegal memory access")
            if sys.argv[1] == "holds":
                turns = threading.Semaphore(0)
                KosmosNode.patience = property(lambda node: turns.release() or 1.0)
                for _ in range(2):  # after the second one, the first has set the alarm
                    turns.acquire()
                ctypes.PyDLL(None).sleep(1000)
            if sys.argv[1] == "bug":
                self.broken = True
                return super().step()
            threading.Event().wait()
        return super().step()


if __name__ == "__main__":
    arguments = [word for word in sys.argv if not word.endswith("/kosmos_node")]
    sys.exit(run(lambda: KosmosNode(lambda settings: Broken()), [arguments[0], *arguments[2:]]))
