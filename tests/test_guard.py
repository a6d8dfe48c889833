"""The guard's rules by hand, and on four recorded runs of a 0.5 B model where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selftrain.config import GuardSection
from selftrain.guard import RULES, Guard
from selftrain.metrics import METRICS
from selftrain.types import Action, PolicyVersion, StepMetrics, Verdict

TRACES = Path(__file__).parent.parent.parent / "shared" / "traces"
HEALTHY = {
    "vote/collision_frac": 0.1,
    "vote/read_mean_frac": 0.9,
    "vote/share_mean_frac": 0.6,
    "policy/entropy_mean_nats": 0.5,
    "admission/admitted_frac": 0.8,
    "completion/length_mean_tokens": 100.0,
}


def judge(guard: Guard, step: int, **changes: float) -> Verdict:
    return guard.judge(StepMetrics(step, PolicyVersion(0, step), {**HEALTHY, **changes}))


def run(guard: Guard, **late: float) -> list[Verdict]:
    """Ten healthy steps, then ten with `late` values."""
    return [judge(guard, step) for step in range(10)] + [judge(guard, step, **late) for step in range(10, 20)]


@pytest.mark.parametrize(
    ("rule", "late"),
    [
        ("constant_answer", {"vote/collision_frac": 0.9}),
        ("noise", {"policy/entropy_mean_nats": 2.0}),
        ("unread", {"vote/read_mean_frac": 0.3}),
        ("no_signal", {"admission/admitted_frac": 0.0}),
    ],
)
def test_each_serious_rule_halts_on_what_it_is_for(rule: str, late: dict[str, float]) -> None:
    guard = Guard(GuardSection())
    verdicts = run(guard, **late)
    assert all(verdict.action is Action.CONTINUE for verdict in verdicts[:10])
    hit = next(verdict for verdict in verdicts if verdict.action is Action.HALT)
    assert [finding.rule for finding in hit.findings] == [rule]
    assert hit.findings[0].value > hit.findings[0].limit
    assert 10 <= hit.step <= 14
    assert guard.harm_since_step == (None if rule == "no_signal" else hit.step)


def test_harm_that_passes_is_forgotten() -> None:
    guard = Guard(GuardSection(action="warn"))
    run(guard, **{"vote/collision_frac": 0.9})
    assert guard.harm_since_step is not None
    for step in range(20, 26):
        judge(guard, step)
    assert guard.harm_since_step is None


def test_a_shortcut_warns() -> None:
    verdicts = run(Guard(GuardSection()), **{"completion/length_mean_tokens": 30.0, "vote/share_mean_frac": 0.8})
    assert {verdict.action for verdict in verdicts} == {Action.CONTINUE, Action.WARN}
    assert {finding.rule for verdict in verdicts for finding in verdict.findings} == {"shortcut"}


@pytest.mark.parametrize("share", [0.6, 0.4])
def test_shorter_completions_without_more_agreement_are_no_shortcut(share: float) -> None:
    verdicts = run(Guard(GuardSection()), **{"completion/length_mean_tokens": 30.0, "vote/share_mean_frac": share})
    assert {verdict.action for verdict in verdicts} == {Action.CONTINUE}


def test_a_high_share_alone_is_healthy() -> None:
    assert all(verdict.action is Action.CONTINUE for verdict in run(Guard(GuardSection()), **{"vote/share_mean_frac": 0.98, "reward/mean_frac": 0.97}))


def test_warn_only_and_off() -> None:
    late = {"vote/collision_frac": 0.9}
    assert {verdict.action for verdict in run(Guard(GuardSection(action="warn")), **late)} == {Action.CONTINUE, Action.WARN}
    assert {verdict.action for verdict in run(Guard(GuardSection(action="off")), **late)} == {Action.CONTINUE}


def test_missing_signals_are_tolerated() -> None:
    guard = Guard(GuardSection())
    for step in range(20):
        assert guard.judge(StepMetrics(step, PolicyVersion(0, step), {"vote/collision_frac": 0.1})).action is Action.CONTINUE


def test_state_goes_on_where_it_was() -> None:
    whole, first, second = Guard(GuardSection()), Guard(GuardSection()), Guard(GuardSection())
    values = [{"vote/collision_frac": 0.1 + 0.04 * step} for step in range(20)]
    expected = [judge(whole, step, **value) for step, value in enumerate(values)]
    found = [judge(first, step, **value) for step, value in enumerate(values[:8])]
    second.load(json.loads(json.dumps(first.state())))
    assert found + [judge(second, step + 8, **value) for step, value in enumerate(values[8:])] == expected


def test_rules_read_logged_metrics_only() -> None:
    class Seen(dict[str, float]):
        def __missing__(self, key: str) -> float:
            assert key in METRICS
            return 1.0

    for rule in RULES.values():
        rule.find(Seen(), Seen(), 5)


def halted_at(name: str) -> int | None:
    """The step at which the guard halts a recorded run, from the signals the recording has."""
    guard = Guard(GuardSection())
    names = {"coll": "vote/collision_frac", "ent": "policy/entropy_mean_nats", "len": "completion/length_mean_tokens", "share": "vote/share_mean_frac"}
    for line in (TRACES / name).read_text().splitlines():
        row = json.loads(line)
        if "share" not in row:
            continue
        values = {key: float(row[short]) for short, key in names.items() if short in row}
        if guard.judge(StepMetrics(row["step"] - 1, PolicyVersion(0, row["step"] - 1), values)).action is Action.HALT:
            return int(row["step"])
    return None


@pytest.mark.skipif(not TRACES.exists(), reason="the recorded runs of ../shared/traces are not here")
def test_recorded_runs() -> None:
    """The labelled run is left alone and the entropy explosion of the min_share run is found; what the recordings do not hold cannot be seen."""
    assert halted_at("qwen05_reference_t1.jsonl") is None
    found = halted_at("qwen05_minshare_t07.jsonl")
    assert found is not None
    assert found <= 40
