# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The page in a headless Chromium, with a server that sends whatever a test wants."""

import re
from pathlib import Path

import pytest

pytest.importorskip("axe_playwright_python", reason="run scripts/setup")
pytest.importorskip("playwright", reason="run scripts/setup")
pytest.importorskip("starlette", reason="starlette is not installed: run scripts/setup")

from chromium import DESK, PHONE
from playwright.sync_api import expect
from served import HOSTILE, Served, ago, health, hello, look, values
from web_client import Server

SMALL = {"width": 1024, "height": 768}
LONG = "Is there anything on the table that could fall down and break? " * 30  # 1890 characters
OFF = values(enabled=False)
TILES = 0.55  # share of the overview that tiles cover at least


@pytest.fixture(scope="module")
def server():
    """The server of the page's own files. Its node never runs."""
    return Server(node="/kosmos")


@pytest.fixture
def address(server):
    return server.address


def refusing(reason):
    """Return a function that refuses all requests of the page."""

    def answer(served, message):
        if message["type"] == "ask":
            end = {"done": True, "success": False, "message": reason, "result": None}
            served.send(type="answer", id=message["id"], **end)

    return answer


def storing(served, message):
    """Set parameters as the node does."""
    if message["type"] == "set":
        served.send(type="set", id=message["id"], success=True, message="")
        served.send(type="parameters", values=values(**{message["name"]: message["value"]}))


def colour(page, selector):
    """Return the colour of an element's text."""
    return page.eval_on_selector(selector, "element => getComputedStyle(element).color")


# What the header says ----------------------------------------------------------------------------


def test_the_header_says_live_only_while_new_frames_are_described(open_page):
    served = Served(hello(["front"], looks=[look("front", at=ago(0))]))
    page = open_page(before=served)
    words = page.locator("#live-text")
    expect(words).to_have_text("Live")
    states = {
        "loading": "Loading",
        "error": "No model",
        "inactive": "Not active",
        "gone": "No node",
    }
    for state, text in states.items():
        served.send(type="state", state=state, message="")
        expect(words).to_have_text(text)
    served.send(**look("front", 1, ago(0)))
    served.send(type="state", state="ready", message="")
    expect(words).to_have_text("Live")
    served.send(type="parameters", values=values(enabled=False))
    expect(words).to_have_text("Switched off")


@pytest.mark.parametrize("looks", [[], [look("front", at=ago(60))]], ids=["no frame", "old frame"])
def test_the_page_says_that_frames_fail_and_why(open_page, looks):
    served = Served(hello(["front"], looks=looks, values=values()))
    page = open_page(before=served)
    reason = "encoding yuv420 is not supported"
    failing = health(["front"], {"level": "error", "message": reason})
    served.send(**failing)
    expect(page.locator("#live-text")).to_have_text("No results")
    expect(page.locator("#warnings")).to_contain_text(reason)
    expect(page.locator("#notice")).to_contain_text(f"Frames cannot be described{reason}")
    served.send(**look("front", 1, ago(0), "A new frame"))
    served.send(**health(["front"]))
    expect(page.locator("#live-text")).to_have_text("Live")
    expect(page.locator("#notice")).to_be_hidden()
    served.send(**failing)  # at once, although the newest look has just arrived
    expect(page.locator("#live-text")).to_have_text("No results")


@pytest.mark.parametrize(
    ("looks", "words"), [([], "Waiting"), ([look("front", at=ago(60))], "Latest frame")]
)
def test_the_header_does_not_call_a_missing_or_old_frame_live(open_page, looks, words):
    page = open_page(before=Served(hello(["front"], looks=looks)))
    expect(page.locator("#live-text")).to_have_text(words)


def test_the_age_of_an_old_frame_is_shown_from_the_start(open_page):
    page = open_page(before=Served(hello(["front"], looks=[look("front", at=ago(60))])))
    expect(page.locator("#age")).to_have_text(re.compile(r"^[6-9]\d s ago$"))


def test_a_page_that_connects_for_the_first_time_does_not_report_a_lost_connection(open_page):
    page = open_page(before=Served([]), until="#theme[aria-label]")
    expect(page.locator("#live-text")).to_have_text("Connecting")
    expect(page.locator("#ask-reason")).to_contain_text("connecting")
    expect(page.locator("#banner")).to_be_hidden()


def test_a_refused_connection_shows_the_servers_reason(open_page):
    reason = "the token is missing or wrong; open the address that web_node printed"

    def before(page):
        page.route("**/icon.svg", lambda route: route.fulfill(status=403, body=f"{reason}\n"))
        page.add_init_script(
            """window.WebSocket = class extends EventTarget {
              static OPEN = 1;
              constructor() {
                super();
                setTimeout(() => this.dispatchEvent(new CloseEvent("close")));
              }
              close() {}
            };"""
        )

    page = open_page(before=before, until="#banner:not([hidden])")
    expect(page.locator("#banner-text")).to_contain_text(reason)


# The picture -------------------------------------------------------------------------------------


def test_a_frozen_frame_is_the_one_on_the_screen(server, open_page):
    served = Served(hello(["front"], looks=[look("front", 1, ago(1), picture="/icon.svg")]))
    page = open_page(before=served)
    expect(page.locator("#frame")).to_have_attribute("aria-label", re.compile("front is here"))
    expect(page.locator("#missing")).to_be_hidden()
    page.wait_for_selector("#overlay[viewBox]", state="attached")  # the picture has arrived
    stamp = page.text_content("#stamp")
    page.route("**/late.jpg", lambda route: None)  # this picture never arrives
    served.send(**look("front", 2, ago(0), "A newer frame", picture="/late.jpg"))
    expect(page.locator("#caption")).to_contain_text("ewer frame")
    page.keyboard.press("Space")
    expect(page.locator("#stamp")).to_have_text(stamp)
    expect(page.locator("#caption")).to_contain_text("nt is here")


def test_tiles_of_the_overview_fill_the_window(open_page):
    served = Served(hello(["camera0", "camera1"]))
    page = open_page(before=served)
    page.keyboard.press("o")
    tiles = page.locator("#overview .tile-camera")
    for count in [2, 3, 4, 6, 8, 12]:
        first, _ = hello([f"camera{index}" for index in range(count)])
        served.send(**first)
        expect(tiles).to_have_count(count)
        room, *places = page.eval_on_selector_all(
            "#overview, #overview .tile-camera",
            """elements => elements.map((element) => {
              const { left, top, right, bottom, width, height } = element.getBoundingClientRect();
              return { left, top, right, bottom, area: width * height };
            })""",
        )
        for place in places:
            assert place["left"] >= room["left"], count
            assert place["top"] >= room["top"], count
            assert place["right"] <= room["right"], count
            assert place["bottom"] <= room["bottom"], count
        assert sum(place["area"] for place in places) >= TILES * room["area"], count


def test_a_picture_that_is_gone_is_asked_for_once(open_page):
    served = Served(hello(["front"], looks=[look("front", picture="/gone.jpg")]))
    asked = []
    page = open_page(
        before=lambda page: (
            served(page),
            page.on("request", lambda request: asked.append(request.url)),
        )
    )
    expect(page.locator("#missing")).to_be_visible()
    page.keyboard.press("Space")
    for number in ["1", "2", "3"]:
        served.send(**health(["front"], topic=number))
        page.wait_for_function("n => document.body.textContent.includes(n)", arg=number)
    assert len([url for url in asked if url.endswith("/gone.jpg")]) == 1


def test_frames_of_equal_stamps_keep_their_own_results(open_page):
    """A bag plays again: its stamps come again, and jump back."""
    texts = {"The first cat": 7.0, "The last cat": 9.0, "The other dog": 7.0}
    looks = [look("front", 0, at, text) for text, at in texts.items()]
    *first, again = [{**each, "number": number} for number, each in enumerate(looks)]
    served = Served(hello(["front"], looks=first, events=[]))
    page = open_page(before=served)
    expect(page.locator("#caption")).to_contain_text("last cat")
    served.send(**again)
    expect(page.locator("#caption")).to_contain_text("other dog")  # the newest, not the latest
    rows = page.locator("#timeline-list .row .words")
    expect(rows).to_have_count(3)
    expect(rows.nth(2)).to_contain_text("first cat")
    rows.nth(2).click()
    expect(page.locator("#caption")).to_contain_text("first cat")
    event = {"camera": "front", "stamp": "9.000000000", "time": 9000, "kind": "appeared"}
    events = [{**event, "subject": "a cat", "sent": sent} for sent in ["1", "2"]]
    served.send(type="event", **events[0])
    served.send(**hello(["front"], looks=[], events=events)[0])  # as after a lost connection
    expect(page.locator("#timeline-list .row.is-event")).to_have_count(2)


def test_a_blank_caption_is_named(open_page):
    words = "No phrase is in view"
    blank = look("front", task="phrase_grounding")
    blank["caption"] |= {"text": "", "phrases": []}
    page = open_page(before=Served(hello(["front", "rear"], looks=[blank])))
    expect(page.locator("#caption")).to_have_text(words)
    expect(page.locator("#timeline-list .row.is-caption .words")).to_have_text(words)
    page.keyboard.press("o")
    expect(page.locator("#overview .words").first).to_have_text(words)


# Questions ---------------------------------------------------------------------------------------


def test_a_question_of_a_page_that_was_just_opened_is_about_a_frame_of_now(open_page):
    old, new = look("front", 1, ago(7), "Old"), look("front", 2, ago(0), "New")
    served = Served(hello(["front"], looks=[old], values=values()), refusing("no"))
    page = open_page(before=served)
    ideas, send = page.locator("#ideas button"), page.locator("#ask-send")
    expect(page.locator("#live-text")).to_have_text("Latest frame")
    expect(page.locator("#ask-reason")).to_have_text(re.compile(r"^This frame is [\d.]+ s old\."))
    expect(ideas.first).to_be_disabled()
    page.fill("#question", "Is there a dog?")
    expect(send).to_be_disabled()
    page.click("#freeze")
    expect(send).to_be_enabled()
    expect(page.locator("#age")).to_have_text(re.compile(r"^[\d.]+ s ago$"))
    page.click("#freeze")
    expect(send).to_be_disabled()
    served.send(**new)
    expect(page.locator("#live-text")).to_have_text("Live")
    expect(send).to_be_enabled()
    page.press("#question", "Enter")
    expect(page.locator(".turn")).to_have_count(1)
    (sent,) = [message for message in served.received if message["type"] == "ask"]
    assert (sent["text"], sent["stamp"]) == ("Is there a dog?", new["stamp"])


def test_an_old_frame_can_be_asked_about_if_no_new_one_comes(open_page):
    looks = [look("front", 1, ago(600))]
    page = open_page(before=Served(hello(["front"], looks=looks, values=OFF)))
    expect(page.locator("#ask-send")).to_be_enabled()
    expect(page.locator("#age")).to_have_text("10 min ago")


def test_the_overview_offers_no_question_about_a_camera_that_is_not_shown(open_page):
    page = open_page(before=Served(hello(["front", "rear"])))
    expect(page.locator("#ideas button").first).to_be_enabled()
    page.keyboard.press("o")
    expect(page.locator("#ask-reason")).to_have_text("Choose a camera to ask about its picture.")
    expect(page.locator("#ideas button")).to_have_count(0)
    for part in ["#scope", "#answers-empty"]:
        expect(page.locator(part)).to_be_hidden()
    assert page.get_attribute("#question", "placeholder") == ""
    page.keyboard.press("o")
    expect(page.locator("#ask-reason")).to_be_hidden()
    expect(page.locator("#ideas button").first).to_be_enabled()


def test_the_reason_of_a_failed_question_is_whole_in_the_timeline(open_page):
    reason = "the frame with stamp 1.000000000 of camera 'front' is no longer kept; " * 2
    page = open_page(before=Served(hello(["front"]), refusing(reason.strip())))
    page.fill("#question", LONG)
    page.press("#question", "Enter")
    words = page.locator("#timeline-list .row.is-answer .words")
    expect(words.locator(".failed")).to_have_text(reason.strip())
    height, whole = words.evaluate("words => [words.clientHeight, words.scrollHeight]")
    assert whole <= height + 1


def test_a_refusal_never_looks_like_an_answer(open_page):
    reason = "the frame with stamp 1.000000000 of camera 'front' is no longer kept"
    page = open_page(before=Served(hello(["front"]), refusing(reason)))
    page.keyboard.press("r")
    page.click("#quick >> text=What is it?")
    error = colour(page, "#standing-refusal")
    for place in ["#bubble-answer", ".turn .answer", "#timeline-list .row .failed"]:
        expect(page.locator(place).first).to_have_text(reason)
        assert colour(page, place) == error
    assert error != colour(page, "body")
    expect(page.locator("#announcer")).to_have_text(f"No answer: {reason}")


def test_a_long_refused_question_leaves_its_reason_in_view(open_page):
    page = open_page(before=Served(hello(["front"]), refusing("too long")))
    page.fill("#question", "x" * 1500)
    page.press("#question", "Enter")
    card = page.locator(".turn")
    expect(card.locator(".answer")).to_have_text("too long")
    assert card.locator(".asked").bounding_box()["height"] <= 100
    expect(card.locator(".answer")).to_be_in_viewport()


def test_a_refusal_ends_when_the_state_of_the_node_changes(open_page):
    def refuse(served, message):
        if message["type"] == "set":
            served.send(type="set", id=message["id"], success=False, message="not running")

    served = Served(hello(["front"], state="loading"), refuse)
    page = open_page(before=served)
    page.fill("#phrases-add", "a cup")
    page.press("#phrases-add", "Enter")
    expect(page.locator("#standing-refusal")).to_have_text("not running")
    served.send(type="state", state="ready", message="")
    expect(page.locator("#standing-refusal")).to_be_hidden()


def test_a_value_that_is_being_typed_survives_a_change_of_the_nodes_state(open_page):
    rate = {"camera": True, "read_only": False, "type": "float", "default": 1.0, "limits": [0, 9]}
    field = {**rate, "choices": None, "description": "Rate."}
    first = hello(["front"], parameters={"max_rate": field}, values=values(max_rate=1.0))
    served = Served(first)
    page = open_page(before=served)
    page.click("#tab-parameters")
    page.fill("#p-max_rate", "4.5")
    served.send(type="state", state="loading", message="")
    expect(page.locator("#live-text")).to_have_text("Loading")
    expect(page.locator("#p-max_rate")).to_have_value("4.5")
    expect(page.locator("#p-max_rate")).to_be_focused()


@pytest.mark.parametrize("width", [1440, 1360, 1024, 900, 390])
def test_the_age_of_an_old_frame_is_whole_and_no_time_is_cut(open_page, width):
    viewport = {"width": width, "height": 800}
    frame = look("front", 0, ago(600))
    page = open_page(before=Served(hello(["front"], looks=[frame], values=OFF)), viewport=viewport)
    expect(page.locator("#live-text")).to_have_text("Switched off")
    row = page.locator(".moment").bounding_box()
    right, bottom = row["x"] + row["width"], row["y"] + row["height"]
    age = page.locator("#age").bounding_box()
    expect(page.locator("#age")).to_have_text("10 min ago")
    assert age["x"] + age["width"] <= right
    assert age["y"] + age["height"] <= bottom
    stamp = page.locator("#stamp").bounding_box()
    whole = stamp["x"] + stamp["width"] <= right and stamp["y"] + stamp["height"] <= bottom
    assert whole or stamp["y"] >= bottom


def test_an_answer_about_the_whole_picture_covers_no_box_if_it_can(open_page):
    frame = look("front")
    frame["caption"]["phrases"][0]["boxes"] = [[0, 320, 640, 480, 0.5]]
    served = Served(hello(["front"], looks=[frame]), refusing("no"))
    page = open_page(before=served, viewport=PHONE, has_touch=True, is_mobile=True)
    page.click("#ideas >> text=Describe in detail")
    expect(page.locator("#bubble-answer")).to_have_text("no")
    bubble = page.locator("#bubble").bounding_box()
    box = page.locator(".mark .fill").bounding_box()
    assert bubble["y"] + bubble["height"] <= box["y"]


def test_a_suggestion_keeps_the_focus_when_it_is_used_and_when_a_frame_arrives(open_page):
    served = Served(hello(["front"]), refusing("no"))
    page = open_page(before=served)
    idea = page.locator("#ideas button").first
    idea.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".turn[data-state=failed]")).to_have_count(1)
    expect(idea).to_be_focused()
    page.keyboard.press("Escape")
    served.send(**look("front", 5, 2.0, "Another caption"))
    expect(page.locator("#caption")).to_contain_text("ther caption")
    expect(idea).to_be_focused()


def test_the_field_of_the_question_keeps_the_focus(open_page):
    page = open_page(before=Served(hello(["front"]), refusing("no")))
    page.fill("#question", "Is there a dog?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn[data-state=failed]")).to_have_count(1)
    expect(page.locator("#question")).to_be_focused()


def test_suggestions_of_phrases_are_those_of_the_frame_that_is_shown(open_page):
    served = Served(hello(["front"], values=values()))
    page = open_page(before=served)
    page.click("#ask-mode button[value=find]")
    newer = look("front", 5, 2.0, "a dog")
    newer["caption"]["phrases"] = [{"text": "a dog", "start": 0, "end": 5, "boxes": []}]
    served.send(**newer)
    expect(page.locator("#ideas button")).to_have_text(["a dog"])


def test_an_answer_is_shown_while_it_grows(open_page):
    served = Served(hello(["front"]))
    page = open_page(before=served)
    page.click("#ideas >> text=Describe in detail")
    turn = page.locator(".turn")
    expect(turn).to_have_attribute("data-state", "waiting")
    (asked,) = [message for message in served.received if message["type"] == "ask"]
    for text in ("A dog", "A dog sits"):
        served.send(type="answer", id=asked["id"], text=text, phrases=[])
        expect(turn.locator(".answer")).to_have_text(text)
    shown = look("front")
    result = {**shown, **shown["caption"], "text": "A dog sits there.", "phrases": []}
    served.send(type="answer", id=asked["id"], done=True, success=True, message="", result=result)
    expect(turn).to_have_attribute("data-state", "done")
    expect(turn.locator(".answer")).to_have_text("A dog sits there.")


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_a_waiting_request_shows_its_place_and_can_be_cancelled(open_page, way):
    def answer(served, message):
        name = message.get("id")
        if message["type"] == "ask":
            served.send(type="answer", id=name, waiting=2)
        if message["type"] == "cancel":
            done = {"done": True, "success": False, "message": "cancelled", "result": None}
            served.send(type="answer", id=name, **done)

    page = open_page(before=Served(hello(["front"]), answer))
    page.click("#ideas >> text=Describe in detail")
    turn = page.locator(".turn")
    expect(turn).to_contain_text("2 requests go first")
    if way == "button":
        turn.get_by_role("button", name="Cancel").click()
    else:
        page.keyboard.press(way)
    expect(turn).to_have_attribute("data-state", "cancelled")
    expect(turn.get_by_role("button", name="Edit and ask again")).to_be_visible()


# Long texts --------------------------------------------------------------------------------------


def test_a_long_question_is_sent_whole(open_page):
    served = Served(hello(["front"]), refusing("too long"))
    page = open_page(before=served)
    page.focus("#question")
    page.keyboard.insert_text(LONG)
    page.keyboard.press("Enter")
    expect(page.locator(".turn .asked")).to_have_text(LONG.strip())
    (sent,) = [message for message in served.received if message["type"] == "ask"]
    assert sent["text"] == LONG.strip()


def test_a_question_too_long_for_the_server_is_refused_on_the_page(open_page):
    served = Served(hello(["front"]))
    page = open_page(before=served)
    page.fill("#question", "x" * 300_000)
    page.keyboard.press("Enter")
    expect(page.locator(".turn[data-state=failed]")).to_contain_text("too long for the server")
    assert "ask" not in {message["type"] for message in served.received}


def test_a_long_caption_is_cut_with_a_button_that_opens_the_rest(open_page):
    page = open_page(before=Served(hello(["front"], looks=[look("front", text=f"{LONG} Yes.")])))
    more = page.locator("#caption-more")
    expect(more).to_have_text("Show all")
    more.click()
    expect(more).to_have_text("Show less")
    page.eval_on_selector("#caption", "caption => caption.scrollTop = caption.scrollHeight")
    box = page.locator("#caption").bounding_box()
    last = page.evaluate(
        """() => {
          const range = document.createRange();
          range.selectNodeContents(document.querySelector("#caption"));
          return [...range.getClientRects()].at(-1).bottom;
        }"""
    )
    assert last <= box["y"] + box["height"]
    more.click()
    expect(more).to_have_text("Show all")


def test_a_short_caption_has_no_button(open_page):
    page = open_page(before=Served(hello(["front"])))
    expect(page.locator("#caption")).to_contain_text("nt is here")
    expect(page.locator("#caption-more")).to_be_hidden()


def test_a_long_entry_for_every_frame_is_cut_with_a_button_that_opens_the_rest(open_page):
    answer = {"question": LONG, "answer": LONG, "score": 1, "phrases": []}
    looks = [look("front", answers=[answer])]
    page = open_page(before=Served(hello(["front"], looks=looks, values=values(questions=[LONG]))))
    chip = page.locator("#questions-list .chip")
    expect(chip.locator(".now")).to_have_text(re.compile(r"^Is there .{60,120}…$"))
    chip.locator(".more").click()
    expect(chip.locator(".asked")).to_have_text(LONG.strip())
    expect(chip.locator(".now")).to_have_text(LONG.strip())
    width = chip.evaluate("chip => [chip.scrollWidth, chip.clientWidth]")
    assert width[0] <= width[1]


# Phrases and questions for every frame -----------------------------------------------------------


def test_two_phrases_that_are_added_at_once_are_both_kept(open_page):
    served = Served(hello(["front"], values=values()), storing)
    page = open_page(before=served)
    page.evaluate(
        """() => {
          const input = document.querySelector("#phrases-add");
          for (const words of ["a cat", "a dog"]) {
            input.value = words;
            input.form.requestSubmit();
          }
        }"""
    )
    expect(page.locator("#phrases-list .chip .phrase")).to_have_count(2)
    sent = [message["value"] for message in served.received if message["type"] == "set"]
    assert sent == [["a cat"], ["a cat", "a dog"]]


def test_an_answer_to_an_earlier_phrase_leaves_the_words_that_are_being_typed(open_page):
    waiting = []

    def answer(served, message):
        if message["type"] == "set":
            waiting.append(message)

    served = Served(hello(["front"], values=values()), answer)
    page = open_page(before=served)
    page.fill("#phrases-add", "a cat")
    page.keyboard.press("Enter")
    page.fill("#phrases-add", "a do")
    storing(served, waiting[0])
    expect(page.locator("#phrases-list .chip")).to_have_count(1)
    expect(page.locator("#phrases-add")).to_have_value("a do")


def test_the_fields_for_new_entries_are_whole_on_a_phone(open_page):
    entries = ["a green star", "a red square", "a blue ring"]
    served = Served(hello(["front"], values=values(phrases=entries, questions=entries)))
    page = open_page(before=served, viewport=PHONE, has_touch=True, is_mobile=True)
    for name in ["#phrases-add", "#questions-add"]:
        field = page.locator(name)
        place = field.bounding_box()
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= PHONE["width"]
        assert placeholder_fits(field)
        field.focus()  # with another hint
        assert placeholder_fits(field)


def placeholder_fits(field):
    """Return whether a field is as wide as its placeholder."""
    room, words = field.evaluate(
        """field => {
              const style = getComputedStyle(field);
              const ruler = document.createElement("canvas").getContext("2d");
              ruler.font = `${style.fontSize} ${style.fontFamily}`;
              const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
              return [field.clientWidth - padding, ruler.measureText(field.placeholder).width];
            }"""
    )
    return words <= room


@pytest.mark.parametrize("state", ["inactive", "gone"])
def test_a_notice_without_a_picture_is_whole_on_a_phone(open_page, state):
    page = open_page(before=Served(hello(["front"], state, looks=[])), viewport=PHONE)
    stage, notice = (page.locator(name).bounding_box() for name in ["#stage", "#notice"])
    assert notice["y"] >= stage["y"]
    assert notice["y"] + notice["height"] <= stage["y"] + stage["height"]


def test_entries_can_be_changed_only_while_the_node_runs(open_page):
    rate = {"camera": True, "read_only": False, "type": "float", "default": 1.0, "limits": [0, 9]}
    field = {**rate, "choices": None, "description": "Rate."}
    shown = values(phrases=["a cat"], questions=["Who?"], max_rate=2.0)
    served = Served(hello(["front"], parameters={"max_rate": field}, values=shown))
    page = open_page(before=served)
    page.click("#tab-parameters")
    buttons = [f"{part} .remove" for part in ("#phrases-list", "#questions-list")]
    fields = ["#phrases-add", "#questions-add", "#p-max_rate", ".parameter button", *buttons]
    for state, check in {
        "loading": lambda field: expect(field).to_be_enabled(),
        "gone": lambda field: expect(field).to_be_disabled(),
        "ready": lambda field: expect(field).to_be_enabled(),
    }.items():
        served.send(type="state", state=state, message="")
        for name in fields:
            check(page.locator(name))
    page.focus("#phrases-add")
    assert page.get_attribute("#phrases-add", "placeholder") == "Phrases, separated by commas"
    page.focus("#questions-add")
    assert page.get_attribute("#phrases-add", "placeholder") == "+ Add"


def test_the_list_of_keys_is_that_of_the_documentation(open_page):
    text = (Path(__file__).parents[3] / "docs" / "web.md").read_text()
    rows = text.partition("| key | action |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    page = open_page(before=Served(hello(["front"])))
    page.click("#keys")
    keys, acts = (page.locator(f"#keys-list {tag}").all_inner_texts() for tag in ("dt", "dd"))
    shown = [f"| {key} | {act} |" for key, act in zip(keys, acts, strict=True)]
    assert shown == rows


# Health ------------------------------------------------------------------------------------------


def test_the_figures_below_name_their_camera_if_there_are_several(open_page):
    served = Served(hello(["front", "rear"]))
    page = open_page(before=served)
    names = page.locator("#tiles .name")
    of = ["Captions · {}", "Latency · {}", "Images in · {}", "Memory"]
    expect(names).to_have_text([name.format("front") for name in of])
    page.keyboard.press("2")
    expect(names).to_have_text([name.format("rear") for name in of])
    served.send(**hello(["rear"])[0])
    expect(names).to_have_text([name.partition(" ·")[0] for name in of])


@pytest.mark.parametrize("viewport", [DESK, SMALL, PHONE], ids=lambda size: str(size["width"]))
def test_no_figure_of_any_camera_is_cut(open_page, viewport):
    names = ["front", "rear"]
    figures = {
        "topic": "/a/rather/long/namespace/camera/image_raw",
        "other nodes of this name": "0",
    }
    served = Served(hello(names))
    page = open_page(before=served, viewport=viewport)
    page.click("#tab-health")
    served.send(**health(names, **figures))
    expect(page.locator("#figures")).to_contain_text(figures["topic"])
    cut = page.evaluate(
        """() => {
          const root = document.querySelector("#figures");
          for (const group of root.querySelectorAll("details")) group.open = true;
          const right = root.getBoundingClientRect().right;
          const wide = (e) => e.getBoundingClientRect().right > right;
          const cut = (e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1;
          const texts = [...root.querySelectorAll("*")].filter((e) => wide(e) || cut(e));
          return texts.map((e) => e.outerHTML.slice(0, 80));
        }"""
    )
    assert cut == []


def test_a_selected_figure_stays_selected_while_figures_change(open_page):
    served = Served(hello(["front"]))
    page = open_page(before=served)
    page.click("#tab-health")
    served.send(**health(["front"], publishers="1", topic="/front/image_raw"))
    expect(page.locator("#figures")).to_contain_text("/front/image_raw")
    page.evaluate(
        """() => {
          const texts = [...document.querySelectorAll("#figures dd, #figures td")];
          const topic = texts.findLast((text) => text.textContent === "/front/image_raw");
          getSelection().selectAllChildren(topic);
        }"""
    )
    served.send(**health(["front"], publishers="2", topic="/front/image_raw"))
    expect(
        page.locator("#figures dd, #figures td", has_text=re.compile(r"^2$")).last
    ).to_be_visible()
    assert page.evaluate("String(getSelection())") == "/front/image_raw"


# Cameras -----------------------------------------------------------------------------------------


def test_hostile_names_of_cameras_and_all_other_texts_are_shown_and_not_run(open_page):
    page = open_page(before=Served(hello([HOSTILE, "rear"])))
    for panel in ["health", "parameters", "timeline"]:
        page.click(f"#tab-{panel}")
    page.click("#overview-tool")
    expect(page.locator("#overview .name").first).to_have_text(HOSTILE)
    page.click("#overview .tile-camera >> nth=0")
    expect(page.locator("#caption")).to_contain_text(" is here")
    expect(page.locator(".camera .name").first).to_have_text(HOSTILE)
    assert page.evaluate("window.hacked") is None
    assert page.locator('img[src="x"], #main script').count() == 0


def test_many_cameras_begin_with_an_overview(open_page):
    names = [f"camera{index}" for index in range(8)]
    page = open_page(before=Served(hello(names)))
    tiles = page.locator("#overview .tile-camera")
    expect(tiles).to_have_count(8)
    expect(page.locator("#view")).to_be_hidden()
    expect(tiles.nth(5)).to_contain_text("camera5 is here")
    tiles.nth(5).click()
    expect(page.locator("#view")).to_be_visible()
    expect(page.locator("#caption")).to_contain_text("era5 is here")


def test_a_region_that_is_begun_in_the_overview_is_seen(open_page):
    page = open_page(before=Served(hello(["front", "rear"])))
    page.keyboard.press("o")
    expect(page.locator("#view")).to_be_hidden()
    page.keyboard.press("r")
    expect(page.locator("#region")).to_be_focused()
