"""What scripts/demo does: the embedded model looks at drawn scenes, or at pictures of your own.

ros2 launch kosmos_ros demo.launch.py [image:=FILE | video:=FILE|DEVICE] [keep:=true]
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    kosmos = PathJoinSubstitution([FindPackageShare("kosmos_ros"), "launch", "kosmos.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="", description="Picture to look at."),
            DeclareLaunchArgument(
                "video", default_value="", description="Video file or device to look at."
            ),
            DeclareLaunchArgument(
                "model", default_value="shapes", description="As in kosmos.launch.py."
            ),
            DeclareLaunchArgument(
                "out", default_value="kosmos_demo", description="Folder for annotated frames."
            ),
            DeclareLaunchArgument(
                "keep", default_value="false", description="Go on until interrupted."
            ),
            # Fast DDS loses large images otherwise; other middlewares ignore it.
            SetEnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA"),
            # Before the include, whose arguments take the place of this file's own.
            OpaqueFunction(function=_camera),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(kosmos),
                launch_arguments={
                    "image": "camera/image_raw",
                    "model": LaunchConfiguration("model"),
                }.items(),
            ),
            Node(
                package="kosmos_ros",
                executable="demo_node",
                parameters=[
                    {
                        "out": ParameterValue(LaunchConfiguration("out"), value_type=str),
                        "keep": ParameterValue(LaunchConfiguration("keep"), value_type=bool),
                    }
                ],
                output="screen",
                emulate_tty=True,
                on_exit=Shutdown(reason="the demo is over"),
            ),
        ]
    )


def _camera(context: LaunchContext) -> list[Node]:
    own = [LaunchConfiguration(name).perform(context) for name in ("image", "video")]
    source = own[0] or own[1] or "shapes"
    return [
        Node(
            package="kosmos_ros",
            executable="camera_node",
            name="camera",
            parameters=[{"source": ParameterValue(source, value_type=str)}],
            output="screen",
            emulate_tty=True,
            on_exit=Shutdown(reason="the camera has ended"),
        )
    ]
