"""The policy as the judge of its own completions: what it is asked, what follows from its replies, what it costs, what the record holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain.compose import make_labelling
from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.labels import Bounds
from selftrain.labels.composed import FirstOf
from selftrain.labels.majority import majority
from selftrain.labels.self_judge import SelfJudge, grade_prompt, graded_text
from selftrain.labels.source import Labelling
from selftrain.ledger import read
from selftrain.policies.base import SamplingParams
from selftrain.policies.toy import problems as toy_problems
from selftrain.reading import read_judge
from selftrain.replay import replay
from selftrain.run import read_config, start, train_to_end
from selftrain.types import AnswerSheet, Finish, Group, Message, Outcome, Prompt, PromptSet, Role, ScoredGroup, VotedGroup
from tests.builders import completion, voted
from tests.test_train import SMALL, config

QUICK = {**SMALL, "run.num_steps": 4, "labels.source": "self_judge"}
PARAMS = SamplingParams(16, 1.0)


def judge(num: int = 4) -> SelfJudge:
    return SelfJudge(lambda prompt: prompt.text, num, PARAMS)


def graded(one: VotedGroup, **replies: list[str]) -> VotedGroup:
    """The group with what its judge replied, by the last word of the prompt's id: `grade_0`."""
    extras = []
    for place, (name, texts) in enumerate(replies.items(), 1):
        prompt = Prompt(f"{one.group.prompt.id} {name.replace('_', ' ')}", (Message("user", name),))
        extras.append(read_judge(Group(0, place, prompt, (1,), tuple(completion(text) for text in texts), Role.JUDGE)))
    return replace(one, group=replace(one.group, extras=tuple(extras)))


def cut(one: VotedGroup, *places: int) -> VotedGroup:
    done = tuple(replace(done, finish=Finish.LENGTH) if at in places else done for at, done in enumerate(one.group.completions))
    return replace(one, group=replace(one.group, completions=done))


def test_each_different_completion_is_put_to_the_judge_once() -> None:
    """Of `1 1 2`, one unread and one cut off: two questions, k replies each, and none when they are there."""
    one = cut(voted(["1", "1", "2", None, "3"]), 4)
    first, second = judge(3).requests([one], Bounds())
    assert [asked.prompt.id for asked in (first, second)] == ["p0 grade 0", "p0 grade 2"]
    assert (first.serves, first.role, first.count, first.policy, first.params) == (0, Role.JUDGE, 3, "current", PARAMS)
    assert first.prompt.text == "Question: p0\n\nAnswer: #### 1\n\nIs this answer right? Reply with one word, yes or no."
    assert [asked.prompt.id for asked in judge(3).requests([graded(one, grade_0=["yes"])], Bounds())] == ["p0 grade 2"]
    assert judge(3).requests([graded(one, grade_0=["yes"], grade_2=["no"])], Bounds()) == []


def test_the_judge_does_not_see_thoughts() -> None:
    assert graded_text("<think>it may be 4, no</think>\n #### 5\n") == "#### 5"
    assert grade_prompt("Why?", "Because.").startswith("Question: Why?\n\nAnswer: Because.\n\n")


def test_the_reward_is_the_share_of_yes_among_the_verdicts_that_were_read() -> None:
    one = graded(
        cut(voted(["1", "1", "2", None, "3", "4", "5"]), 4),
        grade_0=["Yes.", "yes", "no", "perhaps"],
        grade_2=["no", "no", "no", "no"],
        grade_5=["perhaps", "", "?", "1"],
        grade_6=[],
    )
    (label,) = judge()([one], Bounds(min_read_frac=1.0))
    assert label.values == (pytest.approx(2 / 3), pytest.approx(2 / 3), 0.0, 0.0, 0.0, 0.0, 0.0)
    assert label.notes == ("partly_judged", "partly_judged", "judged", "unread", "truncated", "no_verdict", "no_room")
    assert (label.outcome, label.source, label.decided_by, label.key, label.uses_truth) == (Outcome.DECIDED, "self_judge", "judge 0:3", None, False)


def test_a_group_without_a_verdict_is_undecided() -> None:
    silent, empty = judge()([graded(voted(["1", "2"]), grade_0=["?"], grade_1=[]), voted([None, None])], Bounds())
    assert [(label.outcome, label.values) for label in (silent, empty)] == [(Outcome.NO_VERDICT, ()), (Outcome.NO_ANSWER, ())]
    parts = {"self_judge": Labelling(judge(), judge().requests, Bounds()), "majority": Labelling(majority, None, Bounds())}
    (label,) = FirstOf(parts)([graded(voted(["1", "1"]), grade_0=["?"])], Bounds())
    assert (label.source, label.key) == ("majority", "1")


def test_the_judge_is_told_the_question_without_the_template() -> None:
    known = toy_problems(1)
    prompts = PromptSet(known.prompts, AnswerSheet({}), "here", {"toy-0": (Message("user", "bare question"),)})
    source = make_labelling(load_config(overrides={"policy.model": "toy", "labels.source": "self_judge", "self_judge.policy": "base"}), prompts)
    (asked,) = source.requests([voted(["1"], "toy-0")])
    assert asked.prompt.text.startswith("Question: bare question\n\n")
    assert (asked.count, asked.policy, asked.params) == (4, "base", SamplingParams(16, 1.0))


def test_greedy_judgements_are_not_asked_for_twice(tmp_path: Path) -> None:
    options = {**QUICK, "self_judge.temperature": 0}
    with pytest.raises(ConfigError, match="all but the first would cost and say nothing") as caught:
        start(config(tmp_path, "a", options))
    assert caught.value.given == "labels.source = self_judge, self_judge.temperature = 0, self_judge.num_judgements = 4"
    outcome = train_to_end(config(tmp_path, "b", {**options, "self_judge.num_judgements": 1}))
    assert {value for one in read(outcome.folder).groups(0) for value in one.label.values} == {0.0, 1.0}


@pytest.mark.parametrize(("policy", "versions"), [("current", {"0:0", "0:1", "0:2", "0:3"}), ("base", {"0:0"})])
def test_a_run_records_who_judged_and_what_it_cost(tmp_path: Path, policy: str, versions: set[str]) -> None:
    outcome = train_to_end(config(tmp_path, "a", {**QUICK, "self_judge.policy": policy, "self_judge.num_judgements": 2}))
    ledger = read(outcome.folder)
    for step in ledger.steps():
        groups = ledger.groups(step.metrics.step)
        judged = [extra for one in groups for extra in one.voted.group.extras]
        assert {extra.group.role for extra in judged} == {Role.JUDGE}
        assert {len(extra.group.completions) for extra in judged} == {2}
        assert step.metrics.values["cost/judge_tokens"] == 2 * len(judged)  # a reply of the toy is one token
    every = [one for step in ledger.group_steps() for one in ledger.groups(step)]
    assert {one.label.decided_by for one in every} == {f"judge {version}" for version in versions}
    assert {"judged", "partly_judged", "unread"} <= {note for one in every for note in one.label.notes}
    assert step.metrics.values["update/num_updates"] == 1


def test_replay_finds_replies_that_are_missing_or_were_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = train_to_end(config(tmp_path, "a", QUICK))
    ledger = read(outcome.folder)
    recorded = ledger.groups

    def found(alter: Callable[[tuple[VotedGroup, ...]], tuple[VotedGroup, ...]]) -> set[str]:
        def groups(step: int, branch: int | None = None) -> list[ScoredGroup]:
            return [
                replace(one, voted=replace(one.voted, group=replace(one.voted.group, extras=alter(one.voted.group.extras)))) for one in recorded(step, branch)
            ]

        monkeypatch.setattr(ledger, "groups", groups)
        return {one.name for one in replay(ledger, read_config(outcome.folder)).groups.mismatches}

    def denied(extras: tuple[VotedGroup, ...]) -> tuple[VotedGroup, ...]:
        return tuple(read_judge(replace(one.group, completions=tuple(replace(done, text="no") for done in one.group.completions))) for one in extras)

    assert found(lambda extras: extras) == set()
    assert "missing_extras" in found(lambda extras: extras[1:])
    assert "label" in found(denied)


def test_judges_of_pairs_and_of_completions_stand_side_by_side(tmp_path: Path) -> None:
    options: dict[str, Any] = {**QUICK, "labels.clustering": "judge", "run.num_steps": 2, "rollout.prompts_per_step": 4}
    outcome = train_to_end(config(tmp_path, "a", options))
    ids = {extra.group.prompt.id.split()[1] for one in read(outcome.folder).groups(0) for extra in one.voted.group.extras}
    assert ids == {"judge", "grade"}
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees
