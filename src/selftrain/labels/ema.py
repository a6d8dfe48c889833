"""Averaged teacher: the vote of theta_ema = a theta_ema + (1 - a) theta is the label (Co-rewarding-II, arXiv 2508.00410; M-GRPO, arXiv 2512.13070).

The average begins as the policy that is first asked and follows it one update at a time, 1 / (1 - a) updates behind. So what decides cannot follow a sudden
hack, and unlike the frozen start it learns. It costs samples of its own: as many as the policy's vote, counted in `cost/teacher_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from selftrain.labels.rules import Bounds, winner_label
from selftrain.policies.base import ExtraRequest
from selftrain.types import Label, Role, VotedGroup

SUFFIX = " ema"
"""of the prompt ids of its samples, which are drawn from streams of their own and told from another teacher's by it"""


def average_requests(voted: Sequence[VotedGroup]) -> list[ExtraRequest]:
    """As many completions of the average as vote, for each group that has none yet."""
    return [
        ExtraRequest(one.group.index, Role.TEACHER, replace(one.group.prompt, id=one.group.prompt.id + SUFFIX), one.vote.num_votes, policy="ema")
        for one in voted
        if not teachers_of(one)
    ]


class Ema:
    """A label source with two phases. The bounds of votes apply to the teacher's vote."""

    def requests(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[ExtraRequest]:  # noqa: ARG002
        """As many completions of the average as vote, for each group that has none yet."""
        return average_requests(voted)

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
        """One label per group: the teacher's winner for all N completions, or the reason why there is none."""
        labels = []
        for one in voted:
            (teacher,) = teachers_of(one)
            labels.append(winner_label(teacher.vote, one.vote.num_votes, bounds, "ema", f"average {one.group.completions[0].version}"))
        return labels


def teachers_of(one: VotedGroup) -> list[VotedGroup]:
    """The samples of the average for a group."""
    return [extra for extra in one.group.extras_of(Role.TEACHER) if extra.group.prompt.id == one.group.prompt.id + SUFFIX]
