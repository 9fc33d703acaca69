# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Which phase may follow which, and the reason that a phase gives for refusing requests."""

import dataclasses
from itertools import product

import pytest

from kosmos_ros.serving.availability import Availability, Phase

NAMES = ["UNCONFIGURED", "LOADING", "INACTIVE", "READY", "FAILED", "ENDED"]

# x: the phase of the column may follow that of the row.
TABLE = """
              UNCONFIGURED  LOADING  INACTIVE  READY  FAILED  ENDED
UNCONFIGURED  x             x        .         .      x       x
LOADING       x             x        x         .      x       x
INACTIVE      x             .        x         x      x       x
READY         x             .        x         x      x       x
FAILED        x             x        .         .      .       .
ENDED         .             .        .         .      .       x
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()[1:]]
ALLOWED = {
    (before, after): mark == "x"
    for before, *marks in ROWS
    for after, mark in zip(NAMES, marks, strict=True)
}

REASONS = {
    "UNCONFIGURED": "the node is unconfigured",
    "LOADING": "the model is loading",
    "INACTIVE": "the node is not active",
    "READY": "",
    "ENDED": "the node is shut down",
}


def test_the_table_has_every_phase():
    assert [phase.name for phase in Phase] == NAMES == [row[0] for row in ROWS]


@pytest.mark.parametrize(("before", "after"), list(product(NAMES, NAMES)))
def test_only_some_phases_may_follow_each(before, after):
    old = Availability(Phase[before], "because", {"device": "cpu"})
    new = old.followed_by(Phase[after], "another reason", {"device": "cuda"})
    if ALLOWED[before, after]:
        assert new == Availability(Phase[after], "another reason", {"device": "cuda"})
    else:
        assert new is old


def test_a_new_node_is_unconfigured_and_has_no_model():
    new = Availability()
    assert (new.phase, new.reason, new.info) == (
        Phase.UNCONFIGURED,
        "the node is unconfigured",
        {},
    )
    assert not new.ready


@pytest.mark.parametrize("phase", Phase)
def test_only_ready_is_ready(phase):
    assert Availability(phase, "").ready == (phase is Phase.READY)


@pytest.mark.parametrize("name", REASONS)
def test_each_phase_has_a_reason_of_its_own_for_refusing_requests(name):
    before = {"READY": Phase.INACTIVE, "INACTIVE": Phase.READY}.get(name, Phase.UNCONFIGURED)
    new = Availability(before).followed_by(Phase[name])
    assert (new.phase, new.reason) == (Phase[name], REASONS[name])
    assert new.summary == Phase[name].value


def test_each_phase_has_a_name_for_people():
    assert [phase.value for phase in Phase] == [
        "unconfigured",
        "loading",
        "not active",
        "ready",
        "failed",
        "shut down",
    ]


def test_a_failure_needs_a_reason():
    with pytest.raises(KeyError):
        Availability().followed_by(Phase.FAILED)


def test_the_info_of_the_model_stays_until_it_is_replaced():
    loaded = Availability(Phase.LOADING).followed_by(Phase.INACTIVE, info={"device": "cpu"})
    ready = loaded.followed_by(Phase.READY)
    assert ready.info == {"device": "cpu"}
    assert ready.followed_by(Phase.UNCONFIGURED, info={}).info == {}


@pytest.mark.parametrize("phase", Phase)
def test_only_a_model_that_is_loading_has_progress(phase):
    before = Availability(phase, "because", {"device": "cpu"})
    after = before.at({"phase": "downloading"})
    if phase is not Phase.LOADING:
        assert after is before
        return
    assert after == dataclasses.replace(before, progress={"phase": "downloading"})
    assert after.followed_by(Phase.INACTIVE).progress == {}
    assert after.followed_by(Phase.LOADING).progress == {}


@pytest.mark.parametrize(
    ("phase", "reason", "summary"),
    [
        (Phase.UNCONFIGURED, "the node is unconfigured", "unconfigured"),
        (Phase.UNCONFIGURED, "the download failed", "the download failed"),
        (Phase.LOADING, "the model is loading", "loading"),
        (Phase.INACTIVE, "the node is not active", "not active"),
        (Phase.INACTIVE, "the model is loading", "the model is loading"),
        (Phase.READY, "", "ready"),
        (Phase.FAILED, "the GPU is lost", "the GPU is lost"),
        (Phase.FAILED, "the node is shut down", "the node is shut down"),
        (Phase.ENDED, "the node is shut down", "shut down"),
    ],
)
def test_a_summary_is_the_name_of_the_phase_or_a_reason_that_says_more(phase, reason, summary):
    assert Availability(phase, reason).summary == summary


def test_an_availability_cannot_be_altered():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Availability().reason = "because"
