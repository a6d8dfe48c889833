"""Signals that need what came before: how fast votes come to agree, and what reward was gained for how far the policy has moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selftrain.guard.window import Signals, mean

SPEEDS: Mapping[str, str] = {"vote/share_speed_frac": "vote/share_mean_frac", "vote/margin_speed_frac": "vote/margin_mean_frac"}
PER_NAT, REWARD, KL = "probe/reward_per_nat", "reward/mean_frac", "probe/kl_base_nats"
LEAST_NATS = 0.01
"""Below that a policy has not moved, and a quotient would say nothing."""


def speeds(recent: Sequence[Signals], size: int) -> dict[str, float]:
    """Mean over the last window minus mean over the one before, / `size` steps. recent: two windows, the newest step last; nothing where there are fewer."""
    before, now = recent[:-size], recent[-size:]
    if len(before) < size:
        return {}
    known = {name: of for name, of in SPEEDS.items() if any(of in step for step in before) and any(of in step for step in now)}
    return {name: (mean(now, of) - mean(before, of)) / size for name, of in known.items()}


def gained_per_nat(first: Sequence[Signals], recent: Sequence[Signals], values: Signals) -> dict[str, float]:
    """Mean reward over the last window minus that over the first steps, / KL to the start per token; in a step with a probe that has moved by `LEAST_NATS`."""
    if values.get(KL, 0.0) < LEAST_NATS or not all(any(REWARD in step for step in steps) for steps in (first, recent)):
        return {}
    return {PER_NAT: (mean(recent, REWARD) - mean(first, REWARD)) / values[KL]}
