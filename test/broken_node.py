# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run kosmos_node with an engine that breaks: broken_node.py HOW [ARGUMENTS].

HOW: lost (the device is lost), hangs (a step never ends), holds (it also keeps Python's lock).
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
            threading.Event().wait()
        return super().step()


if __name__ == "__main__":
    sys.exit(run(lambda: KosmosNode(lambda settings: Broken()), [sys.argv[0], *sys.argv[2:]]))
