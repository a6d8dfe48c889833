"""Rewards of a group -> advantages. The baseline is taken over all N votes, also when fewer are trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

AdvantageRule = Callable[[Sequence[float]], tuple[float, ...]]

STD_FLOOR = 1e-6


def rloo(rewards: Sequence[float]) -> tuple[float, ...]:
    """A_i = r_i - mean of the other rewards (arXiv 2402.14740). Example: (1, 1, 0) -> (0.5, 0.5, -1)."""
    n, total = len(rewards), math.fsum(rewards)
    return tuple(reward - (total - reward) / (n - 1) for reward in rewards)


def dr_grpo(rewards: Sequence[float]) -> tuple[float, ...]:
    """A_i = r_i - mean (Dr. GRPO, arXiv 2503.20783; use objective.length_norm = max_tokens with it). Example: (1, 1, 0) -> (1/3, 1/3, -2/3)."""
    mean = math.fsum(rewards) / len(rewards)
    return tuple(reward - mean for reward in rewards)


def grpo(rewards: Sequence[float]) -> tuple[float, ...]:
    """A_i = (r_i - mean) / (s + 1e-6), s the sample standard deviation (GRPO, arXiv 2402.03300)."""
    centred = dr_grpo(rewards)
    deviation = math.sqrt(math.fsum(value * value for value in centred) / (len(rewards) - 1))
    return tuple(value / (deviation + STD_FLOOR) for value in centred)


def weighted(advantages: Sequence[float], weight: float, offset: float) -> tuple[float, ...]:
    """weight * (A_i + offset): what a label says about its whole group. Example: (0.5, -0.5), weight 2, offset -1 -> (-1, -3)."""
    if (weight, offset) == (1, 0):
        return tuple(advantages)
    return tuple(weight * (value + offset) for value in advantages)


ADVANTAGE_RULES: Mapping[str, AdvantageRule] = {"rloo": rloo, "grpo": grpo, "dr_grpo": dr_grpo}
