# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write the pictures of pages in docs/: a real node with the embedded model, in Chromium.

scripts/page-pictures runs it.
"""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "test"))

from programs import Program, parameters

from kosmos_ros import cli

DOCS = Path(__file__).parent
CAMERAS = {
    "front": {"source": DOCS / "scene.jpg", "rate": 10.0},  # stands still
    "rear": {"seed": 2, "rate": 10.0},  # moves
}
STEP = 10_000  # ms, longer than any step of a picture takes
DESK = {"width": 1440, "height": 900}
SMALL = {"width": 1024, "height": 768}
PHONE = {"width": 390, "height": 844}
HISTORY = 20_000  # ms of the plots and of the timeline


@contextlib.contextmanager
def robot(memory: Path) -> Iterator[str]:
    """Start two cameras, kosmos_node and web_node; return the address of the page."""
    with contextlib.ExitStack() as programs:
        for name, values in CAMERAS.items():
            arguments = [*parameters(**values), "-r", f"__node:={name}"]
            programs.enter_context(Program("camera_node", *arguments))
        node = programs.enter_context(
            Program(
                "kosmos_node",
                *parameters(
                    model="shapes",
                    device="cpu",
                    cameras=f"[{', '.join(CAMERAS)}]",
                    image_topics=f"[{', '.join(f'{name}/image_raw' for name in CAMERAS)}]",
                    phrases="[a green star, a red square, a blue ring]",
                    questions="['How many shapes are there?', 'Is there a red star?']",
                    memory=memory,
                ),
            )
        )
        node.says("active: accepting frames")
        server = programs.enter_context(Program("web.web_node", *parameters(port=0)))
        yield server.says("is shown at ").rpartition(" ")[2]


def opened(browser: Browser, address: str, scheme: str, viewport: dict[str, int]) -> Page:
    """Open the page, with a mark in the picture."""
    finger = viewport is PHONE
    page = browser.new_page(
        viewport=viewport,
        color_scheme=scheme,
        has_touch=finger,
        is_mobile=finger,
        reduced_motion="reduce",
    )
    page.set_default_timeout(STEP)
    page.goto(address)
    page.wait_for_selector(".mark")
    return page


def save(page: Page, name: str) -> None:
    """Write docs/NAME.jpg."""
    path = DOCS / f"{name}.jpg"
    page.screenshot(path=path, type="jpeg", quality=88)
    print(path)


def ask_about_a_region(page: Page) -> None:
    """Draw a region around the first shape of the caption and ask what it is."""
    page.locator("#caption .phrase").first.wait_for()
    mark = page.locator(".mark .fill").first.bounding_box()
    page.mouse.move(mark["x"] - 8, mark["y"] - 8)
    page.mouse.down()
    page.mouse.move(mark["x"] + 20, mark["y"] + 20)
    page.mouse.move(mark["x"] + mark["width"] + 8, mark["y"] + mark["height"] + 8)
    page.mouse.up()
    page.click("#quick >> text=What is it?")
    page.wait_for_selector(".card:first-child .turn[data-state=done]")


def find(page: Page) -> None:
    """Find phrases in the front camera's picture."""
    page.click("#ask-mode button[value=find]")
    page.fill("#question", "a green star, an orange circle, a blue ring")
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn[data-state=done]")


def show_report(browser: Browser, memory: Path) -> None:
    """Write the report of a log, open it, and point at a phrase."""
    report = memory.with_suffix(".html")
    assert cli.main(["report", str(memory), str(report)]) == 0
    page = browser.new_page(viewport=DESK, color_scheme="light")
    page.goto(report.as_uri())
    page.locator(".tile .phrase").first.hover()
    save(page, "report")


def main() -> None:
    """Write all pictures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        robot(memory := Path(folder) / "tour.db") as address,
        sync_playwright() as driver,
    ):
        path = shutil.which("chromium") or driver.chromium.executable_path
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = opened(browser, address, "light", DESK)
        page.wait_for_timeout(HISTORY)
        page.click("#ideas >> text=Describe in detail")
        page.wait_for_selector(".turn[data-state=done]")
        page.keyboard.press("Escape")
        ask_about_a_region(page)
        save(page, "page-region")
        page = opened(browser, address, "dark", SMALL)
        find(page)
        save(page, "page-find")
        page = opened(browser, address, "light", PHONE)
        page.click("#ideas .idea >> nth=0")
        page.wait_for_selector(".turn[data-state=done]")
        save(page, "page-phone")
        show_report(browser, memory)
        browser.close()


if __name__ == "__main__":
    main()
