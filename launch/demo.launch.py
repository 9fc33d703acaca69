# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""What scripts/demo does: two cameras with drawn scenes, or pictures of your own, described.

ros2 launch kosmos_ros demo.launch.py [image:=FILE | video:=FILE|DEVICE] [keep:=true]

device:=cuda and other arguments of kosmos.launch.py work too.
"""

from __future__ import annotations

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
                "image", default_value="", description="Picture, or folder of them, to look at."
            ),
            DeclareLaunchArgument(
                "video",
                default_value="",
                description="Video file or device (/dev/video0, or 0) to look at.",
            ),
            DeclareLaunchArgument(
                "model", default_value="shapes", description="As in kosmos.launch.py."
            ),
            DeclareLaunchArgument(
                "out", default_value="kosmos_demo", description="Folder for annotated frames."
            ),
            DeclareLaunchArgument(
                "keep",
                default_value="false",
                choices=["true", "false"],
                description="Go on until interrupted.",
            ),
            # Nodes of other people on this network are not to take part.
            SetEnvironmentVariable(RANGE, EnvironmentVariable(RANGE, default_value="LOCALHOST")),
            RegisterEventHandler(OnProcessExit(on_exit=_ended)),
            OpaqueFunction(function=_nodes),
        ]
    )


def _nodes(context: LaunchContext) -> list[Action]:
    # Read here, since the included file's image, a topic, takes the place of this file's.
    image, video = (LaunchConfiguration(name).perform(context) for name in ("image", "video"))
    if image and video:
        raise RuntimeError(f"image is {image!r} and video {video!r}: give one of them")
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
            "request_timeout": "120.0",  # s, as questions wait for slow models, too
            # demo_node looks for /kosmos.
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
                    "rate": 2.0 if image else 10.0,  # a still need not be sent more often
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
    # kosmos first: launch leaves running what it started before an error in its arguments.
    return [kosmos, *drivers, demo]


def _ended(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """The first process to end ends all: with success when it is demo_node, after its work."""
    if context.is_shutdown:
        return None
    if event.process_name.startswith("demo_node") and event.returncode == 0:
        return Shutdown(reason="the demo is over")
    # Only an exception gives `ros2 launch` another exit code than 0.
    raise RuntimeError(f"{event.process_name} has ended with exit code {event.returncode}")
