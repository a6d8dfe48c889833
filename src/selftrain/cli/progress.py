"""What is shown of a step: six label-free signals, the guard's state, the time left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selftrain.types import Action, StepMetrics, Verdict

WEIGHT = 0.1
"""of the newest step in the mean that the time left is made of"""


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal of a step: its name, its metric key, its value times `scale` as text with the unit."""

    name: str
    key: str
    form: str
    scale: float = 1.0

    def text(self, values: Mapping[str, float]) -> str:
        value = values.get(self.key)
        return "-" if value is None else self.form.format(self.scale * value)


SIGNALS = (
    Signal("vote share", "vote/share_mean_frac", "{:.3f}"),
    Signal("reward", "reward/mean_frac", "{:.3f}"),
    Signal("entropy", "policy/entropy_mean_nats", "{:.3f} nats"),
    Signal("length", "completion/length_mean_tokens", "{:.1f} tokens"),
    Signal("admitted", "admission/admitted_frac", "{:.0f} %", 100.0),
)


def step_words(metrics: StepMetrics) -> str:
    """vote share 0.612  reward 0.640 ..."""
    return "  ".join(f"{signal.name} {signal.text(metrics.values)}" for signal in SIGNALS)


def guard_state(verdict: Verdict) -> str:
    """ok, or the action with the rules that hit; and the health where there is one."""
    health = "" if verdict.health is None else f", health {verdict.health.value:.2f}"
    if verdict.action is Action.CONTINUE:
        return f"ok{health}"
    return f"{verdict.action.value.replace('_', ' ')} ({', '.join(finding.rule for finding in verdict.findings)}){health}"


class TimeLeft:
    """From the seconds of the steps done so far, newer ones counting more."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._count = 0

    def add(self, seconds: float) -> None:
        self._count += 1
        weight = max(WEIGHT, 1 / self._count)
        self._mean += weight * (seconds - self._mean)

    def seconds(self, steps_left: int) -> float | None:
        """None before the first step."""
        return self._mean * steps_left if self._count else None
