# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Change parameters and lifecycle states of the node at random times, in one process.

    python -m soak.meddler SEED [MOVE...]

MOVEs are left out. Reports each change as `changed`, and whether its result was as expected.
"""

import sys
from collections.abc import Collection
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from soak.cameras import CAMERAS
from soak.pictures import one_of
from soak.player import Player, say

LIMIT = 60.0  # s for a response
PERIOD = 1.2  # s between two changes, on average

VALID: dict[str, tuple[Any, ...]] = {
    "max_batch_size": (1, 2, 8, 16),
    "queue_size": (2, 8, 16),
    "request_timeout": (1.0, 5.0, 10.0),
    "max_image_pixels": (10**6, 5 * 10**7),
}
CAPTIONS = {"task": "brief_caption"}  # a task that needs no phrase and no question
OF_A_CAMERA: dict[str, tuple[Any, ...]] = {
    # Several values are set in this order: a task is refused while what it needs is empty.
    "task": (
        "brief_caption",
        "detailed_caption",
        "null",
        {"phrases": ["a red circle"], "task": "phrase_grounding"},
        {"questions": ["What is this?"], "task": "question"},
    ),
    "phrases": (
        ["a red circle"],
        ["a blue square", "a green star"],
        {**CAPTIONS, "phrases": [""]},
        {**CAPTIONS, "phrases": "null"},
    ),
    "questions": (
        ["What is this?"],
        {**CAPTIONS, "questions": [""]},
        {**CAPTIONS, "questions": "null"},
    ),
    "max_rate": (0.5, 2.0, 10.0, 0.0),
    "min_score": (0.0, 0.5, "null"),
    "enabled": (True, False, True, "null"),
    "grounded": (True, False),
    "max_new_tokens": (16, 64, 128),
    "max_image_age": (0.0, 0.2),
    "event_frames": (1, 3),
}
INVALID: tuple[tuple[str, Any], ...] = (
    ("max_batch_size", 0),
    ("queue_size", "many"),
    ("request_timeout", float("nan")),
    ("model", "another"),
    ("front.task", "dance"),
    ("rear.phrases", ["<object>"]),
    ("left.min_score", 1.5),
    ("right.enabled", "perhaps"),
    ("max_rate", -1.0),
    ("nothing_of_this_name", 1),
)
MOVES = {
    "parameters": ["valid"] * 10 + ["invalid"] * 5 + ["enable"],
    "pauses": ["pause"] * 2,
    "reloads": ["reload"],
}
"""Moves of one round; each round has a new order."""

PAUSE = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE)
RELOAD = (
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
)


class Meddler:
    """Makes the moves of each round."""

    def __init__(self, seed: int, without: Collection[str] = ()) -> None:
        self._deck = [
            move for name, moves in MOVES.items() if name not in without for move in moves
        ]
        self._rng = np.random.default_rng(seed)
        self._player = player = Player("meddler")
        self._parameters = player.node.create_client(SetParameters, "kosmos/set_parameters")
        self._states = player.node.create_client(ChangeState, "kosmos/change_state")
        self._switches = {
            camera: player.node.create_client(SetBool, f"kosmos/{camera}/enable")
            for camera in CAMERAS
        }
        say(playing="meddler")

    def run(self) -> None:
        """Make moves until SIGINT, and leave the node active."""
        moves = {
            "valid": self._valid,
            "invalid": self._invalid,
            "enable": self._enable,
            "pause": lambda: self._change(PAUSE),
            "reload": lambda: self._change(RELOAD),
        }
        services = (self._parameters, self._states, *self._switches.values())
        self._player.until(lambda: all(s.service_is_ready() for s in services), LIMIT)
        while not self._player.stopping:
            for name in self._rng.permutation(self._deck):
                self._player.pause(self._rng.exponential(PERIOD))
                if self._player.stopping:
                    return
                moves[name]()
            if not self._deck:
                self._player.pause(LIMIT)

    def _valid(self) -> None:
        of, prefix = VALID, ""
        if self._rng.random() < 0.7:
            of, prefix = OF_A_CAMERA, f"{one_of(CAMERAS, self._rng)}."
        name = one_of(list(of), self._rng)
        value = one_of(of[name], self._rng)
        changes = value if isinstance(value, dict) else {name: value}
        self._set({prefix + each: changes[each] for each in changes}, True)

    def _invalid(self) -> None:
        name, value = one_of(INVALID, self._rng)
        self._set({name: value}, False)

    def _set(self, changes: dict[str, Any], right: bool) -> None:
        parameters = [Parameter(name, value=changes[name]).to_parameter_msg() for name in changes]
        response = self._call(self._parameters, SetParameters.Request(parameters=parameters))
        results = response.results if response else []
        fine = len(results) == len(changes) and all(
            each.successful == right and (right or bool(each.reason)) for each in results
        )
        say(
            changed="parameter" if right else "invalid parameter",
            fine=fine,
            what=f"{changes}: {results}",
        )

    def _enable(self) -> None:
        camera = one_of(CAMERAS, self._rng)
        on = bool(self._rng.integers(2))
        response = self._call(self._switches[camera], SetBool.Request(data=on))
        say(
            changed="parameter",
            fine=bool(response and response.success),
            what=f"{camera} enable {on}: {response}",
        )

    def _change(self, transitions: tuple[int, ...]) -> None:
        for number in transitions:
            request = ChangeState.Request(transition=Transition(id=number))
            response = self._call(self._states, request)
            say(
                changed="state",
                fine=bool(response and response.success),
                what=f"transition {number}: {response}",
            )
            self._player.until(lambda: False, self._rng.exponential(0.5))

    def _call(self, client: Any, request: Any) -> Any:
        future = client.call_async(request)
        self._player.until(future.done, LIMIT)
        return future.result()


if __name__ == "__main__":
    Meddler(int(sys.argv[1]), sys.argv[2:]).run()
