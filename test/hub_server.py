# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face hub on this machine with one model, for tests of downloads."""

import contextlib
import hashlib
import json
import os
import re
import select
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from kosmos_ros import shapes

MODEL = "someone/shapes"
WEIGHTS = "model.safetensors"
DECOYS = {  # files that must never be downloaded
    "pytorch_model.bin": b"\x80\x04.",
    "modeling.py": b"raise SystemExit\n",
    "tokenizer.pkl": b"\x80\x04.",
    "README.md": b"# shapes\n",
    "original/config.json": b"{}",
}


class Hub:
    """Serves `files` (bytes by name) of one model at `revisions` (commit by name).

    `requests` lists the name of the file (or "api") and the first byte of each request;
    `authorizations` has the header of each. `lies` replace the contents of files, but not their
    listed hashes. If `stop_at` is set, a response with weights stops at that byte, sets `stopped`,
    waits for `go_on` and continues, or ends if `hang_up` is set.

    To be hostile, `headers` (a dictionary by name of the file or "api") change those of a
    response, and `answers` (functions by the same names) replace it: they get the handler, and
    `sent` is the number of bytes that `endless` responses have sent.
    """

    def __init__(self, model=MODEL, certificate=None):
        self.model = model
        self.files = {path.name: path.read_bytes() for path in shapes.MODEL_DIR.iterdir()}
        self.files |= DECOYS
        self.commit = "1" * 40
        self.revisions = {"main": self.commit, "v1": self.commit}
        self.lies = {}
        self.headers, self.answers = {}, {}
        self.requests, self.authorizations = [], []
        self.sent = 0
        self.stop_at, self.hang_up = 0, False
        self.stopped, self.go_on = threading.Event(), threading.Event()
        hub = self

        class Handler(_Handler):
            def __init__(self, *arguments):
                self.hub = hub
                super().__init__(*arguments)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.address = f"{'https' if certificate else 'http'}://{self.host}"
        # `close` waits for the end of a poll.
        poll = {"poll_interval": 0.01}
        threading.Thread(target=self._server.serve_forever, kwargs=poll, daemon=True).start()

    def close(self):
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home, **more):
        """The environment of a process that downloads from this hub to the folder `home`."""
        more = {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0"} | more
        return os.environ | {"HF_HOME": str(home)} | more

    def fetched(self):
        """Name and first byte of each request for a file, in order."""
        return [(name, first) for name, first in self.requests if name != "api"]

    def hash(self, name):
        """The hash that the hub lists: SHA-256 of the weights, git's SHA-1 of other files."""
        data = self.files[name]
        if name == WEIGHTS:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def listing(self, commit):
        siblings = []
        for name, data in self.files.items():
            sibling = {"rfilename": name, "size": len(data), "blobId": self.hash(name)}
            if name == WEIGHTS:
                sibling["blobId"] = "0" * 40  # of git's pointer to the weights
                sibling["lfs"] = {"sha256": self.hash(name), "size": len(data), "pointerSize": 134}
            siblings.append(sibling)
        return {"id": self.model, "sha": commit, "siblings": siblings}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.hub.authorizations.append(self.headers.get("Authorization"))
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(rf"/api/models/{self.hub.model}/revision/(.+)", path):
            self.api(match[1])
        elif match := re.fullmatch(rf"/{self.hub.model}/resolve/([^/]+)/(.+)", path):
            self.file(match[1], match[2])
        else:
            self.refuse("RepoNotFound")

    def do_CONNECT(self):
        """Be a proxy: pass bytes on in both directions."""
        host, _, port = self.path.partition(":")
        self.hub.requests.append(("CONNECT", int(port)))
        self.send_response(200)
        self.end_headers()
        with socket.create_connection((host, int(port))) as far:
            ends = {self.connection: far, far: self.connection}
            while readable := select.select(list(ends), [], [])[0]:
                for end in readable:
                    data = end.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    ends[end].sendall(data)

    def commit_of(self, revision):
        revisions = self.hub.revisions
        return revision if revision in revisions.values() else revisions.get(revision)

    def api(self, revision):
        self.hub.requests.append(("api", 0))
        if answer := self.hub.answers.get("api"):
            return answer(self)
        if not (commit := self.commit_of(revision)):
            return self.refuse("RevisionNotFound")
        self.send("api", 200, {}, json.dumps(self.hub.listing(commit)).encode())

    def file(self, revision, name):
        if not (commit := self.commit_of(revision)):
            return self.refuse("RevisionNotFound")
        if name not in self.hub.files:
            return self.refuse("EntryNotFound")
        data = self.hub.lies.get(name, self.hub.files[name])
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(wanted[1]) if wanted else 0
        self.hub.requests.append((name, first))
        if answer := self.hub.answers.get(name):
            return answer(self)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{self.hub.hash(name)}"'}
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        self.send(name, 206 if wanted else 200, headers, data[first:], first)

    def send(self, name, status, headers, body=b"", first=0):
        headers = {"Content-Length": str(len(body))} | headers | self.hub.headers.get(name, {})
        self.send_response(status)
        for key, value in headers.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        stop = self.hub.stop_at - first
        if name != WEIGHTS or not 0 < stop < len(body):
            self.wfile.write(body)
            return
        self.wfile.write(body[:stop])
        self.wfile.flush()
        self.hub.stopped.set()
        self.hub.go_on.wait()
        self.close_connection = self.hub.hang_up
        if not self.hub.hang_up:
            self.wfile.write(body[stop:])

    def refuse(self, code):
        self.send("", 404, {"X-Error-Code": code})

    def endless(self, piece):
        """Send a piece again and again until the client hangs up."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(piece)
                self.hub.sent += len(piece)

    def slow(self, text, pause, until):
        """Send bytes with pauses until the client hangs up, at most for `until` seconds."""
        self.close_connection = True
        end = time.monotonic() + until
        with contextlib.suppress(OSError):
            self.wfile.write(text)
            while time.monotonic() < end:
                self.wfile.write(b"a")
                time.sleep(pause)
