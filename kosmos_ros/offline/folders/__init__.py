# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Describe folders of images and videos, and write the results as JSON lines or COCO JSON."""
