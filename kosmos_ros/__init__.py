# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Grounded captions for a robot's cameras: KOSMOS-2 behind ROS 2 topics and services."""
