"""Grounded captions for a robot's cameras: KOSMOS-2 behind ROS 2 topics and services."""
