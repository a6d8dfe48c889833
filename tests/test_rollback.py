"""The guard rolls a run back with a remedy: what changes, in the record before it is done, the same when killed in between, and budgets that end it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from selftrain import checkpoints, remedies
from selftrain.config import GuardSection, RollbackSection, RunConfig
from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.guard import Doubts, Guard
from selftrain.guard.doubts import Support
from selftrain.guard_stream import verdicts_of_run
from selftrain.handover import START, Schedule, best_validated, healthiest, needed
from selftrain.labels import Bounds
from selftrain.labels.majority import majority
from selftrain.ledger import BranchRecord, Status, read, storage, verify
from selftrain.replay import replay
from selftrain.report import read_record, write_report
from selftrain.run import Outcome, RolledBack, read_config, resume, start, train_to_end
from selftrain.seeds import Stream
from selftrain.train import StepReport
from selftrain.types import Action, PolicyVersion, StepMetrics
from tests.builders import voted
from tests.killing import killed_and_resumed
from tests.recorded import RecordedRuns
from tests.test_guard import HEALTHY, PROBE
from tests.test_stages import SCORER

COLLAPSES = {
    "policy.model": "toy:weak",
    "labels.source": "majority",
    "update.learning_rate": 1.5,
    "run.num_steps": 40,
    "run.checkpoint_every_steps": 2,
    "guard.action": "roll_back",
}
COLLAPSES |= {"probes.every_steps": 10, "probes.num_prompts": 48}  # a later finding: a longer run to be killed in
COLLAPSES |= {"guard.window_steps": 3, "guard.baseline_steps": 3, "evals.num_problems": 8, "evals.num_samples": 4}
ONCE = {"rollback__max_rollbacks": 1, "run__num_steps": 26}


def config(tmp_path: Path, name: str, **more: Any) -> RunConfig:
    return load_config(overrides={**COLLAPSES, "run.folder": str(tmp_path), "run.name": name, **{key.replace("__", "."): value for key, value in more.items()}})


def test_it_goes_back_to_a_healthy_checkpoint_and_on_with_the_remedy(recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(COLLAPSES, rollback__factor=0.99)
    ledger = read(outcome.folder)
    assert outcome.reason == "halted"
    assert [one.remedy for one in ledger.branches] == [
        {"kind": "lower_rate", "options": {"update.learning_rate": pytest.approx(1.5 * 0.99**number)}} for number in (1, 2)
    ]
    for record, verdict in zip(ledger.branches, [one for one in ledger.verdicts(rolled_back=True) if one.action is Action.ROLL_BACK], strict=True):
        assert record.who == remedies.GUARD
        assert record.left_at == verdict.step + 1
        assert record.reason == "; ".join(one.words for one in verdict.findings)
        assert record.step <= verdict.step - 3
    rates = {step.metrics.version.branch: step.metrics.values.get("update/learning_rate") for step in ledger.steps(rolled_back=True) if step.updates}
    assert rates == {number: pytest.approx(1.5 * 0.99**number) for number in (0, 1, 2)}
    assert next(step for step in ledger.steps(rolled_back=True) if step.metrics.step == ledger.branches[0].left_at - 1).updates == {}
    assert list(ledger.verdicts())[-1].action is Action.HALT


def test_its_record_verifies_replays_and_reports(recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(COLLAPSES, rollback__factor=0.99)
    assert verify(outcome.folder).status is Status.INTACT
    found = replay(read(outcome.folder), read_config(outcome.folder))
    assert found.agrees, (found.groups.mismatches[:3], found.verdicts)
    text = write_report(outcome.folder).markdown.read_text()
    assert "Rolled back 2 times: after" in text
    assert f", by guard: {read(outcome.folder).branches[0].reason} (remedy lower_rate: update.learning_rate = 1.485)" in text


@pytest.mark.parametrize("remedy", sorted(remedies.REMEDIES))
def test_every_remedy_acts_from_the_branch_on_and_replays(tmp_path: Path, remedy: str) -> None:
    outcome = train_to_end(config(tmp_path, "a", **ONCE, rollback__remedy=remedy, rollout__group_size=12))
    ledger = read(outcome.folder)
    record = ledger.branches[0]
    assert record.remedy["kind"] == remedy
    before, after = (
        [one for branch, step in ledger.group_keys(rolled_back=True) if branch == wanted for one in ledger.groups(step, branch)] for wanted in (0, 1)
    )
    assert after
    assert {one.label.source for one in before} == {"majority"}
    teachers = {"frozen_teacher": "frozen", "ema_teacher": "ema"}
    assert {one.label.source for one in after} == {teachers.get(remedy, "majority")}
    assert {one.voted.vote.num_votes for one in after} == {8 if remedy == "fewer_votes" else 16}
    assert {len(one.trained) for one in after if one.trained} <= {8 if remedy == "fewer_votes" else 12}
    seen, prompts = ({one.voted.group.prompt.id for one in groups} for groups in (before, after))
    if remedy == "easier_prompts":
        assert prompts <= set(record.remedy["prompts"])
        assert len(record.remedy["prompts"]) == max(16, round(0.5 * len(seen)))
        assert set(record.remedy["prompts"]) < seen
    else:
        assert "prompts" not in record.remedy
    if remedy == "higher_min_share":
        assert all(one.voted.vote.share_frac >= 0.5 for one in after if one.label.is_decided)
        assert any(one.voted.vote.share_frac < 0.5 for one in before if one.label.is_decided)
    found = replay(ledger, read_config(outcome.folder))
    assert found.agrees, (found.groups.mismatches[:3], found.verdicts)


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Runs that nobody killed, by remedy."""
    folder = tmp_path_factory.mktemp("whole")
    return {remedy: train_to_end(config(folder, remedy, **ONCE, rollback__remedy=remedy)) for remedy in ("ema_teacher", "easier_prompts", "lower_rate")}


@pytest.mark.parametrize(
    ("moment", "remedy"),
    [("after", "ema_teacher"), *((moment, "easier_prompts") for moment in ("verdict", "branch", "load", "save", "after"))],
)
def test_killed_around_a_rollback_it_ends_with_the_same_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Outcome], moment: str, remedy: str
) -> None:
    expected = whole[remedy]
    assert read(expected.folder).branches
    run = start(config(tmp_path, "cut", **ONCE, rollback__remedy=remedy))

    def dies(*_: object, **__: object) -> None:
        raise Killed

    targets = {"verdict": (run.ledger, "append_branch"), "branch": (run, "_new_guard"), "save": (checkpoints, "save")}
    targets["load"] = (type(run.policy), "start_branch")
    seen = 0
    try:
        for event in run.events():
            if isinstance(event, StepReport) and event.verdict.action is Action.ROLL_BACK and moment in targets:
                monkeypatch.setattr(*targets[moment], dies)
            seen += isinstance(event, StepReport) and run.ledger.branch == 1
            if moment == "after" and seen == 3:
                raise Killed
    except Killed:
        pass
    monkeypatch.undo()
    run.ledger.close()
    again = resume(run.folder)
    outcome = next(event for event in again.events() if isinstance(event, Outcome))
    assert outcome.head == expected.head
    assert outcome.handed_over == expected.handed_over


def test_killed_at_random_it_ends_with_the_same_record(tmp_path: Path, whole: dict[str, Outcome]) -> None:
    assert killed_and_resumed(config(tmp_path, "cut", **ONCE), times=3, max_events=6) >= 2
    assert read(tmp_path / "cut").branches
    assert read(tmp_path / "cut").head == whole["lower_rate"].head


def test_past_a_damaged_checkpoint_it_goes_further_back(tmp_path: Path) -> None:
    late: dict[str, Any] = {"rollback__max_rollbacks": 1, "probes__num_prompts": 0, "run__num_checkpoints": 20}  # rules about steps alone see it late
    healthy = read(train_to_end(config(tmp_path, "whole", **late)).folder).branches[0]
    assert healthy.step > 2
    run = start(config(tmp_path, "damaged", **late))
    for event in run.events():
        if isinstance(event, StepReport) and event.verdict.action is Action.ROLL_BACK:
            (run.folder / "checkpoints" / healthy.checkpoint / "toy.json").write_text("{}")
    found = read(run.folder).branches[0]
    assert healthy.step == 2 + found.step
    assert found.left_at == healthy.left_at
    assert verify(run.folder).status is Status.INTACT


def test_where_it_goes_back_to_does_not_depend_on_num_checkpoints(tmp_path: Path) -> None:
    """From step-000012, after the first rollback, it wants step-000006, and hands over one before that."""
    twice: dict[str, Any] = {"run__seed": 1, "run__num_steps": 22, "run__checkpoint_every_steps": 3, "rollback__remedy": "ema_teacher", "prompts__count": 32}
    twice |= {"probes__every_steps": 5, "probes__num_prompts": 0, "rollout__num_votes": 8, "rollout__prompts_per_step": 4, "update__warmup_steps": 0}
    for number in (1, 99):
        outcome = train_to_end(config(tmp_path, f"keeps-{number}", **twice, run__num_checkpoints=number))
        assert [one.checkpoint for one in read(outcome.folder).branches] == ["step-000012", "step-000006"]
        assert outcome.handed_over == "step-000003"


@pytest.mark.parametrize("parent", ["disk", "memory://"])
def test_a_resumed_run_knows_what_the_guard_knew_at_its_checkpoints(tmp_path: Path, parent: str) -> None:
    run = start(config(tmp_path, "a", run__folder=str(tmp_path) if parent == "disk" else f"{parent}{tmp_path.name}"))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 4:
            run.stop()
    again = resume(run.folder)
    for name in ("step-000002", "step-000004"):
        assert again.known[name] == run.known[name] != Doubts()
    again.ledger.close()
    storage.publish(run.folder / "checkpoints" / "step-000002" / "manifest.json", b"{}")
    assert resume(run.folder).known["step-000002"] is None


def simulated(schedule: Schedule, seed: int, keeps_all: bool, validated: bool) -> tuple[list[str], int]:
    """A run's choices (where its two rollbacks go, what is handed over, what is best on the validation problems), and how many checkpoints were kept at most.

    Its signals are drawn by seed, branch and step: runs that keep other checkpoints see the same as long as they choose the same.
    """
    odds = Random(seed)
    harm_rate, fault_rate, probe_every = odds.choice([0.05, 0.2, 0.4]), odds.choice([0.0, 0.1, 0.3]), odds.choice([1, 3, 5, 10])
    has_support, error = odds.random() < 0.7, odds.choice([0.01, 0.05])
    there: dict[int, str] = {}
    made: dict[str, Doubts] = {}
    avgs: dict[str, float] = {}
    disk: list[str] = []
    choices: list[str] = []
    doubts, steps, most = Doubts(), 0, 0
    while steps < schedule.num_steps and len(choices) < 3:
        draw, is_probed = Random(f"{seed} {len(choices)} {steps}"), steps % probe_every == 0
        harm = draw.random() < (harm_rate if doubts.harm_since_step is None else 0.6)
        since = (steps if doubts.harm_since_step is None else doubts.harm_since_step) if harm else None
        is_blocked = draw.random() < fault_rate
        seen = [Support(steps, draw.uniform(0.2, 0.8) if steps else 0.3, error if steps else 0.0)] if is_probed and has_support else []
        blocked, cleared = [steps] if is_blocked else [], [steps] if is_probed and not is_blocked else []
        doubts = Doubts(since, (*doubts.blocked_steps, *blocked), (*doubts.cleared_steps, *cleared), (*doubts.supports, *seen))
        steps += 1
        if harm and draw.random() < 0.4:
            choices.append(healthiest(there, steps, doubts, schedule))
            if len(choices) < 3:
                doubts, steps = made.get(choices[-1], Doubts()), next((at for at, name in there.items() if name == choices[-1]), 0)
                there = {at: name for at, name in there.items() if at <= steps}
        elif schedule.is_due(steps):
            there[steps] = f"{len(choices)}-{steps}"
            made[there[steps]] = doubts
            disk.append(there[steps])
        if not keeps_all:
            keep = needed(there, steps, doubts, schedule, max(0, 2 - len(choices)), made.get) | {best_validated(disk, avgs), there.get(max(there, default=0))}
            disk = [name for name in disk if name in keep]
            there = {at: name for at, name in there.items() if name in disk}
        if validated and steps in there:
            avgs.setdefault(there[steps], draw.random())
        most = max(most, len(disk))
    return [*choices, healthiest(there, steps, doubts, schedule), best_validated(disk, avgs)], most


@pytest.mark.parametrize(("every", "num_steps", "num_seeds", "most"), [(10, 200, 100, (4, 5)), (5, 100, 100, (5, 6)), (1, 60, 30, (28, 29))])
def test_choices_do_not_depend_on_num_checkpoints(every: int, num_steps: int, num_seeds: int, most: tuple[int, int]) -> None:
    """most: how many checkpoints are kept at most, without and with validation problems."""
    schedule, twice = Schedule(every, num_steps, window_steps=5), 0
    kept: dict[bool, int] = {}
    for validated in (False, True):
        for seed in range(num_seeds):
            choices, number = simulated(schedule, seed, False, validated)
            assert choices == simulated(schedule, seed, True, validated)[0]
            kept[validated] = max(kept.get(validated, 0), number)
            twice += sum(one != START for one in choices[:-2]) > 1
    assert twice > num_seeds // 10
    assert (kept[False], kept[True]) == most


def test_the_loop_tells_of_a_rollback(tmp_path: Path) -> None:
    events = list(start(config(tmp_path, "a", **ONCE)).events())
    at = next(number for number, event in enumerate(events) if isinstance(event, RolledBack))
    told, before, after = events[at], events[at - 1], next(event for event in events[at:] if isinstance(event, StepReport))
    assert isinstance(told, RolledBack)
    assert isinstance(before, StepReport)
    assert before.verdict.action is Action.ROLL_BACK
    assert (after.metrics.step, after.metrics.version.branch) == (told.record.step, 1)


def judged(section: GuardSection, rollback: RollbackSection, num_rollbacks: int, **late: float) -> set[Action]:
    guard = Guard(section, rollback, num_rollbacks)
    steps = [HEALTHY] * 10 + [{**HEALTHY, **late}] * 10
    return {guard.judge(StepMetrics(step, PolicyVersion(0, step), values)).action for step, values in enumerate(steps)}


def test_budgets_end_it() -> None:
    section, harm = GuardSection(action="roll_back"), {"vote/collision_frac": 0.9}
    assert Action.ROLL_BACK in judged(section, RollbackSection(max_rollbacks=2), 1, **harm)
    assert Action.HALT in judged(section, RollbackSection(max_rollbacks=2), 2, **harm)
    assert judged(section, RollbackSection(max_rollbacks=2), 2, **harm) <= {Action.CONTINUE, Action.WARN, Action.HALT}
    stalled = judged(section, RollbackSection(), 0, **{"admission/admitted_frac": 0.0})
    assert Action.HALT in stalled
    assert Action.ROLL_BACK not in stalled
    assert judged(GuardSection(action="warn"), RollbackSection(), 0, **harm) == {Action.CONTINUE, Action.WARN}


@pytest.mark.parametrize("action", ["halt", "roll_back", "warn"])
def test_the_budget_of_drift_halts(action: Any) -> None:
    guard = Guard(GuardSection(action=action), RollbackSection(max_drift_nats=0.2))
    moved = [guard.judge(StepMetrics(step, PolicyVersion(0, step), {**PROBE, "probe/kl_base_nats": 0.1 * step})) for step in range(4)]
    assert [verdict.action for verdict in moved] == [Action.CONTINUE] * 3 + [Action.HALT]
    assert [(one.rule, one.limit) for one in moved[3].findings] == [("drift_budget", 0.2)]


def test_what_is_over_the_budget_of_drift_is_not_handed_over(tmp_path: Path) -> None:
    """Nor what came after the last probe within it, whose drift nobody knows; `selftrain guard` has the run's budget too."""
    options: dict[str, Any] = {
        "run__seed": 0,
        "update__learning_rate": 0.2,
        "run__num_steps": 14,
        "run__checkpoint_every_steps": 2,
        "rollback__remedy": "lower_rate",
    }
    options |= {"probes__every_steps": 5, "probes__num_prompts": 96, "update__warmup_steps": 0, "guard__action": "halt"}
    free = train_to_end(config(tmp_path, "free", **options))
    drifts = {step.metrics.step: step.metrics.values.get("probe/kl_base_nats", 0.0) for step in read(free.folder).steps()}
    assert drifts[5] < drifts[10]
    outcome = train_to_end(config(tmp_path, "bounded", **options, rollback__max_drift_nats=(drifts[5] + drifts[10]) / 2))
    assert (outcome.reason, outcome.steps) == ("halted", 11)
    assert outcome.handed_over in {START, "step-000002", "step-000004"}
    assert not any(read_record(outcome.folder).doubts.allows(steps) for steps in (8, 10))
    (judged_again,) = [verdict for _, verdict in verdicts_of_run(outcome.folder, GuardSection(action="halt")) if verdict.action is Action.HALT]
    assert [one.rule for one in judged_again.findings] == ["drift_budget"]


@pytest.mark.parametrize("idle", [{"probes__num_prompts": 0}, {"guard__action": "off"}])
def test_a_budget_of_drift_that_nobody_measures_is_refused(tmp_path: Path, idle: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"rollback\.max_drift_nats = 0\.2, (probes\.num_prompts = 0|guard\.action = off): the drift is measured by probes"):
        start(config(tmp_path, "a", **{"probes__num_prompts": 32, **idle}, rollback__max_drift_nats=0.2))


def test_remedies_lie_one_over_the_other() -> None:
    base = load_config(overrides={"policy.model": "toy", "update.learning_rate": 0.4, "labels.min_share_frac": 0.2})
    halved = remedies.REMEDIES["lower_rate"](base, 0.5)
    branches = [BranchRecord(1, 0, "start", 0, 9, "", "guard", {"kind": "lower_rate", "options": halved}), BranchRecord(2, 0, "start", 0, 9, "", "Ada")]
    assert remedies.branch_config(base, branches[:0]) == base
    once = remedies.branch_config(base, branches)
    assert once.update.learning_rate == pytest.approx(0.2)
    assert once.model_copy(update={"update": base.update}) == base
    assert remedies.REMEDIES["lower_rate"](once, 0.5) == {"update.learning_rate": pytest.approx(0.1)}
    assert remedies.REMEDIES["higher_min_share"](base, 0.5) == {"labels.min_share_frac": pytest.approx(0.6)}
    assert remedies.by_guard(branches) == 1
    votes = [remedies.REMEDIES["fewer_votes"](load_config(overrides={"policy.model": "toy", "rollout.num_votes": number}), 0.5) for number in (16, 5, 4, 2)]
    assert votes == [{"rollout.num_votes": number} for number in (8, 3, 3, 2)]


def test_where_a_remedy_still_applies_first_steps_are_measured_anew() -> None:
    """Branch 2 goes back to a place of branch 1, after its remedy, branch 3 to one before it."""
    easier = BranchRecord(1, 0, "step-000004", 4, 9, "", "guard", {"kind": "easier_prompts", "prompts": ["a"]})
    branches = [easier, BranchRecord(2, 1, "branch-01-step-000008", 8, 12, "", "Ada"), BranchRecord(3, 0, "step-000002", 2, 14, "", "Ada")]
    assert [remedies.changes_signals(branches, record) for record in branches] == [True, False, True]
    slower = replace(easier, remedy={"kind": "lower_rate", "options": {}})
    assert not any(remedies.changes_signals([slower, *branches[1:]], record) for record in (slower, *branches[1:]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels.source": "frozen", "rollback.remedy": "frozen_teacher"}, "labels.source = frozen already"),
        ({"labels.source": "ema", "rollback.remedy": "ema_teacher"}, "labels.source = ema already"),
        ({"rollout.num_votes": 2, "rollback.remedy": "fewer_votes"}, "rollout.num_votes = 2 already"),
        ({"rollout.num_votes": 3, "rollback.remedy": "fewer_votes"}, "rollout.num_votes = 3 already"),
        ({"labels.source": "reference", "reference.frac": 0.5, "step_share.reference_frac": 0.5, "rollback.remedy": "easier_prompts"}, "a safety net holds"),
        ({"labels.source": "random", "rollback.remedy": "higher_min_share"}, "labels.source = random asks for no least share"),
        ({"labels.source": "mixture", "mixture.weights": {"random": 1, "format_only": 1}, "rollback.remedy": "higher_min_share"}, "would change nothing"),
        ({"prompts.count": 16, "rollout.prompts_per_step": 16, "rollback.remedy": "easier_prompts"}, "all 16 prompts are in every step of 16"),
        ({"reward.rule": "share", "rollback.remedy": "ema_teacher"}, "rollback.remedy = ema_teacher, which makes it labels.source = ema, reward.rule = share"),
    ],
)
def test_a_remedy_that_cannot_work_is_refused_at_the_start(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        start(load_config(overrides={**COLLAPSES, "run.folder": str(tmp_path), "run.name": "a", **options}))
    assert not (tmp_path / "a").exists()


def test_the_easiest_prompts_are_those_that_agreed_most_at_their_first_vote() -> None:
    answers = {"a": ["1", "1", "1", "1"], "b": ["1", "2", "3", "4"], "c": ["1", "1", "1", "2"], "d": ["1", "1", "2", "3"]}
    groups = [voted(list(keys), name, at) for at, (name, keys) in enumerate(answers.items())]
    later = [replace(voted(["5"] * 4, "b", 4), group=replace(voted(["5"] * 4, "b", 4).group, step=1))]
    scored = SCORER.score([*groups, *later], majority([*groups, *later], Bounds()), (), Stream(0))
    assert remedies.easiest(scored, 0.5, 1) == ["a", "c"]
    assert remedies.easiest(scored, 0.5, 3) == ["a", "c", "d"]
    assert remedies.easiest(scored, 0.5, 1, {"b", "c", "d"}) == ["c", "d"]
    assert remedies.easiest(scored, 0.5, 3, {"b", "c", "x", "y"}) == ["b", "c", "x"]


def test_easier_prompts_again_are_among_those_that_are_left() -> None:
    """The history of the branch has prompts that an earlier remedy took out: ranked with the others they leave less than a step needs."""
    answers = {"a": ["1", "1", "1", "1"], "b": ["1", "2", "3", "4"], "c": ["1", "1", "1", "2"], "d": ["1", "1", "2", "3"]}
    groups = [voted(list(keys), name, at) for at, (name, keys) in enumerate(answers.items())]
    scored = SCORER.score(groups, majority(groups, Bounds()), (), Stream(0))
    options = load_config(overrides={**COLLAPSES, "rollback.remedy": "easier_prompts", "rollback.factor": 0.5, "rollout.prompts_per_step": 2})
    earlier = BranchRecord(1, 0, 0, "step-000002", 2, "harm", "guard", {"kind": "easier_prompts", "options": {}, "prompts": ["b", "d", "e"]})
    assert remedies.remedy_of(options, lambda: scored, [earlier])["prompts"] == ["b", "d"]
