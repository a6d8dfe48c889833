"""The judge: keeps what it needs of the past steps and gives one verdict a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.config import GuardSection
from selftrain.guard.rules import RULES
from selftrain.types import Action, Finding, StepMetrics, Verdict


class Guard:
    """Judges each step by the rules over a window; judging starts at step `baseline_steps`, once a window is complete.

    `harm_since_step` is the first step of the unbroken run of steps with harmful findings that lasts until now, None without one: checkpoints of that
    time are not handed over. Harmful is what halts, but for `no_signal`: without signal no weight has moved.
    """

    def __init__(self, section: GuardSection) -> None:
        self._section = section
        self._baseline: list[dict[str, float]] = []
        self._recent: list[dict[str, float]] = []
        self.harm_since_step: int | None = None

    def judge(self, metrics: StepMetrics) -> Verdict:
        """The verdict of this step: halt for a serious finding (if the config says so), warn for any, else continue."""
        if self._section.action == "off":
            return Verdict(metrics.step, Action.CONTINUE, ())
        if len(self._baseline) < self._section.baseline_steps:
            self._baseline.append(dict(metrics.values))
        self._recent = [*self._recent, dict(metrics.values)][-self._section.window_steps :]
        findings = self._findings() if metrics.step >= self._section.baseline_steps and len(self._recent) == self._section.window_steps else ()
        self.harm_since_step = harm_since(self.harm_since_step, metrics.step, findings)
        serious = any(RULES[finding.rule].serious for finding in findings)
        action = Action.HALT if serious and self._section.action == "halt" else Action.WARN if findings else Action.CONTINUE
        return Verdict(metrics.step, action, findings)

    def _findings(self) -> tuple[Finding, ...]:
        baseline, recent = average(self._baseline), average(self._recent)
        found = (rule.find(baseline, recent, len(self._recent)) for rule in RULES.values())
        return tuple(finding for finding in found if finding is not None)

    def state(self) -> dict[str, Any]:
        return {"baseline": self._baseline, "recent": self._recent, "harm_since_step": self.harm_since_step}

    def load(self, state: Mapping[str, Any]) -> None:
        self._baseline, self._recent = list(state["baseline"]), list(state["recent"])
        self.harm_since_step = state["harm_since_step"]


def harm_since(before: int | None, step: int, findings: Sequence[Finding]) -> int | None:
    """Since which step harmful findings have lasted without a break, after this step's findings; None when this step has none."""
    if not any(RULES[finding.rule].serious and finding.rule != "no_signal" for finding in findings):
        return None
    return step if before is None else before


def average(steps: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each signal over the steps that have it."""
    keys = {key for step in steps for key in step}
    return {key: sum(step[key] for step in steps if key in step) / sum(key in step for step in steps) for key in sorted(keys)}
