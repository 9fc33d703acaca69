# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: a hub's responses, to a cache that may have links to files of the user.

No socket is opened: each connection gets the next part of the input as its response.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

import fuzz
from kosmos_ros.errors import KosmosError
from kosmos_ros.kosmos2 import download, hub

MEMORY = 512  # MiB
LIMIT = 100_000  # bytes, far below the hub's own limits, so that each input takes little time
END = b"\xff"  # between responses

COMMIT = "1" * 40
SECRETS = ("hunter2", "hf_token")
FILES = {"model.safetensors": b"weights"} | {
    name: b"{}" for name in ("config.json", "preprocessor_config.json", "tokenizer.json")
}
REVISIONS = ("main", COMMIT, "refs/pr/1", "v1")


def hash_of(data):
    """Return the hash that a hub lists: SHA-256 of weights, git's SHA-1 of other files."""
    if data == FILES["model.safetensors"]:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def response(status, body=b"", **headers):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def listing(**changes):
    files = [
        {"rfilename": name, "size": len(data), "blobId": hash_of(data)}
        for name, data in FILES.items()
    ]
    files[0]["lfs"] = {"sha256": files[0]["blobId"], "size": files[0]["size"]}
    files += [{"rfilename": "../precious", "size": 7, "blobId": "../../../../precious"}]
    body = json.dumps({"sha": COMMIT, "siblings": files} | changes).encode()
    return response("200 OK", body, Content_Length=len(body))


def honest(name):
    """Return the response of an honest hub to a request for a file."""
    data = FILES.get(name, b"{}")
    headers = {"ETag": f'"{hash_of(data)}"', "X_Repo_Commit": COMMIT}
    return response("200 OK", data, Content_Length=len(data), **headers)


# The small files have one hash, so that only one of them is downloaded.
_FILES = [honest("config.json"), honest("model.safetensors")]
_TOLD = {"ETag": hash_of(b"{}"), "X_Repo_Commit": COMMIT, "Transfer_Encoding": "chunked"}
_CHUNKED = response("200 OK", b"2\r\n{}\r\n0\r\n\r\n", **_TOLD)

# First byte: bits 0 and 1, the kind of responses; 2 to 4, one of CACHES; 5 and 6, of REVISIONS.
HONEST, ENDLESS = 1, 2
SEEDS = (
    *(bytes([HONEST | cache << 2 | revision << 5]) + listing()
      for cache in range(8) for revision in range(4)),
    *(bytes([cache << 2]) + END.join((listing(), *_FILES)) for cache in range(8)),
    *(bytes([ENDLESS]) + END.join((*parts, tail)) for parts in ((), (listing(),))
      for tail in (_CHUNKED, honest("config.json"), response("500 Broken"), response("100 C"))),
    *(b"\0" + response(status, X_Error_Code=code) for status in ("401 No", "404 None", "503 Busy")
      for code in ("", *download.ERROR_MESSAGES)),
    *(b"\0" + response("302 Found", Location=place) + END + listing() + END + END.join(_FILES)
      for place in ("/else", "http://other.invalid/a?b", "ftp://a", "http://a:b@c/")),
    b"\0" + END.join((listing(), _CHUNKED, _FILES[1])),
    *(b"\1" + listing(**change) for change in ({"sha": "../precious"}, {"siblings": [[]]})),
)  # fmt: skip
WORDS = (
    *(END, b"\r\n", b"\r\n\r\n", b"HTTP/1.1 206 Partial\r\n", b"HTTP/1.1 307 Moved\r\n"),
    *(b"ETag: ", b"X-Linked-ETag: ", b"X-Linked-Size: ", b"X-Repo-Commit: ", b"X-Error-Code: "),
    *(b"Content-Length: ", b"Content-Range: bytes ", b"Content-Encoding: gzip\r\n", b"Location: "),
    *(b"Transfer-Encoding: chunked\r\n", b"https://", b"//a:b@", b"../../precious", b"-1"),
    *(b'"sha256"', b'"blobId"', b'"size"', b'"rfilename"', b'"lfs"', b'"siblings"', b"null"),
    *(b"true", b"1e999", b"[[[[[[[[", hub.INDEX.encode(), b"model-00001-of-00002.safetensors"),
    *(COMMIT.encode(), hash_of(b"{}").encode(), hash_of(b"weights").encode()),
)

# libFuzzer ends its process without clean-up, but fuzz.__main__ removes its TMPDIR.
_ROOT = tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", fuzz.SHARED))
ROOT = Path(_ROOT.name)
PRECIOUS, FOLDER, CACHE = ROOT / "precious", ROOT / "folder", ROOT / "hub"
REPO = CACHE / "models--someone--shapes"
BLOB = REPO / "blobs" / hash_of(b"weights")
PART = BLOB.with_name(f"{BLOB.name}.part")
SNAPSHOT = REPO / "snapshots" / COMMIT
CACHES = (  # what makes the cache before a download
    lambda: None,
    lambda: _made(SNAPSHOT / "config.json").symlink_to(PRECIOUS),
    lambda: _made(BLOB).symlink_to(PRECIOUS),
    lambda: _made(PART).write_bytes(b"weig"),
    lambda: _made(REPO / "refs").symlink_to(FOLDER),
    lambda: _made(SNAPSHOT).symlink_to(FOLDER),
    lambda: os.link(PRECIOUS, _made(PART)),
    lambda: _made(REPO / "refs" / "main").symlink_to(PRECIOUS),
)


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class Wire(io.RawIOBase):
    """A socket that receives `data`, or its second half again and again."""

    def __init__(self, data, endless):
        self._left, self._again = data, data[len(data) // 2 :] * (4096 if endless else 0)

    def readable(self):
        return True

    def readinto(self, buffer):
        self._left = self._left or self._again
        taken, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def makefile(self, *_, **__):
        return self

    def sendall(self, data):
        self.request = bytes(data)

    def settimeout(self, seconds):
        assert 0 < seconds <= download.PATIENCE


@contextmanager
def connected(data):
    """Let downloads get their responses from an input, and keep limits and the cache small."""
    kind, *_ = data or b"\0"
    answers = iter(data[1:].split(END))

    def connect(connection):
        answer = next(answers, None)
        if answer is None and not kind & HONEST:
            raise ConnectionResetError("no more responses")
        connection.sock = Honest() if answer is None else Wire(answer, kind & ENDLESS)

    settings = (
        (constants, "ENDPOINT", f"http://user:{SECRETS[0]}@hub.invalid"),
        (constants, "HF_HUB_CACHE", str(CACHE)),
        (constants, "HF_HUB_OFFLINE", False),
        (huggingface_hub, "get_token", lambda: SECRETS[1]),
        (hub, "MAX_LISTING", LIMIT),
        (hub, "MAX_SMALL", LIMIT),
        (hub, "MAX_TOTAL", LIMIT),
        (download._Plain, "connect", connect),
        (urllib.request, "getproxies", dict),  # which takes time
    )
    before = [getattr(owner, name) for owner, name, _ in settings]
    for owner, name, value in settings:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)


class Honest(Wire):
    """A connection to an honest hub."""

    def __init__(self):
        super().__init__(b"", False)

    def sendall(self, data):
        self._left = honest(bytes(data).split(b" ")[1].rpartition(b"/")[2].decode())


def run(data):
    kind, *_ = data or b"\0"
    revision = REVISIONS[kind >> 5 & 3]
    prepare(CACHES[kind >> 2 & 7])
    try:
        with connected(data):
            files = hub.fetch("someone/shapes", revision)
    except KosmosError as exc:
        check_error(exc)
        return False
    finally:
        check_disk()
    assert files.folder == REPO / "snapshots" / files.commit
    assert (files.folder / "config.json").stat().st_size <= LIMIT
    assert files.commit == revision or revision != COMMIT
    return True


def prepare(cache):
    shutil.rmtree(CACHE, ignore_errors=True)
    PRECIOUS.write_bytes(b"of the user")
    FOLDER.mkdir(exist_ok=True)
    cache()


def check_error(exc):
    text = str(exc)
    assert "\n" not in text
    assert not any(secret in text for secret in SECRETS)
    assert not re.search(r"//\S*@|://[^\s?]*\?[^\s'\"]", text)


def check_disk():
    """Check that a download has changed nothing but its folders in the cache."""
    assert set(os.listdir(ROOT)) <= {"precious", "folder", "hub"}
    assert PRECIOUS.read_bytes() == b"of the user"
    assert not PRECIOUS.is_symlink()
    assert not os.listdir(FOLDER)
    if CACHE.exists():
        assert os.listdir(CACHE) == [REPO.name]
        assert set(os.listdir(REPO)) <= {"blobs", "snapshots", "refs"}
        for folder in ("blobs", "snapshots"):
            names = os.listdir(REPO / folder) if (REPO / folder).exists() else ()
            assert all(re.fullmatch(r"[0-9a-f]{40,64}(\.part)?", name) for name in names)
