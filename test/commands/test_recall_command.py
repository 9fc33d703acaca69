# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos recall: its lines, its thumbnails, its exit codes and its errors."""

import sqlite3
import time
from datetime import datetime

import pytest

from kosmos_ros.memory import wordnet
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.records import Box, Observation, Phrase, Pose

NOON = 1_780_228_800 * 10**9  # ns, 2026-05-31T12:00Z
CUP = Phrase("a red cup", 12, 21, (Box(10.0, 20.0, 30.0, 45.5, 0.75),))
WEBP = b"RIFF....WEBP"


@pytest.fixture(autouse=True)
def nothing_else_means_the_same(monkeypatch):
    """Tests of other words have `without_wordnet` or WordNet itself."""
    monkeypatch.setattr(wordnet, "MISSING", "no WordNet")


@pytest.fixture
def file(tmp_path):
    """Write a log with a cup on the front camera each hour from noon to 15:00."""
    path = tmp_path / "memory.db"
    with ObservationLog.open(path) as log:
        log.add(
            Observation(
                stamp=NOON + hour * 3600 * 10**9,
                camera="front/left" if hour < 3 else "rear",
                caption="An image of a red cup.",
                phrases=(CUP,),
                score=(0.5, 0.9, 0.7, 0.6)[hour],
                frame_id="optical",
                width=640,
                height=480,
                pose=Pose("map", float(hour), 0.0) if hour else None,
                thumbnail=WEBP if hour else None,
            )
            for hour in range(4)
        )
    return path


@pytest.fixture
def recalled(kosmos, file):
    """Return a function that runs the command: exit code, JSON lines, errors but WordNet's."""

    def run(*words):
        code, lines, err = kosmos("recall", file, *words)
        return code, lines, err.replace("kosmos: no WordNet\n", "")

    return run


def hours(lines):
    return [(line["stamp"] - NOON) // (3600 * 10**9) for line in lines]


@pytest.fixture
def berlin(monkeypatch):
    """Let local time be 2 h before UTC."""
    with monkeypatch.context() as context:
        context.setenv("TZ", "CEST-2")
        time.tzset()
        yield
    time.tzset()


def test_a_line_has_when_where_and_what_was_seen(recalled, berlin):
    code, lines, err = recalled("where did you last see the red cup?", "--until", NOON + 1)
    assert (code, err) == (0, "")
    (line,) = lines
    age = line.pop("age")
    assert abs(time.time() - NOON * 1e-9 - age) < 60
    assert line == {
        "stamp": NOON,
        "time": "2026-05-31T14:00:00.000+02:00",
        "camera": "front/left",
        "frame_id": "optical",
        "image_width": 640,
        "image_height": 480,
        "task": "brief_caption",
        "caption": "An image of a red cup.",
        "phrases": [
            {
                "text": "a red cup",
                "start": 12,
                "end": 21,
                "boxes": [
                    {"x_min": 10.0, "y_min": 20.0, "x_max": 30.0, "y_max": 45.5, "score": 0.75}
                ],
            }
        ],
        "score": 0.5,
        "pose": None,
    }


def test_the_best_frame_comes_first_or_the_newest(recalled):
    assert hours(recalled("cup")[1]) == [1, 2, 3, 0]
    assert hours(recalled("cup", "--last")[1]) == [3, 2, 1, 0]


def test_a_time_that_was_written_can_be_asked_for(recalled, berlin):
    written = [line["time"] for line in recalled("cup", "--last")[1]]
    assert [text[11:16] for text in written] == ["17:00", "16:00", "15:00", "14:00"]
    assert hours(recalled("cup", "--since", written[2], "--until", written[1])[1]) == [1, 2]
    assert hours(recalled("cup", "--since", "2026-05-31T16:30")[1]) == [3]


def test_camera_place_and_time_limit_the_search(recalled):
    assert hours(recalled("cup", "--camera", "rear")[1]) == [3]
    assert hours(recalled("cup", "--near", "2,0,1", "--last")[1]) == [3, 2, 1]
    assert hours(recalled("cup", "--near=-1,0,2.5", "--last")[1]) == [1]
    since = ("--since", "2026-05-31T13:30Z", "--until", "2026-05-31T14:00:00+00:00")
    assert hours(recalled("cup", *since)[1]) == [2]
    local = datetime.fromtimestamp(NOON * 1e-9).isoformat()
    assert hours(recalled("cup", "--until", local)[1]) == [0]
    day = datetime.fromtimestamp(NOON * 1e-9).date()
    assert len(recalled("cup", "--since", day, "--until", day)[1]) == 4  # the whole day


def test_what_was_never_seen_is_exit_code_1(recalled):
    code, lines, err = recalled("a red cup and a blue box")
    assert (code, lines) == (1, [])
    hint = "the log has no word for 'blue', 'box'"
    assert err == f"kosmos: never seen: 'a red cup and a blue box'; {hint}\n"
    until = datetime.fromtimestamp(0).astimezone().isoformat(timespec="milliseconds")
    hint = f"searched until {until}"
    assert recalled("cup", "--until", 0) == (1, [], f"kosmos: never seen: 'cup'; {hint}\n")
    hint = f"searched since {10**30} ns"  # too late for a date
    assert recalled("cup", "--since", 10**30) == (1, [], f"kosmos: never seen: 'cup'; {hint}\n")


def test_a_question_may_name_the_camera(recalled):
    code, lines, _ = recalled("a cup on the rear camera")
    assert code == 0
    assert {line["camera"] for line in lines} == {"rear"}
    code, lines, err = recalled("a zebra on the rear camera")
    assert (code, lines) == (1, [])
    assert err.endswith("the log has no word for 'zebra'; searched camera 'rear'\n")


def test_never_seen_names_an_empty_log(kosmos, tmp_path):
    ObservationLog.open(tmp_path / "empty.db").close()
    code, lines, err = kosmos("recall", tmp_path / "empty.db", "a cup")
    assert (code, lines) == (1, [])
    assert err.endswith("kosmos: never seen: 'a cup'; the log has no frame yet\n")


def test_never_seen_names_the_time_of_the_question(recalled):
    code, lines, err = recalled("a blue cup on 2001-02-03")
    since, until = (datetime(2001, 2, 3, *at).astimezone() for at in ((), (23, 59, 59, 999_000)))
    times = " ".join(
        f"{name} {each.isoformat(timespec='milliseconds')}"
        for name, each in (("since", since), ("until", until))
    )
    assert (code, lines) == (1, [])
    assert err == (
        "kosmos: never seen: 'a blue cup on 2001-02-03'; the log has no word for 'blue'; "
        f"searched {times}\n"
    )


def test_thumbnails_are_saved_and_overwrite_no_file(recalled, tmp_path):
    out = tmp_path / "new" / "out"
    for suffix in ("", "-2"):
        code, lines, err = recalled("cup", "--last", "--out", out)
        assert (code, err) == (0, "")
        rear, front, *_, oldest = (line["thumbnail"] for line in lines)
        assert rear == str(out / f"rear-{lines[0]['stamp']}{suffix}.webp")
        assert front == str(out / f"front_left-{lines[1]['stamp']}{suffix}.webp")
        assert oldest is None
    assert len([*out.iterdir()]) == 6
    assert all(path.read_bytes() == WEBP for path in out.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--camera", "front"),
            "--camera must be one of the log's ('front/left', 'rear'), got 'front'",
        ),
        (("--near", "1,2"), "--near must be three numbers x,y,r in m, got '1,2'"),
        (("--near", "1,2,-3"), "--near must be finite x, y and a radius > 0"),
        (("--since", "noon"), "--since must be a time such as 2026-05-31T14:00 or an integer"),
        (("--until", "2026-13-01"), "--until must be a time such as 2026-05-31T14:00"),
    ],
)
def test_an_invalid_option_is_exit_code_2_and_named(recalled, words, message):
    code, lines, err = recalled("cup", *words)
    assert (code, lines) == (2, [])
    assert err.startswith(f"kosmos: {message}")
    assert len(err.splitlines()) == 1


def test_a_file_that_is_no_log_is_named(kosmos, tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to have a header" * 9)
    for name, what in (
        ("absent", "there is no observation log"),
        ("text", "is not an SQLite database"),
    ):
        code, lines, err = kosmos("recall", tmp_path / name, "cup")
        assert (code, lines) == (2, [])
        assert what in err
        assert name in err


def test_a_log_that_cannot_be_read_is_exit_code_2_and_nothing_found_is_1(recalled, file):
    with sqlite3.connect(file) as log:
        log.execute("UPDATE observation SET phrases = '[{}]'")
    code, lines, err = recalled("cup")
    assert (code, lines) == (2, [])
    assert "is damaged" in err
    assert recalled("a giraffe")[0] == 1


def test_without_wordnet_the_command_that_installs_it_is_named_once(
    kosmos, file, monkeypatch, tmp_path
):
    monkeypatch.undo()
    monkeypatch.setenv(wordnet.VARIABLE, str(tmp_path))
    wordnet.find.cache_clear()
    code, lines, err = kosmos("recall", file, "cups")
    wordnet.find.cache_clear()
    assert (code, hours(lines)) == (0, [1, 2, 3, 0])
    assert err == f"kosmos: {wordnet.MISSING}\n"
    assert "apt-get install wordnet-base" in wordnet.MISSING


def test_an_empty_path_is_refused(recalled, kosmos):
    for code, _, err in (recalled("cup", "--out", ""), kosmos("recall", "", "cup")):
        assert code == 2
        assert "a path must not be empty" in err


def test_a_log_without_poses_is_named_if_a_place_is_asked_for(kosmos, tmp_path):
    with ObservationLog.open(tmp_path / "memory.db") as log:
        log.add([Observation(NOON, "front", "a red cup")])
    code, lines, err = kosmos("recall", tmp_path / "memory.db", "cup", "--near", "0,0,9")
    assert (code, lines) == (1, [])
    assert "never seen: 'cup'; no frame of the log has a pose, as --near requires" in err


def test_two_times_are_refused(recalled):
    code, lines, err = recalled("red cup today yesterday")
    assert (code, lines) == (2, [])
    assert err == "kosmos: a question must name at most one time, got 'today' and 'yesterday'\n"


def test_a_time_that_ends_before_it_begins_is_refused(recalled):
    code, lines, err = recalled("a red cup", "--since", 5, "--until", 4)
    assert (code, lines) == (2, [])
    assert "--since must not be later than --until, got --since 5 and --until 4 ns" in err


def test_the_number_of_results_can_be_chosen(recalled, file):
    code, lines, _ = recalled("cup", "--max-results", "2")
    assert (code, hours(lines)) == (0, [1, 2])
    code, lines, _ = recalled("cup", "--max-results", "1", "--last")
    assert (code, hours(lines)) == (0, [3])
    with ObservationLog.open(file) as log:
        log.add(Observation(NOON + number, "side", "a green tree") for number in range(1, 8))
    for words, count in (((), 5), (("--max-results", "1000"), 7)):
        assert len(recalled("tree", *words)[1]) == count


@pytest.mark.parametrize("number", ["0", "1001", "-1", "2.5", "\u0663", "", "many"])
def test_a_wrong_number_of_results_is_refused(recalled, number):
    code, lines, err = recalled("cup", f"--max-results={number}")
    assert (code, lines) == (2, [])
    assert f"--max-results must be a whole number from 1 to 1000, got '{number}'" in err


@pytest.mark.parametrize(
    "question",
    [
        "where did you last see the red cup?",
        "when was the cup last seen",
        "the last time you saw a cup",
        "where did you most recently see a cup?",
    ],
)
def test_a_question_for_the_last_sighting_gets_the_newest_frame_first(recalled, question):
    code, lines, _ = recalled(question)
    assert (code, hours(lines)) == (0, [3, 2, 1, 0])


def test_other_questions_get_the_best_frame_first(recalled):
    for question in ("where is the red cup?", "the last red cup", "a cup since 2026-05-30"):
        assert hours(recalled(question)[1]) == [1, 2, 3, 0]
