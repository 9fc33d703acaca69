# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Values drawn from bytes: any bytes are an input, and similar bytes are similar inputs.

Knows no target. What is often decisive takes one byte, so that seeds can be written by hand.
"""

import math
import struct

END = b"\xff"  # of a text: no UTF-8 has it

INTEGERS = (
    0, 1, 2, 3, 7, 64, 255, 1024, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63,
    2**64, -1, -2, -(2**31), -(2**63), 10**400, -(10**400),
)  # fmt: skip
NUMBERS = (
    0.0, 1.0, 0.5, 0.25, 22.5, 100.0, 250.0, 397.5, 630.0, -1.0, 1e9, 1e308, -1e308, 5e-324, -0.0,
    1 - 2**-53, math.inf, -math.inf, math.nan,
)  # fmt: skip


RARE = 192  # bytes from here on stand for a number that is in no table


class Source:
    """Zeros follow the last byte."""

    def __init__(self, data):
        self._data = data
        self._at = 0

    def bytes(self, count):
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken.ljust(count, b"\0")

    def byte(self):
        return self.bytes(1)[0]

    def flag(self):
        return bool(self.byte() & 1)

    def choice(self, options):
        return options[self.byte() % len(options)]

    def many(self, draw, most):
        """Up to `most` of what `draw` gives."""
        return [draw() for _ in range(self.byte() % (most + 1))]

    def integer(self, low=None, high=None):
        """One of INTEGERS or of 64 bits; folded into [low, high], where they are given."""
        kind = self.byte()
        if kind < RARE:
            value = INTEGERS[kind % len(INTEGERS)]
        else:
            value = int.from_bytes(self.bytes(8), "big", signed=True)
        if low is None or low <= value <= high:
            return value
        return low + value % (high - low + 1)

    def number(self):
        kind = self.byte()
        if kind < RARE:
            return NUMBERS[kind % len(NUMBERS)]
        return struct.unpack("<d", self.bytes(8))[0]

    def corners(self):
        """Of a box, in pixels: one of some size, or any four numbers."""
        if self.byte() % 4 == 1:
            return tuple(self.number() for _ in range(4))
        x, y, width, height = self.bytes(4)
        return float(x), float(y), x + width + 1.0, y + height + 1.0

    def text(self):
        """Up to END. Bytes that are no UTF-8 become lone surrogates."""
        end = self._data.find(END, self._at)
        end = len(self._data) if end < 0 else end
        taken = self._data[self._at : end]
        self._at = end + 1
        return taken.decode("utf-8", "surrogateescape")

    def words(self, pieces):
        """Text; where its first byte is no ASCII, up to 15 of `pieces` in its place."""
        head = self._data[self._at : self._at + 1]
        if head < b"\x80" or head == END:
            return self.text()
        space = (" ", "")[self.byte() % 4 == 3]
        return space.join(self.choice(pieces) for _ in range(self.byte() % 16))

    def rest(self):
        return self._data[self._at :]


def texts(*lines):
    """The bytes that `Source.text` reads these from."""
    return b"".join(line.encode() + END for line in lines)
