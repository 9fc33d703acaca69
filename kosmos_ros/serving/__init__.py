# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the model works on, and when. No ROS, no torch."""
