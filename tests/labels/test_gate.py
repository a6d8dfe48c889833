"""The gate's conditions that draw samples: second wordings and the averaged teacher, by hand and in runs that are replayed, cut off and killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain import compose
from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.labels import Bounds, Labelling
from selftrain.labels.composed import FirstOf
from selftrain.labels.ema import Ema
from selftrain.labels.frozen import Frozen
from selftrain.labels.gate import Gate
from selftrain.labels.gate import second_view as second_view_holds
from selftrain.labels.second_view import RULES, SecondView
from selftrain.ledger import read
from selftrain.policies.toy import ToyPolicy
from selftrain.prompts.wordings import ParaphraseWording, TaskWording
from selftrain.reading import read_paraphrases
from selftrain.replay import replay
from selftrain.rollout import read_and_count
from selftrain.run import read_config, train_to_end
from selftrain.types import AnswerSheet, Message, Outcome, Prompt, PromptSet, Role, VotedGroup
from tests.builders import completion, group, voted
from tests.killing import assert_a_rollback_takes_the_average_back, assert_it_ends_the_same
from tests.recorded import RecordedRuns
from tests.test_extras import groups_of
from tests.test_train import SMALL, change_all_truth, config, files_of

GATE = {**SMALL, "rollout.prompts_per_step": 4, "rollout.num_votes": 8, "labels.source": "gate", "gate.min_share_frac": 0.3}
ALL = {**GATE, "gate.conditions": ["share", "second_view", "base", "ema"]}
PARAPHRASED = {**GATE, "gate.conditions": ["second_view", "ema"], "second_view.wording": "paraphrase", "second_view.max_paraphrases": 2}
PARAPHRASED.pop("gate.min_share_frac")
BOTH = pytest.mark.parametrize("options", [ALL, PARAPHRASED], ids=["task", "paraphrase"])
VIEW = SecondView(TaskWording(lambda text: f"{text} again", "{prompt}", {}), RULES["harmonic"])
A, B = "1", "2"


def gate(*conditions: str, view: SecondView = VIEW) -> Gate:
    return Gate(conditions, 0.5, {"second_view": second_view_holds(view)})


def with_samples(answers: Sequence[str | None], **samples: Sequence[str | None] | None) -> VotedGroup:
    """view, base and ema: the answers of each; None for none."""
    kinds = {"view": (Role.VIEW, "p0 view"), "base": (Role.TEACHER, "p0"), "ema": (Role.TEACHER, "p0 ema")}
    made = [(kinds[kind], found) for kind, found in samples.items() if found is not None]
    extras = tuple(read_and_count(replace(group(found, name, index), role=role)) for index, ((role, name), found) in enumerate(made, 1))
    one = voted(answers)
    return replace(one, group=replace(one.group, extras=extras))


@pytest.mark.parametrize(
    ("view", "base", "ema", "closed"),
    [
        ([A, A, B], [A, A, B], [A, A, None], None),
        ([B, B, A], [A, A, A], [A, A, A], "second_view"),
        ([A, B, None], [A, A, A], [A, A, A], "second_view"),  # a tie
        ([None] * 3, [A, A, A], [A, A, A], "second_view"),
        (None, [A, A, A], [A, A, A], "second_view"),
        ([A, A, A], [B, B, A], [A, A, A], "base"),
        ([A, A, A], [A, A, A], [B, B, A], "ema"),
        ([A, A, A], [A, A, A], [A, B, None], "ema"),
        ([A, A, A], [A, A, A], [], "ema"),  # no room for an answer
        ([A, A, A], None, [A, A, A], "base"),  # nobody was asked
        ([A, A, A], [A, A, A], None, "ema"),
        ([B, B, B], [B, B, B], [B, B, B], "second_view"),
    ],
)
def test_the_condition_that_closed_is_named(
    view: list[str | None] | None, base: list[str | None] | None, ema: list[str | None] | None, closed: str | None
) -> None:
    """The second wording, the start and the average each have a vote of their own; none is taken for another."""
    (label,) = gate("share", "second_view", "base", "ema")([with_samples([A, A, B], view=view, base=base, ema=ema)], Bounds())
    if closed is None:
        assert (label.outcome, label.key, label.source, label.decided_by, label.uses_truth) == (Outcome.DECIDED, A, "gate", "vote 0:3", False)
    else:
        assert (label.outcome, label.targets, label.decided_by) == (Outcome.GATE_CLOSED, (None,) * 3, f"gate {closed}")


def test_teachers_are_asked_apart_and_counted_apart() -> None:
    """The start's samples do not open the gate of the average, and the other way round."""
    start, average = with_samples([A, A], base=[A, A]), with_samples([A, A], ema=[A, A])
    assert [(one.policy, one.prompt.id) for one in gate("base", "ema").requests([voted([A, A])], Bounds())] == [("base", "p0"), ("ema", "p0 ema")]
    assert [one.policy for one in gate("base", "ema").requests([start], Bounds())] == ["ema"]
    assert [one.policy for one in gate("base", "ema").requests([average], Bounds())] == ["base"]
    assert gate("base", "ema", "second_view").requests([with_samples([A, A], base=[A, A], ema=[A, A], view=[A, A])], Bounds()) == []


def test_what_a_source_asks_for_too_is_asked_once() -> None:
    sources = {"gate": gate("base", "second_view", "ema"), "ema": Ema(), "second_view": VIEW, "frozen": Frozen()}
    whole = FirstOf({name: Labelling(source, source.requests, Bounds()) for name, source in sources.items()})
    asked = whole.requests([voted([A, A])], Bounds())
    assert [(one.role, one.prompt.id) for one in asked] == [(Role.TEACHER, "p0"), (Role.VIEW, "p0 view"), (Role.TEACHER, "p0 ema")]
    assert gate("ema", "second_view", "ema").requests([voted([A, A])], Bounds()) == [asked[2], asked[1]]


def test_a_paraphrase_is_asked_for_first_and_without_one_the_gate_is_closed() -> None:
    source = gate("second_view", view=SecondView(ParaphraseWording("{prompt}", {}, 2), RULES["harmonic"]))
    one = voted([A, A])
    (asked,) = source.requests([one], Bounds())
    assert (asked.role, asked.count) == (Role.PARAPHRASE, 2)

    def answered(reply: str) -> VotedGroup:
        offered = read_paraphrases(replace(group([], index=1), prompt=asked.prompt, completions=(completion(reply),), role=Role.PARAPHRASE))
        return replace(one, group=replace(one.group, extras=(offered,)))

    (view,) = source.requests([answered("Name p0")], Bounds())
    assert (view.role, view.prompt) == (Role.VIEW, Prompt("p0 view", (Message("user", "Name p0"),)))
    assert source.requests([answered("Name p9")], Bounds()) == []
    assert source([answered("Name p9")], Bounds())[0].decided_by == "gate second_view"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gate.conditions": ["second_view"]}, "second_view.wording = task: 1 training prompts have no second wording of this kind"),
        ({"gate.conditions": ["second_view"], "labels.clustering": "overlap"}, "the answers of the second view would be clustered apart"),
        ({"gate.conditions": ["ema"], "labels.clustering": "judge"}, "the answers of the teacher would be clustered apart"),
        ({"gate.conditions": ["share", "second_view"], "labels.source": "first_of", "first_of.sources": ["gate", "majority"]}, "have no second wording"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_sample(options: dict[str, Any], words: str) -> None:
    prompts = PromptSet((Prompt("q", (Message("user", "How many?"),)),), AnswerSheet({}), "here")
    with pytest.raises(ConfigError) as caught:
        compose.make_labelling(load_config(overrides={"prompts.task": "add:2", "labels.source": "gate", **options}), prompts)
    assert words in str(caught.value)


def test_conditions_that_draw_nothing_go_with_every_clustering() -> None:
    for source in ("gate", "majority"):  # the section alone refuses nothing
        conditions = ["share", "halves"] if source == "gate" else ["ema", "second_view"]
        found = load_config(overrides={"policy.model": "toy", "labels.source": source, "labels.clustering": "overlap", "gate.conditions": conditions})
        assert found.labels.clustering == "overlap"


@BOTH
def test_a_run_follows_from_its_record_without_a_model(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(options)
    closed = set()
    for one in groups_of(outcome.folder):
        own = one.voted.group.prompt.id
        winners = {(extra.group.role, extra.group.prompt.id.removeprefix(own)): extra.vote.winners for extra in one.voted.group.extras}
        signs = [winners.get((Role.VIEW, " view"), ()), winners[Role.TEACHER, " ema"], *([winners[Role.TEACHER, ""]] if options is ALL else [])]
        agree = all(sign == one.voted.vote.winners for sign in signs) and (one.voted.vote.share_frac >= 0.3 or options is PARAPHRASED)
        assert one.label.is_decided == (agree and len(one.voted.vote.winners) == 1)
        if one.label.outcome is Outcome.GATE_CLOSED:
            closed.add(one.label.decided_by)
    assert closed >= {"gate second_view", "gate ema"}
    assert any(one.label.is_decided for one in groups_of(outcome.folder))
    for record in read(outcome.folder).steps():
        assert record.metrics.values["cost/teacher_tokens"] == (2 if options is ALL else 1) * 4 * 8 * 2
    monkeypatch.setattr(ToyPolicy, "sample", None)
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees


@BOTH
def test_a_run_that_was_cut_off_or_killed_ends_the_same(tmp_path: Path, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    assert_it_ends_the_same(recorded_run(options), lambda name: config(tmp_path, name, options))


@BOTH
def test_truth_does_not_reach_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    honest = recorded_run(options)
    assert (read(honest.folder).header["label_free"], read(honest.folder).header["truth_channels"]) == (True, [])
    change_all_truth(monkeypatch)
    assert files_of(honest.folder) == files_of(train_to_end(config(tmp_path, "b", options)).folder)


def test_a_rollback_takes_the_average_of_the_gate_back(tmp_path: Path) -> None:
    assert_a_rollback_takes_the_average_back(config(tmp_path, "a", ALL), "step-000003")
