# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Show kosmos_node in a browser, and let agents look and ask, as a client of the node."""
