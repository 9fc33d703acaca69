# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A worker without ROS, and an engine that takes a step for each token."""

import threading

import numpy as np

from kosmos_ros.errors import CancelledError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.query import Generation
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.serving.scheduler import Limits, Scheduler
from kosmos_ros.serving.work import Work
from kosmos_ros.serving.worker import Worker

WAIT = 20.0  # s


class Stepper:
    """Writes `max_new_tokens` tokens for each query; `at[n]` is called in step n."""

    info = None

    def __init__(self):
        self.rows = {}  # query: steps left
        self.steps = []  # prompts under way in each
        self.encoded = []  # pictures in each call
        self.at = {}
        self.refuses = lambda prompts: None  # an error for these
        self.refuses_pictures = lambda images: None

    def encode_batch(self, images):
        self.encoded.append(len(images))
        if error := self.refuses_pictures(images):
            raise error
        return [int(image[0, 0, 0]) for image in images]

    def add(self, queries):
        for query in queries:
            self.rows[query] = query.max_new_tokens

    def step(self):
        self.steps.append(sorted(query.prompt for query in self.rows))
        if hook := self.at.get(len(self.steps)):
            hook()
        if error := self.refuses(self.steps[-1]):
            raise error
        ended = []
        for query in list(self.rows):
            self.rows[query] -= 1
            if query.progress:
                query.progress(Generation(" …", (), 1.0, 1, False))
            if query.stopped():
                ended.append((query, CancelledError("generation was stopped")))
            elif not self.rows[query]:
                ended.append((query, Generation(f" {query.image}", (), 1.0, 1, False)))
        for query, _ in ended:
            del self.rows[query]
        return ended

    def clear(self):
        self.rows.clear()

    def tidy(self): ...

    def memory(self):
        return 0

    def unload(self): ...


class Rig:
    """A worker, its scheduler, and clients of both."""

    def __init__(self, engine, most=2):
        self.engine, self.settings = engine, NodeSettings(max_batch_size=most)
        self.scheduler = Scheduler()
        self.frames = {}  # camera: (prompts, tokens)
        self.answered = []  # names of the work that was answered or refused, in order
        self.bugs = []
        self.said, self.errors = {}, {}
        self.over = threading.Event()
        self.error = None
        self.expected = 0
        self.all_answered = threading.Event()

    def work(self, name, words, tokens, **options):
        made = [prompts.raw(word) for word in words]

        def done(observation):
            self.said[name] = [caption.text for caption in observation.captions]
            self.note(name)

        def failed(error):
            self.errors[name] = str(error)
            self.note(name)

        return Work(lambda *_: made, done, failed, tokens, **options)

    def note(self, name):
        self.answered.append(name)
        if len(self.answered) == self.expected:
            self.all_answered.set()

    def offer(self, camera, words, tokens, value=7):
        self.frames[camera] = (words, tokens)
        self.scheduler.set_limits(camera, Limits(max_rate=0.0))
        self.scheduler.offer(camera, Message(value))

    def ask(self, name, words, tokens, camera=None, value=3):
        of = {"cameras": (camera,)} if camera else {"image": Message(value)}
        self.scheduler.submit(self.work(name, words, tokens, **of))

    def run(self, expected):
        self.expected = expected
        worker = self.start()
        answered = self.all_answered.wait(WAIT) or self.over.is_set()
        worker.close()
        assert worker.join(WAIT)
        assert answered, self.answered
        return self.answered

    def start(self):
        """The worker; it delivers results in its own thread."""
        return Worker(self.scheduler, self, lambda call, urgent: call())

    def load(self):
        return self.engine, lambda message, _: message.pixels

    def log_bug(self, traceback):
        self.bugs.append(traceback)

    def loaded(self, engine): ...

    def standing_work(self, camera):
        return self.work(camera, *self.frames[camera], urgent=False)

    def paused(self):
        return False

    def ended(self, error):
        self.error = error
        self.over.set()


class Message:
    header = None

    def __init__(self, value):
        self.pixels = np.full((2, 3, 3), value, np.uint8)
