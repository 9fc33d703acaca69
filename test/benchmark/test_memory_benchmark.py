# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the memory knows the right answers, and recall gives them."""

import itertools
import sys

import numpy as np
import pytest

from benchmark import memory
from kosmos_ros.memory import wordnet
from kosmos_ros.memory.log import ObservationLog
from kosmos_ros.memory.recall import recall

COUNT, ASKED = 1500, 60


@pytest.fixture(scope="module")
def frames():
    return memory.Frames(COUNT)


@pytest.fixture(scope="module")
def log(frames, tmp_path_factory):
    file = tmp_path_factory.mktemp("memory") / "memory.db"
    memory.write(frames, file)
    with ObservationLog.read(file) as log:
        yield log


def test_the_log_says_what_the_frames_show(frames, log):
    stored = log.get([frames.stamp(frame) for frame in range(COUNT)])
    assert len(stored) == COUNT
    for frame, observation in enumerate(stored):
        names = [" ".join(thing) for thing in memory.things_of(frames.scene(frame))]
        assert all(name in observation.caption for name in names)
        assert len(observation.shown) == len(names)


def test_the_right_frame_is_the_newest_one_that_fits(frames):
    rng = np.random.default_rng(5)
    for asked in itertools.islice(memory.answered(frames, rng, 0.0), ASKED):
        last = (asked.query.until - memory.START) // memory.PERIOD
        fitting = [frame for frame in range(last + 1) if frames.fits(frame, asked)]
        assert asked.target == max(fitting)


def test_no_frame_shows_what_was_never_seen(frames):
    rng = np.random.default_rng(5)
    for asked in itertools.islice(memory.never(frames, rng, 0.0), ASKED):
        if asked.things:
            assert not any(frames.fits(frame, asked) for frame in range(COUNT))


@pytest.mark.parametrize("net", [None, wordnet.find()], ids=["own words", "WordNet"])
def test_recall_gives_the_right_frame_or_says_never_seen(frames, log, net):
    rng = np.random.default_rng(6)
    for asked in itertools.islice(memory.answered(frames, rng, 0.0), ASKED):
        found = recall(log, asked.query, net)
        assert asked.target in memory._numbers(found), asked.query
    absent = list(itertools.islice(memory.never(frames, rng, 0.0), ASKED))
    silent = [not recall(log, asked.query, net) for asked in absent]
    assert np.mean(silent) >= 0.95


def test_more_words_are_understood_with_wordnet(frames, log):
    paired = frames.paired
    assert {"star shape", "navy", "olive"} <= memory.understood(log, None, paired)
    if (net := wordnet.find()) is None:
        pytest.skip("wordnet-base is not installed: run scripts/setup")
    words = sum(map(len, memory.PARAPHRASES.values()))
    assert len(memory.understood(log, net, paired)) >= 0.6 * words


def test_the_program_prints_a_table(monkeypatch, capsys):
    monkeypatch.setattr(memory, "QUESTIONS", 10)
    monkeypatch.setattr(memory, "THUMBNAILS", 2)
    monkeypatch.setattr(sys, "argv", ["memory", "200"])
    memory.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| what | value | baseline | ratio |"
    assert any("own words: right frame among 5 | 100 %" in line for line in lines)
    assert any(line.startswith("| observation with its thumbnail | ") for line in lines)
