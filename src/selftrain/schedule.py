"""The learning rate of a step, a pure function of its number (so a resumed run needs no scheduler state)."""

from __future__ import annotations

import math

from selftrain.config import UpdateSection


def learning_rate(update: UpdateSection, step: int, num_steps: int) -> float:
    """Rate for step 0 <= step < num_steps: linear rise over `warmup_steps`, then constant, linear or cosine fall to 0 after the last step."""
    if step < update.warmup_steps:
        return update.learning_rate * (step + 1) / update.warmup_steps
    progress = (step - update.warmup_steps) / max(1, num_steps - update.warmup_steps)
    factor = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}[update.schedule]
    return update.learning_rate * factor
