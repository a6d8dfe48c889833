"""The guard's rules, health score and verdicts by hand, on made-up runs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from statistics import fmean

import pytest

from selftrain.config import GuardSection
from selftrain.guard import PROBE_RULES, RULES, Doubts, Guard, Kind
from selftrain.guard.health import health_of, part
from selftrain.guard.window import Window
from selftrain.handover import START, Schedule, healthiest
from selftrain.metrics import METRICS
from selftrain.types import Action, AnswerKey, Health, PolicyVersion, StepMetrics, Verdict

HALTS = GuardSection(action="halt")
HEALTHY = {
    "vote/collision_frac": 0.1,
    "vote/read_mean_frac": 0.9,
    "vote/share_mean_frac": 0.4,
    "vote/split_half_frac": 0.6,
    "policy/entropy_mean_nats": 0.5,
    "admission/admitted_frac": 0.8,
    "completion/length_mean_tokens": 100.0,
    "completion/repeat_frac": 0.02,
    "reward/length_corr": 0.0,
}
PROBE = {
    "probe/base_agree_frac": 0.9,
    "probe/number_unchanged_frac": 0.05,
    "probe/reword_agree_frac": 0.7,
    "probe/share_mean_frac": 0.5,
    "probe/length_mean_tokens": 100.0,
    "probe/kl_base_nats": 0.0,
    "probe/kl_answer_nats": 0.0,
    "probe/kl_reasoning_nats": 0.0,
    "probe/swap_changed_frac": 0.1,
    "probe/drift_nats": 0.0,
    "probe/canary_right_frac": 0.8,
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
        ("hollow", {"vote/share_mean_frac": 0.9, "policy/entropy_mean_nats": 0.6}),
        ("shortcut", {"completion/length_mean_tokens": 30.0, "vote/share_mean_frac": 0.6}),
        ("shrinking", {"completion/length_mean_tokens": 30.0, "vote/share_mean_frac": 0.6}),
        ("unread", {"vote/read_mean_frac": 0.3}),
        ("repetition", {"completion/repeat_frac": 0.5}),
        ("length_reward", {"reward/length_corr": -0.9, "completion/length_mean_tokens": 120.0}),
        ("flips", {"vote/flip_frac": 0.95, "vote/split_half_frac": 0.9}),
        ("unstable", {"update/grad_norm": 12.0}),
        ("no_signal", {"admission/admitted_frac": 0.0}),
    ],
)
def test_each_rule_halts_on_what_it_is_for(rule: str, late: dict[str, float]) -> None:
    guard = Guard(HALTS)
    quiet = {"update/grad_norm": 1.0} if rule == "unstable" else {}
    verdicts = [judge(guard, step, **quiet) for step in range(10)] + [judge(guard, step, **late) for step in range(10, 20)]
    assert all(verdict.action is Action.CONTINUE for verdict in verdicts[:10])
    hit = next(verdict for verdict in verdicts if verdict.action is Action.HALT)
    found = next(finding for verdict in verdicts[: hit.step + 1] for finding in verdict.findings if finding.rule == rule)
    assert found.value > found.limit == RULES[rule].limit
    assert 10 <= hit.step <= 16
    harmful = RULES[rule].kind is Kind.HARM
    assert (guard.doubts.harm_since_step is not None) == harmful
    assert hit.health is not None
    assert (hit.health.value < 0.5) == harmful
    assert (rule in hit.health.parts) == harmful


def test_every_rule_about_steps_is_tried_above() -> None:
    marks = next(mark for mark in test_each_rule_halts_on_what_it_is_for.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {case[0] for case in marks.args[1]} == {name for name in RULES if not name.startswith("probe") and RULES[name] not in PROBE_RULES}


PROBE_RISES = {"deaf": 0.55, "rewording": 0.7, "canaries": 0.6, "bias": 0.5}
"""what of the probes below differs from `PROBE`"""


@pytest.mark.parametrize(
    ("rule", "late"),
    [
        ("off_base", {"probe/base_agree_frac": 0.15}),
        ("deaf", {"probe/number_unchanged_frac": 0.6}),
        ("rewording", {"probe/reword_agree_frac": 0.0}),
        ("probe_shortcut", {"probe/length_mean_tokens": 50.0, "probe/share_mean_frac": 0.6}),
        ("canaries", {"probe/canary_right_frac": 0.2}),
        ("bias", {"probe/swap_changed_frac": 0.6}),
        ("off_domain", {"probe/drift_nats": 0.5, "probe/kl_base_nats": 0.2}),
    ],
)
def test_probes_are_compared_with_the_base_from_the_second_on(rule: str, late: dict[str, float]) -> None:
    """Harm in one probe is seen at once, before there is a window, where no few answers make the signal; what only blocks a hand-over warns."""
    guard = Guard(HALTS)
    first, quiet = judge(guard, 0, **PROBE), judge(guard, 1)
    verdict = judge(guard, 2, **{**PROBE, **late})
    assert (first.findings, quiet.findings, first.health) == ((), (), None)
    if rule in PROBE_RISES:
        alone = PROBE_RISES[rule] / 1.5
        assert verdict.action is (Action.CONTINUE if alone < RULES[rule].limit else Action.HALT if RULES[rule].kind is Kind.HARM else Action.WARN)
        assert [finding.value for finding in verdict.findings] == ([pytest.approx(alone)] if alone > RULES[rule].limit else [])
        verdict = judge(guard, 3, **{**PROBE, **late})
        assert verdict.findings[0].value == pytest.approx(2 * PROBE_RISES[rule] / 2.5)
    assert [finding.rule for finding in verdict.findings] == [rule]
    assert verdict.action is (Action.HALT if RULES[rule].kind is Kind.HARM else Action.WARN)
    assert verdict.health is not None
    assert (verdict.health.value < 0.5) == (RULES[rule].kind is Kind.HARM)
    healthy = Guard(HALTS)
    assert [judge(healthy, step, **PROBE).findings for step in range(4)] == [(), (), (), ()]


def test_healthy_learning_is_left_alone() -> None:
    """Agreement to 0.98, entropy to a fifth, a gradient that doubles and completions that become a quarter shorter; a third of the labels changes."""
    guard = Guard(HALTS)
    for step in range(60):
        done = step / 59
        changes = {
            "vote/share_mean_frac": 0.4 + 0.58 * done,
            "vote/split_half_frac": 0.6 + 0.39 * done,
            "policy/entropy_mean_nats": 0.5 - 0.4 * done,
            "completion/length_mean_tokens": 100.0 - 25.0 * done,
            "vote/flip_frac": 0.3,
            "update/grad_norm": 1.0 + done,
        }
        verdict = judge(guard, step, **changes)
        assert (verdict.action, verdict.findings) == (Action.CONTINUE, ()), step
    assert verdict.health is not None
    assert verdict.health.value > 0.7


def test_a_saturated_prompt_set_is_healthy() -> None:
    late = {"vote/share_mean_frac": 0.95, "reward/mean_frac": 0.97, "admission/admitted_frac": 0.1, "policy/entropy_mean_nats": 0.02}
    guard = Guard(HALTS)
    assert {judge(guard, step, **late).action for step in range(30)} == {Action.CONTINUE}


@pytest.mark.parametrize("share", [0.4, 0.3])
def test_shorter_completions_without_more_agreement_are_no_shortcut(share: float) -> None:
    verdicts = run(Guard(HALTS), **{"completion/length_mean_tokens": 30.0, "vote/share_mean_frac": share})
    assert {verdict.action for verdict in verdicts} == {Action.CONTINUE}


def test_small_signs_add_up() -> None:
    """Two rules at 0.8 of their limits: neither is a finding, together they take 1.28 bits."""
    guard = Guard(HALTS)
    late = {"vote/collision_frac": 0.1 + 0.8 * 0.25, "vote/read_mean_frac": 0.9 - 0.8 * 0.25}
    verdicts = run(guard, **late)
    found = [finding for verdict in verdicts for finding in verdict.findings]
    assert {finding.rule for finding in found} == {"together"}
    assert found[-1].value == pytest.approx(1.28)
    assert "constant_answer" in found[-1].words
    assert "unread" in found[-1].words
    assert verdicts[-1].health is not None
    assert verdicts[-1].health.value == pytest.approx(2**-1.28, abs=1e-6)
    assert dict(verdicts[-1].health.parts) == pytest.approx({"constant_answer": 0.64, "unread": 0.64})


def test_a_doubtful_score_warns_first_and_halts_when_it_stays() -> None:
    """A value that jumps has a wide interval: the third step below one half halts."""
    guard = Guard(HALTS)
    for step in range(10):
        judge(guard, step)
    verdicts = [judge(guard, 10 + at, **{"vote/collision_frac": value}) for at, value in enumerate((0.9, 0.1, 0.9, 0.1, 0.9, 0.2, 0.9, 0.1, 0.9, 0.9))]
    low = [verdict for verdict in verdicts if verdict.health and verdict.health.value < 0.5]
    halted = next(verdict for verdict in verdicts if verdict.action is Action.HALT)
    assert low[0].action is Action.WARN
    assert low[0].health is not None
    assert low[0].health.low < low[0].health.value < 0.5 <= low[0].health.high
    assert halted.step == low[0].step + 2


def test_the_interval_is_the_jackknife() -> None:
    """One rule, collisions 0 at first and 0.1, 0.2, 0.3 now: value 0.2, bits 0.64; without one step 1.0, 0.64, 0.36 bits, without a first step the same."""
    key = "vote/collision_frac"
    window = Window([{key: 0.0}] * 3, (), [{key: 0.1}, {key: 0.2}, {key: 0.3}], {}, {}, {})
    health = health_of([RULES["constant_answer"]], window)
    spread = 1.645 * math.sqrt(2 / 3 * ((1.0 - 0.64) ** 2 + (0.36 - 0.64) ** 2))
    assert health.value == pytest.approx(2**-0.64, abs=1e-6)
    assert health.low == pytest.approx(2 ** -(0.64 + spread), abs=1e-6)
    assert health.high == pytest.approx(2 ** -(0.64 - spread), abs=1e-6)
    assert dict(health.parts) == {"constant_answer": pytest.approx(0.64)}


@pytest.mark.parametrize(("value", "bits"), [(-3.0, 0.0), (0.0, 0.0), (0.1, 0.25), (0.2, 1.0), (0.4, 4.0), (99.0, 16.0)])
def test_a_part_is_the_square_of_value_over_limit(value: float, bits: float) -> None:
    assert part(value, 0.2) == pytest.approx(bits)


def test_labels_that_changed_since_the_last_visit_are_counted() -> None:
    guard = Guard(HALTS)
    metrics = StepMetrics(0, PolicyVersion(0, 0), HEALTHY)

    def flips(**winners: str) -> float | None:
        return guard.compared(metrics, {name: AnswerKey(key) for name, key in winners.items()}).values.get("vote/flip_frac")

    assert flips(a="1", b="2") is None
    assert flips(c="3") is None
    assert flips(a="1", b="7") == 0.5
    assert flips(b="7", c="4", d="1") == 0.5
    restored = Guard(HALTS)
    restored.load(json.loads(json.dumps(guard.state())))
    assert restored.compared(metrics, {"d": AnswerKey("2")}).values["vote/flip_frac"] == 1.0


def test_the_gradient_norm_counts_from_the_step_after_its_update() -> None:
    guard = Guard(HALTS)
    for step in range(13):
        metrics = StepMetrics(step, PolicyVersion(0, step), HEALTHY)
        verdict = guard.judge(metrics)
        assert verdict.findings == ()
        guard.learned(StepMetrics(step, PolicyVersion(0, step), {**HEALTHY, "update/grad_norm": 1.0 if step < 11 else 99.0}))
    assert [finding.rule for finding in judge(guard, 13).findings] == ["unstable"]


@pytest.mark.parametrize(
    "odd",
    [{"update/grad_norm": 1e9}, {"completion/length_mean_tokens": 1.0, "vote/share_mean_frac": 0.6}, {"vote/collision_frac": 1.0, "reward/length_corr": 0.9}],
)
def test_one_odd_step_does_not_end_a_run(odd: dict[str, float]) -> None:
    """It is in as many windows as a window has steps: low scores in a row, all because of it."""
    guard = Guard(HALTS)
    quiet = {"update/grad_norm": 1.0, "vote/share_mean_frac": 0.51}
    actions = [judge(guard, step, **{**quiet, **(odd if step == 10 else {})}).action for step in range(30)]
    assert Action.HALT not in actions


def test_two_odd_steps_beside_each_other_do() -> None:
    guard = Guard(HALTS)
    actions = [
        judge(guard, step, **({"completion/length_mean_tokens": 1.0, "vote/share_mean_frac": 0.6} if step in (10, 11) else {})).action for step in range(30)
    ]
    assert Action.HALT in actions[:14]


def test_steps_without_a_gradient_are_no_first_steps_of_it() -> None:
    guard = Guard(HALTS)
    verdicts = [judge(guard, step, **{"update/grad_norm": 0.0 if step < 8 else 0.2}) for step in range(30)]
    assert all(not verdict.findings for verdict in verdicts)


def test_rounding_is_not_above_a_limit() -> None:
    guard = Guard(HALTS)
    first = {"vote/collision_frac": 0.3}
    verdicts = [judge(guard, step, **(first if step < 10 else {"vote/collision_frac": 0.55})) for step in range(20)]
    assert all(not verdict.findings for verdict in verdicts)


def test_harm_that_passes_is_forgotten() -> None:
    guard = Guard(GuardSection(action="warn"))
    run(guard, **{"vote/collision_frac": 0.9})
    assert guard.doubts.harm_since_step is not None
    for step in range(20, 26):
        judge(guard, step)
    assert guard.doubts.harm_since_step is None


def test_who_overrules_the_guard_makes_what_is_there_the_measure() -> None:
    """The same collisions are no finding any more, more of them are, and a probe is compared with the newest one."""
    guard, late = Guard(GuardSection(action="warn")), {"vote/collision_frac": 0.4}
    for step in range(10):
        judge(guard, step, **(PROBE if step == 0 else {}))
    found = [judge(guard, 10 + step, **late, **({**PROBE, "probe/swap_changed_frac": 0.6} if step == 2 else {})) for step in range(10)]
    assert found[-1].findings
    guard.overrule()
    assert guard.doubts.harm_since_step is None
    after = [judge(guard, 20 + step, **late, **({**PROBE, "probe/swap_changed_frac": 0.6} if step == 2 else {})) for step in range(12)]
    assert {(verdict.action, verdict.findings) for verdict in after} == {(Action.CONTINUE, ())}
    assert [judge(guard, 32 + step, **{"vote/collision_frac": 0.9}).action for step in range(5)][-1] is Action.WARN


def losing(value: float, low: float) -> dict[str, float]:
    return {**PROBE, "probe/base_lost_frac": value, "probe/base_lost_low_frac": low}


def test_signals_that_need_a_memory() -> None:
    """Windows of 5 and first steps of 5: agreement grows by 0.02 a step from step 5 on, reward by 0.03, and the policy has moved by 0.1 nats at step 12."""
    guard, found = Guard(HALTS), []
    for step in range(13):
        risen = max(0, step - 4)
        values = {**HEALTHY, "vote/share_mean_frac": 0.4 + 0.02 * risen, "vote/margin_mean_frac": 0.3, "reward/mean_frac": 0.4 + 0.03 * risen}
        values |= {**PROBE, "probe/kl_base_nats": 0.1 if step else 0.0} if step in (0, 12) else {}
        metrics = guard.compared(StepMetrics(step, PolicyVersion(0, step), values), {})
        guard.judge(metrics)
        found.append({name: value for name, value in metrics.values.items() if name not in values})
    assert found[:9] == [{}] * 9
    assert found[9] == pytest.approx({"vote/share_speed_frac": 0.02 * 3 / 5, "vote/margin_speed_frac": 0.0})
    assert found[12]["vote/share_speed_frac"] == pytest.approx(0.02 * (6 - 1.2) / 5)
    assert found[12]["probe/reward_per_nat"] == pytest.approx(0.03 * 6 / 0.1)


def test_overruled_drift_is_what_later_drift_is_compared_with() -> None:
    """As everything that a person overruled: only what comes on top of it counts."""
    guard, drifted = Guard(HALTS), {**PROBE, "probe/drift_nats": 2.0, "probe/kl_base_nats": 0.2}
    found = [judge(guard, step, **(PROBE if step == 0 else drifted if step == 2 else {})) for step in range(4)]
    assert [one.rule for one in found[-1].findings] == ["off_domain"]
    guard.overrule()
    assert [judge(guard, 4 + step, **(drifted if step == 2 else {})).findings for step in range(4)] == [()] * 4
    further = [judge(guard, 8 + step, **({**drifted, "probe/drift_nats": 2.5} if step == 1 else {})) for step in range(3)]
    assert [one.rule for one in further[-1].findings] == ["off_domain"]
    assert further[-1].findings[0].value == pytest.approx(0.25)


def test_agreement_that_is_surely_lost_is_missed() -> None:
    """A loss whose 95 % interval is above half a point is a finding, and its checkpoint is not handed over."""
    guard = Guard(GuardSection(action="warn"))
    losses = [(0.0, 0.0), (0.02, -0.02), (0.03, -0.01), (0.05, 0.03), (0.0199, 0.0199)]
    found = [judge(guard, step, **losing(*loss)) for step, loss in enumerate(losses)]
    assert [verdict.health and verdict.health.value for verdict in found[:3]] == [None, 1.0, 1.0]
    assert [[one.rule for one in verdict.findings] for verdict in found] == [[], [], [], ["off_base"], ["off_base"]]
    assert found[3].findings[0].value == pytest.approx((0.03 + 0.02 * 0.315 / 1.96) / (0.005 + 0.02 * 0.315 / 1.96))
    assert guard.doubts.blocked_steps == (3, 4)
    guard.overrule()
    after = [judge(guard, 5 + step, **losing(*loss)) for step, loss in enumerate([(0.03, 0.015), (0.1, 0.08)])]
    assert [[one.rule for one in verdict.findings] for verdict in after] == [[], ["off_base"]], "what was lost when a person overruled is no loss later"


def test_agreement_is_compared_with_the_best_two_probes_in_a_row() -> None:
    """.6 at the start; .8 alone between .6 and .68 is the best of many by chance: two in a row were .74 at best, of which .66 has lost 8 points, not 14."""
    guard = Guard(GuardSection(action="warn"))

    def probe(step: int, kept: float, best: float) -> list[str]:
        return [one.rule for one in judge(guard, step, **losing(best - kept, best - kept - 0.05), **{"probe/base_kept_frac": kept}).findings]

    assert [probe(0, 0.6, 0.6), probe(1, 0.8, 0.8), probe(2, 0.71, 0.8), probe(3, 0.66, 0.8)] == [[], [], [], ["off_base"]]
    again = Guard(GuardSection(action="warn"))
    again.load(json.loads(json.dumps(guard.state())))
    assert again.state() == guard.state()
    guard.overrule()
    assert [probe(4, 0.66, 0.8), probe(5, 0.56, 0.8)] == [[], ["off_base"]], "what was lost before is excused, more is not"


TRUTH = "label/truth_right_frac"


@pytest.mark.parametrize(("truth", "finds"), [((0.2, 0.3, 0.5, 0.5), False), ((0.5, 0.5, 0.45, 0.35), True), ((None,) * 4, True)])
def test_answers_of_the_base_may_go_while_the_truth_says_that_nothing_is_lost(truth: tuple[float | None, ...], finds: bool) -> None:
    """A weak base is wrong on its easy prompts too: what true answers on training prompts say weighs more, as long as they are not 10 points under their best
    window. truth: in each of four windows; the probe in the last one has surely lost 20 points.
    """
    guard = Guard(GuardSection(action="warn"))
    verdicts = []
    for step in range(20):
        right = truth[step // 5]
        if step == 12:
            again = Guard(GuardSection(action="warn"))
            again.load(json.loads(json.dumps(guard.state())))
            guard = again
        seen = losing(0.2, 0.1) if step == 19 else losing(0.0, 0.0) if step == 0 else {}
        verdicts.append(judge(guard, step, **seen, **({} if right is None else {TRUTH: right})))
    assert not any(verdict.findings for verdict in verdicts[:-1])
    assert [one.rule for one in verdicts[-1].findings] == (["off_base"] if finds else [])
    assert guard.doubts.blocked_steps == ((19,) if finds else ())


def test_the_truth_has_no_say_before_it_is_known() -> None:
    """The first probe after the start comes with the first true answers: nothing is lost by them yet; a stream without them is judged by its probes."""
    guard, without = Guard(GuardSection(action="warn")), Guard(GuardSection(action="warn"))
    for one, truth in ((guard, {TRUTH: 0.3}), (without, {})):
        judge(one, 0, **losing(0.0, 0.0), **truth)
        judge(one, 1, **losing(0.2, 0.1), **truth)
    assert (guard.doubts.blocked_steps, without.doubts.blocked_steps) == ((), (1,))


def test_without_an_interval_a_fifth_of_the_agreement_is_missed() -> None:
    """.5 at the start, .9, then .75 and .65, as older runs and other trainers' streams have it: from the best probe on."""
    guard = Guard(GuardSection(action="warn"))
    found = {step: judge(guard, step, **({**PROBE, "probe/base_agree_frac": agree} if agree else {})) for step, agree in enumerate([0.5, 0.9, 0, 0.75, 0.65])}
    assert [[one.rule for one in verdict.findings] for verdict in found.values()] == [[], [], [], [], ["off_base"]]
    assert found[4].findings[0].value == pytest.approx(0.25 / 0.2)
    assert guard.doubts.blocked_steps == (4,)
    assert Guard.load(other := Guard(GuardSection(action="warn")), json.loads(json.dumps(guard.state()))) is None
    assert other.state() == guard.state()


def test_a_probe_of_a_checkpoint_itself_says_more_of_it_than_the_one_before() -> None:
    """The probe at step 4 speaks against what comes after it, until the one at step 8, which is of the weights of checkpoint 8; checkpoint 6 has none."""
    guard = Guard(GuardSection(action="warn"))
    for step in range(12):
        judge(guard, step, **{0: losing(0.0, 0.0), 4: losing(0.09, 0.04), 8: losing(-0.05, -0.1)}.get(step, {}))
    assert (guard.doubts.blocked_steps, guard.doubts.cleared_steps) == ((4, 5, 6, 7), (0, 8))
    assert [steps for steps in range(1, 13) if guard.doubts.allows(steps)] == [1, 2, 3, 8, 9, 10, 11, 12]
    assert Guard.load(other := Guard(GuardSection(action="warn")), json.loads(json.dumps(guard.state()))) is None
    assert other.doubts == guard.doubts
    there = {steps: f"step-{steps:06d}" for steps in (4, 8)}
    assert healthiest(there, 12, guard.doubts, Schedule(4, 40, 5)) == "step-000008", "not the start: nothing speaks against its probe"
    before = {name: value for name, value in guard.doubts.state().items() if name != "cleared_steps"}
    assert Doubts.loaded(before).cleared_steps == ()


def supported(value: float, error: float = 0.02) -> dict[str, float]:
    return {"support/base_share_frac": value, "support/error_frac": error}


def handed_over(supports: Mapping[int, float]) -> int:
    """By a guard that saw these in a run of twelve steps; the start's error is 0."""
    guard = Guard(GuardSection(action="warn"))
    for step in range(12):
        judge(guard, step, **(supported(supports[step], 0.02 if step else 0.0) if step in supports else {}))
    assert Guard.load(other := Guard(GuardSection(action="warn")), json.loads(json.dumps(guard.state()))) is None
    assert other.doubts == guard.doubts
    name = healthiest({steps: str(steps) for steps in range(2, 13, 2)}, 12, guard.doubts, Schedule(2, 12, 5))
    return 0 if name == START else int(name)


@pytest.mark.parametrize(
    ("supports", "chosen"),
    [
        ({}, 12),
        ({0: 0.5, 4: 0.6, 8: 0.65, 11: 0.7}, 12),
        ({0: 0.5, 4: 0.6, 8: 0.7, 11: 0.69}, 12),
        ({0: 0.5, 4: 0.6, 8: 0.7, 11: 0.67}, 8),
        ({0: 0.5, 4: 0.7, 8: 0.6, 11: 0.4}, 4),
        ({0: 0.5, 4: 0.5, 8: 0.52, 11: 0.529}, 0),
        ({0: 0.5, 4: 0.5, 8: 0.53, 11: 0.515}, 8),
        ({0: 0.5, 4: 0.2, 8: 0.1, 11: 0.1}, 0),
        ({0: 0.5, 5: 0.7, 10: 0.5}, 6),
        ({0: 0.5, 2: 0.7, 7: 0.69, 10: 0.6}, 8),
        ({0: 0.5, 2: 0.7, 10: 0.6}, 2),
        ({4: 0.5, 8: 0.45}, 4),
    ],
)
def test_of_checkpoints_the_newest_with_the_largest_support_is_handed_over(supports: Mapping[int, float], chosen: int) -> None:
    """What differs by less than a standard error, .02, is equal; the start stays where less than 1.5 of them are gained. Between two probes the smaller one
    counts, right after one that one. Without the start's, in a run that an older version began, nothing has to be gained.
    """
    assert handed_over(supports) == chosen


def test_who_overrules_the_guard_forgets_what_was_supported() -> None:
    guard = Guard(GuardSection(action="warn"))
    judge(guard, 0, **supported(0.5, 0.0))
    judge(guard, 1, **supported(0.2))
    guard.overrule()
    judge(guard, 2, **supported(0.2))
    assert guard.doubts.best_of([1, 2]) == 2


VOTES = ((0.6, 0.3, 0.1), (0.5, 0.2, 0.2, 0.1), (0.4, 0.3, 0.3), (0.9, 0.1), (0.3, 0.25, 0.25, 0.2))
"""what a made-up start says to five prompts"""
SHARES, SUPPORTS = "vote/share_mean_frac", "support/base_share_frac"


def look(answers: Sequence[Sequence[float]] = VOTES, **changes: float) -> dict[str, float]:
    """Mean share of the vote and support of a policy with these answers, and how far the start's can go, as if nothing were drawn."""
    support = fmean(sum(a * b for a, b in zip(said, first, strict=True)) for said, first in zip(answers, VOTES, strict=True))
    known = {SHARES: fmean(map(max, answers)), SUPPORTS: support, "support/error_frac": 0.01, "support/start_share_frac": fmean(map(max, VOTES))}
    return known | {key.replace("__", "/"): value for key, value in changes.items()}


def sharpened(power: float) -> list[list[float]]:
    """The start's answers, their probabilities to this power."""
    return [[vote**power / sum(other**power for other in votes) for vote in votes] for votes in VOTES]


def looked(guard: Guard, *looks: Mapping[str, float], first_step: int = 0) -> Verdict:
    """The verdict after a look at every fifth step; the steps before a look are as sure as it, and the later ones of their tokens too."""
    for at, values in enumerate(looks):
        for step in range(5 * at + first_step, 5 * at + first_step + 5):
            is_look = step == 0 if first_step + at == 0 else step % 5 == 4
            sure = {} if first_step + at == 0 else {"policy/entropy_mean_nats": 0.1}
            verdict = judge(guard, step, **sure, **(values if is_look else {SHARES: values[SHARES]}))
    return verdict


@pytest.mark.parametrize("power", [1.0, 1.2, 1.5, 2.0, 4.0, 16.0])
def test_who_becomes_surer_of_what_the_start_says_is_not_estranged(power: float) -> None:
    verdict = looked(Guard(HALTS), look(), look(sharpened(power)))
    assert (verdict.action, verdict.health) == (Action.CONTINUE, Health(1.0, 1.0, 1.0, {}))
    risen, gained = (look(sharpened(power))[key] - look()[key] for key in (SHARES, SUPPORTS))
    worth = (look()[SHARES] - look()[SUPPORTS]) / (1 - look()[SHARES])
    assert gained >= 0.95 * risen * worth  # the rule asks for half of this


def test_a_consensus_that_is_not_the_starts_is_found_at_once() -> None:
    """Share 0.54 -> 0.9 with the support that the start has: nothing of what the rise is worth has come."""
    share, support = look()[SHARES], look()[SUPPORTS]
    verdict = looked(Guard(HALTS), look(support__error_frac=0.0), look(vote__share_mean_frac=0.9))
    (finding,) = verdict.findings
    assert (verdict.action, verdict.step, finding.rule, finding.limit) == (Action.HALT, 9, "estranged", 1.0)
    assert finding.value == pytest.approx(0.5 * (0.9 - share) * (share - support) / (1 - share) / (1.645 * 0.01))
    unsure = look(vote__share_mean_frac=0.9, support__error_frac=0.05)
    assert not looked(Guard(HALTS), look(), unsure).findings
    assert not looked(Guard(HALTS), look(), look(vote__share_mean_frac=0.5, support__base_share_frac=0.1)).findings  # no agreement was gained


def test_a_look_among_the_first_steps_counts_once_they_are_known() -> None:
    guard = Guard(HALTS)
    judge(guard, 0, **look())
    early = [judge(guard, step, **(look(support__base_share_frac=0.1, vote__share_mean_frac=0.9) if step == 3 else {SHARES: 0.54})) for step in range(1, 6)]
    assert [verdict.health is not None and "estranged" in verdict.health.parts for verdict in early] == [False, False, False, True, True]


def test_who_overrules_the_guard_makes_the_newest_look_the_first() -> None:
    guard, away = Guard(GuardSection(action="warn")), look(vote__share_mean_frac=0.9)
    assert [one.rule for one in looked(guard, look(support__error_frac=0.0), away).findings] == ["estranged"]
    kept = json.loads(json.dumps(guard.state()))
    guard.overrule()
    assert not looked(guard, away, first_step=10).findings
    assert not looked(guard, look(vote__share_mean_frac=0.99), first_step=15).findings  # little room is left
    lost = look(vote__share_mean_frac=0.99, support__base_share_frac=0.2)
    assert [one.rule for one in looked(guard, lost, first_step=20).findings] == ["estranged"]
    again = Guard(GuardSection(action="warn"))
    again.load(kept)
    assert [one.rule for one in judge(again, 10, **{SHARES: 0.9}).findings] == ["estranged"]
    again.load({name: value for name, value in kept.items() if name != "looks"})  # a checkpoint from before looks were kept
    assert not judge(again, 10, **{SHARES: 0.9}).findings


def test_other_prompts_after_a_rollback_are_no_agreement_that_was_gained() -> None:
    """A remedy that takes easier prompts: votes agree more at once, and the support, which is told by the same prompts as before, stays."""
    guard = Guard(GuardSection(action="warn"))
    begun = look(support__error_frac=0.0, support__start_share_frac=0.55)
    assert not looked(guard, begun, look(sharpened(1.2))).findings
    guard.start_over()
    easier = {**look(sharpened(1.2)), SHARES: 0.85}
    assert not looked(guard, easier, easier, first_step=10).findings
    assert [one.rule for one in looked(guard, {**easier, SHARES: 0.98, SUPPORTS: 0.41}, first_step=20).findings] == ["estranged"]


def test_the_room_is_told_by_the_prompts_that_tell_the_support() -> None:
    """From the start on easier prompts: their votes agree in 0.9, those on held-aside prompts in 0.54. The rise goes by the ones, its worth by the others."""
    first = look(vote__share_mean_frac=0.9, support__error_frac=0.0)
    assert not looked(Guard(HALTS), first, {**look(sharpened(1.5)), SHARES: 0.98}).findings
    assert [one.rule for one in looked(Guard(HALTS), first, look(vote__share_mean_frac=0.98)).findings] == ["estranged"]


def test_nothing_is_compared_without_what_the_start_said() -> None:
    """A run that an older version began, another trainer's stream without it, a look that is the start's own once more, and what is no fraction."""
    away = look(vote__share_mean_frac=0.9)
    begun = {key: value for key, value in look(support__error_frac=0.0).items() if key != "support/start_share_frac"}
    assert not looked(Guard(HALTS), begun, away).findings
    assert not looked(Guard(HALTS), look(support__error_frac=0.0), {**away, "support/error_frac": 0.0}).findings
    assert not looked(Guard(HALTS), look(support__error_frac=0.0), {**away, SHARES: 90.0}).findings
    assert not looked(Guard(HALTS), {**look(support__error_frac=0.0), SUPPORTS: 41.0}, away).findings
    assert not looked(Guard(HALTS), look(support__error_frac=0.0), {**away, SUPPORTS: -1e308}).findings


def test_a_first_look_that_comes_late_is_no_measure_of_what_came_before() -> None:
    """Of a stream whose share rose before anybody looked: the newest looks agree, so nothing was lost since."""
    guard, sure = Guard(GuardSection(action="warn")), {SHARES: 0.9, "policy/entropy_mean_nats": 0.1}
    begun = [judge(guard, step) for step in range(5)] + [judge(guard, step, **sure) for step in range(5, 35)]
    late = [judge(guard, step, **{**(look() if step in (35, 45) else {}), **sure}) for step in range(35, 50)]
    assert "estranged" not in {finding.rule for verdict in begun + late for finding in verdict.findings}


def test_who_overrules_twice_before_the_first_steps_are_known_keeps_the_newest_look() -> None:
    guard = Guard(GuardSection(action="warn"))
    judge(guard, 0, **look(support__error_frac=0.0))
    judge(guard, 1, **{**look(), SUPPORTS: 0.3})
    guard.overrule()
    judge(guard, 2, **{**look(), SUPPORTS: 0.25})
    guard.overrule()
    later = [judge(guard, step, **({**look(), SUPPORTS: 0.25, SHARES: 0.6} if step == 9 else {SHARES: 0.55})) for step in range(3, 12)]
    assert not [finding for verdict in later for finding in verdict.findings if finding.rule == "estranged"]
    assert guard.state()["looks"][1][SUPPORTS] == 0.25


def test_other_wordings_are_judged_by_the_last_three_probes() -> None:
    """One probe of a few pairs that disagree is chance; three are none."""
    guard = Guard(GuardSection(action="warn"))
    agree = [0.95, 0.9, 0.9, 0.3, 0.9, 0.3, 0.3, 0.3]
    found = [judge(guard, step, **{**PROBE, "probe/reword_agree_frac": one}) for step, one in enumerate(agree)]
    assert [bool(verdict.findings) for verdict in found] == [False] * 7 + [True]
    assert found[-1].findings[0].value == pytest.approx(0.65 * 3 / 3.5)
    assert Guard.load(other := Guard(GuardSection(action="warn")), json.loads(json.dumps(guard.state()))) is None
    assert judge(other, 8, **PROBE).health == judge(guard, 8, **PROBE).health


def test_a_reward_may_depend_on_length_while_lengths_stay() -> None:
    """Errors of another length than right answers, which become rarer: no finding, however large the correlation."""
    assert {verdict.findings for verdict in run(Guard(GuardSection(action="warn")), **{"reward/length_corr": -0.9})} == {()}


@pytest.mark.parametrize(("first", "late", "found"), [(3.9, 3.4, False), (6.0, 4.0, False), (3.9, 30.0, True), (30.0, 3.9, True)])
def test_answers_of_a_few_tokens_are_not_padded_or_cut(first: float, late: float, found: bool) -> None:
    """The bare answer's length is the number of its digits and moves with the prompts (sums on a model of 135 M: 3.9 to 3.6 tokens, two false alarms)."""
    length, guard = "completion/length_mean_tokens", Guard(GuardSection(action="warn"))
    verdicts = [judge(guard, step, **{length: first}) for step in range(10)]
    verdicts += [judge(guard, step, **{length: late, "reward/length_corr": -0.9}) for step in range(10, 20)]
    assert any(one.rule == "length_reward" for verdict in verdicts for one in verdict.findings) == found


def test_warn_only_and_off() -> None:
    late = {"vote/collision_frac": 0.9}
    assert {verdict.action for verdict in run(Guard(GuardSection(action="warn")), **late)} == {Action.CONTINUE, Action.WARN}
    off = run(Guard(GuardSection(action="off")), **late)
    assert {(verdict.action, verdict.health) for verdict in off} == {(Action.CONTINUE, None)}


def test_missing_signals_are_tolerated() -> None:
    guard = Guard(HALTS)
    for step in range(20):
        assert guard.judge(StepMetrics(step, PolicyVersion(0, step), {"vote/collision_frac": 0.1})).action is Action.CONTINUE


def test_state_goes_on_where_it_was() -> None:
    """Also with probes, low scores and updates behind it; the state is JSON and later steps do not change it."""
    whole, first, second = Guard(HALTS), Guard(HALTS), Guard(HALTS)
    values = [{"vote/collision_frac": 0.1 + 0.04 * step, **(PROBE if step % 4 == 0 else {})} for step in range(20)]
    expected = [judge(whole, step, **value) for step, value in enumerate(values)]
    found = [judge(first, step, **value) for step, value in enumerate(values[:14])]
    state = first.state()
    kept = json.dumps(state)
    judge(first, 14)
    assert json.dumps(state) == kept
    second.load(json.loads(kept))
    assert found + [judge(second, step + 14, **value) for step, value in enumerate(values[14:])] == expected


def test_rules_read_the_signals_they_name() -> None:
    """They name logged metrics or probes, and a window with just these is enough."""
    for rule in RULES.values():
        assert all(signal in METRICS or signal.startswith("probe/") for signal in rule.signals)
        steps = [dict.fromkeys(rule.signals, 0.5)] * 5
        looks = [{**steps[0], "room": 0.1}, steps[1]]
        assert rule.measure(Window(steps, steps, steps, steps[0], steps[0], steps[0], steps, looks)) is not None, rule.name
        assert rule.measure(Window([{}], [{}], [{}], {}, {}, {})) is None, rule.name


def test_a_verdict_costs_little() -> None:
    """All rules over a full window, median of 50: two hundredths of the fastest step measured, 0.5 s on an H100, are 10 ms."""
    guard, seconds = Guard(HALTS), []
    for step in range(60):
        begun = time.perf_counter()
        judge(guard, step, **PROBE, **{"update/grad_norm": 1.0, "vote/flip_frac": 0.3})
        seconds.append(time.perf_counter() - begun)
    assert sorted(seconds[10:])[25] < 0.01
