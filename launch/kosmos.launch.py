# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Start kosmos_node: ros2 launch kosmos_ros kosmos.launch.py image:=/camera/image_raw.

Every parameter of the node is also an argument. An empty argument leaves the value of params_file.
docs/recipes.md shows how another launch file includes this one.
"""

import dataclasses
import os
import signal
import time
from typing import Any

import yaml
from launch import Action, LaunchContext, LaunchDescription, Substitution
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, TextSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from kosmos_ros.errors import ConfigError
from kosmos_ros.sanitize import one_line, quoted
from kosmos_ros.serving.node_settings import FIELDS
from kosmos_ros.settings import parameter, validated

FINAL_CODES = (0, 1, 2, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes after which the node is not started again.

The negative ones occur if a signal arrives before the node handles signals.
"""
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0  # s before a new start; each pause is twice the previous one
LONG_RUN = 600.0  # s, far longer than loading takes; after such a run the pauses start over

SIGTERM_TIMEOUT = "10"
"""Seconds from SIGINT to SIGTERM: on busy cores a node may take longer than launch's own 5."""

IMAGE = "image"  # default of the argument image, and the topic that it renames
LEVELS = ("debug", "info", "warn", "error", "fatal")
SWITCH = ("true", "false")
MAX_PORT = 65535
ARGUMENTS = (
    "image", "namespace", "name", "params_file", "respawn", "prefix", "log_level",
    "web", "web_address", "web_port",
)  # fmt: skip
"""Arguments that are not parameters of kosmos_node."""
OTHERS = dataclasses.make_dataclass(
    "Others",
    [("use_sim_time", bool, parameter(False, "Use the time of /clock instead of the system's."))],
)
PARAMETERS = {**FIELDS, **{field.name: field for field in dataclasses.fields(OTHERS)}}

HINT = (
    "if this value belongs to a launch file that includes kosmos.launch.py, put the include into "
    "GroupAction(forwarding=False), because launch passes all arguments on to included files"
)


class FromFile(Substitution):
    """An empty text that --show-args shows as the default of a parameter."""

    def __init__(self, default: Any) -> None:
        super().__init__()
        self._default = default

    def describe(self) -> str:
        """Return the default in the form that the argument takes."""
        default = list(self._default) if isinstance(self._default, tuple) else self._default
        text = str(default).lower() if isinstance(default, bool) else repr(default)
        return f"{text}, unless params_file has another value"

    def perform(self, context: LaunchContext) -> str:
        """Return the text of an argument that is not given."""
        return ""


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "image",
                default_value=IMAGE,
                description="Image topic of a camera without a name.",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the node. Empty: none."
            ),
            DeclareLaunchArgument("name", default_value="kosmos", description="Name of the node."),
            DeclareLaunchArgument(
                "params_file",
                default_value=_default_file(),
                description="YAML file with parameters. The default file has all of them.",
            ),
            *[
                DeclareLaunchArgument(
                    field.name,
                    default_value=FromFile(field.default),
                    description=_description(field),
                )
                for field in PARAMETERS.values()
            ],
            DeclareLaunchArgument(
                "respawn",
                default_value="true",
                description="Start the node again after a crash, at growing intervals. Not after "
                "exit codes 0 (stopped), 1 and 2 (invalid parameters or arguments). One of "
                f"{', '.join(SWITCH)}.",
            ),
            DeclareLaunchArgument(
                "prefix",
                default_value="",
                description="Text before the node's command, for example another python3.",
            ),
            DeclareLaunchArgument(
                "web",
                default_value="false",
                description="Start web_node as well, which shows the node in a browser and prints "
                f"the address. One of {', '.join(SWITCH)}.",
            ),
            DeclareLaunchArgument(
                "web_address",
                default_value="127.0.0.1",
                description="IP address at which web_node listens. 127.0.0.1: this machine only. "
                "0.0.0.0: all addresses of this machine; web_node then requires a token.",
            ),
            DeclareLaunchArgument(
                "web_port",
                default_value="8765",
                description="Port at which web_node listens. 0: any free port.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                description=f"Lowest level of the node's log lines. One of {', '.join(LEVELS)}.",
            ),
            OpaqueFunction(function=_start),
        ]
    )


def _default_file() -> str:
    # A path and not a substitution, so that --show-args shows it.
    return os.path.join(FindPackageShare("kosmos_ros").find("kosmos_ros"), "config", "kosmos.yaml")


def _description(field: "dataclasses.Field[Any]") -> str:
    """Return the meaning of a parameter, and the values that it may have."""
    text, choices, limits = (field.metadata[key] for key in ("description", "choices", "limits"))
    text += f" One of {', '.join(choices)}." if choices else ""
    text += f" Range: {limits[0]} to {limits[1]}." if limits else ""
    return text + (' Form: "[first, second]".' if isinstance(field.default, tuple) else "")


def _start(context: LaunchContext) -> list[Action]:
    """Return the actions that start the node. Raises RuntimeError for an invalid argument.

    Resolves everything now. Later the arguments have other values, or none: launch restores them
    at the end of a GroupAction, and other includes replace them.
    """
    arguments = {name: str(LaunchConfiguration(name).perform(context)) for name in ARGUMENTS}
    given = {
        name: text
        for name in PARAMETERS
        if (text := str(LaunchConfiguration(name).perform(context)))
    }
    _check(arguments, given)
    options = {
        "sigterm_timeout": context.launch_configurations.get("sigterm_timeout", SIGTERM_TIMEOUT),
        "sigkill_timeout": context.launch_configurations.get("sigkill_timeout", "5"),
        "output": "screen",
        "emulate_tty": True,
    }
    node = Node(
        package="kosmos_ros",
        executable="kosmos_node",
        namespace=arguments["namespace"],
        name=arguments["name"],
        parameters=_parameters(arguments["params_file"], given),
        remappings=[(IMAGE, arguments["image"])],
        arguments=_ros_arguments(arguments, context),
        prefix=arguments["prefix"] or None,
        exec_name="kosmos_node",  # name in the log, with any prefix
        env=dict(context.environment),
        **options,
    )
    actions: list[Action] = [node]
    if arguments["web"].lower() == "true":
        actions.append(_web_node(arguments, _full_name(arguments, context), options))
    if given:
        shown = one_line(" ".join(f"{name}:={text}" for name, text in given.items()))
        actions.append(LogInfo(msg=f"kosmos_node gets parameters from arguments: {shown}"))
    if arguments["respawn"].lower() == "true":
        actions.insert(0, _restart(node, options, FIRST_PAUSE))
    return actions


def _web_node(arguments: dict[str, str], kosmos: str, options: dict[str, Any]) -> Node:
    """Return the web server for the node with the full name `kosmos`."""
    return Node(
        package="kosmos_ros",
        executable="web_node",
        namespace=arguments["namespace"],
        name=f"{arguments['name']}_web",
        parameters=[
            {
                "node": kosmos,
                "address": ParameterValue(arguments["web_address"], value_type=str),
                "port": int(arguments["web_port"]),
            }
        ],
        prefix=arguments["prefix"] or None,
        exec_name="web_node",
        **options,
    )


def _full_name(arguments: dict[str, str], context: LaunchContext) -> str:
    """Return the name of the node with its namespace."""
    above = context.launch_configurations.get("ros_namespace")  # of PushROSNamespace
    namespace = make_namespace_absolute(prefix_namespace(above, arguments["namespace"]))
    return f"{namespace}/{arguments['name']}".replace("//", "/")


def _ros_arguments(arguments: dict[str, str], context: LaunchContext) -> list[str]:
    """Return the part of the command that launch_ros does not make."""
    # The logger of this node only: those of ROS write many lines for each message.
    logger = _full_name(arguments, context).strip("/").replace("/", ".")
    words = ["--ros-args", "--log-level", f"{logger}:={arguments['log_level'].lower()}"]
    if _is_default(arguments["params_file"]):
        # Before the values of SetParameter, which override the defaults.
        words += ["--params-file", arguments["params_file"]]
    return words


def _parameters(file: str, given: dict[str, str]) -> list[Any]:
    """Return the parameters for launch_ros. Later ones override earlier ones."""
    values = {
        name: ParameterValue(
            # Only the text of a substitution becomes a bool.
            TextSubstitution(text=text),
            value_type=str if isinstance(PARAMETERS[name].default, str) else None,  # None: as YAML
        )
        for name, text in given.items()
    }
    return [*([] if _is_default(file) else [file]), *([values] if values else [])]


def _is_default(file: str) -> bool:
    return os.path.realpath(file) == os.path.realpath(_default_file())


def _check(arguments: dict[str, str], given: dict[str, str]) -> None:
    """Raise RuntimeError for an argument that cannot be used."""
    file, image = arguments["params_file"], arguments["image"]
    if not os.path.isfile(file):
        # launch_ros ignores a missing file.
        raise RuntimeError(f"params_file must be a file, got {quoted(file, 200)}; {HINT}")
    for name, choices in (("respawn", SWITCH), ("web", SWITCH), ("log_level", LEVELS)):
        if arguments[name].lower() not in choices:
            got = quoted(arguments[name])
            raise RuntimeError(f"{name} must be one of {', '.join(choices)}, got {got}; {HINT}")
    port = arguments["web_port"]
    if not (port.isdecimal() and int(port) <= MAX_PORT):
        raise RuntimeError(f"web_port must be 0 to {MAX_PORT}, got {quoted(port)}; {HINT}")
    for name, text in given.items():
        try:
            field = PARAMETERS[name]
            validated(field, text if isinstance(field.default, str) else yaml.safe_load(text))
        except (ValueError, yaml.YAMLError) as exc:  # ValueError: a date that does not exist
            raise RuntimeError(
                f"argument {name} must be YAML, got {quoted(text)}; {HINT}"
            ) from exc
        except ConfigError as exc:
            raise RuntimeError(f"{exc}; {HINT}") from exc
    if image != IMAGE and given.get("cameras"):
        raise RuntimeError(
            f"image cannot be combined with cameras, got image {quoted(image)} and cameras "
            f"{given['cameras']}; give one topic for each camera in image_topics; {HINT}"
        )


def _restart(process: ExecuteProcess, options: dict[str, Any], pause: float) -> Action:
    """Return an action that starts the process again whenever it fails, first after `pause` s."""
    begun = time.monotonic()

    def restart(event: ProcessExited, context: LaunchContext) -> Action | None:
        if context.is_shutdown or event.returncode in FINAL_CODES:
            return None
        wait = FIRST_PAUSE if time.monotonic() - begun > LONG_RUN else pause

        def start(_: LaunchContext) -> list[Action]:
            again = ExecuteProcess(
                cmd=event.cmd,
                cwd=event.cwd,
                env=event.env,
                prefix="",
                name="kosmos_node",
                **options,
            )
            return [_restart(again, options, min(2 * wait, LAST_PAUSE)), again]

        return TimerAction(period=wait, actions=[OpaqueFunction(function=start)])

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=restart))
