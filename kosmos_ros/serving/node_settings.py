# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameters of kosmos_node and of each camera. Knows no ROS."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from kosmos_ros.errors import ConfigError
from kosmos_ros.kosmos2 import prompts
from kosmos_ros.sanitize import quoted
from kosmos_ros.settings import parameter

STANDING_TASKS = tuple(task for task in prompts.TASKS if task != "region_description")
"""Tasks that need nothing from a caller."""


def check_name(name: str) -> None:
    """Raise ConfigError for what cannot be a camera's name: a part of topics and parameters."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
        raise ConfigError(
            f"camera {quoted(name)} is no name; letters, digits and _ are needed, a letter first"
        )


@dataclass(frozen=True)
class NodeSettings:
    """Parameters of the node, at one moment."""

    model: str = parameter(
        "microsoft/kosmos-2-patch14-224",
        'Hugging Face id, directory, or "shapes" for the small embedded model.',
        read_only=True,
    )
    revision: str = parameter(
        "",
        "Commit or tag of a Hugging Face id; empty: of the default model the commit that was "
        "tried, of others main.",
        read_only=True,
    )
    local_files_only: bool = parameter(
        False,
        "Never download; without it, only what is not on this machine is.",
        read_only=True,
    )
    device: str = parameter("auto", "auto, cpu, cuda or cuda:n.", read_only=True)
    dtype: str = parameter(
        "auto",
        "Of the weights; auto: bfloat16 or float16 on a GPU, float32 on a CPU.",
        choices=("auto", "float32", "bfloat16", "float16"),
        read_only=True,
    )
    quantization: str = parameter(
        "none",
        "Of the weights, by bitsandbytes; int8 on a CPU needs none.",
        choices=("none", "int8", "nf4"),
        read_only=True,
    )
    threads: int = parameter(
        0,
        "Of the processor, for the model; 0: one for a small model, else torch's choice.",
        limits=(0, 1024),
        read_only=True,
    )
    location_grammar: bool = parameter(
        True, "Write well-formed boxes only; without, whatever the model writes.", read_only=True
    )
    warm_up: bool = parameter(
        True,
        "Caption a blank picture first, so that the first frame does not wait.",
        read_only=True,
    )
    autostart: bool = parameter(
        True,
        "Load the model and begin at once; without, a lifecycle manager does.",
        read_only=True,
    )
    max_batch_size: int = parameter(
        8,
        "Prompts that go through the model together, of all cameras; one place is a request's.",
        limits=(1, 256),
    )
    cameras: tuple[str, ...] = parameter(
        (),
        "Names of the cameras; each has its own ~/<camera>/captions and so on, and its own "
        "parameters <camera>.task and so on. None: one camera, without a name.",
        check=check_name,
        read_only=True,
    )
    image_topics: tuple[str, ...] = parameter(
        (),
        "Topic of each camera's images. None: <camera>/image, or image for the one camera.",
        read_only=True,
    )
    max_image_pixels: int = parameter(
        50_000_000,
        "Larger pictures are refused before they are decoded (pixels).",
        limits=(1, 1_000_000_000),
    )
    queue_size: int = parameter(
        8,
        "Requests that may wait for the model, and as many for a frame; more are refused.",
        limits=(1, 1000),
    )
    request_timeout: float = parameter(
        10.0,
        "Longest that a request waits for the model or for an image (seconds).",
        limits=(0.1, 3600),
    )
    hard_timeout: float = parameter(
        120.0,
        "The process ends, with code 4, when the model does not answer for so long (seconds), "
        "which nothing else mends. SIGALRM ends it when its main thread does not go on for so "
        "long, 30 s at least, 600 s while it loads; time in which it is stopped counts. 0: never.",
        limits=(0, 86400),
    )


@dataclass(frozen=True)
class CameraSettings:
    """Parameters that every camera may have for itself, at one moment: <camera>.task and so on."""

    image_transport: str = parameter(
        "raw",
        "raw: Image on the topic image; compressed: CompressedImage on image/compressed.",
        choices=("raw", "compressed"),
        read_only=True,
    )
    image_reliability: str = parameter(
        "auto",
        "Delivery of images: best_effort connects to any camera, and loses large images; reliable "
        "to those that offer it; auto: reliable where all publishers offer it, else best_effort.",
        choices=("auto", "best_effort", "reliable"),
        read_only=True,
    )
    enabled: bool = parameter(
        True, "Describe frames; without, they serve requests only. The service ~/enable sets it."
    )
    always_on: bool = parameter(False, "Describe frames also when nobody subscribes to results.")
    task: str = parameter(
        "brief_caption",
        "What ~/captions says of each frame; phrase_grounding: the boxes of phrases; question: "
        "the answers to questions; prompt: the answer to prompt.",
        choices=STANDING_TASKS,
    )
    phrases: tuple[str, ...] = parameter(
        (),
        "Looked for in every frame; their boxes are on ~/phrases.",
        check=prompts.phrase_grounding,
    )
    questions: tuple[str, ...] = parameter(
        (), "Asked of every frame; the answers are on ~/answers.", check=prompts.question
    )
    prompt: str = parameter(
        "", "In the model's own language, for the task prompt.", check=prompts.raw
    )
    min_score: float = parameter(
        0.0, "Boxes of phrases with a lower score are left out.", limits=(0, 1)
    )
    event_frames: int = parameter(
        3, "Consecutive frames of which something must be true to be an event.", limits=(1, 1000)
    )
    event_seconds: float = parameter(
        0.0, "Time over which it must be true, by the images' stamps (seconds).", limits=(0, 3600)
    )
    grounded: bool = parameter(True, "Give phrases boxes; without, captions are plain and faster.")
    max_new_tokens: int = parameter(
        128, "Longest caption or answer (tokens; a box takes four).", limits=(1, 1024)
    )
    max_rate: float = parameter(
        1.0, "Frames described per second; 0: as fast as the model goes.", limits=(0, 1000)
    )
    max_image_age: float = parameter(
        0.0,
        "Frames that arrived longer ago are not described (seconds); 0: any age.",
        limits=(0, 3600),
    )
    stale_timeout: float = parameter(
        5.0, "Warn when no image has come for so long (seconds); 0: never.", limits=(0, 3600)
    )


FIELDS = {
    field.name: field
    for kind in (NodeSettings, CameraSettings)
    for field in dataclasses.fields(kind)
}
"""Fields of NodeSettings and CameraSettings by name."""
