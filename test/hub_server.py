# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face hub on this machine with one model, for tests of downloads."""

import hashlib
import json
import os
import re
import threading
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

    `requests` lists the method, the name of the file (or "api") and the first byte of each
    request. `lies` replace the contents of files, but not their listed hashes. If `stop_at` is
    set, a response with weights stops at that byte, sets `stopped` and waits for `go_on`.
    """

    def __init__(self, model=MODEL):
        self.model = model
        self.files = {path.name: path.read_bytes() for path in shapes.MODEL_DIR.iterdir()}
        self.files |= DECOYS
        self.commit = "1" * 40
        self.revisions = {"main": self.commit, "v1": self.commit}
        self.lies = {}
        self.requests = []
        self.stop_at = 0
        self.stopped, self.go_on = threading.Event(), threading.Event()
        hub = self

        class Handler(_Handler):
            def __init__(self, *arguments):
                self.hub = hub
                super().__init__(*arguments)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home, **more):
        """The environment of a process that downloads from this hub to the folder `home`."""
        more = {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0"} | more
        return os.environ | {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | more

    def fetched(self):
        """Name and first byte of each GET of a file, in order."""
        gets = [(name, first) for method, name, first in self.requests if method == "GET"]
        return [(name, first) for name, first in gets if name != "api"]

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

    def tree(self, commit):
        return [
            {"type": "file", "oid": self.hash(name), "size": len(data), "path": name}
            for name, data in self.files.items()
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer(head=False)

    def answer(self, head):
        path = unquote(urlsplit(self.path).path)
        api = f"/api/models/{self.hub.model}"
        if match := re.fullmatch(rf"{api}(?:/revision/(.+))?", path):
            self.api(match[1] or "main", self.hub.listing)
        elif match := re.fullmatch(rf"{api}/tree/(.+)", path):  # for older versions of the hub
            self.api(match[1], self.hub.tree)
        elif match := re.fullmatch(rf"/{self.hub.model}/resolve/([^/]+)/(.+)", path):
            self.file(match[1], match[2], head)
        else:
            self.refuse("RepoNotFound")

    def commit_of(self, revision):
        revisions = self.hub.revisions
        return revision if revision in revisions.values() else revisions.get(revision)

    def api(self, revision, listing):
        self.hub.requests.append(("GET", "api", 0))
        if not (commit := self.commit_of(revision)):
            return self.refuse("RevisionNotFound")
        body = json.dumps(listing(commit)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def file(self, revision, name, head):
        if not (commit := self.commit_of(revision)):
            return self.refuse("RevisionNotFound")
        if name not in self.hub.files:
            return self.refuse("EntryNotFound")
        data = self.hub.lies.get(name, self.hub.files[name])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]) + 1, len(data)) if wanted and wanted[2] else len(data)
        self.hub.requests.append((self.command, name, first))
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{self.hub.hash(name)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - first))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(data)}")
        self.end_headers()
        if head:
            return
        stop = self.hub.stop_at if name == WEIGHTS and self.hub.stop_at else len(data)
        self.wfile.write(data[first : min(end, stop)])
        self.wfile.flush()
        if stop < end:
            self.hub.stopped.set()
            self.hub.go_on.wait()
            self.close_connection = True

    def refuse(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
