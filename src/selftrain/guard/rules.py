"""Guard rules: label-free signals of a window of steps, against the run's own first steps.

Each rule is a pure function of two averages, `baseline` (the first steps of the run) and `recent` (the last window), by metric key.
There are two known collapses (method §5): onto a constant answer (collisions up, length and entropy down) and into noise (entropy up, unread up).
A high vote share alone is not a finding: an easy prompt set has share 0.95 and is healthy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from selftrain.types import Finding

Signals = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Rule:
    """`serious` findings halt the run, others warn. `value` is compared with `limit`: above it is a hit."""

    name: str
    serious: bool
    value: Callable[[Signals, Signals], float]
    limit: Callable[[Signals, Signals], float]
    words: str

    def find(self, baseline: Signals, recent: Signals, window_steps: int) -> Finding | None:
        """The finding, or None when the rule does not hit or a signal it needs is missing."""
        try:
            value, limit = self.value(baseline, recent), self.limit(baseline, recent)
        except KeyError:
            return None
        return Finding(self.name, value, limit, window_steps, self.words) if value > limit else None


def constant_answer_limit(baseline: Signals, recent: Signals) -> float:  # noqa: ARG001
    """0.25 above the collisions of the first steps: prompts whose answers really coincide start high and stay there."""
    return min(0.95, baseline["vote/collision_frac"] + 0.25)


def entropy_rise(baseline: Signals, recent: Signals) -> float:
    """How many times the first steps' entropy, with a floor of 0.05 nats under the baseline so that a near-deterministic start does not divide by 0."""
    return recent["policy/entropy_mean_nats"] / max(0.05, baseline["policy/entropy_mean_nats"])


def shortening(baseline: Signals, recent: Signals) -> float:
    """How many times shorter completions are than at the first steps; 0 while agreement is not above theirs, where short answers are no shortcut."""
    if recent["vote/share_mean_frac"] <= baseline["vote/share_mean_frac"]:
        return 0.0
    return baseline["completion/length_mean_tokens"] / max(1.0, recent["completion/length_mean_tokens"])


RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "constant_answer",
            True,
            lambda baseline, recent: recent["vote/collision_frac"],
            constant_answer_limit,
            "different prompts get the same answer: the policy is collapsing onto a constant",
        ),
        Rule(
            "noise",
            True,
            entropy_rise,
            lambda baseline, recent: 2.5,
            "token entropy is exploding: the policy is dissolving into noise",
        ),
        Rule(
            "unread",
            True,
            lambda baseline, recent: baseline["vote/read_mean_frac"] - recent["vote/read_mean_frac"],
            lambda baseline, recent: 0.25,
            "completions with a readable answer are vanishing",
        ),
        Rule(
            "no_signal",
            True,
            lambda baseline, recent: 1.0 - recent["admission/admitted_frac"],
            lambda baseline, recent: 1.0 - 1e-9,
            "no group has trained for a whole window: votes are undecided or unanimous; look at the admission reasons and truncated completions",
        ),
        Rule(
            "shortcut",
            False,
            shortening,
            lambda baseline, recent: 2.0,
            "completions are half as long as at the start while agreement rises: reasoning is being skipped",
        ),
    )
}
