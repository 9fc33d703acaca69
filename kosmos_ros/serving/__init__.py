# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choose the frames, requests and prompts that the model works on next. No ROS, no torch."""
