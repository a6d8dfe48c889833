"""Label + keys -> one reward per completion, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from selftrain.types import Finish, Label, Rewards, VotedGroup

RewardRule = Callable[[VotedGroup, Label, int], float]
"""(group, label, index of a completion with a readable answer) -> its reward."""


def match(voted: VotedGroup, label: Label, index: int) -> float:
    """r = 1[answer = pseudo-label] (SRT eq. 6)."""
    return float(voted.answers.keys[index] == label.targets[index])


def share(voted: VotedGroup, label: Label, index: int) -> float:  # noqa: ARG001
    """r = c(answer) / N, the vote share of the completion's own answer (soft vote, EMPO arXiv 2504.05812); in (0, 1]."""
    return voted.vote.count_of(voted.answers.keys[index]) / voted.vote.num_votes


REWARD_RULES: Mapping[str, RewardRule] = {"match": match, "share": share}


def rewards_of(voted: VotedGroup, label: Label, rule: RewardRule) -> Rewards:
    """Rewards of a decided group; none for an undecided one. An unread or truncated completion gets 0 with its reason (design law 4)."""
    if not label.is_decided:
        return Rewards((), ())
    values, reasons = [], []
    for index, completion in enumerate(voted.group.completions):
        if completion.finish is Finish.LENGTH:
            value, reason = 0.0, "truncated"
        elif voted.answers.keys[index] is None:
            value, reason = 0.0, "unread"
        else:
            value = rule(voted, label, index)
            reason = "match" if voted.answers.keys[index] == label.targets[index] else "mismatch"
        values.append(value)
        reasons.append(reason)
    return Rewards(tuple(values), tuple(reasons))
