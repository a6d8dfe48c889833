"""What a label source is, and a label source with its bounds: what the loop, the replay and a composition of sources call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from selftrain.labels.rules import Bounds
from selftrain.policies.base import ExtraRequest
from selftrain.types import Label, VotedGroup

LabelSource = Callable[[Sequence[VotedGroup], Bounds], list[Label]]
Requests = Callable[[Sequence[VotedGroup], Bounds], list[ExtraRequest]]


@runtime_checkable
class Remembers(Protocol):
    """A source whose labels depend on earlier steps; what it knows is JSON and stands in every checkpoint (design law 8)."""

    def state(self) -> dict[str, Any]: ...

    def load(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Labelling:
    """A label source with its bounds, in its two phases. asks: None for a source that needs the votes only."""

    source: LabelSource
    asks: Requests | None
    bounds: Bounds

    def requests(self, voted: Sequence[VotedGroup]) -> list[ExtraRequest]:
        """What the source still needs; nothing at the end."""
        return self.asks(voted, self.bounds) if self.asks else []

    def __call__(self, voted: Sequence[VotedGroup]) -> list[Label]:
        """One label per group, when nothing more is asked for. Called once for each step, in order: a source may remember."""
        return self.source(voted, self.bounds)

    def state(self) -> dict[str, Any]:
        """What the source remembers of the steps so far; empty for most."""
        return self.source.state() if isinstance(self.source, Remembers) else {}

    def load(self, state: Mapping[str, Any]) -> None:
        if isinstance(self.source, Remembers):
            self.source.load(state)
