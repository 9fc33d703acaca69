# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Remember what cameras have shown: an observation log in one SQLite file, and its search."""
