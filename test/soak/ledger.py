# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Count the result of every request from the reports of clients.

Knows no process and no topic.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from soak.report import Row

REASONS = {
    "queue full": r"^the queue is full",
    "the model was not free in time": r"the model was not free within",
    "no image in time": r"^no image",
    "not active": r"the node is|the model is loading|the model has stopped",
    "cancelled": r"the goal was cancelled|generation was stopped",
    "bad picture": r"an image of|image must have|bytes of data|^step must|is not supported"
    "|truncated|not a JPEG",
}
"""Class of a refusal: pattern of its message."""


class Ledger:
    """Counts of requests; `sent` leaves out those of clients that were killed meanwhile."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()  # by kind
        self.answered: Counter[str] = Counter()  # by kind
        self.refused: Counter[str] = Counter()  # by reason
        self.faults: dict[str, list[str]] = {"lost": [], "wrong": [], "twice": []}
        self.named = [0, 0]  # images of requests that were described wrongly, rightly
        self.feedback = 0
        self.unconnected = 0  # responses that did not reach a new client
        self._waits: list[float] = []  # s

    def take(self, line: dict[str, Any]) -> None:
        """Count one report of a client."""
        if "sent" in line:
            self.sent[line["kind"]] += 1
        elif "answered" in line:
            self.answered[line["kind"]] += 1
            self._waits.append(line["wait"])
            if line["named"] is not None:
                self.named[line["named"]] += 1
        elif "refused" in line:
            self.refused[reason(line["why"])] += 1
        elif "feedback" in line:
            self.feedback += line["feedback"]
        elif "unconnected" in line:
            self.unconnected += line["unconnected"]
        for fault, lines in self.faults.items():
            if fault in line:
                lines.append(str(line))

    def forget(self, kind: str) -> None:
        """Leave out a request of this kind whose client was killed."""
        self.sent[kind] -= 1

    def rows(self) -> Iterator[Row]:
        yield Row("requests sent by surviving clients", self.sent.total(), "requests")
        for kind, count in sorted(self.sent.items()):
            yield Row(f"requests sent: {kind}", count, "requests")
            yield Row(f"requests answered: {kind}", self.answered[kind], "requests")
        yield Row("requests answered", self.answered.total(), "requests")
        yield Row("requests refused", self.refused.total(), "requests")
        for why, count in self.refused.most_common():
            yield Row(f"requests refused: {why}", count, "requests")
        faults = {fault: len(lines) for fault, lines in self.faults.items()}
        reported = self.answered.total() + self.refused.total() + faults["lost"] + faults["wrong"]
        yield Row("requests lost", faults["lost"], "requests", fault=True)
        yield Row(
            "requests without a reported result",
            self.sent.total() - reported,
            "requests",
            fault=True,
        )
        yield Row("requests answered twice", faults["twice"], "requests", fault=True)
        yield Row("requests answered about a wrong frame", faults["wrong"], "requests", fault=True)
        yield Row("first requests lost while DDS connected", self.unconnected, "requests")
        yield Row("action feedback", self.feedback, "messages")
        if sum(self.named):
            share = 100 * self.named[True] / sum(self.named)
            yield Row("images of requests described rightly", share, "%")
        for percent in (50, 95, 99) if self._waits else ():
            yield Row(f"wait p{percent}", float(np.percentile(self._waits, percent)), "s")


def reason(message: str) -> str:
    """Return the class of a refusal; the message without its numbers if no class matches."""
    known = (name for name, words in REASONS.items() if re.search(words, message))
    return next(known, re.sub(r"\d+", "#", message)[:60])
