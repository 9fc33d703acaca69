# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium and the page. Fixtures import what may be missing."""

import os
import shutil

import pytest
from served import DESK, PATIENCE


@pytest.fixture(scope="package")
def chromium():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(PATIENCE)
    with sync_playwright() as driver:
        # The distribution's Chromium, otherwise Playwright's own.
        path = shutil.which("chromium") or driver.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("chromium is not installed: run scripts/setup")
        # Chromium's sandbox does not work as root, as in a container.
        yield driver.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture
def open_page(address, chromium):
    """A function that opens the page; errors of its scripts fail the test."""
    contexts, errors = [], []

    ready = "body[data-ready=yes]"

    def new(address=address, viewport=DESK, before=None, until=ready, **options):
        context = chromium.new_context(viewport=viewport, reduced_motion="reduce", **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(error))
        if before:
            before(page)
        page.goto(address)
        page.wait_for_selector(until)
        return page

    yield new
    for context in contexts:
        context.close()
    assert not errors
