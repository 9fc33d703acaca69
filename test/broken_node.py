# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos_node with an engine that breaks, as a program: broken_node.py HOW [ARGUMENTS].

HOW is lost, hangs, or holds: it hangs with Python's lock in its hand.
"""

import ctypes
import sys
import threading

from desk import FakeEngine

from kosmos_ros.errors import DeviceLostError
from kosmos_ros.ros.kosmos_node import KosmosNode
from kosmos_ros.ros.process import run


class Broken(FakeEngine):
    """Answers each question until one asks it to break."""

    def step(self):
        if any("break" in query.prompt for query in self.added):
            if sys.argv[1] == "lost":
                raise DeviceLostError("generation failed: CUDA error: an illegal memory access")
            if sys.argv[1] == "holds":
                turns = threading.Semaphore(0)
                KosmosNode.patience = property(lambda node: turns.release() or 1.0)
                for _ in range(2):  # the second turn shows that the first has set the alarm
                    turns.acquire()
                ctypes.PyDLL(None).sleep(1000)
            threading.Event().wait()
        return super().step()


if __name__ == "__main__":
    sys.exit(run(lambda: KosmosNode(lambda settings: Broken()), [sys.argv[0], *sys.argv[2:]]))
