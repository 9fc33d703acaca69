# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Put files together from pieces of valid files, so that most inputs are nearly valid.

Each piece takes one byte. Bytes from EDITS on change the last piece. Knows no format.
"""

MOST = 2048  # pieces; each should have at most some hundred bytes
REPEAT, SET, CUT, RAW = EDITS = (252, 253, 254, 255)


def assembled(source, pieces):
    """Return up to about MOST pieces that `source` selects, as a list."""
    parts = []
    while source.rest() and len(parts) < MOST:
        number = source.byte()
        if number < REPEAT:
            parts.append(pieces[number % len(pieces)])
        elif number == RAW:
            parts.append(source.bytes(source.byte()))
        elif parts:
            parts += _edited(source, number, parts.pop())
    return parts


def _edited(source, number, last):
    if number == REPEAT:
        return [last] * (source.byte() ** 2 // 32)
    if number == CUT:
        return [last[: source.byte()]]
    at, value = source.byte() % (len(last) or 1), source.byte()
    return [last[:at] + bytes([value]) + last[at + 1 :]]


def seeds(pieces, *files):
    """Return the inputs that give `files`, each a list of pieces or of numbers of edits."""
    return tuple(
        bytes(part if isinstance(part, int) else pieces.index(part) for part in file)
        for file in files
    )
