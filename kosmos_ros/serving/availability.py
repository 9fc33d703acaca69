# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The state of the model, as one immutable value. Knows no ROS and no thread."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Phase(enum.Enum):
    """A state of the model. The value is the name that users see."""

    UNCONFIGURED = "unconfigured"
    LOADING = "loading"
    INACTIVE = "not active"
    READY = "ready"
    FAILED = "failed"  # until the model is loaded again
    ENDED = "shut down"  # final


REASONS = {
    Phase.UNCONFIGURED: "the node is unconfigured",
    Phase.LOADING: "the model is loading",
    Phase.INACTIVE: "the node is not active",
    Phase.READY: "",
    Phase.ENDED: "the node is shut down",
}
"""Phase: the default reason for which it refuses requests."""

FOLLOWS = {
    Phase.UNCONFIGURED: {Phase.LOADING, Phase.UNCONFIGURED, Phase.FAILED, Phase.ENDED},
    Phase.LOADING: set(Phase) - {Phase.READY},
    Phase.INACTIVE: set(Phase) - {Phase.LOADING},
    Phase.READY: set(Phase) - {Phase.LOADING},
    Phase.FAILED: {Phase.LOADING, Phase.UNCONFIGURED},
    Phase.ENDED: {Phase.ENDED},
}
"""Phases that may follow each phase. A pause or a shutdown does not hide a failure."""


@dataclass(frozen=True)
class Availability:
    """Whether the model takes requests and frames, and why not.

    A change replaces the whole value, so that no thread sees half of a change.
    """

    phase: Phase = Phase.UNCONFIGURED
    reason: str = REASONS[Phase.UNCONFIGURED]  # why requests are refused; empty when ready
    info: Mapping[str, str] = field(default_factory=dict)  # fields of ModelInfo; empty: no model
    progress: Mapping[str, str] = field(default_factory=dict)  # of loading; otherwise empty

    @property
    def ready(self) -> bool:
        """Whether the model takes requests and frames."""
        return self.phase is Phase.READY

    @property
    def summary(self) -> str:
        """The phase's name, or the reason if it is not the phase's default."""
        known = self.phase in REASONS and self.reason == REASONS[self.phase]
        return self.phase.value if known else self.reason

    def followed_by(
        self, phase: Phase, reason: str = "", info: Mapping[str, str] | None = None
    ) -> Availability:
        """Return the availability in `phase`, or this one if `phase` cannot follow.

        By default `reason` is that of REASONS, and `info` is not changed. `progress` is empty.
        """
        if phase not in FOLLOWS[self.phase]:
            return self
        return Availability(phase, reason or REASONS[phase], self.info if info is None else info)

    def at(self, progress: Mapping[str, str]) -> Availability:
        """Return the availability with this progress, or this one if the model is not loading."""
        loading = self.phase is Phase.LOADING
        return dataclasses.replace(self, progress=progress) if loading else self
