# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Return the results of an image file as values of JSON. Knows no output."""

from __future__ import annotations

from typing import Any

import numpy as np

from kosmos_ros.kosmos2.grounding import Caption
from kosmos_ros.kosmos2.prompts import Prompt


def value_of(
    name: str, image: np.ndarray, prompt: Prompt, caption: Caption, model: str
) -> dict[str, Any]:
    """Return the fields of kosmos_msgs/GroundedCaption that apply to a file, and its name."""
    height, width, _ = image.shape
    return {
        "image": name,
        "image_width": width,
        "image_height": height,
        "task": prompt.task,
        "prompt": prompt.text,
        "caption": caption.text,
        "phrases": [
            {
                "text": phrase.text,
                "start": phrase.start,
                "end": phrase.end,
                "boxes": [vars(box.scaled(width, height)) for box in phrase.boxes],
            }
            for phrase in caption.phrases
        ],
        "raw_text": caption.raw_text,
        "score": caption.score,
        "generated_tokens": caption.generated_tokens,
        "truncated": caption.truncated,
        "model": model,
    }
