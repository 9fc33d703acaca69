# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Random requests to the services of the running node, with a fake engine."""

import math
import re

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kosmos_msgs.msg import BoundingBox
from kosmos_msgs.srv import Ask, Describe, Generate, Ground
from node_harness import SNOWMAN, plain_image

SERVICES = (
    (Ask, "ask"), (Ground, "ground"), (Describe, "describe"), (Generate, "generate"),
)  # fmt: skip

boxes = st.builds(
    BoundingBox,
    **dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), st.floats(-1e3, 1e3) | st.floats()),
)

texts = st.text(st.characters(codec="utf-8"), max_size=30).filter(lambda text: "\0" not in text)

requests = st.one_of(
    st.builds(
        Ask.Request,
        question=texts | st.sampled_from(["What is it?", "Is this that?"]),
        regions=st.lists(boxes, max_size=3),
        region_phrases=st.lists(texts | st.just("it"), max_size=3),
        history=st.lists(texts, max_size=3),
        max_new_tokens=st.integers(0, 2**32 - 1),
    ),
    st.builds(
        Ground.Request,
        phrases=st.lists(texts, max_size=3),
        min_score=st.floats(-1, 2) | st.floats(),
    ),
    st.builds(Describe.Request, regions=st.lists(boxes, max_size=3), detailed=st.booleans()),
    st.builds(Generate.Request, prompt=texts | st.just(SNOWMAN)),
)


def cells(box):
    """Return the first and last cell of a box in an image of 64 x 48 pixels, by definition."""
    x1, x2 = (min(max(x / 64, 0.0), 1.0) * 32 for x in (box.x_min, box.x_max))
    y1, y2 = (min(max(y / 48, 0.0), 1.0) * 32 for y in (box.y_min, box.y_max))
    return 32 * int(y1) + int(x1), 32 * (math.ceil(y2) - 1) + math.ceil(x2) - 1


def test_random_request_is_refused_or_reaches_the_model_with_its_own_regions(start):
    harness = start()
    clients = {
        kind.Request: harness.client.create_client(kind, f"kosmos/{name}")
        for kind, name in SERVICES
    }

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(requests)
    def check(request):
        request.image = plain_image(width=64, height=48)
        harness.engine.prompts.clear()
        response = harness.spinner.call(clients[type(request)], request)
        assert response.success != bool(response.message)
        if not response.success:
            return
        named = re.findall(
            r"<patch_index_(\d+)><patch_index_(\d+)>", "".join(harness.engine.prompts)
        )
        if isinstance(request, Generate.Request):
            return
        assert sorted((int(first), int(last)) for first, last in named) == sorted(
            cells(box) for box in getattr(request, "regions", ())
        )

    check()
