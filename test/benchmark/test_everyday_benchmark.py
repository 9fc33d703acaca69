# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of everyday words counts what recall finds and what it should not find."""

import pytest

from benchmark import everyday
from kosmos_ros.memory import wordnet


def test_a_table_has_a_pair_for_each_caption():
    assert everyday.pairs("bus: buses, a coach; tap: faucet\ncar: cars\n") == [
        ("bus", "buses"),
        ("bus", "a coach"),
        ("tap", "faucet"),
        ("car", "cars"),
    ]


def test_no_pair_is_in_both_lists():
    chosen, held_out = (
        {pair for text in tables.values() for pair in everyday.pairs(text)}
        for tables in (everyday.CHOSEN, everyday.HELD_OUT)
    )
    assert not chosen & held_out


def test_what_is_not_found_is_named(tmp_path):
    table = "man: two men; shelf: shelves; couch: sofa; bus: buses; couch: couch"
    assert everyday.missed(tmp_path, table, None) == ["couch: sofa"]
    assert everyday.missed(tmp_path, "sofa: sofa", None) == []  # uses the log of the previous call


def test_what_another_group_finds_is_named(tmp_path, monkeypatch):
    groups = {
        "dog: poodle, hot dog; food: cake": [],
        "dog: poodle; food: hot dog, cake": ["dog: hot dog"],
        "dog: poodle; other: dog food, food": ["dog: dog food"],
    }
    for number, (text, expected) in enumerate(groups.items()):
        monkeypatch.setattr(everyday, "GROUPS", text)
        folder = tmp_path / str(number)
        folder.mkdir()
        assert everyday.mistaken(folder, None) == expected


def test_wordnet_finds_most_kinds_of_things_and_few_of_another_group(tmp_path):
    if (net := wordnet.find()) is None:
        pytest.skip("wordnet-base is not installed: run scripts/setup")
    kinds = everyday.HELD_OUT["kinds of things"]
    assert len(everyday.missed(tmp_path, kinds, net)) < 0.2 * len(everyday.pairs(kinds))
    assert len(everyday.mistaken(tmp_path, net)) < 15
