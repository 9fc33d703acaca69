# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Start kosmos_node: ros2 launch kosmos_ros kosmos.launch.py image:=/camera/image_raw.

Every parameter of the node is also an argument. An empty argument leaves the value of params_file.
"""

import os
import signal
import time

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from kosmos_ros.serving.node_settings import FIELDS

FINAL_CODES = (0, 1, 2, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes after which the node is not started again.

The negative ones occur if a signal arrives before the node handles signals.
"""
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0  # s before a new start; each pause is twice the previous one
LONG_RUN = 600.0  # s, far longer than loading takes; after such a run the pauses start over

PARAMETERS = {  # name: (type of the argument, or None for YAML's rules; description)
    **{
        name: (str if isinstance(field.default, str) else None, field.metadata["description"])
        for name, field in FIELDS.items()
    },
    "use_sim_time": (None, "Use the time of /clock instead of the system's."),
}


def generate_launch_description() -> LaunchDescription:
    # A path and not a substitution, so that --show-args shows it.
    share = FindPackageShare("kosmos_ros").find("kosmos_ros")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "image",
                default_value="image",
                description="Image topic of a camera without a name.",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the node. Empty: none."
            ),
            DeclareLaunchArgument("name", default_value="kosmos", description="Name of the node."),
            DeclareLaunchArgument(
                "params_file",
                default_value=os.path.join(share, "config", "kosmos.yaml"),
                description="YAML file with parameters. The default file has all of them.",
            ),
            *[
                DeclareLaunchArgument(name, default_value="", description=description)
                for name, (_, description) in PARAMETERS.items()
            ],
            DeclareLaunchArgument(
                "respawn",
                default_value="true",
                description="Start the node again after a crash, at growing intervals. Not after "
                "exit codes 0 (stopped), 1 and 2 (invalid parameters or arguments).",
            ),
            DeclareLaunchArgument(
                "prefix",
                default_value="",
                description="Text before the node's command, for example another python3.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                description="Log level: debug, info, warn or error.",
            ),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[Action]:
    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    if not os.path.isfile(value("params_file")):
        # launch_ros ignores a missing file.
        raise RuntimeError(f"params_file must be a file, got {value('params_file')!r}")
    if value("respawn").lower() not in ("true", "false"):
        raise RuntimeError(f"respawn must be true or false, got {value('respawn')!r}")
    given = {
        # Not value(name): launch_ros converts only the text of a substitution to a bool.
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in PARAMETERS.items()
        if value(name)
    }

    def start(pause: float) -> list[Action]:
        node = Node(
            package="kosmos_ros",
            executable="kosmos_node",
            namespace=value("namespace"),
            name=value("name"),
            # In this order, arguments override the file.
            parameters=[value("params_file"), given],
            remappings=[("image", value("image"))],
            arguments=["--ros-args", "--log-level", value("log_level")],
            prefix=value("prefix") or None,
            exec_name="kosmos_node",  # name in the log, with any prefix
            output="screen",
            emulate_tty=True,
        )
        started = time.monotonic()

        def restart(event: ProcessExited, context: LaunchContext) -> list[Action] | None:
            if context.is_shutdown or event.returncode in FINAL_CODES:
                return None
            wait = FIRST_PAUSE if time.monotonic() - started > LONG_RUN else pause
            again = OpaqueFunction(function=lambda _: start(min(2 * wait, LAST_PAUSE)))
            return [TimerAction(period=wait, actions=[again])]

        handler = OnProcessExit(target_action=node, on_exit=restart)
        return [RegisterEventHandler(handler), node]

    if value("respawn").lower() == "false":
        return start(FIRST_PAUSE)[1:]
    return start(FIRST_PAUSE)
