"""What a run's verdicts hold against its checkpoints: the fold of them that the run, the report and the laboratory hand over by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.guard.health import HALF
from selftrain.guard.looks import SUPPORT, SUPPORT_ERROR
from selftrain.guard.rules import PROBE_RULES
from selftrain.types import StepMetrics, Verdict

PROBE = "probe/"
PROBE_NAMES = frozenset(rule.name for rule in PROBE_RULES)
GAINED_ERRORS = 1.5
"""standard errors: what a checkpoint must have gained of the start's support before anything says that it is better"""
DRIFT = "drift_budget"
"""the finding that a probe's KL to the start is above `rollback.max_drift_nats`"""
OLD_HARM = frozenset({"constant_answer", "noise", "unread"})
"""what halted a run whose record has no health scores"""


@dataclass(frozen=True, slots=True)
class Support:
    """How much of the start's vote the policy's answers had in a step before its update. error: standard error of the difference to the start."""

    step: int
    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Doubts:
    """harm_since_step: first step of the unbroken run of steps that speak of harm and lasts until now, None without one.

    blocked_steps: the steps in which the newest probe was worse than the base's, by any rule about probes, and where the budget of drift is used up all since
    the last probe that was not. cleared_steps: those with a probe of their own that was not. supports: oldest first, the start's own at step 0.
    """

    harm_since_step: int | None = None
    blocked_steps: tuple[int, ...] = ()
    cleared_steps: tuple[int, ...] = ()
    supports: tuple[Support, ...] = ()

    def after(self, metrics: StepMetrics | None, verdict: Verdict) -> Doubts:
        """The doubts once this verdict is there. metrics: of its step; None where a record lacks them, which then tell of no probe."""
        harm, over = is_harm(verdict), any(one.rule == DRIFT for one in verdict.findings)
        blocked = over or is_blocked(verdict)
        since_probe = range(max(self.cleared_steps, default=-1) + 1, verdict.step) if over else ()
        since = (verdict.step if self.harm_since_step is None else self.harm_since_step) if harm else None
        values = {} if metrics is None else metrics.values
        cleared = not blocked and is_probed(values)
        supports = [Support(verdict.step, values[SUPPORT], values[SUPPORT_ERROR])] if SUPPORT in values else []
        return Doubts(
            since,
            (*self.blocked_steps, *since_probe, verdict.step) if blocked else self.blocked_steps,
            (*self.cleared_steps, verdict.step) if cleared else self.cleared_steps,
            (*self.supports, *supports),
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
            "cleared_steps": list(self.cleared_steps),
            "supports": [[one.step, one.value, one.error] for one in self.supports],
        }

    @classmethod
    def loaded(cls, state: Mapping[str, Any]) -> Doubts:
        """From `state`; checkpoints from before probes that found nothing against a checkpoint, or supports, were kept have none."""
        supports = tuple(Support(*one) for one in state.get("supports", ()))
        return cls(state["harm_since_step"], tuple(state["blocked_steps"]), tuple(state.get("cleared_steps", ())), supports)

    def allows(self, steps_done: int) -> bool:
        """Whether nothing speaks against the probe of a checkpoint: the one of its very weights, taken right after it was made, else the newest one before."""
        return steps_done in self.cleared_steps or (steps_done not in self.blocked_steps and steps_done - 1 not in self.blocked_steps)

    def best_of(self, fit: Sequence[int]) -> int:
        """Of these steps done, ascending, the newest whose support is the largest so far but for its standard error, or else the one with most. 0, the start,
        where none has gained more than `GAINED_ERRORS` of its own. Without any support known the newest.
        """
        if not fit or not self.supports:
            return fit[-1] if fit else 0
        first = self.supports[0]
        known = {steps: self._support(steps) for steps in fit}
        gained = {steps: one.value for steps, one in known.items() if first.step or one.value - first.value > GAINED_ERRORS * one.error}
        peak = max((one for one in self.supports if one.step <= fit[-1]), key=lambda one: one.value, default=first)
        equal = [steps for steps, value in gained.items() if value >= peak.value - peak.error]
        return max(equal, default=max(gained, key=lambda steps: (gained[steps], steps), default=0))

    def _support(self, steps_done: int) -> Support:
        """Of the checkpoint's very weights or those one update before; elsewhere the smaller one of what was seen before and after: what fell in between may
        have fallen at once.
        """
        before = [one for one in self.supports if one.step <= steps_done][-1:]
        after = [] if before and before[0].step >= steps_done - 1 else [one for one in self.supports if one.step > steps_done][:1]
        return min((*before, *after), key=lambda one: one.value)


def is_blocked(verdict: Verdict) -> bool:
    """Whether a verdict finds that a probe is worse than the base's: no reason to stop, but to hand over an older checkpoint."""
    return any(one.rule in PROBE_NAMES for one in verdict.findings)


def is_harm(verdict: Verdict) -> bool:
    """Whether a verdict speaks of harm, be it sure or not."""
    if verdict.health is None:
        return any(finding.rule in OLD_HARM for finding in verdict.findings)
    return verdict.health.value < HALF


def is_probed(values: Mapping[str, float]) -> bool:
    """Whether these metrics of a step are of one with a whole probe, and not only of a look at the support or a glance."""
    return any(key.startswith(PROBE) for key in values)
