# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the engine and the node cost, side by side with the plain way, on this machine."""
