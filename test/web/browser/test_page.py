# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The page in a headless Chromium, against a real node with the embedded model."""

import json
import re
import signal

import pytest
from comparison import iou

pytest.importorskip("axe_playwright_python", reason="run scripts/setup")
pytest.importorskip("playwright", reason="run scripts/setup")
pytest.importorskip("starlette", reason="starlette is not installed: run scripts/setup")

from chromium import DESK, PHONE, check_accessibility
from playwright.sync_api import expect
from programs import Program, parameters
from served import HOSTILE
from web_client import QUESTION, Robot, Server

SIZE = 640, 480  # pixels of the front camera's image, which never changes
LONGEST_PAUSE = 10_000  # ms between two attempts to connect
ABSENT = "a blue dog"


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    robot = Robot(tmp_path_factory.mktemp("robot"))
    with robot.server.browser() as other:
        other.until("look", lambda look: look["camera"] == "front" and look["picture"])
    return robot


@pytest.fixture
def address(robot):
    return robot.server.address


@pytest.fixture
def page(open_page):
    """The page, which shows a new frame of the front camera with its caption."""
    page = open_page()
    wait_for_a_frame(page)
    return page


def wait_for_a_frame(page):
    page.wait_for_selector(".mark")
    # The button is disabled while the frame may be much older than the page.
    expect(page.locator("#ask-send")).to_be_enabled()


def truth(robot, index=0):
    """Return the words and the box, in pixels, of a shape of the front camera."""
    words, box = robot.truth[index]
    return words, [side * SIZE[i % 2] for i, side in enumerate(box)]


def on_screen(page, box):
    """Return a box of the front camera's frame in pixels of the screen."""
    frame = page.locator("#frame").bounding_box()
    scale = frame["width"] / SIZE[0], frame["height"] / SIZE[1]
    origin = frame["x"], frame["y"]
    return [origin[i % 2] + side * scale[i % 2] for i, side in enumerate(box)]


def in_frame(page, rectangle):
    """Return an element's rectangle on the screen as a box of the front camera's frame."""
    frame = page.locator("#frame").bounding_box()
    scale = frame["width"] / SIZE[0], frame["height"] / SIZE[1]
    x, y = rectangle["x"] - frame["x"], rectangle["y"] - frame["y"]
    box = x, y, x + rectangle["width"], y + rectangle["height"]
    return [side / scale[i % 2] for i, side in enumerate(box)]


def drag(page, box, margin=6):
    """Draw a region around a box of the frame."""
    x_min, y_min, x_max, y_max = on_screen(page, box)
    page.mouse.move(x_min - margin, y_min - margin)
    page.mouse.down()
    page.mouse.move((x_min + x_max) / 2, (y_min + y_max) / 2)
    page.mouse.move(x_max + margin, y_max + margin)
    page.mouse.up()


# The picture -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("viewport", "ratio"),
    [(DESK, 1), (DESK, 1.5), ({"width": 1024, "height": 700}, 1), (PHONE, 3)],
)
def test_the_box_on_the_screen_lies_over_the_drawn_shape(robot, open_page, viewport, ratio):
    page = open_page(viewport=viewport, device_scale_factor=ratio)
    page.wait_for_selector(".mark")
    with robot.server.browser() as other:
        look = other.until("look", lambda look: look["camera"] == "front" and look["caption"])
    message = {phrase["text"]: phrase["boxes"][0][:4] for phrase in look["caption"]["phrases"]}
    assert len(message) == len(robot.truth)
    for index in range(len(robot.truth)):
        words, box = truth(robot, index)
        drawn = page.locator(f'.mark[data-phrase="{words}"] .fill').bounding_box()
        assert iou(in_frame(page, drawn), message[words]) >= 0.95
        assert iou(in_frame(page, drawn), box) >= 0.7


def test_the_picture_below_the_boxes_is_the_described_frame(robot, page):
    # The pixels of the canvas, reduced to the size of the frame.
    pixels = page.evaluate(
        """([width, height]) => {
          const small = document.createElement("canvas");
          [small.width, small.height] = [width, height];
          const context = small.getContext("2d");
          context.drawImage(document.querySelector("#pixels"), 0, 0, width, height);
          return [...context.getImageData(0, 0, width, height).data];
        }""",
        [16, 12],
    )
    red = pixels[0::4]
    expected = robot.image[20::40, 20::40, 0].ravel()
    assert max(red) > min(red)
    close = sum(abs(a - int(b)) < 40 for a, b in zip(red, expected, strict=True))
    assert close > 0.8 * len(red)


def test_a_phrase_and_its_box_light_up_together(robot, page):
    words, box = truth(robot)
    mark = page.locator(f'.mark[data-phrase="{words}"]')
    word = page.locator(f'#caption .phrase[data-phrase="{words}"]')
    hot = re.compile(r"\bhot\b")
    word.hover()
    expect(mark).to_have_class(hot)
    page.mouse.move(2, 2)
    expect(mark).not_to_have_class(hot)
    x_min, y_min, x_max, y_max = on_screen(page, box)
    page.mouse.move((x_min + x_max) / 2, (y_min + y_max) / 2)
    expect(word).to_have_class(hot)
    expect(mark).to_have_class(hot)
    page.mouse.move(2, 2)
    expect(word).not_to_have_class(hot)
    word.focus()
    page.keyboard.press("Shift+Tab")  # focus counts only once it is visible
    page.keyboard.press("Tab")
    expect(mark).to_have_class(hot)


def test_a_phrase_that_names_a_colour_has_that_colour(page):
    texts = [
        "a red star",
        "a green ring",
        "a blue cross",
        "a black cat",
        "Two purple ones",
        "a dog",
    ]
    colours = page.evaluate(
        """async (texts) => {
          const { coloursOf } = await import("/parts/colours.js");
          const again = coloursOf([...texts].reverse());
          return [coloursOf(texts), again].map((found) => texts.map((text) => found.get(text)));
        }""",
        texts,
    )
    assert colours[0][:5] == [0, 4, 6, 8, 3]
    assert colours[0][5] not in colours[0][:5]  # other phrases get a colour that is free
    assert colours[0] == colours[1]  # as long as the page is open


def test_video_hides_the_boxes_only_while_the_picture_differs(page):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    expect(page.locator(".mark")).not_to_have_count(0)
    assert not [url for url in requests if "/live/" in url]
    with page.expect_response(
        lambda response: "/live/front" in response.url and response.status == 200
    ):
        page.click("#video-tool")
    with page.expect_response(
        lambda response: "/live/front" in response.url and response.status == 200
    ):
        pass
    expect(page.locator("#live-text")).to_have_text("Video")
    expect(page.locator(".mark")).not_to_have_count(0)  # the scene stands still
    page.click("#cameras .camera:has-text('rear')")
    expect(page.locator(".mark")).to_have_count(0)  # this one moves
    page.click("#video-tool")
    expect(page.locator(".mark")).not_to_have_count(0)


# Questions ---------------------------------------------------------------------------------------


def test_a_question_about_a_dragged_region_is_answered_about_its_shape(robot, page):
    words, box = truth(robot)
    drag(page, box)
    expect(page.locator("body")).to_have_attribute("data-frozen", "yes")
    expect(page.locator("#scope-text")).to_contain_text("Region")
    stamp = page.text_content("#stamp")
    size = re.search(r"\d+ × \d+", page.text_content("#scope-text"))[0]
    page.click("#quick >> text=What is it?")
    expect(page.locator(".card .size")).to_have_text(f"region {size}")
    colour_and_kind = words.split(maxsplit=1)[1]
    expect(page.locator("#bubble-answer")).to_contain_text(colour_and_kind)
    turn = page.locator(".turn[data-state=done]")
    expect(turn.locator(".answer")).to_contain_text(colour_and_kind)
    assert iou(in_frame(page, page.locator("#region").bounding_box()), box) >= 0.7
    assert page.text_content("#stamp") == stamp  # the frame stands still
    page.keyboard.press("Escape")
    expect(page.locator("#live-text")).to_have_text("Live")


def test_an_answer_has_its_boxes_in_the_picture(robot, page):
    page.click("#ideas >> text=Describe in detail")
    phrase = page.locator(".turn[data-state=done] .phrase").first.get_attribute("data-phrase")
    drawn = page.locator(f'.mark[data-phrase="{phrase}"] .fill').first.bounding_box()
    boxes = [truth(robot, index)[1] for index in range(len(robot.truth))]
    assert max(iou(in_frame(page, drawn), box) for box in boxes) >= 0.7
    expect(page.locator("#layer-own")).to_have_text("Answer")


def test_a_dialogue_goes_on_with_its_history(robot, page):
    sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda text: sent.append(text)))
    page.reload()
    wait_for_a_frame(page)
    page.fill("#question", QUESTION)
    page.keyboard.press("Enter")
    page.click("text=Follow up")
    expect(page.locator("#scope-text")).to_contain_text("Follow-up")
    page.fill("#question", "Is there a red star?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn[data-state=done]")).to_have_count(2)
    expect(page.locator(".card")).to_have_count(1)
    asked = [json.loads(text) for text in sent if '"ask"' in text]
    answer = page.locator(".turn .answer").first.inner_text()
    assert asked[0]["history"] == []
    assert asked[1]["history"] == [QUESTION, answer]
    assert asked[1]["stamp"] == asked[0]["stamp"]


def test_phrases_are_found_and_absent_ones_are_shown_as_not_found(robot, page):
    words, box = truth(robot)
    page.click("#ask-mode button[value=find]")
    page.fill("#question", f"{words}, {ABSENT}")
    page.keyboard.press("Enter")
    lines = page.locator(".turn[data-state=done] .found")
    expect(lines).to_have_count(2)
    expect(lines.nth(1)).to_contain_text("not found")
    drawn = page.locator(f'.mark[data-phrase="{words}"] .fill').bounding_box()
    assert iou(in_frame(page, drawn), box) >= 0.7
    expect(page.locator(".mark")).to_have_count(1)


def test_a_refused_question_shows_the_nodes_reason(page):
    page.fill("#question", "What is <s>?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn[data-state=failed] .answer")).to_contain_text("reserved tag <s>")


def test_the_keyboard_alone_is_enough_to_ask(page):
    page.keyboard.press("r")
    region = page.locator("#region")
    expect(region).to_be_focused()
    before = page.text_content("#scope-text")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowRight")
    assert page.text_content("#scope-text") != before
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("What is it?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn[data-state=done]")).to_have_count(1)
    expect(page.locator("#bubble")).to_be_visible()


# Parameters, the timeline ------------------------------------------------------------------------


def test_a_parameter_is_changed_and_a_refusal_shows_the_nodes_reason(robot, page):
    page.click("#tab-parameters")
    field = page.locator("#p-max_rate")
    with robot.server.browser() as other:
        other.until("hello")
        field.fill("4")
        field.press("Enter")
        values = other.until("parameters")["values"]
        assert (values["front"]["max_rate"], values["rear"]["max_rate"]) == (4.0, 5.0)
        field.fill("-1")
        field.press("Enter")
        refusal = page.locator("#p-max_rate-no")
        expect(refusal).to_have_text(re.compile(r"front\.max_rate must be 0 to 1000, got -1"))
        expect(refusal).to_have_text(re.compile(r"The value is still 4\.$"))
        field.fill("")
        expect(refusal).to_be_hidden()
        field.blur()
        expect(field).to_have_value("4")
        assert other.set("front", "max_rate", None)["success"]
        expect(field).to_have_value("5")  # what others change is shown


def test_a_phrase_for_every_frame_is_added_and_removed(robot, page):
    words, _ = truth(robot)
    chips = page.locator("#phrases-list .chip")
    chip = chips.filter(has_text=ABSENT)
    page.fill("#phrases-add", ABSENT)
    page.keyboard.press("Enter")
    expect(chip).to_contain_text("not in view")
    expect(chip.locator(".phrase")).to_have_class(re.compile(r"\babsent\b"))
    expect(chips.filter(has_text=words).locator(".value")).to_have_text(
        re.compile(r"^[01]\.\d\d$")
    )
    page.fill("#phrases-add", "<s>")
    page.keyboard.press("Enter")
    expect(page.locator("#standing-refusal")).to_contain_text("reserved tag <s>")
    chip.get_by_role("button", name=f"Remove {ABSENT}").click()
    expect(chip).to_have_count(0)


def test_a_value_that_the_node_drops_is_named(robot, page):
    page.fill("#phrases-add", "Null, a cat")
    page.keyboard.press("Enter")
    expect(page.locator("#standing-refusal")).to_contain_text("The node dropped “Null”")
    expect(page.locator("#phrases-list .chip", has_text="a cat")).to_have_count(1)
    page.get_by_role("button", name="Remove a cat").click()
    expect(page.locator("#standing-refusal")).to_be_hidden()
    page.click("#tab-parameters")
    page.fill("#p-prompt", "null")
    page.keyboard.press("Enter")
    expect(page.locator("#p-prompt-no")).to_contain_text("stores – instead")
    with robot.server.browser() as other:
        assert other.set("front", "phrases", None)["success"]


def test_the_timeline_filters_and_shows_the_frame(robot, page):
    page.click("#timeline-kinds button[value=captions]")
    words, _ = truth(robot)
    page.fill("#timeline-words", words)
    rows = page.locator("#timeline-list .row")
    expect(rows.first).to_contain_text(words)
    expect(page.locator("#timeline-list .row.is-event")).to_have_count(0)
    rows.first.locator(".open").click()
    expect(page.locator("body")).to_have_attribute("data-frozen", "yes")
    # A newer caption may have come before it meanwhile.
    expect(page.locator("#timeline-list .row.current")).to_have_count(1)
    page.fill("#timeline-words", "zebra")
    expect(page.locator("#timeline-empty")).to_have_text("Nothing here matches the filter.")


# Text from outside -------------------------------------------------------------------------------


def test_hostile_phrases_are_shown_and_not_run(robot, page):
    with robot.server.browser() as other:
        assert other.set("front", "phrases", [HOSTILE])["success"]
        chip = page.locator("#phrases-list .chip .phrase")
        expect(chip).to_contain_text(HOSTILE)
        page.fill("#question", HOSTILE)
        page.keyboard.press("Enter")
        expect(page.locator(".turn .asked")).to_have_text(HOSTILE)
        assert page.evaluate("window.hacked") is None
        assert page.locator('img[src="x"]').count() == 0
        assert other.set("front", "phrases", None)["success"]


# Phone, hidden tab, accessibility ----------------------------------------------------------------


def test_a_phone_shows_picture_and_question_on_its_first_screen(robot, open_page):
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True)
    page.wait_for_selector(".mark")
    for part in ["#frame", "#question", "#ask-send"]:
        place = page.locator(part).bounding_box()
        assert place["y"] >= 0
        assert place["y"] + place["height"] <= PHONE["height"]
        assert place["x"] + place["width"] <= PHONE["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    words, box = truth(robot)
    page.click("#region-tool")
    x_min, y_min, x_max, y_max = on_screen(page, box)
    devtools = page.context.new_cdp_session(page)

    def touch(kind, *points):
        touches = [{"x": x, "y": y} for x, y in points]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    touch("touchStart", (x_min, y_min))
    touch("touchMove", ((x_min + x_max) / 2, (y_min + y_max) / 2))
    touch("touchMove", (x_max, y_max))
    touch("touchEnd")
    page.click("#quick >> text=What is it?")
    expect(page.locator("#bubble-answer")).to_contain_text(words.split(maxsplit=1)[1])


def test_a_hidden_tab_gets_nothing(open_page):
    received = []

    def receive(text):
        received.append(text)

    def before(page):
        page.on("websocket", lambda socket: socket.on("framereceived", receive))

    page = open_page(before=before)
    page.wait_for_selector(".mark")

    def show(hidden):
        page.evaluate(
            """(hidden) => {
              Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )

    show(hidden=True)
    # A hidden tab still receives answers. After the last one, all earlier messages have arrived.
    page.evaluate("document.querySelector('#ideas button').click()")
    expect(page.locator(".turn[data-state=done]")).to_have_count(1)
    received.clear()
    page.evaluate("document.querySelector('#ideas button').click()")
    expect(page.locator(".turn[data-state=done]")).to_have_count(2)
    assert {json.loads(text)["type"] for text in received} == {"answer"}
    page.keyboard.press("Escape")
    stamp = page.text_content("#stamp")
    show(hidden=False)
    expect(page.locator("#stamp")).not_to_have_text(stamp)
    assert "hello" in {json.loads(text)["type"] for text in received}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, scheme):
    page = open_page(color_scheme=scheme)
    page.wait_for_selector(".mark")
    page.keyboard.press("r")  # a region with its quick questions
    check_accessibility(page)
    page.click("#quick >> text=What is it?")
    page.wait_for_selector(".turn[data-state=done]")
    page.click("#tab-parameters")
    check_accessibility(page)
    page.set_viewport_size({"width": 1024, "height": 768})
    page.click("#tab-health")
    check_accessibility(page)
    page.set_viewport_size(PHONE)
    page.click("#tab-timeline")
    check_accessibility(page)
    page.set_viewport_size(DESK)
    page.click("#overview-tool")
    check_accessibility(page)


# The end of the node, and of the server ----------------------------------------------------------


def test_the_page_connects_again_by_itself_when_the_server_is_back(robot, open_page):
    with Server(node="/kosmos").program as first:
        address = first.has("is shown at ").rpartition(" ")[2]
        # The pauses between attempts are skipped below.
        page = open_page(address, before=lambda page: page.clock.install())
        page.wait_for_selector(".mark")
    expect(page.locator("#banner")).to_contain_text("No connection to the server")
    expect(page.locator("#live-text")).to_have_text("No connection")
    expect(page.locator("#ask-reason")).to_contain_text("no connection")
    port = int(address.rstrip("/").rpartition(":")[2])
    with Program("web.web_node", *parameters(port=port)) as second:
        second.says("is shown at ")
        page.clock.fast_forward(LONGEST_PAUSE)
        expect(page.locator("#banner")).to_be_hidden()
        expect(page.locator("#live-text")).to_have_text("Live")


def test_the_page_says_that_the_node_is_gone_and_continues_when_it_is_back(robot, page):
    with robot.node as node:
        node.stop(signal.SIGTERM)
    expect(page.locator("#banner")).to_contain_text("/kosmos does not respond")
    expect(page.locator("#model-text")).to_have_text("gone")
    stamp = page.text_content("#stamp")
    robot.node = robot.start()
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#model-text")).to_have_text("ready")
    expect(page.locator("#stamp")).not_to_have_text(stamp)
    wait_for_a_frame(page)
    page.fill("#question", QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".turn[data-state=done]")).to_have_count(1)
