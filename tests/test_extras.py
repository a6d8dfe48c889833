"""Samples beyond the votes: drawn from streams of their own, recorded before they decide, replayed without a model, the same after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from selftrain import compose
from selftrain.answers.freeform import reader
from selftrain.compose_labels import BOUND
from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.extras import Extras
from selftrain.labels import LABEL_SOURCES, Bounds
from selftrain.labels.frozen import Frozen
from selftrain.ledger import read
from selftrain.policies.base import ExtraRequest, SampleRequest, SamplingParams
from selftrain.policies.toy import ToyPolicy
from selftrain.reading import JudgedReading, PlainReading, read_judge, verdict_of
from selftrain.replay import replay
from selftrain.report.words import SOURCES, who_decides
from selftrain.run import read_config, train_to_end
from selftrain.seeds import Stream
from selftrain.types import Finish, Group, Message, PolicyVersion, Prompt, Role, ScoredGroup, VotedGroup
from selftrain.types import Outcome as Decision
from tests.builders import completion, group, voted
from tests.killing import cut_off_and_resumed, killed_and_resumed
from tests.recorded import RecordedRuns
from tests.test_train import SMALL, change_all_truth, config, files_of

JUDGED = {**SMALL, "rollout.prompts_per_step": 4, "rollout.num_votes": 8, "labels.clustering": "judge"}
FROZEN = {**JUDGED, "labels.clustering": "exact", "labels.source": "frozen"}
BOTH = pytest.mark.parametrize("options", [JUDGED, FROZEN], ids=["judge", "frozen"])


def groups_of(folder: Path) -> list[ScoredGroup]:
    ledger = read(folder)
    return [one for step in ledger.group_steps() for one in ledger.groups(step)]


@BOTH
def test_extra_samples_are_in_the_ledger_with_their_role_and_what_they_cost(options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(options)
    role = Role.JUDGE if options is JUDGED else Role.TEACHER
    ledger = read(outcome.folder)
    for record in ledger.steps():
        scored = ledger.groups(record.metrics.step)
        extras = [extra for one in scored for extra in one.voted.group.extras]
        assert extras
        assert {extra.group.role for extra in extras} == {role}
        assert [one.voted.group.index for one in scored] == [0, 1, 2, 3]
        assert sorted(extra.group.index for extra in extras) == list(range(4, 4 + len(extras)))
        tokens = sum(len(done.token_ids) for extra in extras for done in extra.group.completions)
        assert record.metrics.values[f"cost/{role.value}_tokens"] == tokens
        assert record.metrics.values["cost/vote_tokens"] == 4 * 8 * 2
    rows = pq.read_table(outcome.folder / "ledger/segments/000001.groups.parquet").to_pylist()
    assert [row["role"] for row in rows[:4]] == ["vote"] * 4
    assert {(row["label_outcome"], row["admission"], row["label_uses_truth"]) for row in rows[4:]} == {(None, None, False)}
    assert {row["serves"] for row in rows[4:] if row["role"] != "probe"} <= {0, 1, 2, 3}
    done = pq.read_table(outcome.folder / "ledger/segments/000001.completions.parquet").to_pylist()
    assert {(row["trained"], row["reward"], row["advantage"]) for row in done if row["group_index"] >= 4} == {(False, None, None)}


@BOTH
def test_everything_follows_from_the_record_without_a_model(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(options)
    monkeypatch.setattr(ToyPolicy, "sample", None)
    found = replay(read(outcome.folder), read_config(outcome.folder))
    assert (found.agrees, found.groups.num_groups) == (True, 4 * SMALL["run.num_steps"])


@BOTH
def test_replay_finds_extra_samples_that_are_missing_or_do_not_lead_to_the_decision(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], recorded_run: RecordedRuns
) -> None:
    outcome = recorded_run(options)
    ledger = read(outcome.folder)
    recorded = ledger.groups

    def altered(alter: Callable[[tuple[VotedGroup, ...]], tuple[VotedGroup, ...]]) -> set[str]:
        def groups(step: int, branch: int | None = None) -> list[ScoredGroup]:
            return [replace(one, voted=replace(one.voted, group=replace(one.voted.group, extras=alter(one.voted.group.extras)))) for one in recorded(step)]

        monkeypatch.setattr(ledger, "groups", groups)
        return {one.name for one in replay(ledger, read_config(outcome.folder)).groups.mismatches}

    def other_texts(extras: tuple[VotedGroup, ...]) -> tuple[VotedGroup, ...]:
        texts = ("yes", "no") if options is JUDGED else ("#### 1", "#### 2")
        turned = {texts[0]: texts[1], texts[1]: texts[0]}
        return tuple(
            replace(one, group=replace(one.group, completions=tuple(replace(done, text=turned.get(done.text, texts[0])) for done in one.group.completions)))
            for one in extras
        )

    assert "missing_extras" in altered(lambda extras: extras[1:])
    assert "extras" in altered(other_texts)
    readers = {Role.JUDGE: read_judge, Role.TEACHER: PlainReading(reader("exact"))}
    lied = altered(lambda extras: tuple(readers[one.group.role](one.group) for one in other_texts(extras)))
    assert ("label" if options is FROZEN else "answers") in lied


@BOTH
def test_a_run_with_extra_samples_is_the_same_when_cut_off(tmp_path: Path, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    expected = recorded_run(options)
    outcome = cut_off_and_resumed(config(tmp_path, "cut", options), step=4)
    assert (outcome.head, outcome.after) == (expected.head, expected.after)


@BOTH
@pytest.mark.timeout(120)
def test_killed_it_ends_with_the_same_ledger(tmp_path: Path, options: dict[str, Any]) -> None:
    longer = {**options, "run.num_steps": 40}
    expected = train_to_end(config(tmp_path, "whole", longer))
    assert killed_and_resumed(config(tmp_path, "cut", longer), times=3, max_events=8) == 3
    assert read(tmp_path / "cut").head == expected.head


@BOTH
def test_truth_does_not_reach_extra_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    honest = recorded_run(options)
    change_all_truth(monkeypatch)
    blind = train_to_end(config(tmp_path, "b", options))
    assert files_of(honest.folder) == files_of(blind.folder)
    assert read(honest.folder).header["label_free"] is True


def test_the_votes_are_drawn_as_without_extra_samples(tmp_path: Path, recorded_run: RecordedRuns) -> None:
    """Extra samples have streams of their own: the first step's votes are those of a run without them."""
    plain = groups_of(train_to_end(config(tmp_path, "a", {**FROZEN, "labels.source": "majority"})).folder)[:4]
    frozen = groups_of(recorded_run(FROZEN).folder)[:4]
    assert [one.voted.group.completions for one in plain] == [one.voted.group.completions for one in frozen]
    teacher = frozen[0].voted.group.extras[0].group
    assert teacher.prompt == frozen[0].voted.group.prompt
    assert teacher.completions != frozen[0].voted.group.completions


def test_the_frozen_teacher_stays_the_start_while_the_policy_learns(tmp_path: Path) -> None:
    """Its votes are those of the toy's start, its label is the only target, and the bounds apply to its vote."""
    outcome = train_to_end(config(tmp_path, "a", FROZEN, labels__min_share_frac=0.5))
    scored = groups_of(outcome.folder)
    last = [one.voted.group for one in scored if one.voted.group.step == 11]
    assert min(done.version.updates for one in last for done in one.completions) >= 5
    requests = [SampleRequest(one.prompt, 8, 11, one.extras[0].group.index) for one in last]
    fresh = ToyPolicy("toy", read_config(outcome.folder).update).sample(requests, SamplingParams(512), Stream(0, stream="teacher"))
    assert [one.completions for one in fresh] == [one.extras[0].group.completions for one in last]
    for one in scored:
        (teacher,) = one.voted.group.extras
        assert {done.version for done in teacher.group.completions} == {PolicyVersion(0, 0)}
        assert (one.label.source, one.label.decided_by, one.label.uses_truth) == ("frozen", "teacher 0:0", False)
        assert one.label.is_decided == (len(teacher.vote.winners) == 1 and teacher.vote.share_frac >= 0.5)
        assert set(one.label.targets) == ({teacher.vote.winners[0]} if one.label.is_decided else {None})
    assert {one.label.outcome for one in scored} == {Decision.DECIDED, Decision.BELOW_MIN_SHARE, Decision.TIE}


def test_a_judge_is_greedy_and_bounded(tmp_path: Path) -> None:
    """The toy judge says that digits of one parity are the same: at most two clusters of digits where all pairs are judged, more where they are not."""
    everything = groups_of(train_to_end(config(tmp_path, "a", {**JUDGED, "judge.max_pairs": 100})).folder)
    digits = [{key for key in one.voted.answers.keys if key is not None and key.isdigit()} for one in everything]
    assert all(len(found) <= 2 for found in digits)
    assert all(
        len({int(text) % 2 for text, key in zip(one.voted.answers.texts, one.voted.answers.keys, strict=True) if key in found and str(text).isdigit()})
        == len(found)
        for one, found in zip(everything, digits, strict=True)
    )
    few = groups_of(train_to_end(config(tmp_path, "b", {**JUDGED, "judge.max_pairs": 1})).folder)
    assert {len(one.voted.group.extras) for one in few} <= {0, 1, 2}
    assert max(len(one.voted.vote.counts) for one in few) > 3


def sampler(**readers: Any) -> Extras:
    config = load_config(overrides={"policy.model": "toy"})
    known = {Role.JUDGE: read_judge, Role.TEACHER: PlainReading(reader("exact"))} | {Role(name): one for name, one in readers.items()}
    return Extras(ToyPolicy("toy", config.update), SamplingParams(4), known, Stream(0))


def toy_group(index: int = 0, texts: Sequence[str] = ("#### 1", "#### 2")) -> Group:
    return Group(0, index, Prompt(f"toy-{index}", (Message("user", f"toy-{index}"),)), (index,), tuple(completion(text) for text in texts))


def test_a_source_may_ask_again_after_it_saw_the_first_samples() -> None:
    """Two teachers in two rounds for one group, one for the other; params and policies of the requests are kept."""
    seen: list[list[int]] = []

    def requests(served: Sequence[VotedGroup]) -> list[ExtraRequest]:
        seen.append([len(one.group.extras) for one in served])
        round_number = len(seen)
        prompt = Prompt(f"toy-{round_number} again", (Message("user", f"toy-{round_number}"),))
        both = [ExtraRequest(0, Role.TEACHER, prompt, 3, "base", SamplingParams(1))]
        one = [ExtraRequest(1, Role.TEACHER, replace(prompt, id="toy-9 again"), 2)] if round_number == 1 else []
        return both + one if round_number < 3 else []

    served = sampler().sampled([voted(["1", "2"]), voted(["3"], "p1", 1)], requests)
    assert seen == [[0, 0], [1, 1], [2, 1]]
    assert [[extra.group.index for extra in one.group.extras] for one in served] == [[2, 4], [3]]
    assert [[len(extra.group.completions) for extra in one.group.extras] for one in served] == [[3, 3], [2]]
    assert {done.finish for done in served[0].group.extras[0].group.completions} == {Finish.LENGTH}
    assert served[0].group.extras[0].vote.num_read == 0
    assert served[1].group.extras[0].vote.num_votes == 2


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        (lambda _: ExtraRequest(0, Role.TEACHER, toy_group().prompt, 1), "they would draw the same random numbers"),
        (lambda number: ExtraRequest(7, Role.TEACHER, replace(toy_group().prompt, id=str(number)), 1), "the step has groups 0 to 0"),
        (lambda number: ExtraRequest(0, Role.TEACHER, replace(toy_group().prompt, id=str(number)), 1), "asks for more samples after 64 rounds"),
    ],
)
def test_requests_that_cannot_be_drawn(request_of: Callable[[int], ExtraRequest], words: str) -> None:
    numbers = iter(range(1000))
    with pytest.raises(ConfigError, match=words):
        sampler().sampled([voted(["1"])], lambda _: [request_of(next(numbers))])


def test_a_question_without_room_is_recorded_without_a_reply_and_its_pair_is_different(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = sampler()
    reading = JudgedReading(9, SamplingParams(4, 0.0), lambda prompt: prompt.text)
    monkeypatch.setattr(ToyPolicy, "too_long", lambda self, prompts, limit=None: [(one.id, 999) for one in prompts if "judge 0" in one.id])
    group = toy_group(texts=("#### 1", "#### 3", "#### 5"))
    (served,) = extras.sampled([group], reading.requests)
    assert [extra.group.prompt.id for extra in served.extras] == ["toy-0 judge 0", "toy-0 judge 1", "toy-0 judge 2", "toy-0 judge 1 back", "toy-0 judge 2 back"]
    assert (served.extras[0].group.completions, verdict_of(served.extras[0])) == ((), None)
    keys = reading(served).answers.keys
    assert len(set(keys)) == 2
    assert keys[0] != keys[1]


def test_a_judge_is_told_the_question_without_the_template() -> None:
    prompt = Prompt("q", (Message("user", "Why? Think step by step."),))
    reading = compose.make_reading(
        load_config(overrides={"policy.model": "toy", "labels.source": "majority", "labels.clustering": "judge"}), {"q": (Message("user", "Why?"),)}
    )
    group = Group(0, 0, prompt, (1,), (completion("Because."), completion("Therefore."), completion("Cut", Finish.LENGTH)))
    (asked,) = reading.requests([group])
    assert asked.prompt.text.startswith("Question: Why?\n\nAnswer 1: Because.\n\nAnswer 2: Therefore.\n\n")
    assert asked.params == SamplingParams(16, 0.0)


def test_the_report_says_who_decides(recorded_run: RecordedRuns) -> None:
    assert set(SOURCES) == {*LABEL_SOURCES, *BOUND}
    judged, frozen = (who_decides(read(recorded_run(options).folder).header) for options in (JUDGED, FROZEN))
    assert "majority vote of the model's own completions. Which answers say the same is judged by the model that is trained. Label-free" in judged
    assert "decided by the vote of the model as it was at the start. Label-free" in frozen


def test_frozen_asks_once_for_as_many_completions_as_vote() -> None:
    one = voted(["1", "2", "2"])
    (asked,) = Frozen().requests([one], Bounds())
    assert asked == ExtraRequest(0, Role.TEACHER, one.group.prompt, 3, policy="base")
    teacher = replace(voted(["5", "5", "6"]), group=replace(group(["5", "5", "6"], index=1), role=Role.TEACHER))
    served = replace(one, group=replace(one.group, extras=(teacher,)))
    assert Frozen().requests([served], Bounds()) == []
    (label,) = Frozen()([served], Bounds(min_share_frac=0.7))
    assert (label.outcome, label.targets) == (Decision.BELOW_MIN_SHARE, (None,) * 3)
    assert Frozen()([served], Bounds())[0].targets == ("5",) * 3


SOURCE = """
from selftrain.policies.base import ExtraRequest
from selftrain.labels.frozen import Frozen

class Twice(Frozen):
    def requests(self, voted, bounds):
        return [one for one in super().requests(voted, bounds) if one.serves % 2 == 0] or super().requests(voted, bounds)

class Wrong(Frozen):
    def requests(self, voted, bounds):
        return [None]

class Raises(Frozen):
    def requests(self, voted, bounds):
        raise KeyError("boom")

class Odd(Frozen):
    requests = 3

twice, wrong, raises, odd = Twice(), Wrong(), Raises(), Odd()
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"asking_{abs(hash(tmp_path)):x}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_label_source_of_the_users_may_ask_too(tmp_path: Path, source: str) -> None:
    outcome = train_to_end(config(tmp_path, "a", FROZEN, labels__source=f"{source}:twice"))
    first = groups_of(outcome.folder)[:4]
    assert [one.voted.group.extras[0].group.index for one in first] == [4, 6, 5, 7]
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees


@pytest.mark.parametrize(
    ("name", "words"),
    [("wrong", "its requests are"), ("raises", "it raised KeyError: 'boom'"), ("odd", "its `requests` is not a function")],
)
def test_a_label_source_that_asks_for_something_else(tmp_path: Path, source: str, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        train_to_end(config(tmp_path, "a", FROZEN, labels__source=f"{source}:{name}"))
    assert caught.value.given == f"labels.source = {source}:{name}"
