# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Benchmark: the costs of the engine and the node on this machine, beside Hugging Face's code."""
