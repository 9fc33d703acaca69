# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""An engine without a model, whose caption is the mean of the image."""

import time

from kosmos_ros.errors import PromptError
from kosmos_ros.kosmos2.query import Generation

BOX = "<object><patch_index_0044><patch_index_0863></object>"


class MuteEngine:
    def __init__(self, seconds=0.0):
        self.seconds = seconds  # for each batch
        self.fails_after = None  # batches
        self.refuses = None  # part of a prompt
        self.images = 0
        self.batches = 0

    def check(self, prompt):
        if self.refuses and self.refuses in prompt:
            raise PromptError("the prompt is too long")

    def encode_batch(self, images):
        if self.batches == self.fails_after:
            raise RuntimeError("the test ends this run")
        self.batches += 1
        self.images += len(images)
        time.sleep(self.seconds)
        return [f"mean {image.mean():.4f}" for image in images]

    def generate_batch(self, queries):
        return [
            Generation(f"<phrase> {query.image}</phrase>{BOX}", (0.5, 0.25), 0.75, 7, False)
            for query in queries
        ]
