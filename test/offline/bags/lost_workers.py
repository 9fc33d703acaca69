# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Workers of `kosmos bags` with a fake engine that stop or end in the middle of a bag.

    python -m lost_workers hold IN OUT NAME     stops in the third batch until it reads a line
    python -m lost_workers cluster IN OUT       loses a worker, and a node of a Ray cluster

Both print what they return as JSON.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

from mute_engine import MuteEngine

from kosmos_ros.memory.observed import MODEL_SETTINGS
from kosmos_ros.offline.bags.job import Job
from kosmos_ros.offline.bags.many import Many
from kosmos_ros.serving.node_settings import CameraSettings

MODEL = {"device": "cpu", "threads": 0}


def many_of(folder, out):
    kinds = dict.fromkeys(MODEL_SETTINGS, "")
    job = Job(
        bag=folder,
        out=out,
        settings=CameraSettings(),
        model="fake",
        max_image_pixels=10**6,
        model_settings=kinds,
    )
    return Many(folder, out, job, MODEL)


class HeldEngine(MuteEngine):
    def encode_batch(self, images):
        if self.batches == 2:
            print("third batch", flush=True)
            sys.stdin.readline()
        return super().encode_batch(images)


class LostEngine(MuteEngine):
    """Writes its batches to a file. The first two end in their fifth batch, all in the dark."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def encode_batch(self, images):
        if not images[0].any():
            os.kill(os.getpid(), signal.SIGKILL)
        if self.batches == 4:
            if self._first("killed"):
                os.kill(os.getpid(), signal.SIGKILL)
            if self._first("removed"):
                import ray

                # Both ends of a pipe wait for each other.
                (self.folder / "node").write_text(ray.get_runtime_context().get_node_id())
                signal.pause()
        with (self.folder / "batches").open("a") as file:
            print(len(images), file=file)
        return super().encode_batch(images)

    def _first(self, name):
        """Return whether no engine has called this before."""
        with contextlib.suppress(FileExistsError):
            (self.folder / name).open("x").close()
            return True
        return False


class Load:
    """Loads an engine once, as the command's own Loader does."""

    def __init__(self, folder):
        self.folder = folder
        self.engine = None

    def __call__(self):
        self.engine = self.engine or LostEngine(self.folder)
        return self.engine


def on_cluster(folder, out):
    """Describe all bags on two nodes, one of which is lost. Return the records and reports."""
    from ray.cluster_utils import Cluster as Nodes

    from kosmos_ros.offline.bags import cluster, many

    marks = out.with_name("marks")
    marks.mkdir()
    os.mkfifo(marks / "node")
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    workers = [nodes.add_node(num_cpus=1) for _ in range(2)]

    def remove():
        lost = (marks / "node").read_text()
        nodes.remove_node(next(each for each in workers if each.node_id == lost), False)

    threading.Thread(target=remove, daemon=True).start()
    job, reports = many_of(folder, out), []
    with cluster.Cluster(job, Load(marks), nodes.address, report=reports.append) as found:
        records = list(found.describe(many.find(folder, print)))
    nodes.shutdown()
    described = sum(map(int, (marks / "batches").read_text().split()))
    return {"records": records, "reports": reports, "described": described}


if __name__ == "__main__":
    what, folder, out, *names = sys.argv[1:]
    if what == "hold":
        engine = HeldEngine()
        found = many_of(Path(folder), Path(out)).describe(*names, lambda: engine)
    else:
        found = on_cluster(Path(folder), Path(out))
    print(json.dumps(found))
