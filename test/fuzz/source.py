# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Draw values from bytes. Any bytes are an input, and similar bytes give similar inputs.

Knows no target. Frequent choices take one byte, so that seeds can be written by hand.
"""

import math
import struct

END = b"\xff"  # ends a text; never occurs in UTF-8

INTEGERS = (
    0, 1, 2, 3, 7, 64, 255, 1024, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63,
    2**64, -1, -2, -(2**31), -(2**63), 10**400, -(10**400),
)  # fmt: skip
NUMBERS = (
    0.0, 1.0, 0.5, 0.25, 22.5, 100.0, 250.0, 397.5, 630.0, -1.0, 1e9, 1e308, -1e308, 5e-324, -0.0,
    1 - 2**-53, math.inf, -math.inf, math.nan,
)  # fmt: skip


RARE = 192  # from this byte on, the next 8 bytes are the number


class Source:
    """A reader of bytes; after the last byte it reads zeros."""

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
        """Return a list of up to `most` values of `draw`."""
        return [draw() for _ in range(self.byte() % (most + 1))]

    def integer(self, low=None, high=None):
        """Return one of INTEGERS or any 64-bit integer, wrapped into [low, high] if given."""
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
        """Return the corners of a box in pixels: a valid box, or any four numbers."""
        if self.byte() % 4 == 1:
            return tuple(self.number() for _ in range(4))
        x, y, width, height = self.bytes(4)
        return float(x), float(y), x + width + 1.0, y + height + 1.0

    def text(self):
        """Return the text before END. Bytes that are not UTF-8 become lone surrogates."""
        end = self._data.find(END, self._at)
        end = len(self._data) if end < 0 else end
        taken = self._data[self._at : end]
        self._at = end + 1
        return taken.decode("utf-8", "surrogateescape")

    def words(self, pieces):
        """Return text, or up to 15 of `pieces` if its first byte is not ASCII."""
        head = self._data[self._at : self._at + 1]
        if head < b"\x80" or head == END:
            return self.text()
        space = (" ", "")[self.byte() % 4 == 3]
        return space.join(self.choice(pieces) for _ in range(self.byte() % 16))

    def rest(self):
        return self._data[self._at :]


def texts(*lines):
    """Return the bytes from which `Source.text` reads these lines."""
    return b"".join(line.encode() + END for line in lines)
