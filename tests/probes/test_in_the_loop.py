"""Probes in a run: recorded before the verdict, replayed from the record, kept over resumes and rollbacks, and without a trace in what is learned."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.errors import ConfigError, RunFolderError
from selftrain.guard.doubts import is_probed
from selftrain.guard.examples import OF_PROBES
from selftrain.ledger import Ledger, Status, read, verify
from selftrain.policies.base import Policy, SampleRequest, SamplingParams
from selftrain.probes import Kind, Prober, ProbeResult
from selftrain.probes.base import Base
from selftrain.probes.probe_set import address
from selftrain.probes.probing import CALLING_ERRORS, CLEAR_ERRORS, FIRST_PROMPTS, base_of, glance, is_glance
from selftrain.probes.signals import agreement_with_the_rest, easy
from selftrain.replay import replay
from selftrain.report import write_report
from selftrain.run import Outcome, Run, read_config, resume, start, train_to_end
from selftrain.seeds import Stream
from selftrain.train import StepReport
from selftrain.types import Group, Role, VotedGroup
from tests.killing import cut_off_and_resumed, killed_and_resumed
from tests.recorded import RecordedRuns

TOY = {
    "policy.model": "toy",
    "labels.source": "majority",
    "update.learning_rate": 0.1,
    "run.num_steps": 12,
    "run.checkpoint_every_steps": 3,
    "probes.every_steps": 5,
    "probes.num_prompts": 48,
}
TOY |= {"update.warmup_steps": 0, "evals.num_problems": 8, "evals.num_samples": 2}


def config(tmp_path: Path, name: str, options: Mapping[str, Any] = TOY, **more: Any) -> RunConfig:
    return load_config(overrides={**options, "run.folder": str(tmp_path), "run.name": name, **{key.replace("__", "."): value for key, value in more.items()}})


def recorded(outcome: Outcome) -> tuple[Ledger, RunConfig]:
    return read(outcome.folder), read_config(outcome.folder)


def probe_keys(values: Mapping[str, float]) -> set[str]:
    return {key for key in values if key.startswith(("probe/", "cost/probe", "glance/", "support/"))}


def test_probes_are_due_at_intervals_and_in_the_record_before_the_verdict(recorded_run: RecordedRuns) -> None:
    ledger, _ = recorded(recorded_run(TOY))
    kinds = [(entry.kind, entry.step) for entry in ledger.entries if entry.kind in ("segment", "probe", "verdict")]
    assert [step for kind, step in kinds if kind == "probe"] == list(range(12))
    for step in range(12):
        at = kinds.index(("probe", step))
        assert kinds[at - 1 : at + 2] == [("segment", step), ("probe", step), ("verdict", step)]
    for step in ledger.steps():
        values = step.metrics.values
        is_light = step.metrics.step in (2, 11)  # half-way to the first probe, and the last
        is_between = step.metrics.step % 5 != 0 and not is_light
        assert {"glance/fallen_frac", "glance/error_frac"} <= set(values) if is_between else "glance/fallen_frac" not in values
        called = is_between and values["glance/fallen_frac"] > CALLING_ERRORS * values["glance/error_frac"]
        assert ("probe/base_kept_frac" in values) == (step.metrics.step % 5 == 0 or called)
        assert ("support/base_share_frac" in values) == ("cost/probe_tokens" in values) == (step.metrics.step % 5 == 0 or called or is_light)
        assert bool(ledger.probed(step.metrics.step)) == ("cost/probe_tokens" in values)
    assert verify(ledger.folder).status is Status.INTACT
    assert ledger.header["label_free"] is True


def test_the_groups_of_a_probe_are_kept_and_trained_on_by_nobody(recorded_run: RecordedRuns) -> None:
    ledger, _ = recorded(recorded_run(TOY))
    first, later = ledger.probed(0), ledger.probed(5)
    assert ledger.probed(3) == []
    assert {one.group.role for one in [*first, *later]} == {Role.PROBE}
    kinds = [address(one.group.prompt.id)[0] for one in first]
    assert {kind: kinds.count(kind) for kind in Kind} == {
        Kind.BASE: 48,
        Kind.OWN: 21,
        Kind.NUMBER: 8,
        Kind.REWORD: 8,
        Kind.OFF_DOMAIN: 12,
        Kind.SWAP: 0,
        Kind.CANARY: 0,
        Kind.SUPPORT: 0,
    }
    assert Counter(address(one.group.prompt.id)[0] for one in later) == {Kind.OWN: 21, Kind.NUMBER: 8, Kind.REWORD: 8, Kind.SUPPORT: 27}
    assert Counter(address(one.group.prompt.id)[0] for one in ledger.probed(11)) == {Kind.OWN: 21, Kind.SUPPORT: 27}
    assert {one.vote.num_votes for one in ledger.probed(11)} == {1}
    assert {one.vote.num_votes for one in first if one.group.prompt.id.startswith("base:")} == {8}
    assert sorted(one.vote.num_votes for one in later if one.group.prompt.id.startswith("own:")) == [1] * 13 + [2] * 8
    trained = {one.voted.group.prompt.text for step in ledger.group_steps() for one in ledger.groups(step)}
    assert not trained & {one.group.prompt.text for one in [*first, *later]}
    indexes = [one.group.index for one in first] + [one.voted.group.index for one in ledger.groups(0)]
    assert sorted(indexes) == list(range(len(indexes)))


def test_probes_change_nothing_of_what_is_learned(tmp_path: Path) -> None:
    runs = [
        start(config(tmp_path, name, probes__num_prompts=count, labels__source="frozen", guard__action="warn"))
        for name, count in (("with", 16), ("without", 0))
    ]
    folders = [next(event for event in run.events() if isinstance(event, Outcome)).folder for run in runs]
    assert runs[0].policy.weights_hash() == runs[1].policy.weights_hash()
    one, other = map(read, folders)
    assert other.header["probes"] is None
    assert not [entry for entry in other.entries if entry.kind == "probe"]
    for step in one.group_steps():
        assert one.groups(step) == other.groups(step)
    for first, second in zip(one.steps(), other.steps(), strict=True):
        assert {key: value for key, value in first.metrics.values.items() if key not in probe_keys(first.metrics.values)} == second.metrics.values


def calls_of(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Prompt ids of each call of the sampler from now on, evaluations left out."""
    calls: list[list[str]] = []
    sample = policy.sample

    def counted(requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream) -> list[Group]:
        if seeds.stream != "eval":
            calls.append([request.prompt.id for request in requests])
        return sample(requests, params, seeds)

    monkeypatch.setattr(policy, "sample", counted)
    return calls


def test_a_probe_that_is_due_is_drawn_in_the_call_of_the_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(config(tmp_path, "a"))
    calls = calls_of(run.policy, monkeypatch)
    ledger = read(next(event for event in run.events() if isinstance(event, Outcome)).folder)
    kinds = [[id.split(":")[0] if ":" in id else "vote" for id in call] for call in calls]
    votes = [call for call in kinds if "vote" in call]
    assert len(votes) == 12
    assert [step for step, call in enumerate(votes) if set(call) == {"vote", "own", "number", "reword", "support"}] == [5, 10]
    assert [step for step, call in enumerate(votes) if set(call) == {"vote", "own", "support"}] == [2, 11]
    called = [step for step in range(12) if ledger.probed(step) and step % 5 and step not in (2, 11)]
    assert len(kinds) == 12 + 3 + len(called)  # the start's, its off-domain texts and the first probe; those that a glance called for
    votes_of_5 = [one.voted.group for one in ledger.groups(5)]
    assert len({done.version for group in [*votes_of_5, *(one.group for one in ledger.probed(5))] for done in group.completions}) == 1


def test_a_probe_drawn_beside_the_votes_is_that_of_a_call_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded_run: RecordedRuns) -> None:
    monkeypatch.setattr(Prober, "requests", lambda *_: [])
    assert train_to_end(config(tmp_path, "apart")).head == recorded_run(TOY).head


def test_votes_that_are_drawn_another_way_have_no_probe_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(config(tmp_path, "a", labels__source="self_certainty", run__num_steps=6))
    calls = calls_of(run.policy, monkeypatch)
    ledger = read(next(event for event in run.events() if isinstance(event, Outcome)).folder)
    assert not [call for call in calls if any(":" in id for id in call) and not all(":" in id for id in call)]
    assert ledger.probed(5)
    assert not [done for one in ledger.probed(5) for done in one.group.completions if done.certainties]


def test_signals_follow_from_the_record(recorded_run: RecordedRuns) -> None:
    found = replay(*recorded(recorded_run(TOY)))
    assert found.agrees
    assert (found.num_probes, found.probes) == (5, ())


@pytest.mark.parametrize("key", ["probe/share_mean_frac", "probe/base_agree_frac", "cost/probe_tokens", "support/base_share_frac", "support/error_frac"])
def test_a_signal_that_does_not_follow_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    honest = Prober.__call__

    def lying(self: Prober, policy: Policy, step: int, first_index: int, drawn: Sequence[Group] = ()) -> ProbeResult:
        found = honest(self, policy, step, first_index, drawn)
        return replace(found, values={**found.values, key: found.values[key] + 0.01}) if step == 5 else found

    monkeypatch.setattr(Prober, "__call__", lying)
    found = replay(*recorded(train_to_end(config(tmp_path, "a"))))
    assert (found.agrees, found.probes) == (False, (5,))


def test_how_far_the_starts_support_can_go_is_recorded_once_and_follows_from_its_votes(recorded_run: RecordedRuns) -> None:
    ledger, _ = recorded(recorded_run(TOY))
    known = {step.metrics.step: step.metrics.values for step in ledger.steps() if "support/base_share_frac" in step.metrics.values}
    assert [step for step, values in known.items() if "support/start_share_frac" in values] == [0]
    votes = base_of(ledger.probed(0)).votes
    assert known[0]["support/start_share_frac"] == pytest.approx(mean(agreement_with_the_rest(vote) for vote in votes.values()))
    assert known[0]["support/base_share_frac"] <= known[0]["support/start_share_frac"] < 1


def test_an_older_record_without_it_is_replayed_without_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a version before `estranged` made it: no such signal, and verdicts that know nothing of it."""
    honest = Prober.__call__

    def older(self: Prober, policy: Policy, step: int, first_index: int, drawn: Sequence[Group] = ()) -> ProbeResult:
        found = honest(self, policy, step, first_index, drawn)
        return replace(found, values={name: value for name, value in found.values.items() if name != "support/start_share_frac"})

    monkeypatch.setattr(Prober, "__call__", older)
    ledger, its_config = recorded(train_to_end(config(tmp_path, "a", COLLAPSES, guard__action="warn")))
    monkeypatch.undo()
    assert replay(ledger, its_config).agrees
    assert not [one for verdict in ledger.verdicts() for one in verdict.findings if one.rule == "estranged"]


@pytest.mark.parametrize("step", [3, 7])
def test_a_run_that_was_cut_off_has_the_same_probes(tmp_path: Path, step: int, recorded_run: RecordedRuns) -> None:
    whole = recorded_run(TOY)
    assert cut_off_and_resumed(config(tmp_path, "cut"), step).head == whole.head


def test_a_killed_run_has_the_same_probes(tmp_path: Path) -> None:
    whole = train_to_end(config(tmp_path, "whole", run__num_steps=30))
    assert killed_and_resumed(config(tmp_path, "killed", run__num_steps=30), times=3, max_events=6) > 0
    assert read(tmp_path / "killed").head == whole.head


@pytest.mark.parametrize("place", ["start", "step-000003"])
def test_after_a_rollback_the_start_is_not_asked_again(tmp_path: Path, place: str) -> None:
    run = start(config(tmp_path, "a"))
    events = run.events()  # kept: a run is given back when nobody can ask for the next event
    for event in events:
        if isinstance(event, StepReport) and event.metrics.step == 6:
            break
    assert isinstance(run, Run)
    run.roll_back(place, "a test", "a tester")
    outcome = next(event for event in run.events() if isinstance(event, Outcome))
    ledger, its_config = recorded(outcome)
    again = [(branch, step) for branch, step in ledger.group_keys(rolled_back=True) if ledger.probed(step, branch) and step % 5 == 0]
    assert again == [(0, 0), (0, 5), *([(1, 0)] if place == "start" else []), (1, 5), (1, 10)]
    asked = {place: {address(one.group.prompt.id)[0] for one in ledger.probed(place[1], place[0])} for place in again}
    assert [place for place, kinds in asked.items() if Kind.BASE in kinds] == [(0, 0)]
    assert replay(ledger, its_config).agrees


def test_after_going_back_to_the_start_probes_are_compared_with_those_of_the_branch(tmp_path: Path) -> None:
    """The best probe was one of the weights that were left behind: the start itself would have lost from it."""
    run = start(config(tmp_path, "a", guard__action="warn"))
    events = run.events()  # kept: a run is given back when nobody can ask for the next event
    for event in events:
        if isinstance(event, StepReport) and event.metrics.step == 10:
            break
    assert mean(run.prober.state()["best"].values()) > 0.7  # of the start it is 0.63
    run.roll_back("start", "a test", "a tester")
    first = next(event for event in run.events() if isinstance(event, StepReport))
    assert first.metrics.step == 0
    assert first.metrics.values["probe/base_lost_frac"] == 0
    assert run.prober.state()["best"].keys() == run.prober.state()["agreed"].keys()


def test_the_example_of_the_page_probes_a_checkpoint(capsys: pytest.CaptureFixture[str], recorded_run: RecordedRuns) -> None:
    """The first probe of a run is that of the start, so the example gives what the run recorded."""
    outcome = recorded_run(TOY)
    page = (Path(__file__).parent.parent.parent / "docs" / "probes.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    example = example.replace("runs/NAME", str(outcome.folder))
    exec(example.replace("step-000040", "step-000006"), {})
    checkpoint = ast.literal_eval(capsys.readouterr().out)
    exec(example.replace('policy.load(folder / "checkpoints" / "step-000040")', ""), {})
    at_start = ast.literal_eval(capsys.readouterr().out)
    recorded_first = next(iter(read(outcome.folder).steps())).metrics.values
    assert at_start == {key: value for key, value in recorded_first.items() if key.startswith(("probe/", "support/"))}
    assert checkpoint["probe/kl_base_nats"] > 0.001


COLLAPSES = {"policy.model": "toy:weak", "labels.source": "majority", "update.learning_rate": 1.5, "run.num_steps": 20, "run.checkpoint_every_steps": 2}
COLLAPSES |= {"update.warmup_steps": 0, "probes.every_steps": 6, "probes.num_prompts": 48, "guard.action": "halt"}


def test_the_guard_sees_a_constant_answer_by_its_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.probes.probing.GLANCES", 0)
    outcome = train_to_end(config(tmp_path, "a", COLLAPSES))
    assert (outcome.reason, outcome.steps) == ("halted", 7)
    last = list(read(outcome.folder).verdicts())[-1]
    assert "estranged" in {finding.rule for finding in last.findings}
    assert "deaf" in last.health.parts
    assert not [step for step in read(outcome.folder).steps() if "glance/fallen_frac" in step.metrics.values]


def test_findings_of_probes_show_completions_of_the_probe(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", COLLAPSES, update__learning_rate=6.0, probes__every_steps=20))
    ledger = read(outcome.folder)
    winners = easy(base_of(ledger.probed(0)).votes)
    shown: dict[str, list[tuple[VotedGroup, int]]] = defaultdict(list)
    for verdict in ledger.verdicts():
        groups = {one.group.index: one for one in ledger.probed(verdict.step)}
        for finding in verdict.findings:
            if finding.rule in OF_PROBES:
                assert bool(finding.examples) <= is_probed(next(one for one in ledger.steps() if one.metrics.step == verdict.step).metrics.values)
                shown[finding.rule] += [(groups[group], at) for group, at in finding.examples]
    assert "off_base" in shown
    for one, at in shown["off_base"]:
        kind, of = address(one.group.prompt.id)
        assert (kind, one.answers.keys[at] != winners[of]) == (Kind.OWN, True)
    one, _ = shown["off_base"][0]
    assert f"for example `{one.group.prompt.text}`" in write_report(outcome.folder).markdown.read_text()


def test_a_glance_sees_it_before_the_next_probe_is_due(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", COLLAPSES, guard__action="warn"))
    ledger = read(outcome.folder)
    assert next(verdict.step for verdict in ledger.verdicts() if "off_base" in {finding.rule for finding in verdict.findings}) == 13
    glances = [step.metrics.step for step in ledger.steps() if "glance/fallen_frac" in step.metrics.values]
    assert glances == [1, 2, 4, 5, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17]
    assert [step for step in ledger.group_steps() if ledger.probed(step)] == [0, 3, 6, 12, 13, 16, 18, 19]
    assert replay(ledger, read_config(outcome.folder)).agrees


def test_a_rate_far_too_high_is_seen_within_the_first_steps(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", COLLAPSES, update__learning_rate=6.0, probes__every_steps=20))
    ledger = read(outcome.folder)
    assert (outcome.reason, outcome.steps) == ("halted", 3)
    assert [step for step in ledger.group_steps() if ledger.probed(step)] == [0, 2]
    assert list(ledger.verdicts())[-1].health.parts["off_base"] > 1


def test_a_glance_is_at_half_of_the_prompts_where_these_say_clearly_that_nothing_fell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: dict[int, list[dict[str, float]]] = defaultdict(list)

    def watched(policy: Policy, base: Base, *others: Any, **named: Any) -> dict[str, float]:
        looks[policy.version.updates].append(glance(policy, base, *others, **named))
        return looks[policy.version.updates][-1]

    monkeypatch.setattr("selftrain.probes.probing.glance", watched)
    outcome = train_to_end(config(tmp_path, "a", COLLAPSES, guard__action="warn", probes__num_prompts=96, update__learning_rate=0.3))
    glances = [step.metrics.values for step in read(outcome.folder).steps() if "glance/fallen_frac" in step.metrics.values]
    made = zip(looks.values(), glances, strict=True)
    halves = [values["glance/fallen_frac"] < -CLEAR_ERRORS * values["glance/error_frac"] for one, values in made if len(one) == 1]
    assert all(halves)
    assert 0 < len(halves) < len(glances)
    sizes = {tuple(len(look) for look in one) for one in looks.values()}
    assert len(sizes) == 2
    assert {one[0] for one in sizes} == {FIRST_PROMPTS}
    firsts, others = next(one for one in looks.values() if len(one) == 2)
    assert not firsts.keys() & others.keys()
    assert len(others) <= FIRST_PROMPTS


@pytest.mark.parametrize(
    ("every", "first", "later"),
    [(20, [1, 2, 3, 4, 8, 12, 16], [4, 8, 12, 16]), (10, [1, 2, 3, 4, 6, 8], [2, 4, 6, 8]), (7, [*range(1, 7)], [*range(1, 7)]), (2, [1], [1])],
)
def test_glances_come_after_each_of_the_first_steps_and_about_four_times_between_probes(every: int, first: list[int], later: list[int]) -> None:
    assert [step for step in range(1, every) if is_glance(step, every)] == first
    assert [step for step in range(1, every) if is_glance(7 * every + step, every)] == later


def test_other_probe_prompts_are_refused_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(config(tmp_path, "a")).ledger.close()
    monkeypatch.setattr("selftrain.compose_probes.TOY_ASIDE_FIRST", 2_000_001)
    with pytest.raises(RunFolderError, match="the prompts of the probes"):
        resume(tmp_path / "a")


def test_canaries_without_probes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"probes\.num_prompts"):
        load_config(overrides={"prompts.task": "add:2", "probes.canaries": ["add:2"], "probes.num_prompts": 0})


EMBEDDED = {"prompts.task": "add:2", "prompts.count": 64, "run.num_steps": 3, "run.checkpoint_every_steps": 1, "policy.num_threads": 1}
EMBEDDED |= {"rollout.prompts_per_step": 4, "rollout.num_votes": 4, "rollout.max_new_tokens": 24, "update.learning_rate": 1e-3}
EMBEDDED |= {"evals.num_problems": 2, "evals.num_samples": 1, "probes.every_steps": 2, "probes.num_prompts": 6, "probes.num_votes": 2}
EMBEDDED |= {"probes.canaries": ["add:1", "sort:1"]}


def test_the_embedded_model_is_probed_with_canaries(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", EMBEDDED))
    ledger, its_config = recorded(outcome)
    assert (ledger.header["label_free"], ledger.header["truth_channels"]) == (False, ["probes.canaries=add:1", "probes.canaries=sort:1"])
    before, after = (step.metrics.values for step in ledger.steps() if step.metrics.step % 2 == 0)
    assert before["probe/kl_base_nats"] == pytest.approx(0, abs=1e-5)
    assert before["probe/drift_nats"] == pytest.approx(0, abs=1e-5)
    assert after["probe/kl_base_nats"] > 1e-4
    assert after["probe/drift_nats"] > 1e-4
    assert before["probe/canary_right_frac"] > 0.2
    assert replay(ledger, its_config).agrees
    assert cut_off_and_resumed(config(tmp_path, "cut", EMBEDDED), 1).head == outcome.head


def test_by_default_a_rate_far_too_high_is_lowered_and_the_run_goes_on(tmp_path: Path) -> None:
    options = {name: value for name, value in COLLAPSES.items() if name != "guard.action"}
    outcome = train_to_end(config(tmp_path, "a", options, update__learning_rate=6.0, probes__every_steps=20))
    ledger = read(outcome.folder)
    assert [(one.checkpoint, one.step, one.remedy) for one in ledger.branches] == [
        ("start", 0, {"kind": "lower_rate", "options": {"update.learning_rate": 3.0}}),
    ]
    assert (outcome.reason, outcome.steps) == ("done", 20)
    assert {step.metrics.values["update/learning_rate"] for step in ledger.steps() if step.updates} == {3.0}


FEW_EASY = {
    "policy.model": "embedded:weak",
    "prompts.task": "add:4",
    "rollout.prompts_per_step": 2,
    "rollout.num_votes": 4,
    "rollout.max_new_tokens": 48,
    "run.num_steps": 6,
    "run.checkpoint_every_steps": 2,
    "probes.every_steps": 4,
    "probes.num_prompts": 16,
    "update.learning_rate": 1e-3,
    "evals.num_problems": 2,
    "evals.num_samples": 1,
    "guard.action": "warn",
}


def test_the_same_prompts_tell_the_support_after_a_resume(tmp_path: Path) -> None:
    """A start that agrees on few is asked more prompts than tell the support: the first of them, also once a checkpoint's sorted keys were read."""
    whole = train_to_end(config(tmp_path, "whole", FEW_EASY))
    ledger = read(whole.folder)
    bases = [one for one in ledger.probed(0) if address(one.group.prompt.id)[0] is Kind.BASE]
    assert len(bases) > 16
    assert [one.group.prompt.id for one in bases] != sorted(one.group.prompt.id for one in bases)
    assert {0, 2, 4, 5} <= {step.metrics.step for step in ledger.steps() if "support/base_share_frac" in step.metrics.values}
    again = cut_off_and_resumed(config(tmp_path, "cut", FEW_EASY), 3)
    assert again.head == whole.head
    assert replay(read(again.folder), read_config(again.folder)).agrees


@pytest.mark.parametrize("source", ["reference", "first_of"])
def test_where_true_answers_label_nobody_is_asked_what_the_start_supports(tmp_path: Path, source: str) -> None:
    outcome = train_to_end(config(tmp_path, "a", labels__source=source, reference__frac=0.5 if source == "first_of" else 1.0, run__num_steps=7))
    ledger = read(outcome.folder)
    assert not [step for step in ledger.steps() if "support/base_share_frac" in step.metrics.values]
    assert {address(one.group.prompt.id)[0] for one in ledger.probed(5)} == {Kind.OWN, Kind.NUMBER, Kind.REWORD}
    assert outcome.handed_over == "step-000007"
