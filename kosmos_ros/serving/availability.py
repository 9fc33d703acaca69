# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Whether the model can be asked, as one immutable value. Knows no ROS and no thread."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Phase(enum.Enum):
    """What the model does; the value is the phase's name for people."""

    UNCONFIGURED = "unconfigured"
    LOADING = "loading"
    INACTIVE = "not active"
    READY = "ready"
    FAILED = "failed"  # until it is loaded anew
    ENDED = "shut down"  # for good


REASONS = {
    Phase.UNCONFIGURED: "the node is unconfigured",
    Phase.LOADING: "the model is loading",
    Phase.INACTIVE: "the node is not active",
    Phase.READY: "",
    Phase.ENDED: "the node is shut down",
}
"""Why requests are refused in a phase, unless something more exact is known."""

FOLLOWS = {
    Phase.UNCONFIGURED: {Phase.LOADING, Phase.UNCONFIGURED, Phase.FAILED, Phase.ENDED},
    Phase.LOADING: set(Phase) - {Phase.READY},
    Phase.INACTIVE: set(Phase) - {Phase.LOADING},
    Phase.READY: set(Phase) - {Phase.LOADING},
    Phase.FAILED: {Phase.LOADING, Phase.UNCONFIGURED},
    Phase.ENDED: {Phase.ENDED},
}
"""Which phases may follow each. A failure is never covered up by a pause or by the end."""


@dataclass(frozen=True)
class Availability:
    """Whether the model can be asked, and why not. Swapped whole, so that it is read whole."""

    phase: Phase = Phase.UNCONFIGURED
    reason: str = REASONS[Phase.UNCONFIGURED]  # why requests are refused; empty when ready
    info: Mapping[str, str] = field(default_factory=dict)  # what runs where; empty: no model

    @property
    def ready(self) -> bool:
        """Whether requests and frames are taken."""
        return self.phase is Phase.READY

    @property
    def summary(self) -> str:
        """The phase's name; the reason where it says more."""
        known = self.phase in REASONS and self.reason == REASONS[self.phase]
        return self.phase.value if known else self.reason

    def followed_by(
        self, phase: Phase, reason: str = "", info: Mapping[str, str] | None = None
    ) -> Availability:
        """Return what this becomes in `phase`, which is itself if `phase` cannot follow.

        `reason` is that of REASONS by default, `info` stays what it is.
        """
        if phase not in FOLLOWS[self.phase]:
            return self
        return Availability(phase, reason or REASONS[phase], self.info if info is None else info)
