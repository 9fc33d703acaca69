# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A worker without ROS, and an engine that needs one step for each token."""

import threading
from concurrent.futures import Executor, Future

import numpy as np

from kosmos_ros.errors import CancelledError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.kosmos2.query import Generation
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.serving.scheduler import Limits, Scheduler
from kosmos_ros.serving.work import Work
from kosmos_ros.serving.worker import Worker

WAIT = 20.0  # s, far longer than any test takes


class Stepper:
    """An engine that writes `max_new_tokens` tokens for each query.

    Step n calls `at[n]` first. The answer to a query is the value of its image's pixels.
    """

    info = None

    def __init__(self):
        self.rows = {}  # query: steps left
        self.steps = []  # the prompts of each step, sorted
        self.encoded = []  # number of images in each call of encode_batch
        self.drafts = []  # the prompt of each added query, with the ids of its draft or None
        self.at = {}
        self.refuses = lambda prompts: None  # the error that a step with these prompts raises
        self.refuses_images = lambda images: None  # the error that encoding these images raises
        self.cleared = self.tidied = self.unloaded = 0  # calls
        self.bytes = 0  # of memory in use

    def encode_batch(self, images):
        self.encoded.append(len(images))
        if error := self.refuses_images(images):
            raise error
        return [int(image[0, 0, 0]) for image in images]

    def compact(self, encoded):
        return encoded

    def add(self, queries):
        for query in queries:
            self.rows[query] = query.max_new_tokens
            self.drafts.append((query.prompt, query.earlier and query.earlier.ids))

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
                ids = (int(query.image),)
                ended.append((query, Generation(f" {query.image}", (), 1.0, 1, False, ids)))
        for query, _ in ended:
            del self.rows[query]
        return ended

    def clear(self):
        self.cleared += 1
        self.rows.clear()

    def tidy(self):
        self.tidied += 1

    def memory(self):
        return self.bytes

    def unload(self):
        self.unloaded += 1


class Rig:
    """A worker, its host and scheduler, clients with requests, and cameras with frames.

    `most` is the parameter max_batch_size. By default images are decoded in the worker's thread,
    so that the order of all calls is known.
    """

    def __init__(self, engine, most=2, pool=None):
        self.pool = pool or Inline()
        self.engine, self.settings = engine, NodeSettings(max_batch_size=most)
        self.scheduler = Scheduler()
        self.frames = {}  # camera: (prompts, tokens)
        self.answered = []  # names of answered and failed work, in order
        self.bugs = []  # tracebacks
        self.said, self.errors = {}, {}  # by name of the work: its captions, or its error
        self.observations = {}  # by name of the work
        self.over = threading.Event()  # the worker's thread has called `ended`
        self.error = None  # that ended the worker
        self.ready = threading.Event()  # the worker's thread has called `loaded`
        self.expected = 0
        self.all_answered = threading.Event()

    def work(self, name, words, tokens, **options):
        """Return work with one prompt for each of `words`."""
        made = [prompts.raw(word) for word in words]

        def done(observation):
            self.observations[name] = observation
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
        """Send a frame of a camera; `value` is that of its pixels."""
        self.frames[camera] = (words, tokens)
        self.scheduler.set_limits(camera, Limits(max_rate=0.0))
        self.scheduler.offer(camera, Message(value))

    def ask(self, name, words, tokens, camera=None, value=3):
        """Send a request about a camera's frame, or about an image whose pixels are `value`."""
        about = {"cameras": (camera,)} if camera else {"image": Message(value)}
        self.scheduler.submit(self.work(name, words, tokens, **about))

    def run(self, expected):
        """Start the worker, close it after `expected` answers; return the names in order."""
        self.expected = expected
        worker = self.start()
        answered = self.all_answered.wait(WAIT) or self.over.is_set()
        worker.close()
        assert worker.join(WAIT)
        assert answered, self.answered
        return self.answered

    def start(self):
        """Return a worker that delivers results in its own thread."""
        return Worker(self.scheduler, self, lambda call, urgent: call(), self.pool)

    def load(self):
        return self.engine, lambda message, max_pixels: message.pixels

    def log_bug(self, traceback):
        self.bugs.append(traceback)

    def loaded(self, engine):
        self.ready.set()

    def frame_work(self, camera):
        return self.work(camera, *self.frames[camera], urgent=False)

    def paused(self):
        return False

    def ended(self, error):
        self.error = error
        self.over.set()


class Inline(Executor):
    """A pool without threads: each call runs at once."""

    def submit(self, function, /, *arguments, **options):
        future = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as exc:
            future.set_exception(exc)
        return future


class Message:
    """An image message of 3 x 2 pixels, all of one value."""

    def __init__(self, value, header=None):
        self.header = header or f"header of {value}"
        self.pixels = np.full((2, 3, 3), value, np.uint8)
