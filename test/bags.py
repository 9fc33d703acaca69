# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write bags of drawn scenes, and read bags, with the package rosbags."""

import io

import numpy as np
from PIL import Image
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from kosmos_ros.offline.bags.messages import COMPRESSED, IMAGE, Types
from kosmos_ros.shapes.rendering import render
from kosmos_ros.shapes.scenes import moving_scene

TYPES = Types()
BEGIN = 1_700_000_000 * 10**9  # ns, record time of the first message
SENT = 20_000_000  # ns between a stamp and its record time
PERIOD = 100_000_000  # ns between frames
MCAP, SQLITE3 = StoragePlugin.MCAP, StoragePlugin.SQLITE3


def header(time, frame_id="camera"):
    """Return a header with the stamp `time` (ns)."""
    stamp = TYPES.new("builtin_interfaces/msg/Time", sec=time // 10**9, nanosec=time % 10**9)
    return TYPES.new("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def frame(number, width=160, height=120, seed=1):
    """Return frame `number` of a moving scene (H, W, 3)."""
    return render(moving_scene(seed, number * PERIOD * 1e-9, width, height))


def raw(image, time, **fields):
    height, width, _ = image.shape
    values = {"encoding": "rgb8", "step": 3 * width, "data": image.reshape(-1), **fields}
    return TYPES.new(
        IMAGE, header=header(time), height=height, width=width, is_bigendian=0, **values
    )


def compressed(image, time, kind="JPEG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    data = np.frombuffer(file.getvalue(), np.uint8)
    return TYPES.new(COMPRESSED, header=header(time), format=kind.lower(), data=data)


def write_bag(path, messages, storage=MCAP, version=8, mode=CompressionMode.NONE):
    """Write (topic, type, record time in ns, message or CDR bytes) in the order of `messages`."""
    writer = Writer(path, version=version, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, kind, time, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES.store)
            data = message if isinstance(message, bytes) else TYPES.data(message)
            writer.write(connections[topic], time, data)
    return path


def frames(count, topic="/front/image_raw", kind=IMAGE, seed=1, first=0):
    """Return messages for `write_bag`: `count` frames of a moving scene."""
    make = raw if kind == IMAGE else compressed
    return [
        (topic, kind, BEGIN + n * PERIOD, make(frame(n, seed=seed), BEGIN + n * PERIOD - SENT))
        for n in range(first, first + count)
    ]


def text(number, topic="/chatter"):
    """Return a message for `write_bag` that is no image."""
    message = TYPES.new("std_msgs/msg/String", data=f"text {number}")
    return topic, "std_msgs/msg/String", BEGIN + number * PERIOD + 1, message


def contents(path):
    """Return (topic, type, time, CDR bytes) of all messages of a bag, in the order of reading."""
    with Reader(path) as reader:
        return [
            (connection.topic, connection.msgtype, time, bytes(data))
            for connection, time, data in reader.messages()
        ]


def messages(path, topic):
    """Return (time, message) of one topic of a bag."""
    return [
        (time, TYPES.store.deserialize_cdr(data, kind))
        for name, kind, time, data in contents(path)
        if name == topic
    ]
