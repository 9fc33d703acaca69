# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keep the newest frames that the model has encoded, so that requests can be about them.

Only the encoding of a frame is kept: it takes a fraction of a megabyte, and no request decodes or
encodes the image again.
Knows no ROS, no thread and no engine. One thread at a time may use it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from kosmos_ros.errors import RequestError
from kosmos_ros.serving.earlier_answers import MAX_CAMERAS
from kosmos_ros.serving.work import Job, Stamp


@dataclass(frozen=True, eq=False)
class KeptFrame:
    """A frame that the model has encoded. It takes the place of the image message in a job."""

    header: Any  # of the image message
    image: np.ndarray  # (H, W, 0) uint8: the size without pixels
    encoded: Any  # the engine's encoding


class KeptFrames:
    """The newest frames of each camera. A frame that a request is about counts as the newest."""

    def __init__(self) -> None:
        self.most = 0  # frames of each camera: the setting kept_frames
        self._cameras: OrderedDict[str, deque[KeptFrame]] = OrderedDict()

    def limit(self, most: int) -> None:
        """Keep at most this number of frames of each camera from now on."""
        if most < self.most:
            for frames in self._cameras.values():
                while len(frames) > most:
                    frames.popleft()
        self.most = most

    def keep(self, job: Job, encoded: Any) -> None:
        """Keep the frame of a job that has its answers, unless it is kept already."""
        if job.camera is None:
            return
        seen = job.observation
        frames = self._cameras.setdefault(job.camera, deque())
        self._cameras.move_to_end(job.camera)
        if not any(frame.header is seen.header for frame in frames):
            frames.append(KeptFrame(seen.header, seen.image[:, :, :0].copy(), encoded))
        while len(frames) > self.most:
            frames.popleft()
        if len(self._cameras) > MAX_CAMERAS:
            self._cameras.popitem(last=False)

    def repeat(self, job: Job) -> bool:
        """Keep a frame with the pixels of an earlier one, `job.repeated`, with its encoding.

        Return False if the earlier one is no longer kept, so that this one must be encoded.
        """
        frames = tuple(self._cameras.get(job.observation.camera, ()))
        for frame in frames:
            if job.repeated and frame.header is job.repeated.header:
                self.keep(job, frame.encoded)
                return True
        return not self.most

    def find(self, camera: str, stamp: Stamp) -> KeptFrame:
        """Return the newest frame of `camera` with this stamp. Raises RequestError."""
        frames = self._cameras.get(camera, deque())
        for frame in reversed(frames):
            if (frame.header.stamp.sec, frame.header.stamp.nanosec) == stamp:
                frames.remove(frame)
                frames.append(frame)
                return frame
        of = f" of camera {camera}" if camera else ""
        kept = (
            "use the stamp of a newer result, or none for the newest frame: the node keeps the "
            f"last {self.most} frames that were described or used by a request (parameter "
            "kept_frames)"
            if self.most
            else "set the parameter kept_frames to more than 0, or use no stamp"
        )
        raise RequestError(f"no frame{of} with stamp {stamp[0]}.{stamp[1]:09d} is kept; {kept}")

    def clear(self) -> None:
        """Forget all frames, which frees device memory."""
        self._cameras.clear()
