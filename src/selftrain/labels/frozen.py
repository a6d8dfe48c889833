"""Frozen teacher: the vote of the start of the run on the same prompt is the label (SRT, arXiv 2505.21444, section on labels fixed by the base).

What decides does not learn, so it cannot be hacked together with the policy; its ceiling is the vote of the start. It costs samples of its own: as many as
the policy's vote, counted in `cost/teacher_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.labels.rules import Bounds, winner_label
from selftrain.policies.base import ExtraRequest
from selftrain.types import Label, Role, VotedGroup


def teacher_requests(voted: Sequence[VotedGroup]) -> list[ExtraRequest]:
    """As many completions of the frozen start as vote, for each group that has none yet."""
    return [ExtraRequest(one.group.index, Role.TEACHER, one.group.prompt, one.vote.num_votes, policy="base") for one in voted if not teachers_of(one)]


class Frozen:
    """A label source with two phases. The bounds of votes apply to the teacher's vote."""

    def requests(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[ExtraRequest]:  # noqa: ARG002
        """As many completions of the frozen start as vote, for each group that has none yet."""
        return teacher_requests(voted)

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
        """One label per group: the teacher's winner for all N completions, or the reason why there is none."""
        labels = []
        for one in voted:
            (teacher,) = teachers_of(one)
            labels.append(winner_label(teacher.vote, one.vote.num_votes, bounds, "frozen", f"teacher {teacher.group.completions[0].version}"))
        return labels


def teachers_of(one: VotedGroup) -> list[VotedGroup]:
    """The samples of the start for a group; another teacher's have another prompt id."""
    return [extra for extra in one.group.extras_of(Role.TEACHER) if extra.group.prompt.id == one.group.prompt.id]
