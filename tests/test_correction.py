"""The second turn: who is corrected, what is rewarded, what a learner sees, what an evaluation says of it, and whole runs that are replayed and killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain import compose, query
from selftrain.advantage import rloo
from selftrain.compose_correction import TEXTS, check_second_turns, make_correction
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.correction import Correction, agreement, before_and_after, chosen, correction_label, corrects
from selftrain.errors import ConfigError, ModelError
from selftrain.evals import Evaluation, SecondTurns, evaluate
from selftrain.evals.second_turn import SecondTurnResult
from selftrain.labels import Bounds
from selftrain.labels.majority import majority
from selftrain.labels.split_vote import split_vote
from selftrain.ledger import read
from selftrain.policies.base import Policy, SampleRequest, SamplingParams
from selftrain.policies.toy import CHECK, KEEP_START, ToyPolicy
from selftrain.replay import replay
from selftrain.report import read_record
from selftrain.report.comparison import rows
from selftrain.report.labels import labels_of
from selftrain.report.words import second_turn_sentences
from selftrain.reward import REWARD_RULES
from selftrain.rollout import read_and_count
from selftrain.run import read_config, train_to_end
from selftrain.scoring import Scorer, compile_samples, minibatches
from selftrain.seeds import Stream
from selftrain.types import AnswerKey, Finish, Group, Label, Message, Prompt, Role, ScoredGroup, VotedGroup
from selftrain.types import Outcome as Decision
from tests.builders import completion, group, voted
from tests.evals.scripted import ScriptedSampler, problems
from tests.killing import assert_it_ends_the_same
from tests.recorded import RecordedRuns
from tests.test_extras import groups_of
from tests.test_train import LEARNS, SMALL, change_all_truth, config, files_of

OWN = {**SMALL, "rollout.prompts_per_step": 4, "rollout.num_votes": 8, "correction.mode": "own", "correction.num_completions": 3}
GROUP = {**OWN, "correction.mode": "group"}
BOTH = pytest.mark.parametrize("options", [OWN, GROUP], ids=["own", "group"])
A, B, C = "1", "2", "3"
SCORER = Scorer(REWARD_RULES["share"], rloo, 8, None, "k1")


def label_of(*targets: str | None, **fields: Any) -> Label:
    return replace(Label(Decision.DECIDED, tuple(None if one is None else AnswerKey(one) for one in targets), "majority", "vote 0:3"), **fields)


def corrected(first: Sequence[str | None], seconds: dict[int, Sequence[str | None]], label: Label | None = None, scorer: Scorer = SCORER) -> ScoredGroup:
    """A scored group with corrections of some of its completions."""
    one = voted(first)
    extras = tuple(
        read_and_count(replace(group(answers, f"p0 correction {index}", index=place), role=Role.CORRECTION))
        for place, (index, answers) in enumerate(seconds.items(), 1)
    )
    one = replace(one, group=replace(one.group, extras=extras))
    return scorer.score([one], [label or majority([one], Bounds())[0]], {}, Stream(0))[0]


def test_half_of_the_chosen_agree_with_the_label_where_there_are_as_many() -> None:
    one = voted([A, A, B, A, C, A, None, B])
    label = label_of(*[A] * 8)
    assert chosen(one, label, 4) == [0, 1, 2, 4]
    assert chosen(one, label, 5) == [0, 1, 2, 4, 6]
    assert chosen(one, label, 100) == list(range(8))
    assert chosen(one, label, 0) == []
    assert chosen(voted([A, A, A, B]), label_of(*[A] * 4), 3) == [0, 1, 3]  # one kind fills up for the other


def test_a_completion_that_was_cut_off_and_a_label_without_a_key_are_not_corrected() -> None:
    one = voted([A, A, B])
    cut = replace(one, group=replace(one.group, completions=(completion("#### 1", Finish.LENGTH), *one.group.completions[1:])))
    assert chosen(cut, label_of(A, A, A), 3) == [1, 2]
    for label in (
        label_of(None, None, None),
        label_of(A, A, A, offset=-0.5),
        label_of(A, A, A, weight=0.0),
        label_of(A, A, A, outcome=Decision.TIE),
    ):
        assert chosen(one, label, 3) == []
        assert Correction("check", 3, 2).requests([label], [one]) == []


def test_what_the_policy_sees() -> None:
    """Its own completion as it was; the answers of the group by key, each once: nothing tells which has most votes."""
    one = voted([B, B, B, A, None])
    (first, second) = Correction("{answers}: check", 2, 5).requests([label_of(*[B] * 5)], [one])
    assert (first.serves, first.role, first.count, first.policy, first.params) == (0, Role.CORRECTION, 5, "current", None)
    assert first.prompt == Prompt("p0 correction 0", (Message("user", "p0"), Message("assistant", "#### 2"), Message("user", "1, 2: check")))
    assert (second.prompt.id, second.prompt.messages[1].content) == ("p0 correction 3", "#### 1")
    assert corrects(one.group, replace(one.group, prompt=second.prompt)) == 3
    assert Correction("check").prompt(one, 4).messages[1:] == (Message("assistant", "hm"), Message("user", "check"))


def test_a_correction_is_rewarded_by_the_target_of_the_completion_that_it_corrects() -> None:
    """With two halves that label each other each correction goes by the half that labels its completion; weight and provenance come along."""
    one = voted([A, B, A, B])
    label = replace(split_vote([one], Bounds())[0], weight=0.5, uses_truth=True)
    for index, target in enumerate([B, A, B, A]):
        found = correction_label(one.group, label, group([A, B], f"p0 correction {index}"))
        assert (found.targets, found.weight, found.source, found.decided_by, found.uses_truth) == ((target,) * 2, 0.5, "split_vote", "other half 0:3", True)
    empty = correction_label(one.group, label, group([], "p0 correction 0"))
    assert (empty.outcome, empty.targets) == (Decision.NO_ROOM, ())


def test_rewards_and_baseline_by_hand() -> None:
    """Rewarded by match whatever the reward rule is, which here is share; the baseline is over the corrections of one completion."""
    found = corrected([A, A, B, None], {0: [A, B, A], 2: [A, B, B], 3: [B, B, None]})
    assert found.rewards.values == (0.5, 0.5, 0.25, 0.0)
    assert [one.rewards.values for one in found.corrections] == [(1, 0, 1), (1, 0, 0), (0, 0, 0)]
    assert [one.rewards.reasons for one in found.corrections][2] == ("mismatch", "mismatch", "unread")
    assert [one.advantages for one in found.corrections] == [pytest.approx(rloo((1, 0, 1))), pytest.approx(rloo((1, 0, 0))), (0, 0, 0)]
    assert [one.trained for one in found.corrections] == [(0, 1, 2), (0, 1, 2), ()]
    assert found.voted.vote.num_votes == 4


def test_an_undecided_group_has_no_corrections_that_are_rewarded() -> None:
    found = corrected([A, B], {0: [A, A]})
    assert [(one.label.outcome, one.rewards.values, one.trained) for one in found.corrections] == [(Decision.TIE, (), ())]


@pytest.mark.parametrize(("norm", "scale"), [("tokens", 1 / 20), ("sequence", 1 / 20), ("max_tokens", 1 / 100)], ids=lambda one: str(one))
def test_what_a_learner_sees(norm: str, scale: float) -> None:
    """The tokens of the first turn are in the context of a correction and give no gradient. All trained tokens weigh the same, of whichever turn."""
    found = corrected([A, A, B, None], {0: [A, B, A], 2: [A, B, B]})
    found = replace(found, corrections=tuple(with_context(one) for one in found.corrections))
    (part,) = minibatches([found], 1)
    samples = compile_samples(part, {}, norm, max_new_tokens=10)
    alone = compile_samples(minibatches([replace(found, corrections=())], 1)[0], {}, norm, max_new_tokens=10)
    assert [replace(one, scale=0.0) for one in samples[:4]] == [replace(one, scale=0.0) for one in alone]
    assert [len(one.token_ids) for one in samples] == [2] * 10
    assert {one.prompt_ids for one in samples[4:]} == {(1, 2, 0, 1, 7)}
    assert [one.group_index for one in samples] == [0] * 4 + [1] * 3 + [2] * 3
    assert all(one.mask == (True, True) for one in samples)
    assert [one.advantages for one in samples[4:]] == [(value, value) for one in found.corrections for value in one.advantages]
    assert [one.scale for one in samples] == pytest.approx([scale] * 10)


def with_context(one: ScoredGroup) -> ScoredGroup:
    return replace(one, voted=replace(one.voted, group=replace(one.voted.group, prompt_ids=(1, 2, 0, 1, 7))))


def test_agreement_by_hand() -> None:
    """2 of 4 agree before; of the corrections of agreeing ones 2/3 agree, of the others 1/3: 1/2 * 2/3 + 1/2 * 1/3. The second group is not decided."""
    found = corrected([A, A, B, C], {0: [A, B, A], 2: [A, B, B]})
    assert before_and_after(found) == pytest.approx((0.5, 0.5))
    right = corrected([A, A, A, B], {0: [A, A]})
    assert before_and_after(right) == pytest.approx((0.75, 0.75))  # none of the others was corrected: they stay as they were
    assert agreement([found, right, corrected([A, B], {})]) == pytest.approx(
        {
            "correction/no_room_frac": 0.0,
            "correction/agree_turn1_frac": (0.5 + 0.75) / 2,
            "correction/agree_turn2_frac": (0.5 + 0.75) / 2,
            "correction/mended_frac": 1 / 3,
            "correction/broken_frac": 1 / 5,
            "correction/admitted_frac": 2 / 3,
        }
    )
    assert agreement([corrected([A, A], {})]) == {}
    assert agreement([corrected([A, A], {0: []})]) == {"correction/no_room_frac": 1.0}


@BOTH
def test_a_run_records_its_second_turns_and_is_replayed_without_a_model(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], recorded_run: RecordedRuns
) -> None:
    outcome = recorded_run(options)
    scored = groups_of(outcome.folder)
    assert {len(one.corrections) for one in scored if one.label.is_decided} == {3}
    assert {len(one.corrections) for one in scored if not one.label.is_decided} == {0}
    for one in scored:
        assert [two.voted for two in one.corrections] == one.voted.group.extras_of(Role.CORRECTION)
        for two in one.corrections:
            group_, first = two.voted.group, one.voted.group.completions[corrects(one.voted.group, two.voted.group)]
            assert group_.prompt.messages[1] == Message("assistant", first.text)
            assert {done.version for done in group_.completions} == {first.version}
            assert (len(group_.completions), two.label.key, two.label.decided_by) == (4, one.label.key, one.label.decided_by)
    trained = [two for one in scored for two in one.corrections if two.trained]
    assert trained
    values = [step.metrics.values for step in read(outcome.folder).steps()]
    assert {one["cost/vote_tokens"] for one in values} == {4 * 8 * 2}
    per_step = [sum(len(one.corrections) for one in scored[4 * at : 4 * at + 4]) for at in range(len(values))]
    assert [one.get("cost/correction_tokens", 0.0) for one in values] == [number * 4 * 2 for number in per_step]
    monkeypatch.setattr(ToyPolicy, "sample", None)
    found = replay(read(outcome.folder), read_config(outcome.folder))
    assert found.agrees, found.groups.mismatches


def test_second_turns_are_no_prompts_in_report_and_named_questions(recorded_run: RecordedRuns) -> None:
    folder = recorded_run(OWN).folder
    labels: dict[str, list[str]] = {}
    for one in groups_of(folder):
        if one.label.key is not None:
            labels.setdefault(one.voted.group.prompt.id, []).append(one.label.key)
    with query.open_run(folder) as database:
        found = {name: [dict(zip(r.columns, row, strict=True)) for row in r.rows] for name in NAMES if (r := database.query(query.NAMED[name].sql))}
        shown = labels_of(database)
    assert {row["prompt_id"] for row in found["most-changed-labels"]} == {prompt for prompt, keys in labels.items() if len(set(keys)) > 1}
    assert shown.num_changed == len(found["most-changed-labels"])
    assert any(one.corrections for one in groups_of(folder))
    assert sum(row["num_groups"] for row in found["most-common-labels"]) == sum(map(len, labels.values()))
    assert {row["prompt_id"] for row in found["outvoted-completions"]} <= labels.keys()


NAMES = ("most-changed-labels", "most-common-labels", "outvoted-completions")


def test_votes_signals_and_labels_of_a_step_are_those_of_a_run_without(recorded_run: RecordedRuns) -> None:
    """Until the first update, which learns from both turns: what votes does not know of the second turn, and neither does the guard."""
    first = [read(recorded_run(options).folder) for options in (OWN, {**OWN, "correction.mode": "off"})]
    (with_one, *_), (without, *_) = (groups_of(ledger.folder) for ledger in first)
    assert replace(with_one, corrections=(), voted=replace(with_one.voted, group=replace(with_one.voted.group, extras=()))) == without
    (step, *_), (plain, *_) = (list(ledger.steps()) for ledger in first)
    shared = {key for key in plain.metrics.values if not key.startswith("update/")}
    assert {key: step.metrics.values[key] for key in shared} == {key: plain.metrics.values[key] for key in shared}
    assert {key.split("/")[0] for key in set(step.metrics.values) - set(plain.metrics.values)} == {"correction", "cost"}
    assert not [key for record in first[1].steps() for key in record.metrics.values if "correction" in key]


def test_the_second_turn_learns_to_beat_sampling_again(tmp_path: Path) -> None:
    """The toy sees the problem with other noise in the second turn, and at the start mostly repeats itself."""
    options = {**LEARNS, "correction.mode": "own", "evals.num_problems": 256, "run.num_steps": 40}
    outcome = train_to_end(config(tmp_path, "a", options))
    assert outcome.before is not None
    assert outcome.after is not None
    before, after = outcome.before.second_turn, outcome.after.second_turn
    assert before is not None
    assert after is not None
    assert (after.gain.excludes_zero, after.gain.value > before.gain.value + 0.02) == (True, True)
    assert outcome.after.avg.value > outcome.before.avg.value + 0.15
    assert (after.corrected_frac, after.tokens_mean) == (1.0, 2.0)


@BOTH
def test_a_run_that_was_cut_off_or_killed_ends_the_same(tmp_path: Path, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    assert_it_ends_the_same(recorded_run(options), lambda name: config(tmp_path, name, options))


@BOTH
def test_truth_does_not_reach_the_second_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    honest = recorded_run(options)
    change_all_truth(monkeypatch)
    blind = train_to_end(config(tmp_path, "b", options))
    assert files_of(honest.folder) == files_of(blind.folder)
    assert honest.before is not None
    assert blind.before is not None
    assert honest.before.again != blind.before.again


@pytest.mark.parametrize("where", ["reward", "loss"])
def test_kl_acts_on_both_turns(tmp_path: Path, where: str) -> None:
    options = {**OWN, "objective.kl_in": where, "objective.kl_estimator": "k2", "objective.kl_coef": 0.05}
    outcome = train_to_end(config(tmp_path, "a", options))
    corrections = [two for one in groups_of(outcome.folder) for two in one.corrections]
    assert any(any(two.kl_penalties) for two in corrections) == (where == "reward")
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees


def test_replay_finds_a_second_turn_that_is_missing_or_rewarded_otherwise(monkeypatch: pytest.MonkeyPatch, recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(OWN)
    ledger = read(outcome.folder)
    recorded = ledger.groups

    def altered(alter: Any) -> set[str]:
        monkeypatch.setattr(ledger, "groups", lambda step, branch=None: [alter(one) for one in recorded(step)])
        return {one.name for one in replay(ledger, read_config(outcome.folder)).groups.mismatches}

    def without_last(one: ScoredGroup) -> ScoredGroup:
        group_ = replace(one.voted.group, extras=one.voted.group.extras[:-1])
        return replace(one, voted=replace(one.voted, group=group_), corrections=one.corrections[:-1])

    def turned(one: ScoredGroup) -> ScoredGroup:
        return replace(one, corrections=tuple(replace(two, advantages=tuple(-value for value in two.advantages)) for two in one.corrections))

    assert altered(without_last) == {"missing_extras"}
    assert altered(turned) == {"corrections"}
    assert altered(lambda one: one) == set()


def test_a_second_turn_without_room_is_noted_and_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_long(self: ToyPolicy, prompts: Sequence[Prompt], max_prompt_tokens: int | None = None) -> list[tuple[str, int]]:
        return [(one.id, 4) for one in prompts if "correction" in one.id and self.encode(one)[2] % 2]

    monkeypatch.setattr(ToyPolicy, "too_long", too_long)
    outcome = train_to_end(config(tmp_path, "a", OWN))
    corrections = [two for one in groups_of(outcome.folder) for two in one.corrections]
    rooms = [two for two in corrections if two.label.outcome is Decision.NO_ROOM]
    assert 0 < len(rooms) < len(corrections)
    assert {(two.voted.group.completions, two.rewards.values, two.trained) for two in rooms} == {((), (), ())}
    assert sum(step.metrics.values["correction/no_room_frac"] for step in read(outcome.folder).steps()) > 0
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees
    assert outcome.after is not None
    assert outcome.after.second_turn is not None
    assert 0 < outcome.after.second_turn.corrected_frac < 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"correction.mode": "group", "correction.text": "check"}, "the text has no place for them"),
        ({"correction.text": "{answers}?"}, "its own completion only"),
        ({"policy.prompt_format": "plain"}, "a plain prompt has room for one text"),
        ({"labels.clustering": "overlap"}, "clustered apart from those of the vote"),
        ({"labels.clustering": "judge"}, "clustered apart from those of the vote"),
        ({"labels.source": "random"}, "it names no pseudo-label"),
        ({"labels.source": "token_entropy"}, "it names no pseudo-label"),
        ({"labels.source": "self_certainty"}, "it names no pseudo-label"),
        ({"labels.source": "self_judge"}, "it names no pseudo-label"),
        ({"labels.source": "mixture", "mixture.weights": {"random": 1.0, "format_only": 1.0}}, "labels.source = format_only, random"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_sample(options: dict[str, Any], words: str) -> None:
    given = load_config(overrides={"prompts.task": "add:2", "correction.mode": "own", "labels.source": "majority", **options})
    with pytest.raises(ConfigError) as caught:
        compose.check_parts(given, compose.load_sets(given))
    assert words in str(caught.value)


def test_the_texts_that_are_said() -> None:
    for mode, text in TEXTS.items():
        assert make_correction(load_config(overrides={"policy.model": "toy", "correction.mode": mode})) == Correction(text, 2, 4)
    assert make_correction(load_config(overrides={"policy.model": "toy"})) == Correction()
    assert make_correction(load_config(overrides={"correction.mode": "own"})).text == "check"  # what the embedded models' lessons say


class Forgetful:
    """A policy whose chat template leaves out what the assistant said."""

    def too_long(self, prompts: Sequence[Prompt], max_prompt_tokens: int | None = None) -> list[tuple[str, int]]:
        return [(one.id, sum(len(message.content) for message in one.messages if message.role == "user")) for one in prompts]


def test_a_template_that_forgets_the_first_turn_is_refused() -> None:
    given = load_config(overrides={"prompts.task": "add:2", "correction.mode": "own"})
    forgetful: Policy = Forgetful()  # type: ignore[assignment]
    with pytest.raises(ModelError, match="leaves out what the assistant said"):
        check_second_turns(given, forgetful, Prompt("p", (Message("user", "1+2"),)))


def test_a_second_turn_of_the_toy() -> None:
    """It sees the problem in its second wording and leans to what it said."""
    policy = ToyPolicy("toy", load_config(overrides={"policy.model": "toy"}).update)
    first = Prompt("a", (Message("user", "toy-5"),))
    second = Prompt("b", (*first.messages, Message("assistant", "so #### 3"), Message("user", "check")))
    assert (policy.encode(first), policy.encode(second)) == ((5,), (5, CHECK, 3, CHECK))
    again = policy.logits(policy.encode(Prompt("c", (Message("user", "toy-5 again"),))), policy.weights)[1]
    difference = policy.logits(policy.encode(second), policy.weights)[1] - again
    assert difference.tolist() == pytest.approx([KEEP_START if digit == 3 else 0.0 for digit in range(9)])
    sampled = policy.sample([SampleRequest(second, 200, 0, 0)], SamplingParams(2), Stream(0))[0]
    kept = sum(done.text.endswith("3") for done in sampled.completions)
    assert kept > 200 / 9


class Scripted(ScriptedSampler):
    """A policy of scripts: the second turn of prompt p after completion i is `p correction i`; those without a script have no room."""

    def too_long(self, prompts: Sequence[Prompt], max_prompt_tokens: int | None = None) -> list[tuple[str, int]]:
        return [(one.id, 99) for one in prompts if one.id not in self.script]


def second_evaluation(script: dict[str, list[str]], answers: dict[str, str]) -> Evaluation:
    policy: Any = Scripted(script)
    samples = len(script[next(iter(answers))])
    return evaluate(policy, problems(answers), SamplingParams(64), samples, Stream(0), again=SecondTurns(policy, Correction("check")))


def test_an_evaluation_by_hand() -> None:
    """p: 1 is right. Completion 0 is broken, 1 is mended, 2 was cut off and 3 has no room: they keep what they have. q: all right, and stays so."""
    script = {
        "p": ["#### 1", "#### 2", "#### 1...", "#### 1"],
        "p correction 0": ["#### 3!"],
        "p correction 1": ["#### 1"],
        "q": ["#### 5"] * 4,
        **{f"q correction {index}": ["5"] for index in range(4)},
    }
    found = second_evaluation(script, {"p": "1", "q": "5"})
    p, q = found.again
    # votes of 0, 1 and their corrections: 1, 2, 3, 1 -> 1; of all four completions: 1, 2, none, 1 -> 1
    assert p == SecondTurnResult(num_right=2, num_mended=1, num_broken=1, num_corrected=2, maj_pairs=1.0, maj_again=1.0, tokens=13)
    assert q == SecondTurnResult(4, 0, 0, 4, 1.0, 1.0, 4)
    second = found.second_turn
    assert second is not None
    assert (second.turn2.value, second.gain.value) == (0.75, 0.0)
    assert second.mended is not None
    assert second.broken is not None
    assert (second.mended.value, second.broken.value) == pytest.approx((1 / 2, 1 / 6))
    assert (second.corrected_frac, second.tokens_mean) == pytest.approx((6 / 8, 17 / 6))
    assert Evaluation.from_json(found.to_json()) == found


def test_a_majority_of_corrected_answers_against_as_many_completions() -> None:
    """Completions 0 and 1 differ, and their corrections agree with 0; of four completions the wrong answer has most."""
    script = {"p": ["#### 1", "#### 2", "#### 2", "#### 2"], "p correction 0": ["#### 1"], "p correction 1": ["#### 1"]}
    found = second_evaluation(script, {"p": "1"})
    assert (found.again[0].maj_pairs, found.again[0].maj_again, found.again[0].num_right) == (1.0, 0.0, 2)
    assert found.second_turn is not None
    assert found.second_turn.maj_gain.value == 1.0


def test_an_evaluation_without_a_second_turn_and_one_of_an_older_record() -> None:
    policy: Any = Scripted({"p": ["#### 1"]})
    found = evaluate(policy, problems({"p": "1"}), SamplingParams(64), 1, Stream(0))
    assert (found.again, found.second_turn) == ((), None)
    older = {key: value for key, value in found.to_json().items() if key != "again"}
    assert Evaluation.from_json(older) == found
    assert second_turn_sentences(found) == []


def test_report_and_rows_show_the_gain(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", OWN))
    assert outcome.before is not None
    names = [row.name for row in rows(outcome.before, outcome.after)]
    assert names[-5:] == ["turn 2 avg@4", "turn 2 - turn 1", "maj, half corrected - maj", "mended", "broken"]
    record = read_record(outcome.folder)
    (sentence,) = second_turn_sentences(record.evaluation("after"))
    assert "over the first, corrected once each (100.0 % could be)" in sentence
    assert "A correction has 2.0 tokens, a first completion 2.0." in sentence


def test_an_embedded_model_is_given_its_first_turn_and_learns_on_policy(tmp_path: Path) -> None:
    options = {"policy.model": "embedded:default", "prompts.task": "add:2", "correction.mode": "own", "correction.text": "check", "policy.num_threads": 1}
    options |= {"run.num_steps": 1, "rollout.prompts_per_step": 2, "rollout.num_votes": 4, "rollout.max_new_tokens": 32, "evals.num_problems": 2}
    given: RunConfig = config(tmp_path, "a", {**options, "evals.num_samples": 2, "correction.num_corrections": 2})
    outcome = train_to_end(given)
    scored = groups_of(outcome.folder)
    tokenizer = compose.load_policy(given).tokenizer  # type: ignore[attr-defined]
    pairs = [(one.voted, two.voted) for one in scored for two in one.corrections]
    assert pairs
    for first, second in pairs:
        text = tokenizer.decode(second.group.prompt_ids)
        assert text == f"<|user|>{first.group.prompt.text}<|assistant|>{first_text(first, second.group)}<|end|><|user|>check<|assistant|>"
    (step,) = read(outcome.folder).steps()
    assert step.metrics.values.get("update/logprob_gap_nats", 0.0) < 1e-4
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees


def first_text(first: VotedGroup, second: Group) -> str:
    return first.group.completions[corrects(first.group, second)].text
