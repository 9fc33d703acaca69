# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The keys of the values on /diagnostics and ~/model_info, with their units and meanings.

They are part of the interface, so a key is never renamed. docs/interface.md is made from these
tables, and a test compares them with what the node publishes.
"""

from __future__ import annotations

from typing import NamedTuple

from kosmos_ros.serving.gate import LOOK_PERIOD
from kosmos_ros.serving.throughput import MAX_GAINS, MAX_LATENCIES, WINDOW


class Key(NamedTuple):
    """The unit and the meaning of a value."""

    unit: str  # "text" or "number" if the value has none
    meaning: str


CAMERA = {
    "topic": Key("text", "topic of the images"),
    "publishers": Key("number", "publishers of the topic"),
    "transport": Key("text", "raw or compressed: the messages that the node subscribes to"),
    "reliability": Key("text", "reliable or best_effort: what the subscription requests now"),
    "cause": Key(
        "text",
        "why images are missing or lost, and the remedy, as in the log; empty while none are",
    ),
    "images read": Key(
        "text",
        f"all, or one every {LOOK_PERIOD:g} s (idle) while nobody needs them; while idle, "
        "lost share is unknown, image rate is that of the publisher, and image age may be up to "
        f"{LOOK_PERIOD:g} s too large",
    ),
    "image rate (Hz)": Key(
        "Hz",
        f"images that arrived, over {WINDOW:g} s; unknown while idle if the middleware does not "
        "number messages",
    ),
    "image age (s)": Key("s", "time since the newest image arrived, or since the start"),
    "lost share": Key("0 to 1", f"share of images that are known to be lost, over {WINDOW:g} s"),
    "lost": Key("images", "images that are known to be lost, since the start"),
    "described rate (Hz)": Key("Hz", f"described frames, over {WINDOW:g} s"),
    "described": Key("frames", "described frames, since the start"),
    "unchanged": Key(
        "frames",
        "described frames that were answered without the model, because their pixels were those "
        "of the last described frame, since the start",
    ),
    "dropped": Key(
        "frames",
        "frames that were to be described but were not, since the model was loaded; the sum of "
        "the next five values",
    ),
    "dropped: replaced": Key("frames", "replaced by a newer frame before the model was free"),
    "dropped: too old": Key("frames", "older than max_image_age"),
    "dropped: unreadable": Key("frames", "the image cannot be decoded"),
    "dropped: failed": Key("frames", "any other error"),
    "dropped: cancelled": Key(
        "frames",
        "the last subscriber left, or the node was deactivated, before they were described",
    ),
    "failed": Key("frames", "frames that were unreadable or failed, since the start"),
    "latency p50 (s)": Key(
        "s",
        "median time from the stamp to the publication of the result, over the newest "
        f"{MAX_LATENCIES} frames",
    ),
    "latency p95 (s)": Key("s", "95th percentile of the same times"),
    "tokens per pass with drafts": Key(
        "tokens",
        "mean number of tokens that one pass of the model gives if it checks a draft from an "
        f"earlier answer about the camera, over the newest {MAX_GAINS} frames that the model "
        "described; 1: such drafts do not help, and the node does not use them",
    ),
    "last error": Key("text", "error of the newest frame that failed; empty: none"),
    "last error age (s)": Key("s", "time since that error; empty: none"),
}
"""Keys of the status of a camera, in order."""

LOADING = {
    "phase": Key(
        "text",
        "importing torch, downloading, reading weights (and moving them to the device), "
        "quantizing, or warming up",
    ),
    "downloaded (MB)": Key(
        "MB", "size of the model's files that are already on this machine, while downloading"
    ),
    "download size (MB)": Key("MB", "size of all files of the model, while downloading"),
}
"""Keys of ~/model_info while the model is loading, after `state` and `model`."""

MODEL_INFO = {
    "state": Key("text", "unconfigured, loading, not active, ready, failed or shut down"),
    "model": Key("text", "Hugging Face id, directory or shapes, as in the parameter model"),
    "revision": Key("text", "commit of the weights; empty for a directory and for shapes"),
    "device": Key("text", "cpu or cuda:N"),
    "device_name": Key("text", "name of the GPU; empty for a CPU"),
    "dtype": Key("text", "number format of the weights: float32, bfloat16 or float16"),
    "quantization": Key("text", "none, int8 or nf4"),
    "parameters": Key("number", "numbers in the weights"),
    "image_size": Key("pixels", "side of the square image that the model reads"),
    "no_repeat_ngram_size": Key(
        "tokens", "length of the sequences that are written only once; 0: no limit"
    ),
    "transformers": Key("text", "version"),
    "torch": Key("text", "version"),
    "start_up": Key("s", "time that loading took, with its unit, for example 4.2 s"),
}
"""Keys of ~/model_info while a model is loaded, in order. Otherwise it has only the first two."""

MODEL = {
    "requests waiting": Key("number", "requests that wait for the model or for a frame"),
    "short of memory": Key(
        "text", "limit on the work that runs at a time after memory ran out; empty: none"
    ),
    "other nodes of this name": Key("number", "other nodes with the node's full name"),
    "device memory (MB)": Key("MB", "GPU memory that the process has reserved; 0 on a CPU"),
    "process memory (MB)": Key("MB", "resident memory of the process"),
}
"""Keys of the status of the model on /diagnostics, after those of ~/model_info."""

MEMORY = {
    "file": Key("text", "path of the observation log"),
    "file size (MB)": Key("MB", "size of the observation log"),
    "written": Key("observations", "written since the start"),
    "waiting": Key("observations", "waiting to be written"),
    "deleted": Key(
        "observations", "deleted because of memory_max_size or memory_max_age since the start"
    ),
    "lost": Key("observations", "dropped since the start because the file could not be written"),
    "lost thumbnails": Key(
        "thumbnails", "dropped since the start because they could not be made or written in time"
    ),
    "pose age (s)": Key(
        "s",
        "time since the newest message on pose_topic, or since tf last had a newer pose, to about "
        "1 s; empty: no pose has arrived",
    ),
}
"""Keys of the status of the memory on /diagnostics, if the parameter memory is set."""
