"""What a run's verdicts hold against its checkpoints: the fold of them that the run, the report and the laboratory hand over by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from selftrain.guard.health import HALF
from selftrain.guard.rules import PROBE_RULES
from selftrain.types import StepMetrics, Verdict

PROBE = "probe/"
PROBE_NAMES = frozenset(rule.name for rule in PROBE_RULES)
DOUBTFUL = "off_base"
"""the surest rule about probes: a checkpoint of which it takes anything from the health is not handed over"""
SOUND_FRAC = 0.01
"""A probe found nothing only where the estimate of what is lost since the best one is at most this."""
OLD_HARM = frozenset({"constant_answer", "noise", "unread"})
"""what halted a run whose record has no health scores"""


@dataclass(frozen=True, slots=True)
class Doubts:
    """harm_since_step: first step of the unbroken run of steps that speak of harm and lasts until now, None without one.

    blocked_steps: the steps in which the newest probe was worse than the base's, by any rule about probes. cleared_steps: those with a probe of their own
    that was not. sound_step: that of the newest probe that found nothing, None without one.
    """

    harm_since_step: int | None = None
    blocked_steps: tuple[int, ...] = ()
    sound_step: int | None = None
    cleared_steps: tuple[int, ...] = ()

    def after(self, metrics: StepMetrics | None, verdict: Verdict) -> Doubts:
        """The doubts once this verdict is there. metrics: of its step; None where a record lacks them, which then tell of no probe."""
        harm, blocked = is_harm(verdict), is_blocked(verdict)
        since = (verdict.step if self.harm_since_step is None else self.harm_since_step) if harm else None
        cleared = metrics is not None and not blocked and is_probed(metrics)
        sound = metrics is not None and cleared and not harm and found_nothing(metrics)
        return Doubts(
            since,
            (*self.blocked_steps, verdict.step) if blocked else self.blocked_steps,
            verdict.step if sound else self.sound_step,
            (*self.cleared_steps, verdict.step) if cleared else self.cleared_steps,
        )

    @classmethod
    def of(cls, steps: Iterable[tuple[StepMetrics | None, Verdict]]) -> Doubts:
        """After all these steps, in their order."""
        doubts = cls()
        for metrics, verdict in steps:
            doubts = doubts.after(metrics, verdict)
        return doubts

    def state(self) -> dict[str, Any]:
        return {
            "harm_since_step": self.harm_since_step,
            "blocked_steps": list(self.blocked_steps),
            "sound_step": self.sound_step,
            "cleared_steps": list(self.cleared_steps),
        }

    @classmethod
    def loaded(cls, state: Mapping[str, Any]) -> Doubts:
        """From `state`; checkpoints from before probes that found nothing, or nothing against a checkpoint, were kept have none."""
        return cls(state["harm_since_step"], tuple(state["blocked_steps"]), state.get("sound_step"), tuple(state.get("cleared_steps", ())))

    def allows(self, steps_done: int) -> bool:
        """Whether nothing speaks against the probe of a checkpoint: the one of its very weights, taken right after it was made, else the newest one before."""
        return steps_done in self.cleared_steps or (steps_done not in self.blocked_steps and steps_done - 1 not in self.blocked_steps)

    def newest_sound(self, steps_done: int) -> int:
        """The most steps that a checkpoint may have now: while something speaks against the newest state, those of the last probe that found nothing.
        In between nobody has looked, and what is found now has begun somewhere there.
        """
        in_doubt = self.harm_since_step is not None or not self.allows(steps_done)
        return self.sound_step if in_doubt and self.sound_step is not None else steps_done


def is_blocked(verdict: Verdict) -> bool:
    """Whether a verdict finds that a probe is worse than the base's, or that something may be lost: no reason to stop, but to hand over an older checkpoint."""
    bits = 0.0 if verdict.health is None else verdict.health.parts.get(DOUBTFUL, 0.0)
    return bits > 0 or any(one.rule in PROBE_NAMES for one in verdict.findings)


def is_harm(verdict: Verdict) -> bool:
    """Whether a verdict speaks of harm, be it sure or not."""
    if verdict.health is None:
        return any(finding.rule in OLD_HARM for finding in verdict.findings)
    return verdict.health.value < HALF


def found_nothing(metrics: StepMetrics) -> bool:
    """Of a step with a probe, whether next to nothing is lost."""
    return metrics.values.get("probe/base_lost_frac", 0.0) <= SOUND_FRAC


def is_probed(metrics: StepMetrics) -> bool:
    """Whether a probe was made in this step."""
    return any(key.startswith(PROBE) for key in metrics.values)
