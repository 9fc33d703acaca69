# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Downloads from a hub on this machine: complete, interrupted, damaged, missing, hostile."""

import contextlib
import errno
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import yaml
from hub_server import MODEL, WEIGHTS, Hub
from huggingface_hub import constants
from PIL import Image

from kosmos_ros import shapes
from kosmos_ros.errors import ConfigError, KosmosError, ModelLoadError, UnreachableError
from kosmos_ros.kosmos2 import cache, download
from kosmos_ros.kosmos2 import hub as module
from kosmos_ros.kosmos2.download import PIECE
from kosmos_ros.kosmos2.hub import COMMITS, FULL, INDEX, MAX_PARTS, fetch
from kosmos_ros.kosmos2.json_file import JSON_BYTES
from kosmos_ros.serving.node_settings import NodeSettings
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import sample_scene

PATIENCE = 60.0  # s
MANY = 4 << 20  # bytes of weights whose download is interrupted
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


@pytest.fixture
def here(hub, tmp_path, monkeypatch):
    """Let this process use the hub and a cache in tmp_path; return the cache."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.files[WEIGHTS] = b"weights" * 10_000
    return tmp_path / "hub"


def done(command, environment, **options):
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE, **options
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


def begun(hub, tmp_path):
    """Start a download of random weights, which stops in the middle; return its process."""
    hub.files[WEIGHTS] = np.random.default_rng(0).bytes(MANY)
    hub.stop_at = MANY // 2
    command = [sys.executable, "-m", "kosmos_ros.cli", "fetch", "--model", MODEL]
    process = subprocess.Popen(command, env=hub.environment(tmp_path), stderr=subprocess.PIPE)
    assert hub.stopped.wait(PATIENCE)
    return process


def resumed(hub, run, tmp_path):
    """Check that the next download begins where the last one stopped."""
    (part,) = tmp_path.rglob("*.part")
    size = part.stat().st_size
    assert MANY // 4 <= size <= MANY // 2
    hub.requests.clear()
    hub.stop_at = 0
    hub.go_on.set()
    code, _, err = run("fetch", "--model", MODEL)
    assert code == 0, err
    assert hub.fetched() == [(WEIGHTS, size)]
    assert (snapshot(tmp_path) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.fault(37)
def test_a_killed_download_resumes(hub, run, tmp_path, how):
    process = begun(hub, tmp_path)
    part = next(tmp_path.rglob("*.part"))
    while part.stat().st_size < MANY // 4:  # what the hub has sent is still on its way
        assert process.poll() is None
    process.send_signal(how)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == ({signal.SIGKILL: -9, signal.SIGINT: 130}[how], b"")
    assert WEIGHTS not in names(snapshot(tmp_path))
    resumed(hub, run, tmp_path)


@pytest.mark.fault(37)
def test_a_lost_connection_is_continued(hub, run, tmp_path):
    hub.files[WEIGHTS] = np.random.default_rng(0).bytes(MANY)
    hub.stop_at, hub.hang_up = MANY // 2, True
    hub.go_on.set()
    code, _, err = run("fetch", "--model", MODEL)
    assert code == 0, err
    assert [first for name, first in hub.fetched() if name == WEIGHTS] == [0, MANY // 2]
    assert (snapshot(tmp_path) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def reported(find=fetch):
    """Return the bytes that a download reports, and their total; the total stays the same."""
    reports = []
    with contextlib.suppress(UnreachableError):
        find(MODEL, report=lambda *report: reports.append(report))
    phases, counts, totals = zip(*reports, strict=True) if reports else ((), (), (0,))
    assert set(phases) <= {"downloading"}
    (total,) = set(totals)
    return list(counts), total


def test_a_download_reports_the_bytes_that_are_here(here, hub):
    counts, total = reported()
    assert total == sum(len(hub.files[name]) for name in WANTED)
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, total)
    assert max(after - before for before, after in pairwise(counts)) <= PIECE
    assert set(reported()[0]) <= set(counts)  # every file is here, and only checked
    assert reported(module.find) == ([], 0)


def test_a_resumed_download_reports_the_bytes_that_were_here_before(here, hub):
    hub.stop_at, hub.hang_up = 35_000, True
    hub.go_on.set()
    counts, total = reported()
    weights = len(hub.files[WEIGHTS])
    assert counts[-1] == total - weights + 35_000
    hub.stop_at = 0
    counts, _ = reported()
    assert total - weights + 35_000 in counts
    assert counts == sorted(counts)
    assert counts[-1] == total


def test_a_connection_that_brings_little_is_not_continued(hub, run, tmp_path):
    hub.stop_at, hub.hang_up = cache.PROGRESS // 2, True
    hub.go_on.set()
    code, _, err = run("fetch", "--model", MODEL)
    assert code == 1
    left = len(hub.files[WEIGHTS]) - hub.stop_at
    assert err.endswith(f": {hub.address}: the connection ended {left} bytes too early")
    (part,) = tmp_path.rglob("*.part")
    assert part.stat().st_size == hub.stop_at


def opened(process):
    """Return the paths that a process has open."""
    paths = set()
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            paths.add(os.readlink(file))
    return paths


@pytest.mark.parametrize("lie", [False, True])
@pytest.mark.fault(37)
def test_several_processes_may_fetch_at_once(hub, run, tmp_path, lie):
    if lie:
        hub.lies[WEIGHTS] = bytes(MANY)
    first = begun(hub, tmp_path)
    (part,) = tmp_path.rglob("*.part")
    command = [sys.executable, "-m", "kosmos_ros.cli", "fetch", "--model", MODEL]
    environment = hub.environment(tmp_path)
    more = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    while any(str(part) not in opened(process) for process in more):  # they wait for its lock
        assert all(process.poll() is None for process in more)
        time.sleep(0.01)
    hub.stop_at = 0
    hub.go_on.set()
    for process in (first, *more):
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == lie, err
        assert (b"it was removed" if lie else b"all files match") in err
    assert not list(tmp_path.rglob("*.part"))
    hub.lies.clear()
    assert run("fetch", "--model", MODEL)[0] == 0
    assert (snapshot(tmp_path) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


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
    reason = f"{hub.address} has no such revision of this model"
    assert f"of revision 'v9' cannot be fetched: {reason}" in err
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
    assert re.fullmatch(f"kosmos: --model '{MODEL}' cannot be fetched: {reason}", err)


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
    assert hub.requests == [("api", 0)]


@pytest.mark.parametrize("model", ["shapes", "/tmp", "a b", "../up"])
def test_a_name_that_is_no_id_is_refused(run, hub, model):
    code, _, err = run("fetch", "--model", model)
    assert code == 2
    assert "must be" in err and "a Hugging Face id" in err
    assert f"got {model!r}" in err
    assert not hub.requests


@pytest.mark.fault(67)
def test_the_error_names_a_path_that_cannot_be_written(hub, run, tmp_path):
    (tmp_path / "hub").write_text("a file in the place of a folder")
    code, _, err = run("fetch", "--model", MODEL)
    assert code == 1
    assert f"model '{MODEL}' cannot be fetched" in err
    assert str(tmp_path / "hub") in err


# Refusals and failures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (408, "", UnreachableError, "answers 408 Request Timeout"),
        (429, "", UnreachableError, "answers 429 Too Many Requests"),
        (500, "", UnreachableError, "answers 500 Internal Server Error"),
        (503, "", UnreachableError, "answers 503 Service Unavailable"),
        (403, "", ModelLoadError, "answers 403 Forbidden"),
        (404, "EntryNotFound", ModelLoadError, "answers 404 Not Found"),
        (204, "", ModelLoadError, "answers 204 No Content"),
        (403, "GatedRepo", ModelLoadError, "accept the terms .* log in with 'hf auth login'"),
        (401, "", ModelLoadError, "has no model of this name that you may read"),
        (404, "RepoNotFound", ModelLoadError, "has no model of this name that you may read"),
        (404, "RevisionNotFound", ModelLoadError, "has no such revision of this model"),
    ],
)
@pytest.mark.parametrize("place", ["api", "config.json"])
@pytest.mark.fault(36)
def test_only_busy_and_broken_hubs_may_recover(hub, here, place, status, code, kind, reason):
    hub.answers[place] = lambda handler: handler.send("", status, {"X-Error-Code": code})
    with pytest.raises(
        ModelLoadError, match=f"model '{MODEL}' cannot be fetched: .*{reason}"
    ) as e:
        fetch(MODEL)
    assert type(e.value) is kind


@pytest.mark.parametrize("number", [*FULL, errno.EIO, errno.EROFS, errno.ENOLCK])
@pytest.mark.fault(67)
def test_an_error_of_the_disk_names_the_folder(here, monkeypatch, number):
    def fail(*_, **__):
        raise OSError(number, "a disk error")

    monkeypatch.setattr(download, "append", fail)
    with pytest.raises(ModelLoadError, match=f"cannot be fetched: .*{here}.*: a disk error") as e:
        fetch(MODEL)
    assert type(e.value) is ModelLoadError
    assert ("disk full" in str(e.value)) == (number in FULL)


@pytest.mark.fault(67)
def test_a_download_continues_after_the_disk_was_full(hub, run, tmp_path):
    hub.files[WEIGHTS] = np.random.default_rng(0).bytes(MANY)
    limit = MANY // 2 + 1
    code, _, err = done(
        [sys.executable, "-m", "kosmos_ros.cli", "fetch", "--model", MODEL],
        hub.environment(tmp_path),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert code == 1
    repo = snapshot(tmp_path).parents[1]
    assert f"disk full: {repo}: File too large; free space there" in err
    (part,) = repo.glob("blobs/*.part")
    assert part.stat().st_size == limit

    hub.requests.clear()
    assert run("fetch", "--model", MODEL)[0] == 0
    assert hub.fetched() == [(WEIGHTS, limit)]


@pytest.mark.fault(36)
def test_without_a_network_the_advice_is_to_try_again(find):
    code, _, err = find(HF_ENDPOINT="http://127.0.0.1:9")
    assert code == 1
    assert err.startswith("UnreachableError: ")
    assert err.endswith("; try again when http://127.0.0.1:9 can be reached")


# A hostile hub ---------------------------------------------------------------------------------


def tree(folder):
    """Return what is in a folder: contents of files, targets of links."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


@pytest.fixture
def precious(tmp_path):
    """A file of the user, beside the cache, which must stay as it is."""
    file = tmp_path / "precious"
    file.write_bytes(b"of the user")
    yield file
    assert file.read_bytes() == b"of the user"
    assert not file.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} <= {"precious", "hub", "folder"}


def refused(reason, kind=ModelLoadError, revision=""):
    """Check that a download fails with one line, and return the error."""
    with pytest.raises(KosmosError, match=reason) as raised:
        fetch(MODEL, revision)
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000
    return raised.value


PATHS = (
    "../../../../precious",
    "/precious",
    "..",
    "",
    "0" * 39,
    "A" * 40,
    "\u0661" * 40,
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["blobId", "sha256", "sha"])
@pytest.mark.fault(71)
def test_a_listed_hash_that_is_a_path_is_refused(hub, here, precious, path, kind):
    def listing(commit):
        info = Hub.listing(hub, commit)
        for file in info["siblings"]:
            if kind == "blobId" and file["rfilename"] == "config.json":
                file["blobId"] = path
            if kind == "sha256" and file["rfilename"] == WEIGHTS:
                file["lfs"]["sha256"] = path
        return info | ({"sha": path} if kind == "sha" else {})

    hub.listing = listing
    refused("must have a SHA-|must list a commit and files")
    assert not here.exists()


@pytest.mark.parametrize("value", [path for path in PATHS if path.isascii()])
@pytest.mark.parametrize("header", ["ETag", "X-Linked-ETag", "X-Repo-Commit"])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
@pytest.mark.fault(71)
def test_headers_that_differ_from_the_list_are_refused(hub, here, precious, name, header, value):
    hub.headers[name] = {header: value}
    refused("must answer with the (etag|x-repo-commit) [0-9a-f]+, got ")
    assert name not in names(here)
    (part,) = here.rglob("*.part")
    assert not part.stat().st_size, "it has read a body"


@pytest.mark.parametrize(
    "name", ["../precious", "/precious", "refs/main", "model-0000\u0661-of-00001.safetensors"]
)
@pytest.mark.fault(71)
def test_a_listed_name_that_is_a_path_is_not_downloaded(hub, here, precious, name):
    hub.files[name] = b"hostile"
    fetch(MODEL)
    assert names(snapshot(here.parent)) == WANTED


@pytest.mark.parametrize("name", ["../precious", "/etc/passwd", 1, None, ["a"], {"a": 1}])
@pytest.mark.fault(71)
def test_an_index_names_only_weights(hub, here, precious, name):
    hub.files[INDEX] = json.dumps({"weight_map": {"a": name}}).encode()
    hub.files["model-00001-of-00001.safetensors"] = hub.files.pop(WEIGHTS)
    refused(f"it lacks a valid {INDEX}")


@pytest.mark.fault(71)
def test_an_index_has_the_limit_of_a_json_file(hub, here):
    hub.files["model-00001-of-00001.safetensors"] = hub.files.pop(WEIGHTS)
    index = b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'
    hub.files[INDEX] = index.ljust(JSON_BYTES)
    fetch(MODEL)
    hub.files[INDEX] += b" "
    refused(f"it lacks a valid {INDEX}")


@pytest.mark.fault(71)
def test_files_of_weights_may_be_listed_up_to_the_limit(hub, here):
    hub.files |= {f"model-{n:05}-of-00099.safetensors": b"" for n in range(MAX_PARTS - 1)}
    fetch(MODEL)
    hub.files["model-00099-of-00099.safetensors"] = b""
    hub.requests.clear()
    refused(f"must list at most {MAX_PARTS} files of weights, got {MAX_PARTS + 1}")
    assert not hub.fetched()


@pytest.mark.fault(72)
def test_another_commit_than_the_pinned_one_is_refused(hub, here):
    hub.revisions["1" * 40] = "2" * 40
    hub.listing = lambda commit: Hub.listing(hub, "2" * 40)
    refused(f"{hub.address} must list commit {'1' * 40}, got {'2' * 40}", revision="1" * 40)
    assert not here.exists()


@pytest.mark.fault(72)
def test_a_commit_is_never_looked_up_as_a_branch(hub, here):
    folder = fetch(MODEL).folder
    (folder.parents[1] / "refs" / ("3" * 40)).write_text(hub.commit)
    with pytest.raises(ModelLoadError, match=f"of revision '{'3' * 40}' is not in"):
        module.find(MODEL, "3" * 40, local_files_only=True)
    assert module.find(MODEL, "1" * 40).commit == "1" * 40
    assert {path.name for path in (folder.parents[1] / "refs").iterdir()} == {"main", "3" * 40}


@pytest.mark.parametrize("text", ["../../../precious", "", "2" * 39, "/", "\0", "9" * 5000])
def test_a_branch_in_the_cache_means_a_commit_or_nothing(hub, here, precious, text):
    folder = fetch(MODEL).folder
    (folder.parents[1] / "refs" / "main").write_text(text)
    with pytest.raises(ModelLoadError, match=f"model '{MODEL}' is not in"):
        module.find(MODEL, local_files_only=True)
    assert module.find(MODEL).commit == hub.commit


@pytest.mark.parametrize(
    "revision", ["../x", "a/../../x", "/x", "a//b", ".", "a\n", "\0", "x" * 300]
)
@pytest.mark.fault(71)
def test_a_revision_that_is_a_path_is_refused(here, revision):
    with pytest.raises(ConfigError, match="revision must be a branch, tag or commit, got "):
        fetch(MODEL, revision)


def test_a_branch_with_a_slash_is_kept_as_huggingface_hub_keeps_it(hub, here):
    hub.revisions["refs/pr/1"] = hub.commit
    assert fetch(MODEL, "refs/pr/1") == module.find(MODEL, "refs/pr/1", local_files_only=True)
    found = huggingface_hub.try_to_load_from_cache(MODEL, "config.json", here, "refs/pr/1")
    assert found == str(snapshot(here.parent) / "config.json")


def test_huggingface_hub_recognizes_the_cache(hub, here):
    fetch(MODEL)
    info = huggingface_hub.scan_cache_dir(here)
    assert not info.warnings
    ((repo,),) = [info.repos]
    assert (repo.repo_id, repo.size_on_disk) == (MODEL, sum(len(hub.files[n]) for n in WANTED))
    (revision,) = repo.revisions
    assert (revision.commit_hash, revision.refs) == (hub.commit, {"main"})
    assert {file.file_name for file in revision.files} == WANTED
    assert os.readlink(snapshot(here.parent) / WEIGHTS) == f"../../blobs/{hub.hash(WEIGHTS)}"


# Links in the cache ----------------------------------------------------------------------------


@pytest.mark.fault(71)
def test_a_link_to_a_file_of_the_user_is_replaced_and_the_file_kept(hub, here, precious):
    for name in ("config.json", WEIGHTS):
        link = fetch(MODEL).folder / name
        link.unlink()
        (here / "chain").unlink(missing_ok=True)
        (here / "chain").symlink_to(precious)
        link.symlink_to(here / "chain")
        fetch(MODEL)
        assert link.read_bytes() == hub.files[name]
        assert os.readlink(link) == f"../../blobs/{hub.hash(name)}"
        assert os.readlink(here / "chain") == str(precious)


@pytest.mark.parametrize("suffix", ["", ".part"])
@pytest.mark.parametrize("how", [os.symlink, os.link])
@pytest.mark.fault(71)
def test_a_blob_that_is_a_link_is_replaced_or_refused(hub, here, precious, how, suffix):
    repo = fetch(MODEL).folder.parents[1]
    blob = repo / "blobs" / hub.hash(WEIGHTS)
    blob.unlink()
    how(precious, f"{blob}{suffix}")
    if suffix and how is os.symlink:
        refused(f"{blob}.part: Too many levels of symbolic links")
        return
    fetch(MODEL)
    assert blob.read_bytes() == hub.files[WEIGHTS]
    assert not blob.is_symlink()


@pytest.mark.parametrize("suffix", ["", ".part"])
def test_a_blob_that_is_a_folder_is_named(hub, here, precious, suffix):
    blob = snapshot(here.parent).parents[1] / "blobs" / f"{hub.hash(WEIGHTS)}{suffix}"
    (blob / "precious").mkdir(parents=True)
    refused(f"{blob}: Is a directory")
    assert (blob / "precious").is_dir()


@pytest.mark.parametrize(
    "place", ["blobs", "snapshots", "refs", "refs/a", f"snapshots/{'1' * 40}"]
)
@pytest.mark.fault(71)
def test_a_folder_of_the_cache_that_is_a_link_is_refused(hub, here, tmp_path, precious, place):
    hub.revisions["a/b"] = hub.commit
    folder = tmp_path / "folder"
    folder.mkdir()
    link = snapshot(tmp_path).parents[1] / place
    link.parent.mkdir(parents=True)
    link.symlink_to(folder)
    refused(f"{link} must be a folder, got a link; remove it", revision="a/b")
    assert not list(folder.iterdir())


@pytest.mark.fault(71)
def test_a_branch_that_is_a_link_is_replaced(hub, here, precious):
    ref = fetch(MODEL).folder.parents[1] / "refs" / "main"
    ref.unlink()
    ref.symlink_to(precious)
    fetch(MODEL)
    assert not ref.is_symlink()
    assert ref.read_text() == hub.commit


def test_files_copied_without_links_are_used_and_repaired(hub, here):
    folder = fetch(MODEL).folder
    shutil.copytree(folder, here / "copy")
    shutil.rmtree(folder)
    (here / "copy").rename(folder)
    shutil.rmtree(folder.parents[1] / "blobs")
    damage(folder / "config.json")
    hub.requests.clear()
    fetch(MODEL)
    assert hub.fetched() == [("config.json", 0)]
    assert (folder / "config.json").read_bytes() == hub.files["config.json"]


def test_a_disk_without_links_gets_the_files_themselves(hub, here, monkeypatch):
    def fail(*_):
        raise PermissionError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "symlink", fail)
    folder = fetch(MODEL).folder
    assert all((folder / name).read_bytes() == hub.files[name] for name in WANTED)
    hub.requests.clear()
    fetch(MODEL)
    assert not hub.fetched()


# Junk lists ------------------------------------------------------------------------------------

SIBLING = {"rfilename": "config.json", "size": 2, "blobId": "0" * 40}


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff\xfe", b"{", b"[" * 100_000, b"1" * 9999])
@pytest.mark.fault(36)
def test_a_server_that_sends_no_json_is_no_hub(hub, here, body):
    hub.answers["api"] = lambda handler: handler.send("api", 200, {}, body)
    refused(f"{hub.address} must list files in JSON; check the network", UnreachableError)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda info, junk=junk: junk for junk in (None, 1, [], "a", True, {}, [[]])),
        *(
            lambda info, junk=junk, key=key: info | {key: junk}
            for junk in (None, 1, {}, "a", True, [1], [None], [[]], [{}])
            for key in ("sha", "siblings")
        ),
        *(
            lambda info, junk=junk, key=key: (
                info
                | {"siblings": [*info["siblings"], SIBLING | {"rfilename": INDEX} | {key: junk}]}
            )
            for key, junks in {
                "size": (-1, True, 1.5, "2", None, 10**400, 33 << 20, [], float("nan")),
                "blobId": (None, 1, [], {}, "g" * 40, "0" * 40 + "\n"),
                "rfilename": (None, 1, [], {}, "config.json"),
            }.items()
            for junk in junks
        ),
        lambda info: info | {"siblings": info["siblings"] * 2},
        lambda info: (
            info
            | {
                "siblings": [
                    file | {"lfs": {"sha256": "0" * 64, "size": 65 << 30}}
                    for file in info["siblings"]
                ]
            }
        ),
    ],
)
@pytest.mark.fault(71)
def test_a_list_of_the_wrong_shape_is_refused_in_one_line(hub, here, change):
    hub.listing = lambda commit: change(Hub.listing(hub, commit))
    refused("must (list|have)|it has no")
    assert not here.exists()


def test_a_nested_list_is_refused_at_every_depth():
    limit = sys.getrecursionlimit()
    for depth in range(limit - 200, limit + 10):
        body = b"[" * depth + b"]" * depth
        with pytest.raises(ModelLoadError, match="must list name, size and hash|must list files"):
            module.listed(b'{"sha": "%s", "siblings": [%s]}' % (b"1" * 40, body))


# Endless, slow, compressed ---------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
ENDLESS = {  # name: what comes first, what comes again and again
    "line": (b"", b"a" * 4096),
    "headers": (OK, b"X-Header: " + b"a" * 4096 + b"\r\n"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\nX: a\r\n\r\n" * 100),
    "body": (OK + b"\r\n", b"a" * 65536),
    "chunks": (CHUNKED + b"\r\n", b"1000\r\n" + b"a" * 4096 + b"\r\n"),
    "negative": (CHUNKED + b"\r\n-1\r\n", b"a" * 65536),
    "extension": (CHUNKED + b"\r\n1;", b"a" * 65536),
    "trailer": (CHUNKED + b"\r\n0\r\n", b"X-Header: a\r\n" * 1000),
    "error": (b"HTTP/1.1 500 Broken\r\n\r\n", b"a" * 65536),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /else\r\n\r\n", b"a" * 65536),
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("place", ["api", "config.json", WEIGHTS])
@pytest.mark.fault(73)
def test_an_endless_response_is_left_early(hub, here, place, name):
    start, piece = ENDLESS[name]
    told = b"X-Repo-Commit: %s\r\nETag: %s\r\n" % (
        hub.commit.encode(),
        b"" if place == "api" else hub.hash(place).encode(),
    )

    def answer(handler):
        handler.wfile.write(start.replace(OK, OK + told))
        handler.endless(piece)

    hub.answers[place] = answer
    with pytest.raises(ModelLoadError, match="cannot be fetched: ") as raised:
        fetch(MODEL)
    assert "\n" not in str(raised.value)
    assert hub.sent < 50_000_000


@pytest.mark.parametrize("place", ["api", "config.json", WEIGHTS])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
@pytest.mark.fault(73)
def test_a_compressed_response_is_refused(hub, here, place, encoding):
    hub.headers[place] = {"Content-Encoding": encoding}
    refused(f"must not compress responses, got encoding '{encoding}'")


@pytest.mark.parametrize("header", ["Content-Length", "X-Linked-Size"])
@pytest.mark.parametrize("size", [6_000_000_000, 1])
@pytest.mark.fault(73)
def test_a_file_of_another_size_is_refused(hub, here, header, size):
    hub.headers["config.json"] = {header: str(size)}
    refused("must (send|answer with)")


@pytest.mark.parametrize("slow", ["line", "headers", "body"])
@pytest.mark.parametrize("place", ["api", WEIGHTS])
@pytest.mark.fault(36, 73)
def test_a_hub_that_sends_a_byte_now_and_then_is_given_up(hub, here, monkeypatch, place, slow):
    commit, etag = hub.commit.encode(), hub.hash(WEIGHTS).encode()
    told = OK + b"X-Repo-Commit: %s\r\nETag: %s\r\n" % (commit, etag)
    start = {"line": b"", "headers": told + b"X: "}.get(slow, told + b"\r\n" + bytes(PIECE))
    kept = (place, slow) == (WEIGHTS, "body")

    def sizes():
        return [part.stat().st_size for part in here.rglob("*.part")]

    def answer(handler):
        handler.wfile.write(start)
        end = time.monotonic() + 60.0
        while kept and sizes() != [PIECE] and time.monotonic() < end:
            time.sleep(0.01)
        monkeypatch.setattr(download, "PATIENCE", 0.3)  # earlier files need the long one
        handler.slow(b"", pause=0.02, until=20)

    hub.answers[place] = answer
    refused(f"{hub.address}: received less than 60000 bytes in 0.3 s", UnreachableError)
    assert not kept or sizes() == [PIECE]


# Redirects, passwords, proxies -----------------------------------------------------------------


def moved(to):
    return lambda handler: handler.send("", 302, {"Location": to} if to else {})


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("ftp://127.0.0.1/a", "must be an http or https address, got 'ftp://127.0.0.1/a'"),
        ("file:///etc/passwd", "must be an http or https address, got 'file:///etc/passwd'"),
        ("data:,a", "must be an http or https address"),
        ("http://user:hunter2@127.0.0.1/?a=hunter2", "address, got 'http://127.0.0.1/'"),
        ("http://[::1", "must be an http or https address"),
        ("http://127.0.0.1:99999/", "must be an http or https address"),
        ("http://:1/", "must be an http or https address"),
        ("/a b", "must be an http or https address"),
        ("/\xe9", "must be an http or https address"),
        ("?a", "must redirect at most 10 times"),
        ("", "must redirect at most 10 times"),
    ],
)
@pytest.mark.parametrize("place", ["api", "config.json"])
@pytest.mark.fault(73)
def test_a_wild_redirect_is_refused(hub, here, place, to, reason):
    hub.answers[place] = moved(to)
    assert "hunter2" not in str(refused(reason))
    assert len(hub.requests) < 20


@pytest.mark.fault(74)
def test_a_redirect_to_another_host_gets_no_token(hub, run, tmp_path):
    other = Hub()
    other.headers[WEIGHTS] = {"ETag": '"of another server"', "X-Repo-Commit": None}
    to = f"{other.address}/{MODEL}/resolve/{hub.commit}/{WEIGHTS}?signature=hunter2"
    told = {"X-Linked-Etag": f'"{hub.hash(WEIGHTS)}"', "X-Repo-Commit": hub.commit}
    hub.answers[WEIGHTS] = lambda handler: handler.send("", 302, told | {"Location": to})
    try:
        code, _, err = run("fetch", "--model", MODEL, HF_TOKEN="hf_hunter2")
        assert code == 0, err
        assert other.fetched() == [(WEIGHTS, 0)]
        assert other.authorizations == [None]
        assert set(hub.authorizations) == {"Bearer hf_hunter2"}
        shutil.rmtree(tmp_path / "hub")
        other.answers[WEIGHTS] = lambda handler: handler.send("", 403, {})
        assert "hunter2" not in run("fetch", "--model", MODEL)[2]
    finally:
        other.close()


@pytest.mark.fault(74)
def test_a_password_in_the_address_is_used_and_never_shown(hub, run, find, tmp_path):
    secret = {"HF_ENDPOINT": f"http://user:hunter2@{hub.host}"}
    code, out, err = run("fetch", "--model", MODEL, **secret)
    assert code == 0, err
    assert set(hub.authorizations) == {"Basic dXNlcjpodW50ZXIy"}
    texts = [out, err]
    shutil.rmtree(tmp_path / "hub")
    for answer in (
        lambda handler: handler.send("", 404, {"X-Error-Code": "RepoNotFound"}),
        lambda handler: handler.send("", 403, {"X-Error-Code": "GatedRepo"}),
        lambda handler: handler.send(
            "", 500, {"X-Error-Message": "http://user:hunter2@a/?hunter2"}
        ),
        lambda handler: handler.send("", 200, {}, b"<html>"),
        moved("http://user:hunter2@127.0.0.1/"),
        moved("http://127.0.0.1:9/?token=hunter2"),
    ):
        hub.answers["api"] = answer
        texts += find(**secret)[1:]
    for address in (
        "http://user:hunter2@127.0.0.1:9/?hunter2",
        "user:hunter2@host",
        "http://a:1/ter2@h",
    ):
        texts += find(HF_ENDPOINT=address)[1:]
    texts += run("fetch", "--model", MODEL, HF_TOKEN="hunter2\x7f\n a")
    assert not [text for text in texts if "hunter2" in str(text) or "ter2" in str(text)]


def test_a_long_address_is_masked_at_once():
    """Masking holds the interpreter's lock. In quadratic time this length would take minutes."""
    code = "from kosmos_ros.kosmos2.download import masked; print(len(masked('://' * 100_000)))"
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert done([sys.executable, "-c", code], environment) == (0, "300000", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see 'https://a:b@host/c?d=e', or http://f?g", "see 'https://host/c', or http://f"),
        ("http://a@b@host//c@d?e?f", "http://d"),
        ("//a:b@host", "//host"),
        ("is model@v1 here? yes", "is model@v1 here? yes"),
    ],
)
@pytest.mark.fault(74)
def test_only_secrets_of_an_address_are_removed(text, shown):
    assert download.masked(text) == shown


def test_downloads_go_through_the_proxy_of_the_environment(hub, run):
    code, _, err = run(
        "fetch", "--model", MODEL, HF_ENDPOINT="http://hub.invalid", http_proxy=hub.address
    )
    assert code == 0, err
    assert (WEIGHTS, 0) in hub.fetched()


@pytest.fixture
def secure(tmp_path):
    """A hub with TLS, and its certificate."""
    if not shutil.which("openssl"):
        pytest.skip("the command openssl is not installed")
    file = tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", file, "-out", tmp_path / "public.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_text(file.read_text() + (tmp_path / "public.pem").read_text())
    hub = Hub(certificate=file)
    yield hub, {"HF_ENDPOINT": hub.address, "SSL_CERT_FILE": str(file)}
    hub.close()


def test_only_a_hub_with_a_trusted_certificate_is_believed(hub, run, secure):
    server, environment = secure
    code, _, err = run("fetch", "--model", MODEL, HF_ENDPOINT=server.address)
    assert code == 1
    assert "CERTIFICATE_VERIFY_FAILED" in err
    code, _, err = run("fetch", "--model", MODEL, **environment)
    assert code == 0, err


def test_downloads_over_tls_go_through_the_proxy_of_the_environment(hub, run, secure):
    server, environment = secure
    code, _, err = run("fetch", "--model", MODEL, https_proxy=hub.address, **environment)
    assert code == 0, err
    assert set(hub.requests) == {("CONNECT", int(server.address.rpartition(":")[2]))}
    assert len(hub.requests) == len(server.requests)


@pytest.mark.fault(74)
def test_a_redirect_never_leaves_tls(hub, run, secure):
    server, environment = secure
    server.answers["config.json"] = moved(f"{hub.address}/config.json?hunter2")
    code, _, err = run("fetch", "--model", MODEL, **environment)
    assert code == 1
    assert f"must stay on https, got '{hub.address}/config.json'" in err
    assert not hub.requests


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
        assert "has no such revision of this model" in err
        assert f"of revision '{revision}' cannot be fetched" in err
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
