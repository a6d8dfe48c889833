"""The judge: keeps what it needs of the past steps and gives one verdict a step."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from selftrain.config import GuardSection, RollbackSection
from selftrain.guard.doubts import DRIFT, PROBE, PROBE_NAMES, Doubts
from selftrain.guard.examples import NONE, examples_of
from selftrain.guard.health import HALF, health_of, is_lasting
from selftrain.guard.looks import SUPPORT, Looks
from selftrain.guard.rules import PROBE_RULES, RULES, STEP_RULES, Kind, Rule
from selftrain.guard.speeds import KL, gained_per_nat, speeds
from selftrain.guard.window import KEPT, KEPT_TWICE, LAST_PROBES, TRUTH, Window, mean
from selftrain.types import Action, AnswerKey, Finding, Health, Places, ScoredGroup, StepMetrics, Verdict

PATIENCE_STEPS = 3
"""harm is also what leaves the health score below one half in so many steps in a row, however wide its interval is, and not because of one of them"""
ROUNDING = 1e-12
"""above a limit is above by more than that"""


class Guard:
    """Judges each step: the rules about steps once `baseline_steps` steps and a window are there, those about probes from the second probe or look at the
    support on.

    `doubts` is what its verdicts so far hold against checkpoints. num_rollbacks: how many of its rollbacks stand in the record already; it is no part of the
    state, since going back does not undo them.
    rules: some of `RULES`, or the same with other limits.
    """

    def __init__(
        self, section: GuardSection, rollback: RollbackSection | None = None, num_rollbacks: int = 0, rules: Sequence[Rule] = (*STEP_RULES, *PROBE_RULES)
    ) -> None:
        self._section = section
        self._of_steps = tuple(rule for rule in rules if rule.name not in PROBE_NAMES)
        self._of_probes = tuple(rule for rule in rules if rule.name in PROBE_NAMES)
        self._rollback = rollback or RollbackSection()
        self.num_rollbacks = num_rollbacks
        self._baseline: list[dict[str, float]] = []
        self._recent: list[dict[str, float]] = []
        self._base: dict[str, float] = {}
        self._probe: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._probes: list[dict[str, float]] = []
        self._looks = Looks()
        self._num_probes = 0
        self._winners: dict[str, int] = {}
        self._num_low = 0
        self.doubts = Doubts()
        self._judged: tuple[Sequence[Rule], Window] = ((), self._window())

    def compared(self, metrics: StepMetrics, winners: Mapping[str, AnswerKey]) -> StepMetrics:
        """The metrics with what they miss without a memory: `vote/flip_frac`, where a prompt was voted on before, and those of `speeds.py`. winners: by prompt
        id, of clear votes.
        """
        marks = {prompt_id: zlib.crc32(key.encode("utf-8", "surrogatepass")) for prompt_id, key in winners.items()}
        seen = [self._winners[prompt_id] != mark for prompt_id, mark in marks.items() if prompt_id in self._winners]
        self._winners.update(marks)
        size, recent = self._section.window_steps, [*self._recent, metrics.values]
        more = speeds(recent[-2 * size :], size)
        if len(self._baseline) == self._section.baseline_steps:
            more |= gained_per_nat(self._baseline, recent[-size:], metrics.values)
        if seen:
            more["vote/flip_frac"] = sum(seen) / len(seen)
        return replace(metrics, values={**metrics.values, **more}) if more else metrics

    def judge(self, metrics: StepMetrics, scored: Sequence[ScoredGroup] = (), telling: Mapping[str, Places] = NONE) -> Verdict:
        """The verdict of this step: for harm roll back or halt (as the config says), for a standstill halt, for any other finding warn, else continue.

        scored: the step's groups, for examples. telling: by rule about probes, completions of the step's probe that show what it finds. Harm is a health score
        whose whole interval is below one half, or one that stays below it.
        """
        if self._section.action == "off":
            return Verdict(metrics.step, Action.CONTINUE, ())
        ready = len(self._baseline) == self._section.baseline_steps
        shown = partial(examples_of, scored=scored, telling=telling)
        self._remember(metrics)
        rules = self._rules(ready)
        window = self._window()
        self._judged = (rules, window)
        findings = tuple(finding for rule in rules if (finding := self._finding(rule, window, shown)) is not None)
        health = health_of(rules, window) if rules else None
        if health is not None and health.value < HALF and not any(RULES[one.rule].kind is Kind.HARM for one in findings):
            findings = (*findings, self._together(health, shown))
        drift = self._drift(metrics)
        findings = (*findings, *drift)
        verdict = Verdict(metrics.step, Action.CONTINUE, findings, health)
        self.doubts = self.doubts.after(metrics, verdict)
        self._num_low = 0 if self.doubts.harm_since_step is None else self._num_low + 1
        harmed = health is not None and (health.high < HALF or self._is_low_for_long(rules, window))
        stalled = any(one.rule in RULES and RULES[one.rule].kind is Kind.STALL for one in findings)
        over = bool(drift)
        return replace(verdict, action=self._action(harmed, stalled, over) or (Action.WARN if findings else Action.CONTINUE))

    def measured(self) -> set[str]:
        """The rules that had all of their signals at the step that was judged last, in the first steps and then: a health without any says nothing."""
        rules, window = self._judged
        there = {key for step in window.recent for key in step}
        found = (rule for rule in rules if rule.name in PROBE_NAMES or there.issuperset(rule.signals))
        return {rule.name for rule in found if rule.measure(window) is not None}

    def learned(self, metrics: StepMetrics) -> None:
        """Take in the metrics of a judged step again, now with those of its update."""
        for steps in (self._baseline, self._recent):
            if steps and steps[-1].get("step") == metrics.step:
                steps[-1] = remembered(metrics)

    def start_over(self) -> None:
        """Measure the first steps anew; what was seen of probes and labels stays."""
        self._baseline, self._recent = [], []
        self._looks.start_over()

    def overrule(self) -> None:
        """A person says that what is seen now is no harm: the next steps are the first ones, and the newest probe is what later ones are compared with."""
        self.start_over()
        self._base, self._best, self._probes = self._probe, best_of(self._probe), []
        self._num_low, self.doubts = 0, Doubts()

    @property
    def rollbacks_left(self) -> int:
        """How often it may still roll back."""
        return max(0, self._rollback.max_rollbacks - self.num_rollbacks) if self._section.action == "roll_back" else 0

    def _action(self, harmed: bool, stalled: bool, over: bool) -> Action | None:
        """What is done about it; None: nothing. A budget that is used up halts, a standstill is not mended by going back."""
        wanted = self._section.action
        if over or (wanted != "warn" and (stalled or (harmed and not self.rollbacks_left))):
            return Action.HALT
        return Action.ROLL_BACK if harmed and wanted == "roll_back" else None

    def _drift(self, metrics: StepMetrics) -> tuple[Finding, ...]:
        """The finding that the budget of drift is used up."""
        limit, value = self._rollback.max_drift_nats, metrics.values.get(KL)
        if limit is None or value is None or value <= limit:
            return ()
        return (Finding(DRIFT, value, limit, 1, "the policy has moved from its start as far as rollback.max_drift_nats allows"),)

    def _remember(self, metrics: StepMetrics) -> None:
        if len(self._baseline) < self._section.baseline_steps:
            self._baseline.append(remembered(metrics))
        self._recent = [*self._recent, remembered(metrics)][-2 * self._section.window_steps :]
        if len(self._recent) >= self._section.window_steps and TRUTH in metrics.values:
            now = mean(self._recent[-self._section.window_steps :], TRUTH)
            self._best[TRUTH] = max(now, self._best.get(TRUTH, now))
        window, first = self._recent[-self._section.window_steps :], self._baseline
        self._looks.see(metrics.values, window, first if len(first) == self._section.baseline_steps else None)
        probe = {key: value for key, value in metrics.values.items() if key.startswith(PROBE)}
        if probe:
            self._probes = [*self._probes, probe][-LAST_PROBES:] if self._base else []
            found = probe if KEPT not in probe else {**probe, KEPT_TWICE: (probe[KEPT] + self._probe.get(KEPT, probe[KEPT])) / 2}
            self._best.update({key: max(value, self._best.get(key, value)) for key, value in found.items()})
            self._base, self._probe, self._num_probes = self._base or probe, probe, self._num_probes + 1

    def _rules(self, ready: bool) -> tuple[Rule, ...]:
        """The rules that have something to compare. ready: all first steps were there before this one."""
        window = ready and len(self._recent) >= self._section.window_steps
        of_looks = tuple(rule for rule in self._of_probes if SUPPORT in rule.signals) if self._looks.is_complete else ()
        return (*(self._of_steps if window else ()), *(self._of_probes if self._num_probes > 1 else of_looks))

    def _window(self) -> Window:
        size = self._section.window_steps
        before = self._recent[:-size] if len(self._recent) == 2 * size else ()
        return Window(self._baseline, before, self._recent[-size:], self._base, self._probe, self._best, self._probes, self._looks.known)

    def _is_low_for_long(self, rules: Sequence[Rule], window: Window) -> bool:
        """After `PATIENCE_STEPS` where no step alone makes it so, and anyhow once such a step would have left the window."""
        return self._num_low > self._section.window_steps or (self._num_low >= PATIENCE_STEPS and is_lasting(rules, window))

    def _finding(self, rule: Rule, window: Window, shown: Callable[[str], Places]) -> Finding | None:
        value = rule.measure(window)
        if value is None or value <= rule.limit + ROUNDING:
            return None
        return Finding(rule.name, value, rule.limit, self._section.window_steps, rule.words, shown(rule.name))

    def _together(self, health: Health, shown: Callable[[str], Places]) -> Finding:
        """The finding of a low score where no rule alone is at its limit. Its value is the bits that were taken, of which one halves the score."""
        names = list(health.parts)
        words = f"several signs together, none at its limit: {', '.join(names)}"
        return Finding("together", sum(health.parts.values()), 1.0, self._section.window_steps, words, shown(names[0]))

    def state(self) -> dict[str, Any]:
        return {
            "baseline": list(self._baseline),
            "recent": list(self._recent),
            "probes": {"base": self._base, "newest": self._probe, "best": dict(self._best), "last": list(self._probes), "number": self._num_probes},
            "looks": self._looks.state(),
            "winners": dict(self._winners),
            "num_low": self._num_low,
            **self.doubts.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self._baseline, self._recent = list(state["baseline"]), list(state["recent"])
        probes = state["probes"]
        self._base, self._probe, self._num_probes = dict(probes["base"]), dict(probes["newest"]), int(probes["number"])
        self._best, self._probes = dict(probes.get("best", probes["newest"])), list(probes.get("last", [probes["newest"]] if self._num_probes > 1 else []))
        self._looks = Looks(state.get("looks", ()))
        self._winners = dict(state["winners"])
        self._num_low, self.doubts = int(state["num_low"]), Doubts.loaded(state)


def best_of(probe: Mapping[str, float]) -> dict[str, float]:
    """The largest values so far where one probe is all there is."""
    return {**probe, KEPT_TWICE: probe[KEPT]} if KEPT in probe else dict(probe)


def remembered(metrics: StepMetrics) -> dict[str, float]:
    return {**metrics.values, "step": metrics.step}


def winners_of(scored: Sequence[ScoredGroup]) -> dict[str, AnswerKey]:
    """By prompt id, the winners of votes that are no tie."""
    votes = ((one.voted.group.prompt.id, one.voted.vote.winner) for one in scored)
    return {prompt_id: winner for prompt_id, winner in votes if winner is not None}
