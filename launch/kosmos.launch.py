# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos_node: ros2 launch kosmos_ros kosmos.launch.py image:=/camera/image_raw.

Every parameter of the node is an argument, too; one that is left empty is as params_file has it.
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

FOR_GOOD = (0, 1, 2, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes after which a new start helps nothing; the last two before it hears signals."""
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0  # s before a new start; each is twice the one before
LONG = 600.0  # s of life, far more than loading takes, after which the pauses begin anew

PARAMETERS = {  # name: (type to read the argument's text as, None for YAML's rules; description)
    **{
        name: (str if isinstance(field.default, str) else None, field.metadata["description"])
        for name, field in FIELDS.items()
    },
    "use_sim_time": (None, "true: take the time from /clock."),
}


def generate_launch_description() -> LaunchDescription:
    # A path, not a substitution of one, so that --show-args says where the file is.
    share = FindPackageShare("kosmos_ros").find("kosmos_ros")
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="image", description="Image topic."),
            DeclareLaunchArgument(
                "namespace", default_value="", description="The node's namespace."
            ),
            DeclareLaunchArgument("name", default_value="kosmos", description="The node's name."),
            DeclareLaunchArgument(
                "params_file",
                default_value=os.path.join(share, "config", "kosmos.yaml"),
                description="YAML file with parameters; the default one has them all.",
            ),
            *[
                DeclareLaunchArgument(name, default_value="", description=description)
                for name, (_, description) in PARAMETERS.items()
            ],
            DeclareLaunchArgument(
                "respawn",
                default_value="true",
                description="Start a node that died again, at growing intervals; not one that "
                "was stopped or cannot be started (exit codes 0, 1, 2).",
            ),
            DeclareLaunchArgument(
                "prefix",
                default_value="",
                description="Put before the node's command, for example another python3.",
            ),
            DeclareLaunchArgument(
                "log_level", default_value="info", description="debug, info, warn or error."
            ),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[Action]:
    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    if not os.path.isfile(value("params_file")):
        # launch_ros would go on without it.
        raise RuntimeError(f"params_file {value('params_file')!r} is not a file")
    if value("respawn").lower() not in ("true", "false"):
        raise RuntimeError(f"respawn is {value('respawn')!r}; true or false is needed")
    given = {
        # Not value(name): launch_ros makes a bool of a substitution's text only.
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in PARAMETERS.items()
        if value(name)
    }

    def started(pause: float) -> list[Action]:
        node = Node(
            package="kosmos_ros",
            executable="kosmos_node",
            namespace=value("namespace"),
            name=value("name"),
            # In this order: what is given on the command line wins over the file.
            parameters=[value("params_file"), given],
            remappings=[("image", value("image"))],
            arguments=["--ros-args", "--log-level", value("log_level")],
            prefix=value("prefix") or None,
            exec_name="kosmos_node",  # in the log, whatever the prefix
            output="screen",
            emulate_tty=True,
        )
        began = time.monotonic()

        def ended(event: ProcessExited, context: LaunchContext) -> list[Action] | None:
            if context.is_shutdown or event.returncode in FOR_GOOD:
                return None
            wait = FIRST_PAUSE if time.monotonic() - began > LONG else pause
            again = OpaqueFunction(function=lambda _: started(min(2 * wait, LAST_PAUSE)))
            return [TimerAction(period=wait, actions=[again])]

        handler = OnProcessExit(target_action=node, on_exit=ended)
        return [RegisterEventHandler(handler), node]

    if value("respawn").lower() == "false":
        return started(FIRST_PAUSE)[1:]
    return started(FIRST_PAUSE)
