# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Installation on a robot as in README.md: a virtual environment next to ROS, plain colcon.

ROS and its Python packages come from environment variables, as in the setup file of a ROS
installation; the virtual environment does not contain them.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from programs import Program, parameters

pytest.importorskip("colcon_core", reason="colcon is not installed: run scripts/setup")
pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")

ROOT = Path(__file__).parents[2]
PROGRAMS = ["camera_node", "demo_node", "kosmos", "kosmos_node", "web_node"]
PARTS = ["CMakeLists.txt", "config", "kosmos_msgs", "kosmos_ros", "launch"]
PARTS += ["package.xml", "setup.cfg", "setup.py", "pyproject.toml", "test"]

USER = """<package format="3">
  <name>a_user</name>
  <version>0.1.0</version>
  <description>A package of a user.</description>
  <maintainer email="user@example.com">A user</maintainer>
  <license>Apache-2.0</license>
  <depend>kosmos_msgs</depend>
</package>
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Provide a built workspace with this package, and the environment to run it in."""
    home = tmp_path_factory.mktemp("robot")
    source = home / "ws" / "src" / "kosmos_ros"
    source.mkdir(parents=True)
    for name in PARTS:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source)
    venv.create(home / "kosmos_venv", system_site_packages=True, with_pip=False, symlinks=True)
    environment = {
        **os.environ,
        "VIRTUAL_ENV": str(home / "kosmos_venv"),
        "PATH": f"{home / 'kosmos_venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(
            path for path in sys.path if path.endswith(("site-packages", "dist-packages"))
        ),
        # ROS from PyPI has its libraries next to its Python.
        "LD_LIBRARY_PATH": f"{sys.prefix}/lib:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "CMAKE_PREFIX_PATH": os.environ.get("CMAKE_PREFIX_PATH", sys.prefix),
    }
    prefixes = environment.get("AMENT_PREFIX_PATH", "").split(":")
    environment["AMENT_PREFIX_PATH"] = ":".join(
        prefix for prefix in prefixes if not (Path(prefix) / "share" / "kosmos_ros").exists()
    )
    built = subprocess.run(
        ["python3", "-m", "colcon", "build"],
        cwd=home / "ws",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout
    set_up = subprocess.run(
        ["bash", "-c", "source install/setup.bash && env -0"],
        cwd=home / "ws",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    pairs = (pair.partition("=") for pair in set_up.stdout.split("\0") if pair)
    return home / "ws", {name: value for name, _, value in pairs}


def test_every_source_file_has_copyright_and_licence():
    folders = ("kosmos_ros", "launch", "test")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    files += [ROOT / "setup.py", *(ROOT / "scripts").iterdir()]
    assert len(files) > 100
    for file in files:
        head = file.read_text()[:200]
        assert "# Copyright 20" in head and "# SPDX-License-Identifier: Apache-2.0" in head, file


def test_colcon_finds_and_orders_the_messages_through_the_link(workspace, tmp_path):
    """README.md makes the link, so that other packages can depend on the messages alone."""
    source = tmp_path / "src"
    source.mkdir()
    (source / "kosmos_ros").symlink_to(workspace[0] / "src" / "kosmos_ros")
    (source / "kosmos_msgs").symlink_to("kosmos_ros/kosmos_msgs")
    (source / "a_user").mkdir()
    (source / "a_user" / "package.xml").write_text(USER)
    command = ["python3", "-m", "colcon", "list", "--topological-order", "--names-only"]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["kosmos_msgs", "a_user", "kosmos_ros"]


def test_plain_colcon_installs_both_packages(workspace):
    installed = workspace[0] / "install" / "kosmos_ros"
    index = installed / "share" / "ament_index" / "resource_index" / "packages"
    assert sorted(path.name for path in index.iterdir()) == ["kosmos_msgs", "kosmos_ros"]
    programs = installed / "lib" / "kosmos_ros"
    assert sorted(path.name for path in programs.iterdir()) == PROGRAMS
    share = installed / "share" / "kosmos_ros"
    assert (share / "config" / "kosmos.yaml").read_text() == (
        ROOT / "config" / "kosmos.yaml"
    ).read_text()
    assert sorted(path.name for path in (share / "launch").glob("*.py")) == [
        "demo.launch.py",
        "kosmos.launch.py",
    ]


def test_installed_programs_run_with_the_virtual_environments_python(workspace):
    home, environment = workspace
    for name in PROGRAMS:
        program = home / "install" / "kosmos_ros" / "lib" / "kosmos_ros" / name
        with program.open() as file:
            assert file.readline() == f"#!{environment['VIRTUAL_ENV']}/bin/python3\n"


def test_the_installed_node_loads_the_installed_model(workspace, tmp_path):
    home, environment = workspace
    program = home / "install" / "kosmos_ros" / "lib" / "kosmos_ros" / "kosmos_node"
    where = subprocess.run(
        ["python3", "-c", "import kosmos_ros, kosmos_msgs as m; print(kosmos_ros.__file__, m)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.count(f"{home}/install/kosmos_ros/lib/") == 2
    arguments = parameters(model="shapes", device="cpu")
    with Program(program, *arguments, cwd=tmp_path, env=environment) as node:
        node.says("model ready: model shapes")
        assert node.stop() == 0, node.output
