# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Dependencies point downwards, only `ros` and `web` import ROS, torch is imported when needed."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import kosmos_ros

PACKAGE = Path(kosmos_ros.__file__).parent
BASE = {"entry", "errors", "sanitize", "settings"}
MAY_IMPORT = {
    "entry": {"errors", "sanitize"},
    "errors": set(),
    "sanitize": {"errors"},
    "settings": {"errors", "sanitize"},
    "shapes": set(),
    "kosmos2": BASE | {"shapes"},
    "images": BASE | {"shapes", "kosmos2"},
    "serving": BASE | {"kosmos2"},
    "memory": BASE | {"kosmos2", "serving"},
    "offline": BASE | {"kosmos2", "images", "serving", "memory"},
    "ros": BASE | {"shapes", "kosmos2", "images", "serving", "memory"},
    "web": BASE | {"images", "serving", "ros"},
    "commands": BASE | {"shapes", "kosmos2", "images", "serving", "memory", "offline"},
    "cli": BASE | {"commands", "kosmos2", "web"},
}
"""The folders and modules of the package that each of them may import."""
ROS = {
    "rclpy", "action_msgs", "builtin_interfaces", "cv_bridge", "diagnostic_msgs", "geometry_msgs",
    "kosmos_msgs", "lifecycle_msgs", "nav_msgs", "rcl_interfaces", "sensor_msgs", "std_msgs",
    "std_srvs", "tf2_ros", "vision_msgs",
}  # fmt: skip
TORCH = {"torch", "transformers", "accelerate", "bitsandbytes", "triton"}
MAY_NOT_IMPORT = {
    **dict.fromkeys(MAY_IMPORT.keys() - {"ros", "web"}, ROS),
    **dict.fromkeys(MAY_IMPORT.keys() - {"kosmos2"}, TORCH),
    "serving": ROS | TORCH | {"PIL", "cv2"},
}
FILES = sorted(PACKAGE.rglob("*.py"))
WEB_IMPORTS = {
    "kosmos_ros.ros.parameters", "kosmos_ros.ros.process", "kosmos_ros.serving.node_settings",
}  # fmt: skip
"""All modules of the node's folders that the web server may import: it is a process of its own."""


def module_of(path):
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path):
    """Return the dotted names of the modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


def part_of(module):
    """Return the folder or top-level module of a dotted name of the package."""
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_modules_import_only_from_layers_below(path):
    if path == PACKAGE / "__init__.py":
        assert not imports(path)
        return
    own = part_of(module_of(path))
    ours = {part_of(name) for name in imports(path) if name.startswith("kosmos_ros.")}
    assert ours <= MAY_IMPORT[own] | {own}
    foreign = {name.split(".")[0] for name in imports(path)}
    assert not foreign & MAY_NOT_IMPORT[own]


def test_the_web_server_shares_no_part_of_the_nodes_process():
    used = {
        name
        for path in (PACKAGE / "web").rglob("*.py")
        for name in imports(path)
        if name.startswith(("kosmos_ros.ros", "kosmos_ros.serving"))
    }
    assert used == WEB_IMPORTS


def test_imports_have_no_cycle():
    graph = {name: imports(path) & MODULES.keys() for name, path in MODULES.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


BLOCK = "import sys; sys.modules.update(dict.fromkeys({!r}))\n"


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("missing", ["torch", "transformers"])
@pytest.mark.fault(35)
@pytest.mark.process
def test_a_missing_package_is_named_with_the_command_that_installs_it(missing):
    done = run(BLOCK.format((missing,)) + "import kosmos_ros.kosmos2.engine")
    assert f"ModelLoadError: import of {missing} halted" in done.stderr
    assert f"{sys.executable} -m pip install -r requirements.txt" in done.stderr


@pytest.mark.fault(35)
@pytest.mark.process
def test_a_transformers_without_kosmos_2_is_named(tmp_path):
    (tmp_path / "transformers.py").write_text("__version__ = '4.30.0'\n")
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = run(path + "import kosmos_ros.kosmos2.engine")
    assert "ModelLoadError: cannot import name 'Kosmos2Config' from 'transformers'" in done.stderr
    assert f"{sys.executable} -m pip install -r requirements.txt" in done.stderr


@pytest.mark.parametrize(
    "module", ["ros.kosmos_node", "ros.camera_node", "ros.demo_node", "web.web_node", "cli"]
)
@pytest.mark.process
def test_programs_start_without_importing_torch(module):
    if module != "cli":
        pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
    done = run(f"import sys, kosmos_ros.{module}; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr
