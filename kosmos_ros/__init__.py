# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""ROS 2 node for grounded image captioning and visual question answering with KOSMOS-2."""
