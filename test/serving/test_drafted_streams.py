# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Streams of the embedded model's scenes: answers with drafts are those without."""

import random

import numpy as np
import pytest

from kosmos_ros.kosmos2 import engine as engine_module
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.engine import Engine
from kosmos_ros.serving.batch import Batch
from kosmos_ros.serving.work import Job, Observation, Work
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import moving_scene

CAMERAS = {
    "front": ["brief_caption"],
    "rear": ["detailed_caption", "a red circle"],
    "left": ["brief_caption", "what"],
}
QUESTIONS = ["brief_caption", "detailed_caption", "what", "a blue square", "how many"]
TOKENS = 48
FRAMES = 40  # of all cameras


def prompt(word):
    if word.endswith("caption"):
        return prompts.caption(word, True)
    if word.startswith("a "):
        return prompts.phrase_grounding(word)
    return prompts.question(f"{word} shapes are there?", grounded=word == "what")


@pytest.fixture(scope="module")
def engine():
    return Engine.load("shapes", local_files_only=True, device="cpu", threads=1, ngrams=True)


class Streams:
    """Cameras and clients whose frames and requests join a batch at random steps."""

    def __init__(self, engine, seed):
        self.engine, self.random = engine, random.Random(seed)
        self.batch = Batch(lambda: False, lambda call, urgent: call())
        self.batch.max_rows = 5
        self.delivered = []  # (job, observation)
        self.sent = dict.fromkeys(CAMERAS, 0)
        self.newest = {}
        self.queries = []
        self.unchanged = 0

    def job(self, camera, words, urgent):
        """Return the work on the camera's newest frame."""
        asked = tuple(map(prompt, words))
        work = Work(
            lambda *_: asked,
            lambda observation: self.delivered.append((made, observation)),
            pytest.fail,
            TOKENS,
            urgent=urgent,
            cameras=(camera,) if urgent else (),
        )
        number = self.sent[camera]
        image = self.newest[camera]
        made = Job(work, None, Observation(camera, f"{camera} {number}", image, asked, 0))
        return made

    def frame(self, camera):
        """Return the work on the camera's next frame, which is unchanged now and then."""
        number = self.sent[camera] = self.sent[camera] + 1
        if number == 1 or self.random.random() < 0.7:
            seed = list(CAMERAS).index(camera)
            self.newest[camera] = render(moving_scene(seed, number * 0.2, 160, 120))
        else:
            self.newest[camera] = self.newest[camera].copy()
        return self.job(camera, CAMERAS[camera], urgent=False)

    def arrive(self):
        """Let frames and requests arrive, if there is room for them."""
        intake = self.batch.prepare()
        jobs = []
        if not intake or not (intake.wait or self.random.random() < 0.3):
            return
        if intake.frames and not (self.newest and self.random.random() < 0.4):
            made = self.frame(self.random.choice(list(CAMERAS)))
            if self.batch.unchanged(made):
                made.deliver(made.begun)
                self.unchanged += 1
            else:
                jobs.append(made)
        else:
            camera = self.random.choice(list(self.newest))
            jobs.append(self.job(camera, [self.random.choice(QUESTIONS)], urgent=True))
        for made in jobs:
            (made.encoded,) = self.engine.encode_batch([made.observation.image])
        self.batch.admit(jobs)

    def run(self):
        while sum(self.sent.values()) < FRAMES or not self.batch.idle:
            if sum(self.sent.values()) < FRAMES:
                self.arrive()
            if begun := self.batch.step():
                self.engine.add(begun)
            self.queries += begun
            ended = self.engine.step() if self.batch.running else ()
            for made in self.batch.finish(ended):
                made.deliver(made.begun)


@pytest.mark.parametrize("always", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_answers_with_drafts_are_those_without(engine, monkeypatch, seed, always):
    if always:
        monkeypatch.setitem(engine_module.DRAFT_COST, "cpu", {1: 0.0})
    streams = Streams(engine, seed)
    streams.run()
    frames = [made for made, _ in streams.delivered if not made.work.urgent]
    assert len(frames) == sum(streams.sent.values()) >= FRAMES
    assert streams.unchanged
    assert any(query.earlier for query in streams.queries)
    assert any(query.earlier is None for query in streams.queries)
    assert len(streams.delivered) > len(frames)  # requests, too
    monkeypatch.setattr(engine, "_ngrams", None)  # from here on, a pass gives one token
    for made, observation in streams.delivered:
        assert observation.header == made.observation.header
        (encoded,) = engine.encode_batch([made.observation.image])
        for number, asked in enumerate(made.observation.prompts):
            alone = engine.generate(encoded, asked.text, TOKENS, stop=asked.stop)
            answer = made.answers[number]
            assert (answer.ids, answer.text, answer.truncated) == (
                alone.ids,
                alone.text,
                alone.truncated,
            )
            assert answer.score == pytest.approx(alone.score, abs=1e-4)
            assert answer.location_scores == pytest.approx(alone.location_scores, abs=1e-4)
            assert np.allclose(answer.location_points, alone.location_points, atol=1e-4)
    gains = [a.gain for made, _ in streams.delivered for a in made.answers.values()]
    assert max(gains) > 3.0
