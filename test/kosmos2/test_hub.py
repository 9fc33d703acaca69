# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Downloads from a hub on this machine: complete, interrupted, damaged, missing."""

import errno
import json
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import yaml
from hub_server import MODEL, WEIGHTS, Hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from PIL import Image

from kosmos_ros import shapes
from kosmos_ros.errors import ModelLoadError, UnreachableError
from kosmos_ros.kosmos2.hub import COMMITS, DISK_ERRORS, INDEX, RANGE, fetch
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

PATIENCE = 60.0  # s
WANTED = {path.name for path in shapes.MODEL_DIR.iterdir()} - {"README.md"}
FIND = """
import sys
from kosmos_ros import errors
from kosmos_ros.kosmos2 import hub
try:
    print(hub.find(*sys.argv[1:3], local_files_only=bool(sys.argv[3])).commit)
except errors.KosmosError as exc:
    sys.exit(f"{type(exc).__name__}: {exc}")
"""


@pytest.fixture
def hub():
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def run(hub, tmp_path):
    """Run a command of `kosmos` with the hub; return exit code, standard output and error."""

    def run(*words, **environment):
        command = [sys.executable, "-m", "kosmos_ros.cli", *map(str, words)]
        return done(command, hub.environment(tmp_path, **environment))

    return run


@pytest.fixture
def find(hub, tmp_path):
    """Call hub.find in a process; return exit code, commit and standard error."""

    def find(revision="", local_files_only="", model=MODEL, **environment):
        command = [sys.executable, "-c", FIND, model, revision, local_files_only]
        return done(command, hub.environment(tmp_path, **environment))

    return find


def done(command, environment):
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result.returncode, result.stdout.strip(), result.stderr.strip()


def snapshot(home, commit="1" * 40, model=MODEL):
    return home / "hub" / f"models--{model.replace('/', '--')}" / "snapshots" / commit


def damage(path):
    """Truncate a file of the cache."""
    blob = path.resolve()
    blob.write_bytes(blob.read_bytes()[:-100])


def names(folder):
    return {path.name for path in folder.rglob("*")} if folder.exists() else set()


# kosmos fetch ----------------------------------------------------------------------------------


def test_fetch_downloads_each_required_file_once_and_prints_the_commit(hub, run, tmp_path):
    code, out, err = run("fetch", "--model", MODEL)
    assert code == 0, err
    assert yaml.safe_load(out) == {"model": MODEL, "revision": hub.commit}
    assert str(snapshot(tmp_path)) in err
    assert names(snapshot(tmp_path)) == WANTED
    for name in WANTED:
        assert (snapshot(tmp_path) / name).read_bytes() == hub.files[name]
    assert sorted(hub.fetched()) == [(name, 0) for name in sorted(WANTED)]

    hub.requests.clear()
    assert run("fetch", "--model", MODEL)[:2] == (0, out)
    assert not hub.fetched()


@pytest.mark.fault(37)
def test_a_killed_download_resumes(hub, run, tmp_path):
    hub.files[WEIGHTS] = np.random.default_rng(0).bytes(2 * RANGE)
    hub.stop_at = RANGE * 3 // 2
    command = [sys.executable, "-m", "kosmos_ros.cli", "fetch", "--model", MODEL]
    killed = subprocess.Popen(command, env=hub.environment(tmp_path), stderr=subprocess.DEVNULL)
    assert hub.stopped.wait(PATIENCE)
    killed.kill()
    killed.wait(PATIENCE)
    assert WEIGHTS not in names(snapshot(tmp_path))

    hub.requests.clear()
    hub.stop_at = 0
    hub.go_on.set()
    assert run("fetch", "--model", MODEL)[0] == 0
    assert [
        (of, first) for method, of, first in hub.requests if method == "GET" and of != "api"
    ] == [(WEIGHTS, RANGE)]
    assert (snapshot(tmp_path) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_two_processes_may_fetch_at_once(hub, tmp_path):
    hub.files[WEIGHTS] = np.random.default_rng(0).bytes(2 * RANGE)
    hub.stop_at = RANGE // 2
    command = [sys.executable, "-m", "kosmos_ros.cli", "fetch", "--model", MODEL]
    environment = hub.environment(tmp_path)
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert hub.stopped.wait(PATIENCE)
    hub.stop_at = 0
    hub.go_on.set()
    for process in both:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    assert (snapshot(tmp_path) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(("name", "kind"), [("config.json", "SHA-1 of git"), (WEIGHTS, "SHA-256")])
@pytest.mark.fault(37)
def test_a_file_with_another_hash_is_refused_by_name(hub, run, tmp_path, name, kind):
    hub.lies[name] = hub.files[name][:-1] + b"\xff"
    code, out, err = run("fetch", "--model", MODEL)
    assert (code, out) == (1, "")
    assert re.search(f"{name} must have the {kind} {hub.hash(name)}, got .*; it was removed", err)
    assert name not in names(snapshot(tmp_path))
    if name != WEIGHTS:
        assert (WEIGHTS, 0) not in hub.fetched(), (
            "small files come first, and nothing follows a wrong one"
        )

    hub.lies.clear()
    assert run("fetch", "--model", MODEL)[0] == 0
    assert (snapshot(tmp_path) / name).read_bytes() == hub.files[name]


@pytest.mark.parametrize("name", ["tokenizer.json", WEIGHTS])
def test_only_a_damaged_file_is_downloaded_again(hub, run, tmp_path, name):
    assert run("fetch", "--model", MODEL)[0] == 0
    damage(snapshot(tmp_path) / name)
    hub.requests.clear()
    assert run("fetch", "--model", MODEL)[0] == 0
    assert hub.fetched() == [(name, 0)]
    assert (snapshot(tmp_path) / name).read_bytes() == hub.files[name]


def test_the_error_names_an_unknown_revision(hub, run, tmp_path):
    code, _, err = run("fetch", "--model", MODEL, "--revision", "v9")
    assert code == 1
    assert "of revision 'v9' cannot be fetched: it has no revision 'v9'" in err
    assert not snapshot(tmp_path).exists()


def test_fetch_resolves_a_tag_to_its_commit(hub, run, find):
    hub.revisions["main"] = "2" * 40
    _, out, _ = run("fetch", "--model", MODEL, "--revision", "v1")
    assert yaml.safe_load(out)["revision"] == hub.commit
    assert find("v1", "local")[:2] == (0, hub.commit)
    assert find("", "local")[0] == 1, "main has not been downloaded"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9: .*refused.*"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set and forbids downloads; unset it"),
    ],
)
@pytest.mark.fault(36)
def test_the_error_names_a_missing_network(run, environment, reason):
    code, _, err = run("fetch", "--model", MODEL, **environment)
    assert code == 1
    assert re.fullmatch(f"kosmos: model '{MODEL}' cannot be fetched: {reason}", err)


def test_the_error_names_an_unknown_model(run):
    code, _, err = run("fetch", "--model", "nobody/nothing")
    assert code == 1
    assert "model 'nobody/nothing' cannot be fetched: http://127.0.0.1:" in err
    assert "has no model of this name that you may read" in err


@pytest.mark.fault(38)
def test_pickled_weights_are_never_downloaded(hub, run):
    del hub.files[WEIGHTS]
    code, _, err = run("fetch", "--model", MODEL)
    assert code == 1
    assert "has no model.safetensors; weights in other formats are not read" in err
    assert hub.requests == [("GET", "api", 0)]


@pytest.mark.parametrize("model", ["shapes", "/tmp", "a b", "../up"])
def test_a_name_that_is_no_id_is_refused(run, hub, model):
    code, _, err = run("fetch", "--model", model)
    assert code == 2
    assert f"model must be a Hugging Face id, got {model!r}" in err
    assert not hub.requests


@pytest.mark.fault(67)
def test_the_error_names_a_path_that_cannot_be_written(hub, run, tmp_path):
    (tmp_path / "hub").write_text("a file in the place of a folder")
    code, _, err = run("fetch", "--model", MODEL)
    assert code == 1
    assert f"model '{MODEL}' cannot be fetched" in err
    assert str(tmp_path / "hub") in err


# Errors of huggingface_hub ---------------------------------------------------------------------


def http_error(kind, status):
    """An error of huggingface_hub, whose constructor differs between its versions."""
    error = kind.__new__(kind)
    error.args, error.response = (f"{status} for a file",), SimpleNamespace(status_code=status)
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (http_error(HfHubHTTPError, 408), UnreachableError),
        (http_error(HfHubHTTPError, 429), UnreachableError),
        (http_error(HfHubHTTPError, 500), UnreachableError),
        (http_error(HfHubHTTPError, 503), UnreachableError),
        (http_error(HfHubHTTPError, 403), ModelLoadError),
        (http_error(HfHubHTTPError, 404), ModelLoadError),
        (http_error(HfHubHTTPError, 499), ModelLoadError),
        (http_error(GatedRepoError, 403), ModelLoadError),
        (http_error(RepositoryNotFoundError, 401), ModelLoadError),
        (http_error(RevisionNotFoundError, 404), ModelLoadError),
        (OfflineModeIsEnabled("offline"), ModelLoadError),
        (json.JSONDecodeError("no JSON", "<html>", 0), UnreachableError),
        (ConnectionResetError(errno.ECONNRESET, "reset"), UnreachableError),
        (TimeoutError("timed out"), UnreachableError),
        (OSError("no reason"), UnreachableError),
        *((OSError(number, "a disk error"), ModelLoadError) for number in DISK_ERRORS),
        (PermissionError(errno.EACCES, "denied", "/cache"), ModelLoadError),
    ],
)
@pytest.mark.fault(36, 67)
def test_only_errors_of_the_network_and_the_hub_may_pass(monkeypatch, error, kind):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(ModelLoadError, match=f"model '{MODEL}' cannot be fetched: ") as raised:
        fetch(MODEL)
    assert type(raised.value) is kind
    assert raised.value.__cause__ is error


def test_a_gated_model_is_named_with_the_command_that_helps(monkeypatch):
    def fail(*_, **__):
        raise http_error(GatedRepoError, 403)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(ModelLoadError, match="accept the terms .* log in with 'hf auth login'"):
        fetch(MODEL)


# The default model -----------------------------------------------------------------------------


def test_only_the_default_model_has_a_commit_for_an_empty_revision():
    assert COMMITS.keys() == {NodeSettings.model}
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in COMMITS.values())


def test_the_default_model_is_downloaded_at_its_commit_although_main_has_moved(tmp_path):
    hub, commit = Hub(NodeSettings.model), COMMITS[NodeSettings.model]
    hub.revisions = {"main": "2" * 40, commit: commit}
    command = [sys.executable, "-m", "kosmos_ros.cli", "fetch"]
    try:
        _, pinned, _ = done(command, hub.environment(tmp_path))
        _, newest, _ = done([*command, "--revision", "main"], hub.environment(tmp_path))
    finally:
        hub.close()
    assert yaml.safe_load(pinned) == {"model": NodeSettings.model, "revision": commit}
    assert yaml.safe_load(newest)["revision"] == "2" * 40
    assert snapshot(tmp_path, commit, NodeSettings.model).is_dir()


# hub.find --------------------------------------------------------------------------------------


def test_find_uses_no_network_for_files_that_are_here(hub, find):
    assert find()[:2] == (0, hub.commit)
    hub.requests.clear()
    hub.revisions["main"] = "2" * 40  # a moved branch is no reason for a request
    for revision in ("", "main", hub.commit):
        assert find(revision)[:2] == (0, hub.commit)
    assert find(HF_HUB_OFFLINE="1")[:2] == (0, hub.commit)
    assert not hub.requests


def test_fetch_follows_main(hub, find, run):
    find()
    hub.revisions["main"] = "2" * 40
    assert run("fetch", "--model", MODEL)[0] == 0
    assert find()[:2] == (0, "2" * 40)


@pytest.mark.parametrize("how", [{"HF_HUB_OFFLINE": "1"}, {"local_files_only": "local"}])
@pytest.mark.fault(36)
def test_offline_the_error_names_a_missing_model_and_the_command(hub, find, tmp_path, how):
    code, _, err = find("v1", **how)
    assert code == 1
    assert f"ModelLoadError: model '{MODEL}' of revision 'v1' is not in {tmp_path}" in err
    assert f"; download it with 'kosmos fetch --model {MODEL} --revision v1'" in err
    assert not hub.requests


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json", WEIGHTS])
@pytest.mark.fault(37)
def test_an_incomplete_model_is_named_offline_and_completed_online(hub, find, run, tmp_path, name):
    run("fetch", "--model", MODEL)
    (snapshot(tmp_path) / name).resolve().unlink()
    code, _, err = find(local_files_only="local")
    assert code == 1
    assert (
        f"{snapshot(tmp_path)} lacks {name}; download it with 'kosmos fetch --model {MODEL}'"
        in err
    )
    hub.requests.clear()
    assert find()[:2] == (0, hub.commit)
    assert hub.fetched() == [(name, 0)]


def test_all_files_of_split_weights_are_required(hub, find, run, tmp_path):
    parts = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    hub.files |= dict.fromkeys(parts, b"a part")
    del hub.files[WEIGHTS]
    hub.files[INDEX] = f'{{"weight_map": {{"a": "{parts[0]}", "b": "{parts[1]}"}}}}'.encode()
    assert run("fetch", "--model", MODEL)[0] == 0
    assert find(local_files_only="local")[:2] == (0, hub.commit)
    (snapshot(tmp_path) / parts[1]).unlink()
    assert f"lacks {parts[1]}" in find(local_files_only="local")[2]
    (snapshot(tmp_path) / INDEX).unlink()
    (snapshot(tmp_path) / INDEX).write_text('{"weight_map": ')
    assert f"lacks a valid {INDEX}" in find(local_files_only="local")[2]


@pytest.mark.fault(37)
def test_find_never_returns_another_revision(hub, find, run):
    run("fetch", "--model", MODEL)
    for revision in ("v9", "3" * 40):
        code, out, err = find(revision)
        assert (code, out) == (1, "")
        assert f"it has no revision '{revision}'" in err
        assert f"download it with 'kosmos fetch --model {MODEL} --revision {revision}'" in err


# The model itself ------------------------------------------------------------------------------


def test_a_model_is_downloaded_once_and_then_loaded_without_network(hub, run, tmp_path):
    scene = sample_scene(np.random.default_rng(1), 480, 270)
    Image.fromarray(render(scene)).save(tmp_path / "scene.png")
    words = ["caption", tmp_path / "scene.png", "--model", MODEL, "--device", "cpu"]
    code, first, err = run(*words)
    assert code == 0, err
    assert {phrase for phrase, _ in scene.truth} & set(re.findall('"text": "(.*?)"', first))
    hub.requests.clear()
    assert run(*words)[:2] == (0, first)
    assert not hub.requests

    damage(snapshot(tmp_path) / WEIGHTS)
    code, _, err = run(*words)
    assert code == 1
    command = f"kosmos fetch --model {MODEL}"
    assert err.endswith(f"; repair its files in {snapshot(tmp_path)} with '{command}'")
    assert run(*shlex.split(command)[1:])[0] == 0
    assert run(*words)[:2] == (0, first)


def test_the_node_logs_the_loaded_commit(hub, tmp_path):
    pytest.importorskip("rclpy", reason="rclpy is not installed: run scripts/setup")
    from programs import Program, parameters

    arguments = parameters(model=MODEL, device="cpu", warm_up="false")
    with Program("kosmos_node", *arguments, env=hub.environment(tmp_path)) as node:
        assert f"revision {hub.commit}" in node.says("model ready")
        assert node.stop() == 0, node.output
