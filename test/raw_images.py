# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Raw images of every encoding: their bytes and the pixels that they stand for."""

import math
import struct

LIMIT = 10_000

RED, WHITE, BLACK, DUSK = (255, 0, 0), (255, 255, 255), (0, 0, 0), (10, 20, 30)
# 10, 20 and 30 times 257; the first two are off by 128, just less than half a step of 8 bits.
DUSK_16 = (10 * 257 + 128, 20 * 257 - 128, 30 * 257)


def u16(*values):
    return struct.pack(f"<{len(values)}H", *values)


def grey(*values):
    return [(value,) * 3 for value in values]


def bayer(first, second):
    """Return a 4 x 4 mosaic of the colour (200, 100, 50); its first rows have these letters."""
    level = {"r": 200, "g": 100, "b": 50}
    return [[level[letter] for letter in row * 2] for row in (first, second) * 2]


FLAT = [[(200, 100, 50)] * 4] * 4
# BT.601, limited range: Y 81, U 90, V 240 is red, which 8 bits round to (254, 0, 0).
VIDEO_RED = (254, 0, 0)

# encoding -> rows of bytes, plane after plane; rows of expected pixels
CASES = {
    "rgb8": ([bytes([255, 0, 0, 10, 20, 30])], [[RED, DUSK]]),
    "bgr8": ([bytes([0, 0, 255, 30, 20, 10])], [[RED, DUSK]]),
    "rgba8": ([bytes([255, 0, 0, 7, 10, 20, 30, 9])], [[RED, DUSK]]),
    "bgra8": ([bytes([0, 0, 255, 7, 30, 20, 10, 9])], [[RED, DUSK]]),
    "8UC3": ([bytes([0, 0, 255, 30, 20, 10])], [[RED, DUSK]]),
    "8UC4": ([bytes([0, 0, 255, 7, 30, 20, 10, 9])], [[RED, DUSK]]),
    "mono8": ([b"\x00\x07", b"\x80\xff"], [grey(0, 7), grey(128, 255)]),
    "8UC1": ([b"\x00\x07", b"\x80\xff"], [grey(0, 7), grey(128, 255)]),
    "rgb16": ([u16(65535, 0, 0, *DUSK_16)], [[RED, DUSK]]),
    "bgr16": ([u16(0, 0, 65535, *DUSK_16[::-1])], [[RED, DUSK]]),
    "rgba16": ([u16(65535, 0, 0, 5, *DUSK_16, 6)], [[RED, DUSK]]),
    "bgra16": ([u16(0, 0, 65535, 5, *DUSK_16[::-1], 6)], [[RED, DUSK]]),
    "mono16": ([u16(0, 128, 129), u16(32768, 65406, 65407)], [grey(0, 0, 1), grey(128, 254, 255)]),
    "16UC1": ([u16(0, 1000), u16(1400, 2000)], [grey(0, 0), grey(102, 255)]),
    "32FC1": (
        [struct.pack("<3f", math.nan, 1.0, 1.5), struct.pack("<3f", 3.5, math.inf, -math.inf)],
        [grey(0, 0, 51), grey(255, 0, 0)],
    ),
    **{
        f"bayer_{pattern}8": ([bytes(row) for row in bayer(pattern[:2], pattern[2:])], FLAT)
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
    },
    **{
        f"bayer_{pattern}16": (
            [
                u16(*(value * 257 + 100 for value in row))
                for row in bayer(pattern[:2], pattern[2:])
            ],
            FLAT,
        )
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
    },
    **{
        name: (
            [bytes([90, 81, 240, 81, 128, 235, 128, 16])],
            [[VIDEO_RED, VIDEO_RED, WHITE, BLACK]],
        )
        for name in ("uyvy", "yuv422")
    },
    **{
        name: (
            [bytes([81, 90, 81, 240, 235, 128, 16, 128])],
            [[VIDEO_RED, VIDEO_RED, WHITE, BLACK]],
        )
        for name in ("yuyv", "yuv422_yuy2")
    },
    "nv12": (
        [bytes([81, 81, 235, 16]), bytes([81, 81, 16, 235]), bytes([90, 240, 128, 128])],
        [[VIDEO_RED, VIDEO_RED, WHITE, BLACK], [VIDEO_RED, VIDEO_RED, BLACK, WHITE]],
    ),
    "nv21": (
        [bytes([81, 81, 235, 16]), bytes([81, 81, 16, 235]), bytes([240, 90, 128, 128])],
        [[VIDEO_RED, VIDEO_RED, WHITE, BLACK], [VIDEO_RED, VIDEO_RED, BLACK, WHITE]],
    ),
    "nv24": (
        [
            bytes([81, 16]),
            bytes([235, 81]),
            bytes([90, 240] + [128] * 2),
            bytes([128] * 2 + [90, 240]),
        ],
        [[VIDEO_RED, BLACK], [WHITE, VIDEO_RED]],
    ),
}


def message_data(rows, pad=b""):
    """Return the bytes of the image; `pad` follows each row, in proportion to the row's length."""
    return b"".join(row + pad * (len(row) // len(rows[0])) for row in rows)
