# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Stamps that stand still are a fault of the camera, unless one image is described again."""

from types import SimpleNamespace

import pytest

from kosmos_ros.ros.stamps import STILL, Stamps


@pytest.mark.parametrize("latched", [False, True])
def test_a_latched_image_that_is_described_again_is_no_fault(latched):
    texts = []
    logger = SimpleNamespace(warning=texts.append)
    stamps = Stamps(SimpleNamespace(get_logger=lambda: logger), "a camera")
    for now in range(2 * STILL):
        assert stamps.time(7.0, now, latched) == 7.0 + now
    assert len(texts) == (0 if latched else 1)
