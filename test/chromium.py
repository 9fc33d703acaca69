# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium for tests of pages. Functions import what may be missing."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
PATIENCE = 30_000  # ms, far longer than any step takes


@contextlib.contextmanager
def chromium():
    """A browser: the distribution's Chromium, otherwise Playwright's own."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(PATIENCE)
    with sync_playwright() as driver:
        path = shutil.which("chromium") or driver.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("chromium is not installed: run scripts/setup")
        # Chromium's sandbox does not work as root, as in a container.
        yield driver.chromium.launch(executable_path=path, args=["--no-sandbox"])


def check_accessibility(page):
    """Assert that axe-core finds no serious or critical problem on a page."""
    import axe_playwright_python

    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text())
    result = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    bad = [
        (found["id"], [node["html"][:120] for node in found["nodes"]][:3])
        for found in result["violations"]
        if found["impact"] in ("serious", "critical")
    ]
    assert not bad
