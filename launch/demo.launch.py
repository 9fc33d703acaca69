# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The demo as a launch file: describe two cameras with drawn scenes, or images of your own.

ros2 launch kosmos_ros demo.launch.py [image:=FILE | video:=FILE|DEVICE] [keep:=true]

It also takes device:=cuda and the other arguments of kosmos.launch.py.
"""

from __future__ import annotations

import contextlib
import os

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "image", default_value="", description="Image file, or folder of images."
            ),
            DeclareLaunchArgument(
                "video",
                default_value="",
                description="Video file, or camera (/dev/video0, or 0).",
            ),
            DeclareLaunchArgument(
                "model",
                default_value="shapes",
                description="Model: shapes, a Hugging Face id or a directory.",
            ),
            DeclareLaunchArgument(
                "out",
                default_value="kosmos_demo",
                description="Folder in which annotated frames and the memory are saved.",
            ),
            DeclareLaunchArgument(
                "keep",
                default_value="false",
                choices=["true", "false"],
                description="Continue until interrupted.",
            ),
            # Keep nodes of other computers on the network out.
            SetEnvironmentVariable(RANGE, EnvironmentVariable(RANGE, default_value="LOCALHOST")),
            RegisterEventHandler(OnProcessExit(on_exit=_ended)),
            OpaqueFunction(function=_nodes),
        ]
    )


def _nodes(context: LaunchContext) -> list[Action]:
    # Read them now: the included file has an argument image, too, which is a topic.
    image, video = (LaunchConfiguration(name).perform(context) for name in ("image", "video"))
    if image and video:
        raise RuntimeError(f"image is {image!r} and video {video!r}; set only one of them")
    out = LaunchConfiguration("out").perform(context)
    with contextlib.suppress(OSError):
        os.makedirs(out, exist_ok=True)
    cameras = ["front"] if image or video else ["front", "rear"]
    directory = FindPackageShare("kosmos_ros").find("kosmos_ros")
    kosmos = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(f"{directory}/launch/kosmos.launch.py"),
        launch_arguments={
            "image": "image",
            "cameras": f"[{', '.join(cameras)}]",
            "image_topics": f"[{', '.join(f'{name}/image_raw' for name in cameras)}]",
            "max_rate": "2.0",
            "model": LaunchConfiguration("model"),
            "request_timeout": "120.0",  # s, for slow models
            # demo_node asks the memory, and reports a folder that cannot be made.
            "memory": os.path.join(out, "memory.db") if os.path.isdir(out) else "",
            # demo_node expects /kosmos.
            "namespace": "",
            "name": "kosmos",
        }.items(),
    )
    drivers = [
        Node(
            package="kosmos_ros",
            executable="camera_node",
            name=name,
            parameters=[
                {
                    "source": ParameterValue(image or video or "shapes", value_type=str),
                    "rate": 2.0 if image else 10.0,  # one image need not be sent more often
                    "seed": seed,
                }
            ],
            output="screen",
            emulate_tty=True,
        )
        for seed, name in enumerate(cameras, start=1)
    ]
    demo = Node(
        package="kosmos_ros",
        executable="demo_node",
        parameters=[
            {
                "out": ParameterValue(LaunchConfiguration("out"), value_type=str),
                "keep": ParameterValue(LaunchConfiguration("keep"), value_type=bool),
                "cameras": cameras,
            }
        ],
        output="screen",
        emulate_tty=True,
    )
    # kosmos comes first: after an error in its arguments, launch does not stop earlier nodes.
    return [kosmos, *drivers, demo]


def _ended(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """Stop everything when the first process ends; succeed if it is demo_node with code 0."""
    if context.is_shutdown:
        return None
    if event.process_name.startswith("demo_node") and event.returncode == 0:
        return Shutdown(reason="the demo is over")
    # `ros2 launch` exits with a code other than 0 only after an exception.
    raise RuntimeError(f"{event.process_name} has ended with exit code {event.returncode}")
