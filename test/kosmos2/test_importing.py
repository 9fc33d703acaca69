# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The garbage collector pauses while torch is imported, and then works again."""

import gc
import json
import subprocess
import sys

import pytest

from kosmos_ros.kosmos2.importing import ENGINE, import_engine

PROGRAM = """
import gc, json
from kosmos_ros.kosmos2.importing import import_engine
gc.collect()
full = gc.get_stats()[2]["collections"] + 1  # the one before the import
engine = import_engine()
frozen = gc.get_freeze_count()
import_engine()
full = gc.get_stats()[2]["collections"] - full
print(json.dumps([engine.__name__, gc.isenabled(), full, frozen, gc.get_freeze_count()]))
"""


def test_nothing_is_collected_during_the_import_and_its_objects_are_skipped_later():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    name, enabled, full, frozen, again = json.loads(done.stdout)
    assert (name, enabled, full) == ("Engine", True, 0)
    assert frozen == again > 100_000


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_before_if_the_import_fails(monkeypatch, enabled):
    monkeypatch.delitem(sys.modules, ENGINE, raising=False)
    monkeypatch.setattr(sys, "meta_path", [])
    frozen = gc.get_freeze_count()
    if not enabled:
        gc.disable()
    try:
        with pytest.raises(ImportError):
            import_engine()
        assert (gc.isenabled(), gc.get_freeze_count()) == (enabled, frozen)
    finally:
        gc.enable()
