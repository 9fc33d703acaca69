# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameters of kosmos_node and of each camera. Knows no ROS.

scripts/docs writes config/kosmos.yaml and the tables of docs/interface.md from these fields.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass

from kosmos_ros.errors import ConfigError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.sanitize import quoted
from kosmos_ros.settings import parameter

FRAME_TASKS = tuple(task for task in prompts.TASKS if task != "region_description")
"""Tasks for every frame of a camera: all except the one that needs regions from a client."""


def check_name(name: str) -> None:
    """Raise ConfigError if a camera cannot have this name, which is part of topic names."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
        raise ConfigError(
            f"camera name must be a letter followed by letters, digits or _, got {quoted(name)}"
        )


def check_model(model: str) -> None:
    """Raise ConfigError for a text that cannot name a model, such as a robot's name or a file."""
    path = os.path.expanduser(model)
    if os.path.isfile(path) or not ("/" in model or model == "shapes" or os.path.isdir(path)):
        raise ConfigError(
            f"must be shapes, a directory, or a Hugging Face id such as OWNER/NAME, "
            f"got {quoted(model)}"
        )


MIN_HARD_TIMEOUT = 1.0  # s; a shorter limit than some steps of the model would end a healthy node


def _long_enough(seconds: float) -> None:
    """Raise ConfigError for a hard_timeout, other than 0, that ends a healthy node."""
    if seconds < MIN_HARD_TIMEOUT:
        raise ConfigError(
            f"must be 0 (never) or at least {MIN_HARD_TIMEOUT:g} s, got {quoted(seconds)}"
        )


MIN_MEMORY_SIZE = 16  # MB; a smaller observation log has no room to work


def _large_enough(megabytes: int) -> None:
    """Raise ConfigError for a memory_max_size, other than 0, that is too small."""
    if megabytes < MIN_MEMORY_SIZE:
        raise ConfigError(
            f"must be 0 (no limit) or at least {MIN_MEMORY_SIZE} MB, got {quoted(megabytes)}"
        )


@dataclass(frozen=True)
class NodeSettings:
    """Values of the node's parameters."""

    model: str = parameter(
        "microsoft/kosmos-2-patch14-224",
        'Hugging Face id, directory, or "shapes" for the small embedded model.',
        check=check_model,
        read_only=True,
    )
    revision: str = parameter(
        "",
        "Commit, tag or branch of a Hugging Face id. Empty: the tested commit of the default "
        "model, or main of any other model.",
        read_only=True,
    )
    local_files_only: bool = parameter(
        False, "Never download. If false, only missing files are downloaded.", read_only=True
    )
    device: str = parameter(
        "auto",
        "Device for the model: auto, cpu, cuda or cuda:N. auto: the GPU if torch sees one, "
        "otherwise the CPU.",
        read_only=True,
    )
    dtype: str = parameter(
        "auto",
        "Number format of the weights. auto: bfloat16 on a GPU whose hardware supports it, "
        "float16 on an older GPU, float32 on a CPU.",
        choices=("auto", "float32", "bfloat16", "float16"),
        read_only=True,
    )
    quantization: str = parameter(
        "none",
        "Quantization of the weights. nf4 needs bitsandbytes, and so does int8 on a GPU.",
        choices=("none", "int8", "nf4"),
        read_only=True,
    )
    threads: int = parameter(
        0,
        "CPU threads for the model. 0: one for a model with fewer than 50 million parameters, "
        "otherwise torch's default.",
        limits=(0, 1024),
        read_only=True,
    )
    location_grammar: bool = parameter(
        True,
        "Let the model write only well-formed boxes. If false, it may write malformed boxes, "
        "which are dropped.",
        read_only=True,
    )
    no_repeat_ngram_size: int = parameter(
        -1,
        "Length of the token sequences (n-grams) that may occur only once in a prompt and its "
        "answer. This keeps captions from running in loops. -1: the value in the model's files, "
        "which is 3 for the default model. 0: no limit.",
        limits=(-1, 1024),
        read_only=True,
    )
    refine_boxes: bool = parameter(
        True,
        "Place each corner of a box inside its grid cell, at the mean of the cell and its "
        "neighbours, weighted by their probabilities. If false, place it at the centre of the "
        "cell, as Hugging Face's code does.",
        read_only=True,
    )
    warm_up: bool = parameter(
        True,
        "Caption a blank image after loading, so that the first frame is not slow.",
        read_only=True,
    )
    autostart: bool = parameter(
        True,
        "Load the model and activate the node at start. If false, a lifecycle manager must do so.",
        read_only=True,
    )
    max_batch_size: int = parameter(
        8,
        "Largest number of prompts in a batch, over all cameras. Frames leave one row free for "
        "requests.",
        limits=(1, 256),
    )
    cameras: tuple[str, ...] = parameter(
        (),
        "Names of the cameras. Each camera has its own topics, such as ~/<camera>/captions, and "
        "parameters, such as <camera>.task. Empty: one camera without a name.",
        check=check_name,
        example="[front, rear]",
        read_only=True,
    )
    image_topics: tuple[str, ...] = parameter(
        (),
        "Image topic of each camera, in the order of cameras. Empty: <camera>/image, or image for "
        "a camera without a name.",
        example="[front/image_raw, rear/image_raw]",
        read_only=True,
    )
    max_image_pixels: int = parameter(
        50_000_000,
        "Largest image to decode (pixels). Larger images are refused.",
        limits=(1, 1_000_000_000),
    )
    stretch_mono16: bool = parameter(
        False,
        "Stretch the brightness of each 16-bit grey image (mono16), so that its darkest value "
        "becomes black and its brightest value white. If false, images of cameras with 10 to 14 "
        "bits are nearly black.",
    )
    kept_frames: int = parameter(
        120,
        "Number of frames of each camera that requests can name by their stamp: the newest ones "
        "that were described or used by a request. Each takes 0.3 MB of device memory with the "
        "default model on a GPU. 0: none.",
        limits=(0, 1000),
    )
    queue_size: int = parameter(
        8,
        "Largest number of requests that wait for the model. The same number of requests may wait "
        "for a frame. Further requests are refused.",
        limits=(1, 1000),
    )
    request_timeout: float = parameter(
        10.0,
        "Longest time that a request waits for the model or for a frame (seconds).",
        limits=(0.1, 3600),
    )
    hard_timeout: float = parameter(
        120.0,
        "Exit with code 4 if the model does not respond for this time (seconds). SIGALRM ends the "
        "process if its main thread does not respond for this time (at least 30 s, or 600 s while "
        "the model loads). Time while the process is suspended also counts. 0: never; other "
        "values must be at least 1.",
        limits=(0, 86400),
        check=_long_enough,
    )
    memory: str = parameter(
        "",
        "Path of the observation log, an SQLite file with the results of every described frame "
        "for ~/recall and kosmos recall. The node makes the file if it does not exist. With a "
        "log, the node describes frames even if nobody subscribes to the results. Empty: no log.",
        example="/home/robot/memory.db",
        read_only=True,
    )
    memory_max_size: int = parameter(
        1000,
        "Largest size of the observation log (MB). The observations that were written first are "
        "deleted first. 0: no limit; other values must be at least 16.",
        limits=(0, 10_000_000),
        check=_large_enough,
        read_only=True,
    )
    memory_max_age: float = parameter(
        0.0,
        "Largest age of an observation in the observation log, by its stamp (seconds). Older ones "
        "are deleted. 0: no limit.",
        limits=(0, 3_200_000_000),
        read_only=True,
    )
    pose_topic: str = parameter(
        "",
        "Topic of the robot's pose for the observation log: geometry_msgs/PoseStamped, "
        "geometry_msgs/PoseWithCovarianceStamped or nav_msgs/Odometry. Empty: no pose from a "
        "topic.",
        example="odom",
        read_only=True,
    )
    pose_frame: str = parameter(
        "",
        "Frame of tf in which the observation log has the robot's pose, such as map or odom. "
        "Needs the ROS package tf2_ros_py, and an empty pose_topic. Empty: no pose from tf.",
        example="map",
        read_only=True,
    )
    robot_frame: str = parameter(
        "base_link",
        "Frame of tf whose pose in pose_frame is the robot's pose. Used only with pose_frame.",
        read_only=True,
    )


@dataclass(frozen=True)
class CameraSettings:
    """Values of a camera's parameters.

    With several cameras, each may have its own value, for example <camera>.task.
    """

    image_transport: str = parameter(
        "raw",
        "Message type of the images. raw: Image on the image topic. compressed: CompressedImage "
        "on the image topic with /compressed appended.",
        choices=("raw", "compressed"),
        read_only=True,
    )
    image_reliability: str = parameter(
        "auto",
        "Reliability of the image subscription. best_effort: connects to any publisher but loses "
        "large images. reliable: connects only to reliable publishers. auto: reliable if all "
        "publishers are reliable, otherwise best_effort.",
        choices=("auto", "best_effort", "reliable"),
        read_only=True,
    )
    enabled: bool = parameter(
        True,
        "Describe frames. If false, frames are used for requests only. The service ~/enable sets "
        "this parameter.",
    )
    always_on: bool = parameter(False, "Describe frames even if nobody subscribes to the results.")
    task: str = parameter(
        "brief_caption",
        "Result to publish on ~/captions for each frame. brief_caption, detailed_caption: a "
        "caption. phrase_grounding: the boxes of phrases. question: the answers to questions. "
        "prompt: the output for prompt. A task whose parameter (phrases, questions or prompt) is "
        "empty is refused: set that parameter first, or both in one atomic request.",
        choices=FRAME_TASKS,
    )
    phrases: tuple[str, ...] = parameter(
        (),
        "Phrases to locate in every frame. Their boxes are published on ~/phrases. Empty: none.",
        prompt=prompts.phrase_grounding,
        example="[a cat, a dog]",
    )
    questions: tuple[str, ...] = parameter(
        (),
        "Questions to answer for every frame. The answers are published on ~/answers. Empty: "
        "none.",
        prompt=prompts.question,
        example='["What is this?", "Is the door open?"]',
    )
    prompt: str = parameter(
        "",
        "Prompt in KOSMOS-2's own language. Used only if task is prompt. Empty: none.",
        prompt=prompts.raw,
    )
    min_score: float = parameter(
        0.1,
        "Lowest score of the boxes of requested phrases (parameter phrases, task phrase_grounding "
        "and service ~/ground). Boxes with a lower score are left out. A phrase without boxes "
        "counts as not in view. 0: keep all. The default was measured with the embedded model "
        "only.",
        limits=(0, 1),
    )
    event_frames: int = parameter(
        3,
        "Number of consecutive frames that must agree before an event is published.",
        limits=(1, 1000),
    )
    event_seconds: float = parameter(
        0.0,
        "Time that the agreeing frames must span before an event is published, by their stamps "
        "(seconds). 0: only event_frames counts.",
        limits=(0, 3600),
    )
    grounded: bool = parameter(
        True,
        "Locate the phrases of captions and answers. If false, results have no boxes and take "
        "less time.",
    )
    max_new_tokens: int = parameter(
        128, "Longest caption or answer (tokens). A box takes four tokens.", limits=(1, 1024)
    )
    max_rate: float = parameter(
        1.0,
        "Highest rate at which frames are described (Hz). 0: as fast as the model allows.",
        limits=(0, 1000),
    )
    max_image_age: float = parameter(
        0.0,
        "Longest time that a frame may wait after its arrival (seconds). Older frames are "
        "dropped. 0: any time.",
        limits=(0, 3600),
    )
    stale_timeout: float = parameter(
        5.0, "Warn if no image arrives for this time (seconds). 0: never.", limits=(0, 3600)
    )


FIELDS = {
    field.name: field
    for kind in (NodeSettings, CameraSettings)
    for field in dataclasses.fields(kind)
}
"""Fields of NodeSettings and CameraSettings by name."""
