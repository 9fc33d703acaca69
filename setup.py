# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
from setuptools import setup

setup()
