"""The judge: keeps what it needs of the past steps and gives one verdict a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftrain.config import GuardSection
from selftrain.guard.rules import RULES
from selftrain.types import Action, Finding, StepMetrics, Verdict


class Guard:
    """Judges each step by the rules over a window. Judging starts when the baseline and one more window are complete.

    `first_finding_step` is the step of the first finding of any rule, None while there was none: checkpoints after it are not handed over.
    """

    def __init__(self, section: GuardSection) -> None:
        self._section = section
        self._baseline: list[dict[str, float]] = []
        self._recent: list[dict[str, float]] = []
        self.first_finding_step: int | None = None

    def judge(self, metrics: StepMetrics) -> Verdict:
        """The verdict of this step: halt for a serious finding (if the config says so), warn for any, else continue."""
        if self._section.action == "off":
            return Verdict(metrics.step, Action.CONTINUE, ())
        if len(self._baseline) < self._section.baseline_steps:
            self._baseline.append(dict(metrics.values))
        self._recent = [*self._recent, dict(metrics.values)][-self._section.window_steps :]
        findings = self._findings() if metrics.step >= self._section.baseline_steps and len(self._recent) == self._section.window_steps else ()
        if findings and self.first_finding_step is None:
            self.first_finding_step = metrics.step
        serious = any(RULES[finding.rule].serious for finding in findings)
        action = Action.HALT if serious and self._section.action == "halt" else Action.WARN if findings else Action.CONTINUE
        return Verdict(metrics.step, action, findings)

    def _findings(self) -> tuple[Finding, ...]:
        baseline, recent = average(self._baseline), average(self._recent)
        found = (rule.find(baseline, recent, len(self._recent)) for rule in RULES.values())
        return tuple(finding for finding in found if finding is not None)

    def state(self) -> dict[str, Any]:
        return {"baseline": self._baseline, "recent": self._recent, "first_finding_step": self.first_finding_step}

    def load(self, state: Mapping[str, Any]) -> None:
        self._baseline, self._recent = list(state["baseline"]), list(state["recent"])
        self.first_finding_step = state["first_finding_step"]


def average(steps: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each signal over the steps that have it."""
    keys = {key for step in steps for key in step}
    return {key: sum(step[key] for step in steps if key in step) / sum(key in step for step in steps) for key in sorted(keys)}
