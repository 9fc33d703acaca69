# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Import the engine, and with it torch and transformers, for a program. Knows no model."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kosmos_ros.kosmos2.engine import Engine

ENGINE = "kosmos_ros.kosmos2.engine"


def import_engine() -> type[Engine]:
    """Return Engine. The first call takes seconds. Raises the errors of kosmos2.loading.

    Python's garbage collector pauses during the import, and later skips all objects that exist
    then, about 400,000. Otherwise it looks through them six times meanwhile, and later stops all
    threads for 0.2 s each time it does so. A library should not do this: use it in programs.
    """
    first, enabled = ENGINE not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        from kosmos_ros.kosmos2.engine import Engine
    finally:
        if enabled:
            gc.enable()
    if first:
        gc.freeze()
    return Engine
