"""Gate: the majority is trusted only where independent signs agree with it; elsewhere the group is undecided, and the record says which gate closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from selftrain.labels import ema
from selftrain.labels.frozen import teacher_requests, teachers_of
from selftrain.labels.majority import majority
from selftrain.labels.rules import Bounds
from selftrain.labels.second_view import SecondView, view_of
from selftrain.policies.base import ExtraRequest
from selftrain.types import AnswerKey, Label, Outcome, VotedGroup
from selftrain.vote import count


@dataclass(frozen=True, slots=True)
class Condition:
    """holds: (group, the majority's key, least share) -> whether the gate is open. asks: for extra samples, None where the votes are enough."""

    holds: Callable[[VotedGroup, AnswerKey | None, float], bool]
    asks: Callable[[Sequence[VotedGroup]], list[ExtraRequest]] | None = None


def share(one: VotedGroup, key: AnswerKey | None, min_share: float) -> bool:  # noqa: ARG001
    """The winner has at least this share of all votes."""
    return one.vote.share_frac >= min_share


def halves(one: VotedGroup, key: AnswerKey | None, min_share: float) -> bool:  # noqa: ARG001
    """The even and the odd completions each have this single winner."""
    return all(count(one.answers.keys[start::2]).winners == (key,) for start in (0, 1))


def teacher(samples: Callable[[VotedGroup], list[VotedGroup]], asks: Callable[[Sequence[VotedGroup]], list[ExtraRequest]]) -> Condition:
    """The vote of another model on the same prompt has this single winner; closed where it was not asked. samples: its votes for a group."""

    def holds(one: VotedGroup, key: AnswerKey | None, min_share: float) -> bool:  # noqa: ARG001
        return [votes.vote.winners for votes in samples(one)] == [(key,)]

    return Condition(holds, asks)


def second_view(source: SecondView) -> Condition:
    """The votes under the second wording have this single winner; closed where a prompt has no second wording. source: asks for them."""

    def holds(one: VotedGroup, key: AnswerKey | None, min_share: float) -> bool:  # noqa: ARG001
        view = view_of(one)
        return view is not None and view.vote.winners == (key,)

    return Condition(holds, lambda voted: source.requests(voted, Bounds()))


CONDITIONS: Mapping[str, Condition] = {
    "share": Condition(share),
    "halves": Condition(halves),
    "base": teacher(teachers_of, teacher_requests),
    "ema": teacher(ema.teachers_of, ema.average_requests),
}


class Gate:
    """conditions: names in CONDITIONS or `bound`, asked in this order; all must hold. min_share: of `share`. bound: conditions that are made for a run."""

    def __init__(self, conditions: Sequence[str], min_share: float, bound: Mapping[str, Condition] = MappingProxyType({})) -> None:
        self._conditions = {name: {**CONDITIONS, **bound}[name] for name in conditions}
        self._min_share = min_share

    def requests(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[ExtraRequest]:  # noqa: ARG002
        return list(dict.fromkeys(request for one in self._conditions.values() if one.asks for request in one.asks(voted)))

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
        return [self._one(one, label) for one, label in zip(voted, majority(voted, bounds), strict=True)]

    def _one(self, one: VotedGroup, label: Label) -> Label:
        if not label.is_decided:
            return replace(label, source="gate")
        closed = next((name for name, condition in self._conditions.items() if not condition.holds(one, label.key, self._min_share)), None)
        if closed is None:
            return replace(label, source="gate")
        return Label(Outcome.GATE_CLOSED, (None,) * one.vote.num_votes, "gate", f"gate {closed}")
