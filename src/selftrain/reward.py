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


def unrewarded(voted: VotedGroup, index: int) -> str:
    """Why a completion has no answer that could be rewarded: `truncated` or `unread`; empty for one that has."""
    if voted.group.completions[index].finish is Finish.LENGTH:
        return "truncated"
    return "unread" if voted.answers.keys[index] is None else ""


def rewards_of(voted: VotedGroup, label: Label, rule: RewardRule) -> Rewards:
    """Rewards of a decided group; none for an undecided one. An unread or truncated completion gets 0 with its reason (design law 4).

    Where the label source gives the rewards itself, they are these.
    """
    if not label.is_decided:
        return Rewards((), ())
    if label.values:
        return Rewards(label.values, label.notes)
    values, reasons = [], []
    for index in range(len(voted.group.completions)):
        reason = unrewarded(voted, index)
        value = 0.0
        if not reason:
            value = rule(voted, label, index)
            reason = "match" if voted.answers.keys[index] == label.targets[index] else "mismatch"
        values.append(value)
        reasons.append(reason)
    return Rewards(tuple(values), tuple(reasons))
