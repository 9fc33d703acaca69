"""kosmos_node for one camera: ros2 launch kosmos_ros kosmos.launch.py image:=/camera/image_raw.

An argument that is left empty leaves the parameter to params_file.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PARAMETERS = {  # name: (type, description)
    "model": (str, 'Hugging Face id, directory, or "shapes" for the small embedded model.'),
    "device": (str, "auto, cpu, cuda or cuda:n."),
    "image_transport": (str, "raw, or compressed for a CompressedImage on <image>/compressed."),
    "use_sim_time": (bool, "Take the time from /clock."),
}


def generate_launch_description() -> LaunchDescription:
    config = PathJoinSubstitution([FindPackageShare("kosmos_ros"), "config", "kosmos.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="image", description="Image topic."),
            DeclareLaunchArgument("namespace", default_value="", description="Of the node."),
            DeclareLaunchArgument("name", default_value="kosmos", description="Of the node."),
            DeclareLaunchArgument(
                "params_file", default_value=config, description="YAML file with parameters."
            ),
            *[
                DeclareLaunchArgument(name, default_value="", description=description)
                for name, (_, description) in PARAMETERS.items()
            ],
            DeclareLaunchArgument(
                "respawn", default_value="false", description="Start the node again when it dies."
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


def _node(context: LaunchContext) -> list[Node]:
    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    given = {
        name: ParameterValue(value(name), value_type=kind)
        for name, (kind, _) in PARAMETERS.items()
        if value(name)
    }
    return [
        Node(
            package="kosmos_ros",
            executable="kosmos_node",
            namespace=value("namespace"),
            name=value("name"),
            # In this order: what is given on the command line wins over the file.
            parameters=[value("params_file"), given],
            remappings=[("image", value("image"))],
            arguments=["--ros-args", "--log-level", value("log_level")],
            prefix=value("prefix") or None,
            respawn=value("respawn").lower() in ("true", "1"),
            respawn_delay=2.0,
            output="screen",
            emulate_tty=True,
        )
    ]
