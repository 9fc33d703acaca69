# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The model: prompts in, captions with boxes out. Knows no ROS and starts no threads."""
