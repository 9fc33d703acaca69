# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The report in a headless Chromium, opened from disk."""

import functools
import io

import numpy as np
import pytest
from comparison import iou
from PIL import Image

pytest.importorskip("axe_playwright_python", reason="run scripts/setup")
pytest.importorskip("playwright", reason="run scripts/setup")

from chromium import DESK, PHONE, check_accessibility
from playwright.sync_api import expect

from kosmos_ros.memory.records import Answer, Box, Event, Observation, Phrase
from kosmos_ros.offline.report import BLOCK, write_report

SIZE = 640, 480  # pixels of the images
BEGIN = 1_700_000_000_000_000_000  # ns, stamp of the first frame
PERIOD = 100_000_000  # ns between frames
GREY, RED, BLUE = (230, 230, 230), (200, 40, 40), (40, 80, 220)
CIRCLE, SQUARE = (60, 80, 200, 220), (400, 300, 500, 400)  # pixels
HOSTILE = '</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
WITHOUT_STROKE = """rect => {
  const box = rect.getBBox(), to = rect.getScreenCTM();
  return [box.x * to.a + to.e, box.y * to.d + to.f, box.width * to.a, box.height * to.d];
}"""
"""A script that returns x, y, width and height of a drawn box on the screen."""


@functools.cache
def thumbnail():
    pixels = np.full((SIZE[1], SIZE[0], 3), GREY, np.uint8)
    for (x0, y0, x1, y1), colour in ((CIRCLE, RED), (SQUARE, BLUE)):
        pixels[y0:y1, x0:x1] = colour
    file = io.BytesIO()
    Image.fromarray(pixels).resize((320, 240), Image.Resampling.NEAREST).save(
        file, "WEBP", lossless=True
    )
    return file.getvalue()


def observation(number, caption="a red circle and a blue square.", **more):
    """Return the observation of a frame; its phrases are those of the two shapes."""
    return Observation(
        stamp=BEGIN + number * PERIOD,
        camera=("front", "rear")[number % 2],
        caption=caption,
        width=SIZE[0],
        height=SIZE[1],
        phrases=tuple(
            Phrase(text, caption.find(text), caption.find(text) + len(text), (Box(*box, 0.9),))
            for text, box in (("a red circle", CIRCLE), ("a blue square", SQUARE))
            if text in caption
        ),
        **{"thumbnail": thumbnail()} | more,
    )


@pytest.fixture
def opened(chromium, tmp_path):
    """A function that opens the report of observations; errors in its scripts fail the test.

    `events` maps the index of an observation to its events.
    """
    contexts, errors = [], []

    def new(observations, title="a tour", events=None, **options):
        file = tmp_path / "report.html"
        frames = [(seen, (events or {}).get(at, ())) for at, seen in enumerate(observations)]
        write_report(frames, title, file)
        context = chromium.new_context(
            **{"viewport": DESK, "reduced_motion": "reduce", "offline": True} | options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(file.as_uri())
        return page

    yield new
    for context in contexts:
        context.close()
    assert not errors


def times(page):
    return page.locator(".tile .where").all_text_contents()


def picture_of(page):
    """Return the pixels (H, W, 3) of the first tile's picture on the screen, and its place."""
    area = page.locator(".tile .picture").first.bounding_box()
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=area))).convert("RGB"))
    return pixels.astype(int), area


def place_of(pixels, colour):
    """Return the box of all pixels that have nearly a colour."""
    rows, columns = np.nonzero(np.abs(pixels - colour).max(-1) < 40)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_a_box_lies_over_its_shape_and_its_words_light_it(opened):
    page = opened([observation(0)])
    pixels, area = picture_of(page)
    page.get_by_text("a red circle", exact=True).first.hover()
    lit = page.locator(".tile .box.lit")
    expect(lit).to_have_count(1)
    expect(lit).to_have_attribute("data-phrase", "a red circle")
    x, y, width, height = lit.evaluate(WITHOUT_STROKE)
    x, y = x - area["x"], y - area["y"]
    box = x, y, x + width, y + height
    assert iou(box, place_of(pixels, RED)) > 0.9
    assert iou(box, place_of(pixels, BLUE)) == 0


def test_frames_are_in_the_order_of_time_with_camera_and_seconds(opened):
    page = opened([observation(number) for number in range(3)], timezone_id="Europe/Berlin")
    assert times(page) == ["00:00.0 · front", "00:00.1 · rear", "00:00.2 · front"]
    expect(page.locator("#facts")).to_contain_text(
        "2023-11-14 23:13:20 GMT+01:00 · 00:00.2 long · front, rear"
    )
    page.locator(".tile .open").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("2023-11-14 23:13:20 GMT+01:00")


def test_a_log_of_several_days_has_dates(opened):
    day = 86400 * 10**9 // PERIOD
    frames = [observation(number * day) for number in (0, 2, 4)]
    page = opened(frames, timezone_id="Europe/Berlin")
    assert times(page) == [f"2023-11-{day} 23:13:20" for day in (14, 16, 18)]
    expect(page.locator("#facts")).to_contain_text("GMT+01:00 · 4.0 days long · front")
    marks = page.locator("#axis span").all_text_contents()
    assert marks == [f"11-{day} 23:13" for day in (14, 15, 16, 17, 18)]
    expect(page.locator(".strip").first).to_have_attribute(
        "aria-label", "in 3 frames, from 2023-11-14 23:13:20 to 2023-11-18 23:13:20"
    )


def test_texts_of_any_direction_do_not_change_their_neighbours(opened):
    page = opened([observation(0, "a red circle.", answers=(Answer("\u202eWhat?", "שלום"),))])
    assert page.locator(".caption").get_attribute("dir") == "auto"
    style = "node => getComputedStyle(node).unicodeBidi"
    both = page.locator(".answer > *")
    assert [both.nth(n).evaluate(style) for n in range(both.count())] == ["isolate", "isolate"]


def test_a_picture_that_is_damaged_is_named(opened):
    page = opened([observation(0, thumbnail=b"no picture")])
    expect(page.locator(".tile .missing")).to_have_text("The picture is damaged")
    expect(page.locator(".tile img")).to_have_count(0)
    expect(page.locator("#count")).to_have_text("1 frame")


def test_time_and_cameras_are_on_a_phone_too(opened):
    page = opened([observation(number) for number in range(2)], viewport=PHONE)
    area = page.locator("#facts").bounding_box()
    assert area["x"] >= 0
    assert area["x"] + area["width"] <= PHONE["width"]
    assert area["y"] + area["height"] <= page.locator(".top").bounding_box()["height"]
    expect(page.locator("#theme")).to_be_in_viewport()


def test_search_finds_phrases_and_texts_but_no_words_of_two_phrases(opened):
    answers = (Answer("Is it day?", "yes, it is noon."),)
    page = opened(
        [
            observation(0),
            observation(1, "a blue square.", answers=answers),
            observation(2, "a large red square."),
        ]
    )
    for words, found in (
        ("red circle", ["00:00.0 · front"]),  # a phrase, without its article
        ("square blue", ["00:00.0 · front", "00:00.1 · rear"]),  # in any order
        ("NOON", ["00:00.1 · rear"]),
        ("large red", ["00:00.2 · front"]),
        ("red cup", []),
        ("", ["00:00.0 · front", "00:00.1 · rear", "00:00.2 · front"]),
    ):
        page.fill("#words", words)
        assert times(page) == found
        expect(page.locator("#none")).to_be_visible(visible=not found)


def test_a_camera_is_chosen(opened):
    page = opened([observation(number) for number in range(4)])
    page.select_option("#camera", "rear")
    assert times(page) == ["00:00.1 · rear", "00:00.3 · rear"]
    expect(page.locator("#count")).to_have_text("2 of 4 frames")


def event(kind, subject, **more):
    return Event(BEGIN, "front", kind, subject, **more)


def test_events_are_shown_with_their_frames_and_found(opened):
    changes = {
        1: [event("appeared", "a dog")],
        5: [
            event("answered", "Is it dark?", answer="yes", previous="no"),
            event("disappeared", "a dog"),
        ],
    }
    page = opened([observation(number) for number in range(9)], events=changes)
    page.get_by_label("Only frames with an event").check()
    assert [time[:7] for time in times(page)] == ["00:00.1", "00:00.5"]
    expect(page.locator("#count")).to_have_text("2 of 9 frames")
    shown = [tile.text_content().strip() for tile in page.locator(".tile .change").all()]
    assert shown == ["a dog came into view", "Is it dark? no yes", "a dog left the view"]
    expect(page.locator(".tile .change s")).to_have_text("no")
    page.fill("#words", "a dog came into view")
    assert [time[:7] for time in times(page)] == ["00:00.1"]
    page.fill("#words", "dark")
    assert [time[:7] for time in times(page)] == ["00:00.5"]
    page.locator(".tile .open").click()
    expect(page.get_by_role("dialog").locator(".change").last).to_have_text("a dog left the view")
    page.keyboard.press("Escape")
    page.fill("#words", "")
    page.get_by_label("Only frames with an event").uncheck()
    expect(page.locator("#count")).to_have_text("9 frames")


def test_a_report_without_events_does_not_offer_to_select_them(opened):
    page = opened([observation(0)])
    expect(page.get_by_label("Only frames with an event")).to_be_hidden()


def test_the_strip_of_a_phrase_counts_its_frames_and_leads_to_them(opened):
    frames = [
        observation(n, "a red circle." if n in (40, 41, 90) else "a wall.") for n in range(99)
    ]
    page = opened(frames)
    strips = page.locator(".row")
    expect(strips).to_have_count(1)
    expect(strips.locator(".number")).to_have_text("3")
    expect(strips.locator("svg")).to_have_attribute(
        "aria-label", "in 3 frames, from 00:04.0 to 00:09.0"
    )
    area = strips.locator("svg").bounding_box()
    strips.locator("svg").click(position={"x": area["width"] * 0.9, "y": 5})
    expect(page.locator(".tile:focus-within .where")).to_have_text("00:09.0 · front")
    strips.get_by_role("button").click()
    assert [time[:7] for time in times(page)] == ["00:04.0", "00:04.1", "00:09.0"]


def test_the_strip_of_a_thing_that_stays_has_no_gaps_and_ends_with_it(opened):
    seen = range(300, 500)  # of 1000 frames, more than the strip has parts
    captions = ["a red circle." if number in seen else "a wall." for number in range(1000)]
    page = opened([observation(2 * number, caption) for number, caption in enumerate(captions)])
    bars = page.locator(".strip rect:not(.window)")
    expect(bars).to_have_count(1)
    start, width = (float(bars.get_attribute(name)) for name in ("x", "width"))
    assert start / 240 == pytest.approx(0.3, abs=0.01)
    assert (start + width) / 240 == pytest.approx(0.5, abs=0.01)


def test_a_frame_stands_for_a_minute_at_most(opened):
    hour = 3600 * 10**9 // PERIOD
    captions = ["a red circle.", "a wall.", "a wall."]
    page = opened([observation(2 * at * hour, caption) for at, caption in enumerate(captions)])
    assert page.locator(".strip rect:not(.window)").get_attribute("width") == "1"


def test_a_strip_of_few_frames_is_whole_too(opened):
    page = opened([observation(2 * number) for number in range(20)])
    expect(page.locator(".strip").first.locator("rect:not(.window)")).to_have_count(1)


def test_closing_a_frame_scrolls_only_to_one_that_is_not_on_the_screen(opened):
    page = opened([observation(number) for number in range(40)])
    page.set_viewport_size({"width": DESK["width"], "height": 1400})
    page.locator(".tile .open").nth(1).click()
    page.keyboard.press("Escape")
    expect(page.locator(".tile .open").nth(1)).to_be_focused()
    assert page.evaluate("scrollY") == 0
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(page.locator(".tile:focus-within .where")).to_have_text("00:03.1 · rear")
    assert page.evaluate("scrollY") > 0


def test_a_frame_opens_with_its_numbers_and_its_neighbours_follow(opened):
    page = opened([observation(number, raw_text="") for number in range(3)])
    page.locator(".tile .open").nth(1).click()
    detail = page.get_by_role("dialog")
    expect(detail).to_contain_text("a red circle: 60.0, 80.0, 200.0, 220.0; score 0.90")
    page.keyboard.press("ArrowRight")
    expect(detail.get_by_role("heading")).to_have_text("Frame at 00:00.2 · front")
    expect(detail.get_by_role("button", name="Next")).to_be_disabled()
    focused = page.locator(".tile:focus-within .where")
    for close in (
        lambda: page.keyboard.press("Escape"),
        detail.get_by_role("button", name="Close").click,
        lambda: page.mouse.click(1, 1),
    ):
        close()
        expect(detail).to_be_hidden()
        expect(focused).to_have_text("00:00.2 · front")
        page.keyboard.press("Enter")
        expect(detail).to_be_visible()
    page.evaluate(
        """() => {
          [...document.querySelectorAll("#detail .head button")].at(-1).click();
          document.querySelector("#words").focus();
        }"""
    )
    page.keyboard.type("red")  # no event that comes later moves the focus
    expect(page.locator("#words")).to_have_value("red")


def test_hostile_text_is_shown_and_not_run(opened):
    hostile = observation(
        0,
        HOSTILE,
        answers=(Answer(HOSTILE, HOSTILE),),
        frame_id=HOSTILE,
        thumbnail=b'"><script>window.hacked=1</script>',
    )
    answered = event("answered", HOSTILE, answer=HOSTILE, previous=HOSTILE)
    changes = {0: [event("appeared", HOSTILE), answered]}
    page = opened([hostile], title=HOSTILE, events=changes)
    expect(page.locator(".caption")).to_have_text(HOSTILE)
    expect(page.locator(".tile .now")).to_have_text(HOSTILE)
    expect(page.locator("h1")).to_have_text(HOSTILE)
    page.locator(".tile .open").click()
    expect(page.get_by_role("dialog").locator("dd", has_text=HOSTILE)).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_ten_thousand_frames_have_elements_only_near_the_screen(opened):
    frames = [observation(n, f"a red circle in place {n}.") for n in range(10_000)]
    page = opened(frames)
    expect(page.locator("#count")).to_have_text("10\u202f000 frames")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.get_by_text("in place 9999.")).to_be_visible()
    assert page.locator(".tile").count() < 100
    assert page.locator(".tile img").count() == page.locator(".tile").count()
    page.fill("#words", "place 7123")
    expect(page.locator(".tile")).to_have_count(1)


def test_pictures_belong_to_their_frames_across_the_blocks_of_the_data(opened):
    with_picture = {0, BLOCK - 1, BLOCK, 2 * BLOCK + 5}
    frames = [
        observation(n, f"place {n}.", thumbnail=thumbnail() if n in with_picture else None)
        for n in range(2 * BLOCK + 7)
    ]
    page = opened(frames)
    for number in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5, 2 * BLOCK + 6):
        page.fill("#words", f"place {number}.")
        expect(page.locator(".tile img")).to_have_count(1 if number in with_picture else 0)


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_no_serious_finding(opened, theme, viewport):
    frames = [observation(n, answers=(Answer("What?", "a wall"),)) for n in range(30)]
    changes = {0: [event("appeared", "a dog"), event("answered", "What?", answer="a wall")]}
    page = opened(frames, viewport=viewport, color_scheme=theme, events=changes)
    check_accessibility(page)
    page.locator(".tile .open").first.click()
    check_accessibility(page)


def test_no_frames_is_a_report_that_says_so(opened):
    page = opened([])
    expect(page.locator("#count")).to_have_text("0 frames")
    expect(page.locator("#none")).to_have_text("The log has no frames in this period.")
