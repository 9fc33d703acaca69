# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decode images of messages, files and devices, and draw captions on them. No ROS."""
