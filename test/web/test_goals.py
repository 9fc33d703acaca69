# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Requests become goals of the action, and no goal goes on without its request."""

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from kosmos_msgs.action import Generate
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from kosmos_ros.web.goals import FIND_TIMEOUT, GOAL_SILENCE, GONE, Goals, Request


class Robot:
    """An action server whose goals never end, and the Goals that send to it."""

    def __init__(self, client, spinner):
        self.cancelled, self.accepted = 0, 0
        self.spinner = spinner
        self.server = ActionServer(
            client,
            Generate,
            "/kosmos/generate_stream",
            execute_callback=print,
            goal_callback=lambda goal: GoalResponse.ACCEPT,
            handle_accepted_callback=self._accept,
            cancel_callback=self._cancel,
            callback_group=ReentrantCallbackGroup(),
        )
        self.goals = Goals(client, "/kosmos", lambda call, *arguments: call(*arguments))
        spinner.until(self.goals._client.server_is_ready, "a server")
        self.answers = []

    def _accept(self, handle):
        self.accepted += 1

    def _cancel(self, handle):
        self.cancelled += 1
        return CancelResponse.ACCEPT

    def ask(self):
        """Send a request, wait until it is accepted, and return it."""
        request = Request(self.answers.append)
        self.goals.send(request, Generate.Goal())
        self.spinner.until(lambda: request.handle, "an accepted goal")
        return request

    def ends(self, call):
        """Make a call that ends the request; return the reason once its goal is cancelled."""
        call()
        self.spinner.until(lambda: self.cancelled, "a cancelled goal")
        (done,) = self.answers
        assert (done["done"], done["success"], done["result"]) == (True, False, None)
        return done["message"]


@pytest.fixture
def robot(client, spinner):
    robot = Robot(client, spinner)
    yield robot
    robot.server.destroy()


def test_a_request_of_a_node_that_seems_gone_is_cancelled_there(robot):
    robot.ask()
    assert robot.ends(lambda: robot.goals.fail("gone")) == "gone"
    robot.goals.destroy()


def test_a_request_of_a_server_that_ends_is_cancelled(robot):
    robot.ask()
    assert robot.ends(robot.goals.destroy) == "the server is shutting down"


def test_a_request_without_feedback_is_cancelled(robot):
    request = robot.ask()
    late = request.heard + GOAL_SILENCE + 1
    assert "sent no feedback for 180 s" in robot.ends(lambda: robot.goals.watch(late))
    robot.goals.destroy()


def test_a_request_waits_for_the_action_of_a_node_that_was_just_found(robot, monkeypatch):
    ready = robot.goals._client.server_is_ready
    monkeypatch.setattr(robot.goals._client, "server_is_ready", lambda: False)
    request = Request(robot.answers.append)
    robot.goals.send(request, Generate.Goal())
    robot.goals.watch(time.monotonic())
    assert (request.handle, robot.answers) == (None, [])
    monkeypatch.setattr(robot.goals._client, "server_is_ready", ready)
    robot.goals.watch(time.monotonic())
    robot.spinner.until(lambda: request.handle, "an accepted goal")


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_request_ends_if_the_action_is_never_found_or_if_it_is_cancelled(
    robot, monkeypatch, cancelled
):
    monkeypatch.setattr(robot.goals._client, "server_is_ready", lambda: False)
    request = Request(robot.answers.append)
    robot.goals.send(request, Generate.Goal())
    if cancelled:
        robot.goals.cancel(request)
    robot.goals.watch(time.monotonic() + (0 if cancelled else FIND_TIMEOUT))
    (done,) = robot.answers
    assert done["message"] == ("cancelled" if cancelled else GONE)
