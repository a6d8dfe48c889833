"""Sources made of sources, and the fraction of the prompts that a reference sees: by hand, and in runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain.answers import key
from selftrain.compose import make_labelling
from selftrain.compose_labels import truth_channels
from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.labels import LABEL_SOURCES, Bounds, Labelling, LabelSource
from selftrain.labels.composed import FirstOf, Mixture
from selftrain.labels.flip_damped import FlipDamped
from selftrain.labels.gate import CONDITIONS, Gate
from selftrain.labels.reference import Reference
from selftrain.labels.verified import verified
from selftrain.ledger import read
from selftrain.run import start, train_to_end
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, Check, Outcome, PromptSet, Role, VotedGroup
from tests.builders import voted
from tests.test_train import SMALL, config

SHEET = AnswerSheet({"p0": "2"})


def parts(**sources: LabelSource) -> dict[str, Labelling]:
    return {name: Labelling(source, getattr(source, "requests", None), Bounds()) for name, source in sources.items()}


def with_teacher(one: VotedGroup, answers: list[str | None]) -> VotedGroup:
    teacher = voted(answers)
    return replace(one, group=replace(one.group, extras=(replace(teacher, group=replace(teacher.group, role=Role.TEACHER)),)))


def checked(one: VotedGroup, *scores: float | None) -> VotedGroup:
    return replace(one, checks=tuple(Check(score, "crashed" if score is None else "refuted") for score in scores))


def test_the_first_source_that_decides_names_itself() -> None:
    source = FirstOf(parts(verifier=verified, reference=Reference(SHEET), majority=LABEL_SOURCES["majority"]))
    seen, known, rest, none = source(
        [checked(voted(["1", "1", "2"], "p9"), 0.0, 0.0, 1.0), voted(["1", "1", "2"]), voted(["1", "1", "2"], "p9"), voted([None, None], "p9")], Bounds()
    )
    assert (seen.source, seen.decided_by, seen.values, seen.uses_truth) == ("verifier", "verifier", (0.0, 0.0, 1.0), True)
    assert (known.source, known.key, known.uses_truth) == ("reference", key("2"), True)
    assert (rest.source, rest.decided_by, rest.key, rest.uses_truth) == ("majority", "vote 0:3", key("1"), False)
    assert (none.outcome, none.source) == (Outcome.NO_ANSWER, "majority")


def test_a_verifier_that_gave_no_score_has_touched_what_the_next_source_decides() -> None:
    source = FirstOf(parts(verifier=verified, majority=LABEL_SOURCES["majority"]))
    (label,) = source([checked(voted(["1", "1"]), None, None)], Bounds())
    assert (label.source, label.key, label.uses_truth) == ("majority", key("1"), True)


def test_a_mixture_averages_rewards_by_weight() -> None:
    """Answers 1 1 2, unread; the vote says 1 (weight 3), the truth 2 (weight 1)."""
    source = Mixture(parts(majority=LABEL_SOURCES["majority"], reference=Reference(SHEET)), {"majority": 3.0, "reference": 1.0})
    (label,) = source([voted(["1", "1", "2", None])], Bounds())
    assert label.values == (0.75, 0.75, 0.25, 0.0)
    assert label.notes == (*["majority match, reference mismatch"] * 2, "majority mismatch, reference match", "unread")
    assert (label.key, label.source, label.decided_by, label.uses_truth) == (None, "mixture", "mixture of majority, reference", True)


def test_a_mixture_leaves_out_who_does_not_decide() -> None:
    source = Mixture(parts(majority=LABEL_SOURCES["majority"], reference=Reference(SHEET)), {"majority": 3.0, "reference": 1.0})
    tie, unknown, neither = source([voted(["1", "2"]), voted(["1", "1", "2"], "p9"), voted(["1", "2"], "p9")], Bounds())
    assert (tie.values, tie.key, tie.decided_by) == ((0.0, 1.0), key("2"), "mixture of reference")
    assert (unknown.values, unknown.key, unknown.uses_truth) == ((1.0, 1.0, 0.0), key("1"), False)
    assert (neither.outcome, neither.source, neither.values) == (Outcome.TIE, "mixture", ())


def test_a_mixture_in_which_nobody_decides_says_who_looked_at_the_truth() -> None:
    source = Mixture(parts(majority=LABEL_SOURCES["majority"], verifier=verified), {"majority": 1.0, "verifier": 1.0})
    touched, unseen = source([checked(voted(["1", "2"]), None, None), voted(["1", "2"])], Bounds())
    assert [(label.outcome, label.uses_truth) for label in (touched, unseen)] == [(Outcome.TIE, True), (Outcome.TIE, False)]


def test_a_mixture_averages_weights_and_asks_and_remembers_for_its_parts() -> None:
    source = Mixture(
        parts(flip_damped=FlipDamped(), frozen=LABEL_SOURCES["frozen"], majority=LABEL_SOURCES["majority"]),
        dict.fromkeys(("flip_damped", "frozen", "majority"), 1.0),
    )
    first, second = (with_teacher(voted([answer, answer]), ["1", "1"]) for answer in ("1", "2"))
    assert source([first], Bounds())[0].weight == 1.0
    again = Mixture(source._parts, source._weights)
    again.load(source.state())
    label = again([second], Bounds())[0]
    assert (label.weight, label.values) == (pytest.approx(2 / 3), pytest.approx((2 / 3, 2 / 3)))
    twice = FirstOf(parts(frozen=LABEL_SOURCES["frozen"], gate=Gate(["base"], 0.0)))
    assert len(twice.requests([voted(["1", "2"])], Bounds())) == 1
    assert twice.requests([first], Bounds()) == []


@pytest.mark.parametrize(
    ("answers", "teacher", "closed"),
    [
        (["1", "1", "1", "1"], ["1", "1"], None),
        (["1", "1", "2", "3", "4", None], ["1", "1"], "share"),
        (["1", "2", "1", "2", "1", "1", "1", "2"], ["1", "1"], "halves"),
        (["1", "1", "1", "1"], ["1", "2"], "base"),
        (["1", "1", "1", "1"], ["2", "2"], "base"),
    ],
)
def test_the_gate_that_closed_is_named(answers: list[str | None], teacher: list[str | None], closed: str | None) -> None:
    gate = Gate(["share", "halves", "base"], 0.5)
    assert [request.policy for request in gate.requests([voted(answers)], Bounds())] == ["base"]
    (label,) = gate([with_teacher(voted(answers), teacher)], Bounds())
    if closed is None:
        assert (label.outcome, label.key, label.source, label.decided_by) == (Outcome.DECIDED, key("1"), "gate", "vote 0:3")
    else:
        assert (label.outcome, label.key, label.decided_by) == (Outcome.GATE_CLOSED, None, f"gate {closed}")


def test_a_gate_without_teachers_asks_for_nothing_and_leaves_a_tie_a_tie() -> None:
    gate = Gate([name for name, condition in CONDITIONS.items() if condition.asks is None], 0.5)
    assert gate.requests([voted(["1", "1"])], Bounds()) == []
    assert gate([voted(["1", "2"])], Bounds())[0].outcome is Outcome.TIE


def test_a_reference_for_a_fraction_is_the_same_one_for_a_seed() -> None:
    sheet = AnswerSheet({f"p{index}": "1" for index in range(2000)})
    groups = [voted(["1"], f"p{index}") for index in range(2000)]

    def known(seed: int) -> list[bool]:
        return [label.uses_truth for label in Reference(sheet, 0.05, Stream(seed))(groups, Bounds())]

    assert sum(known(0)) / 2000 == pytest.approx(0.05, abs=0.02)
    assert known(0) == known(0) != known(1)
    assert all(label.uses_truth for label in Reference(sheet)(groups, Bounds()))


def test_a_safety_net_says_in_every_group_who_decided(tmp_path: Path) -> None:
    options = {**SMALL, "labels.source": "first_of", "reference.frac": 0.2}
    ledger = read(train_to_end(config(tmp_path, "a", options)).folder)
    assert (ledger.header["label_free"], ledger.header["truth_channels"]) == (False, ["first_of.sources=reference"])
    assert ledger.header["answers_hash"] is not None
    decided = [one.label for step in ledger.group_steps() for one in ledger.groups(step) if one.label.is_decided]
    assert {(label.source, label.uses_truth) for label in decided} == {("reference", True), ("ema", False)}
    assert 0.1 < sum(label.uses_truth for label in decided) / len(decided) < 0.3


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        ({"labels.source": "first_of", "first_of.sources": ["verifier", "reference", "majority"]}, ["first_of.sources=verifier", "first_of.sources=reference"]),
        (
            {"labels.source": "first_of", "first_of.sources": ["mixture", "majority"], "mixture.weights": {"majority": 1, "reference": 1}},
            ["mixture.weights=reference"],
        ),
        ({"labels.source": "mixture", "mixture.weights": {"majority": 1, "verifier": 1}}, ["mixture.weights=verifier"]),
        ({"labels.source": "gate"}, []),
        ({"labels.source": "majority", "mixture.weights": {"majority": 1, "reference": 1}}, []),
    ],
)
def test_every_channel_of_truth_in_a_composition_is_named(options: Mapping[str, Any], channels: list[str]) -> None:
    assert truth_channels(load_config(overrides={"policy.model": "toy", **options})) == channels


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels.source": "first_of", "first_of.sources": ["verifier", "majority"]}, "first_of.sources = verifier, the toy's problems"),
        ({"labels.source": "first_of", "first_of.sources": ["majority", "first_of"]}, "a composition would hold itself"),
        ({"labels.source": "mixture", "mixture.weights": {"majority": 1, "mixture": 1}}, "a composition would hold itself"),
        ({"labels.source": "first_of", "first_of.sources": ["majority", "majority"]}, "a source stands there twice"),
        ({"labels.source": "first_of", "first_of.sources": ["majority", "majorty"]}, "did you mean majority?"),
        ({"labels.source": "mixture", "reward.rule": "share"}, "gives the rewards itself"),
    ],
)
def test_what_cannot_be_composed_is_said_before_the_first_sample(tmp_path: Path, options: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        start(config(tmp_path, "a", {**SMALL, **options}))
    assert words in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_a_safety_net_without_answers_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        make_labelling(load_config(overrides={"policy.model": "toy", "labels.source": "first_of"}), PromptSet((), AnswerSheet({}), "nowhere"))
    assert (caught.value.given, "answer-field" in caught.value.do) == ("first_of.sources = reference", True)
