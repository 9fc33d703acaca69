# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Show kosmos_node in a browser, and let agents look through it: a client of its topics."""
