# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A worker without ROS, and an engine that takes a step for each token."""

import threading

import numpy as np

from kosmos_ros.errors import CancelledError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.query import Generation
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.serving.scheduler import Limits, Request, Scheduler
from kosmos_ros.serving.work import Task
from kosmos_ros.serving.worker import Worker

WAIT = 20.0  # s


class Stepper:
    """Writes `max_new_tokens` tokens of each query; `at[n]` is called in step n."""

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
    """A worker, its scheduler, and who asks."""

    def __init__(self, engine, most=2):
        self.engine, self.settings = engine, NodeSettings(max_batch_size=most)
        self.scheduler = Scheduler()
        self.frames = {}  # camera: (prompts, tokens)
        self.told = []  # who was told, in order
        self.bugs = []
        self.said, self.errors = {}, {}
        self.over = threading.Event()
        self.error = None
        self.expected = 0
        self.all_told = threading.Event()

    def task(self, name, words, tokens):
        made = [prompts.raw(word) for word in words]

        def done(seen):
            self.said[name] = [caption.text for caption in seen.captions]
            self.tell(name)

        def failed(error):
            self.errors[name] = str(error)
            self.tell(name)

        return Task(lambda *_: made, done, failed, tokens)

    def tell(self, name):
        self.told.append(name)
        if len(self.told) == self.expected:
            self.all_told.set()

    def offer(self, camera, words, tokens, value=7):
        self.frames[camera] = (words, tokens)
        self.scheduler.set_limits(camera, Limits(max_rate=0.0))
        self.scheduler.offer(camera, Message(value))

    def ask(self, name, words, tokens, camera=None, value=3):
        task = self.task(name, words, tokens)
        if camera is None:
            task = Task(task.prompts, task.done, task.failed, tokens, Message(value))
        self.scheduler.submit(Request(task, 1e12, (camera,) if camera else ()))

    def run(self, expected):
        self.expected = expected
        worker = Worker(self.scheduler, self)
        told = self.all_told.wait(WAIT) or self.over.is_set()
        worker.close()
        assert worker.join(WAIT)
        assert told, self.told
        return self.told

    def load(self):
        return self.engine, lambda message, _: message.pixels

    def bug(self, trace):
        self.bugs.append(trace)

    def loaded(self, engine): ...

    def standing(self, camera):
        return self.task(camera, *self.frames[camera])

    def paused(self):
        return False

    def ended(self, error):
        self.error = error
        self.over.set()


class Message:
    header = None

    def __init__(self, value):
        self.pixels = np.full((2, 3, 3), value, np.uint8)
