# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""How `shapes`, the embedded model, is trained and examined. Not installed."""
