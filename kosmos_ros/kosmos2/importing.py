# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Import the engine, and with it torch and transformers, for a program. Knows no model."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.engine import Engine

ENGINE = "kosmos_ros.kosmos2.engine"

_lock = threading.Lock()


def import_engine() -> type[Engine]:
    """Return Engine. The first call takes seconds. Raises the errors of kosmos2.loading.

    The import makes about 400,000 objects that live until the end. The garbage collector would
    look through them six times during the import, and each later full collection would stop all
    threads for 0.2 s. So it is off during the import, and these objects are frozen after it. Use
    this only in programs: a library should not change the collector.
    """
    with _lock:  # otherwise another thread would find the collector off, and leave it off
        if ENGINE not in sys.modules:
            _import()
    from kosmos_ros.kosmos2.engine import Engine

    return Engine


def _import() -> None:
    enabled = gc.isenabled()
    gc.collect()  # what is garbage now would be frozen, too
    gc.disable()
    try:
        importlib.import_module(ENGINE)
    finally:
        if enabled:
            gc.enable()
    gc.freeze()
