"""Second view: rules worked out by hand, where wordings come from, and whole runs that are replayed, cut off and killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain import compose
from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.labels import Bounds
from selftrain.labels.means import harmonic_means
from selftrain.labels.rules import outcome_of
from selftrain.labels.second_view import RULES, SecondView
from selftrain.ledger import read
from selftrain.policies.base import ExtraRequest
from selftrain.policies.toy import ToyPolicy, second_wording
from selftrain.prompts.tasks import TASKS, task
from selftrain.prompts.tasks import second_wording as task_wording
from selftrain.prompts.wordings import INSTRUCTION, ParaphraseWording, TaskWording, TemplateWording, read_paraphrase
from selftrain.reading import read_paraphrases
from selftrain.replay import replay
from selftrain.rollout import read_and_count
from selftrain.run import read_config, train_to_end
from selftrain.types import AnswerSheet, Finish, Message, Prompt, PromptSet, Role, VotedGroup
from selftrain.types import Outcome as Decision
from tests.builders import completion, group, voted
from tests.killing import assert_it_ends_the_same
from tests.recorded import RecordedRuns
from tests.test_extras import groups_of
from tests.test_train import SMALL, change_all_truth, config, files_of

VIEW = {**SMALL, "rollout.prompts_per_step": 4, "rollout.num_votes": 8, "labels.source": "second_view"}
PARAPHRASED = {**VIEW, "second_view.wording": "paraphrase", "second_view.max_paraphrases": 2}
BOTH = pytest.mark.parametrize("options", [VIEW, PARAPHRASED], ids=["task", "paraphrase"])
SOURCE = SecondView(TaskWording(second_wording, "{prompt}", {}), RULES["harmonic"])


def seen_twice(first: Sequence[str | None], second: Sequence[str | None]) -> VotedGroup:
    one = voted(first)
    view = read_and_count(replace(group(second, "p0 view", index=1), role=Role.VIEW))
    return replace(one, group=replace(one.group, extras=(view,)))


A, B, C = "1", "2", "3"


@pytest.mark.parametrize(
    ("first", "second", "harmonic", "crossed"),
    [
        ([A, A, A, B], [B, B, B, B], (Decision.DECIDED, B), (Decision.DECIDED, B)),  # A has no vote in the second view
        ([A, A, A, B], [A, B, B, B], (Decision.TIE, None), (Decision.DECIDED, B)),  # 3/8 both
        ([A, A, A, B], [A, A, B, C], (Decision.DECIDED, A), (Decision.DECIDED, A)),
        ([A, A, B, B], [A, C, C, C], (Decision.DECIDED, A), (Decision.DECIDED, C)),
        ([A, A, A, A], [B, B, B, B], (Decision.VIEWS_DIFFER, None), (Decision.VIEWS_DIFFER, None)),
        ([None] * 4, [B, B, B, B], (Decision.NO_ANSWER, None), (Decision.NO_ANSWER, None)),
        ([A, A, A, A], [None] * 4, (Decision.NO_ANSWER, None), (Decision.NO_ANSWER, None)),
        ([A, B, C, "6"], ["6", C, B, A], (Decision.TIE, None), (Decision.TIE, None)),
    ],
)
def test_both_rules_by_hand(first: list[str | None], second: list[str | None], harmonic: Any, crossed: Any) -> None:
    one = seen_twice(first, second)
    view = one.group.extras[0].vote
    assert RULES["harmonic"](one.vote, view, Bounds()) == harmonic
    assert RULES["crossed"](one.vote, view, Bounds()) == crossed


def test_harmonic_means_and_bounds() -> None:
    """A: shares 3/4 and 1/4 give 2 * 3/16 / 1 = 3/8; B: 1/4 and 2/4 give 2 * 2/16 / (3/4) = 1/3."""
    one = seen_twice([A, A, A, B], [A, B, B, None])
    view = one.group.extras[0].vote
    assert {key: float(mean) for key, mean in harmonic_means((one.vote, view)).items()} == pytest.approx({A: 0.375, B: 1 / 3})
    rule = RULES["harmonic"]
    assert rule(one.vote, view, Bounds(0.75, 0.375)) == (Decision.DECIDED, A)
    assert rule(one.vote, view, Bounds(0.75, 0.376)) == (Decision.BELOW_MIN_SHARE, None)
    assert rule(one.vote, view, Bounds(0.76, 0.0)) == (Decision.BELOW_QUORUM, None)
    assert RULES["crossed"](one.vote, view, Bounds(0.75, 0.51)) == (Decision.BELOW_MIN_SHARE, None)
    assert RULES["crossed"](view, one.vote, Bounds(0.76, 0.0)) == (Decision.BELOW_QUORUM, None)  # of the prompt's own votes as well
    (label,) = SOURCE([one], Bounds())
    assert (label.targets, label.source, label.decided_by, label.uses_truth) == ((A,) * 4, "second_view", "views 0:3", False)
    (label,) = SOURCE([voted([A, A])], Bounds())
    assert (label.outcome, label.targets) == (Decision.NO_SECOND_VIEW, (None, None))


@pytest.mark.parametrize(("right", "votes", "frac"), [(11, 20, 0.55), (7, 25, 0.28), (14, 50, 0.28)])
def test_a_share_of_exactly_the_bound_is_enough_in_every_rule(right: int, votes: int, frac: float) -> None:
    """0.55 as a number is a little more than 11/20, and 0.28 * 25 a little more than 7."""
    one = seen_twice([A] * right + [None] * (votes - right), [A] * right + [None] * (votes - right))
    view = one.group.extras[0].vote
    for rule in RULES.values():
        assert rule(one.vote, view, Bounds(frac, frac)) == (Decision.DECIDED, A)
        assert rule(one.vote, view, Bounds(0.0, frac + 0.01)) == (Decision.BELOW_MIN_SHARE, None)
        assert rule(one.vote, view, Bounds(frac + 0.01, 0.0)) == (Decision.BELOW_QUORUM, None)
    assert outcome_of(one.vote, Bounds(frac, frac)) is Decision.DECIDED


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("57+80", "80+57"),
        ("sum of 57 and 80", "sum of 80 and 57"),
        ("57+57", "sum of 57 and 57"),
        ("62-35", "take 35 from 62"),
        ("take 35 from 62", "62-35"),
        ("7 times 34", "34*7"),
        ("(4+8+2)%5", "(2+8+4)%5"),
        ("digit sum of 482 mod 5", "digit sum of 284 mod 5"),
        ("sort 3175", "sort 5713"),
        ("d>j j>h b>d", "b>d j>h d>j"),
        ("d over j, j over h", "j over h, d over j"),
        ("d- f:d-", "d is false, f says d is false"),
        ("What is 3 + 4?", None),
    ],
)
def test_tasks_word_their_problems_anew(text: str, second: str | None) -> None:
    assert task_wording(text) == second


@pytest.mark.parametrize("name", TASKS)
def test_a_second_wording_is_another_text_with_the_same_answer(name: str) -> None:
    for form in ("symbols", "words"):
        for _, problem in task(name).listed(40, 3, 1, form):
            second = task(name).second_wording(problem.text)
            assert second != problem.text
            assert task(name).check(second, problem.answer)


@pytest.mark.parametrize(
    ("reply", "read_as"),
    [
        ("Ann has 12 pens and buys 5. How many now?", "Ann has 12 pens and buys 5. How many now?"),
        ('<think>12, 5</think>\n"Ann buys 5 pens\nand had 12."', "Ann buys 5 pens and had 12."),
        ("Ann has 12 pens and buys 6.", None),
        ("Ann has 12 pens.", None),
        ("12 pens and 5 pens make 17", None),
        ("12 pens,  12 and 5", None),
        ("ANN had 12 pens, buys  5: how many?", None),
        ("<think>12 and 5", None),
        ("", None),
    ],
)
def test_what_counts_as_a_paraphrase(reply: str, read_as: str | None) -> None:
    assert read_paraphrase(reply, INSTRUCTION + "Ann had 12 pens, buys 5: how many?") == read_as


def test_a_truncated_paraphrase_is_none() -> None:
    asked = replace(group([], "p0"), prompt=Prompt("p0 paraphrase", (Message("user", f"{INSTRUCTION}Add 3"),)))
    found = read_paraphrases(replace(asked, completions=(completion("What is 3", Finish.LENGTH), completion("Three is 3"), completion("Add 3"))))
    assert (found.answers.texts, found.vote.counts) == ((None, "Three is 3", None), (("Three is 3", 1),))


def test_the_rounds_of_a_paraphrase() -> None:
    """First the wordings; then, from the first that can be used, the votes, in the template; a group without any stays as it is."""
    wording = ParaphraseWording("{prompt} Think.", {"p0": (Message("system", "s"), Message("user", "What is 3?"))}, 2)
    source, one = SecondView(wording, RULES["harmonic"]), voted([A, A, B])
    (asked,) = source.requests([one], Bounds())
    assert asked == ExtraRequest(0, Role.PARAPHRASE, Prompt("p0 paraphrase", (Message("user", f"{INSTRUCTION}What is 3?"),)), 2)

    def answered(*replies: str) -> VotedGroup:
        paraphrases = read_paraphrases(replace(group([], index=1), prompt=asked.prompt, completions=tuple(map(completion, replies)), role=Role.PARAPHRASE))
        return replace(one, group=replace(one.group, extras=(paraphrases,)))

    (view,) = source.requests([answered("Name 4", "Name 3")], Bounds())
    assert view == ExtraRequest(0, Role.VIEW, Prompt("p0 view", (Message("system", "s"), Message("user", "Name 3 Think."))), 3)
    assert source.requests([answered("Name 4", "Name 5")], Bounds()) == []
    assert source([answered("Name 4", "Name 5")], Bounds())[0].outcome is Decision.NO_SECOND_VIEW


def test_a_second_template() -> None:
    prompt = Prompt("p", (Message("user", "Why? Think."),))
    wording = TemplateWording("{prompt} Box it.", {"p": (Message("user", "Why?"),)})
    assert wording.second(prompt, None) == (Message("user", "Why? Box it."),)
    assert TemplateWording("{prompt} Think.", {"p": (Message("user", "Why?"),)}).second(prompt, None) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"second_view.template": "boxed"}, "a second template is needed for that wording and for no other"),
        ({"second_view.wording": "template"}, "a second template is needed"),
        ({"second_view.wording": "template", "second_view.template": "raw"}, "1 training prompts have no second wording"),
        ({"second_view.wording": "template", "second_view.template": "no place"}, "every prompt would be the same"),
        ({}, "1 training prompts have no second wording of this kind: q ('How many?')"),
        ({"labels.clustering": "overlap"}, "the answers of the second view would be clustered apart"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_sample(options: dict[str, Any], words: str) -> None:
    prompts = PromptSet((Prompt("q", (Message("user", "How many?"),)),), AnswerSheet({}), "here")
    with pytest.raises(ConfigError) as caught:
        compose.make_labelling(load_config(overrides={"prompts.task": "add:2", "labels.source": "second_view", **options}), prompts)
    assert words in str(caught.value)


@BOTH
def test_a_run_records_both_views_and_is_replayed_without_a_model(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(options)
    scored = groups_of(outcome.folder)
    for one in scored:
        views = one.voted.group.extras_of(Role.VIEW)
        if views:
            assert views[0].group.prompt.text == f"{one.voted.group.prompt.text} again"
            assert views[0].group.completions[0].version == one.voted.group.completions[0].version
            assert RULES["harmonic"](one.voted.vote, views[0].vote, Bounds(0.25)) == (one.label.outcome, one.label.key)
        else:
            assert one.label.outcome is Decision.NO_SECOND_VIEW
    without = [one for one in scored if one.label.outcome is Decision.NO_SECOND_VIEW]
    assert bool(without) == (options is PARAPHRASED)
    assert 0 < len(without) < len(scored) or options is VIEW
    costs = [record.metrics.values for record in read(outcome.folder).steps()]
    views = [sum(bool(one.voted.group.extras_of(Role.VIEW)) for one in scored[4 * at : 4 * at + 4]) for at in range(len(costs))]
    assert [cost.get("cost/view_tokens", 0) for cost in costs] == [number * 8 * 2 for number in views]
    assert {cost.get("cost/paraphrase_tokens") for cost in costs} == {4 * 2 if options is PARAPHRASED else None}
    monkeypatch.setattr(ToyPolicy, "sample", None)
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees


@BOTH
def test_a_run_that_was_cut_off_or_killed_ends_the_same(tmp_path: Path, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    assert_it_ends_the_same(recorded_run(options), lambda name: config(tmp_path, name, options))


def test_truth_does_not_reach_the_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded_run: RecordedRuns) -> None:
    honest = recorded_run(VIEW)
    change_all_truth(monkeypatch)
    assert files_of(honest.folder) == files_of(train_to_end(config(tmp_path, "b", VIEW)).folder)


def test_labels_that_survive_rewording_are_right_more_often(tmp_path: Path) -> None:
    """On the weak toy, whose distractor is another one in the second wording, against the plain vote of the same completions."""
    assert_labels_beat_the_vote(tmp_path, {"labels.source": "second_view"})


def assert_labels_beat_the_vote(tmp_path: Path, source: dict[str, Any]) -> None:
    """On the weak toy, which hardly learns here: most groups are decided, and the labels are right more than 10 points more often than the plain vote."""
    options = {"policy.model": "toy:weak", "update.learning_rate": 1e-6, "run.num_steps": 4, "guard.action": "off", "evals.num_problems": 8}
    options |= {"rollout.prompts_per_step": 32, "rollout.num_votes": 64, **source}
    scored = groups_of(train_to_end(config(tmp_path, "a", options)).folder)
    sheet = compose.load_sets(read_config(tmp_path / "a")).train.sheet

    def right(keys: list[tuple[str, str | None]]) -> float:
        return sum(key == sheet.answer_of(prompt_id) for prompt_id, key in keys) / len(keys)

    plain = [(one.voted.group.prompt.id, one.voted.vote.winners[0]) for one in scored if len(one.voted.vote.winners) == 1]
    viewed = [(one.voted.group.prompt.id, one.label.key) for one in scored if one.label.is_decided]
    assert len(viewed) > len(scored) / 2
    assert right(viewed) > right(plain) + 0.1
