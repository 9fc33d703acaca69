# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium and the page. Fixtures import what may be missing."""

import chromium as browsers
import pytest
from chromium import DESK, PATIENCE


@pytest.fixture(scope="module")  # its event loop would be in the way of other files
def chromium():
    with browsers.chromium() as browser:
        yield browser


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
