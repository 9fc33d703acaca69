# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Images: from data, files and devices to RGB arrays, and captions drawn on them. No ROS."""
