"""Verified: a program decided about each completion before (verifiers/); its score is the reward. Not label-free."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.labels.rules import Bounds
from selftrain.types import Label, Outcome, VotedGroup


def verified(voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:  # noqa: ARG001
    """r_i = the verifier's score, 0 with its reason where it gave none.

    Undecided where the verifier did not look (`no_verifier`), and where it gave no score to any completion (`no_verdict`). The bounds of votes do not apply.
    """
    return [label_one(one) for one in voted]


def label_one(one: VotedGroup) -> Label:
    targets = (None,) * one.vote.num_votes
    if not one.checks:
        return Label(Outcome.NO_VERIFIER, targets, "verifier", "verifier")
    if all(check.score is None for check in one.checks):
        return Label(Outcome.NO_VERDICT, targets, "verifier", "verifier", uses_truth=True)
    values = tuple(check.score or 0.0 for check in one.checks)
    return Label(Outcome.DECIDED, targets, "verifier", "verifier", uses_truth=True, values=values, notes=tuple(check.note for check in one.checks))
