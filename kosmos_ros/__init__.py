# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""ROS 2 node for grounded image captioning and visual question answering with KOSMOS-2."""

__version__ = "0.1.0"  # also in setup.cfg and package.xml
