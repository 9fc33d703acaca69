# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The model: it answers prompts about images. Knows no ROS and starts no threads."""
