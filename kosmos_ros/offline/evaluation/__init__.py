# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure the model on published data sets, as the paper of KOSMOS-2 does."""
