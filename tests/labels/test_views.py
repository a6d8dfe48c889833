"""Views: several wordings vote together. Means worked out by hand, who answers, and whole runs that are replayed, cut off, killed and rolled back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selftrain import compose
from selftrain.calibration.evidence import follows
from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.labels import Bounds
from selftrain.labels.ema import Ema
from selftrain.labels.frozen import Frozen
from selftrain.labels.means import MEANS, arithmetic_means, by_mean, harmonic_means
from selftrain.labels.second_view import RULES, SecondView
from selftrain.labels.views import Views, Voter
from selftrain.ledger import read
from selftrain.policies.base import ExtraRequest, SampleRequest, SamplingParams
from selftrain.policies.toy import ToyPolicy
from selftrain.prompts.wordings import TaskWording, TemplateWording
from selftrain.replay import replay
from selftrain.rollout import read_and_count
from selftrain.run import read_config, start, train_to_end
from selftrain.seeds import Stream
from selftrain.train import StepReport
from selftrain.types import AnswerSheet, Message, PolicyVersion, Prompt, PromptSet, Role, ScoredGroup, VotedGroup
from selftrain.types import Outcome as Decision
from tests.builders import group, voted
from tests.killing import assert_a_rollback_takes_the_average_back, assert_it_ends_the_same
from tests.recorded import RecordedRuns
from tests.test_extras import groups_of
from tests.test_second_view import assert_labels_beat_the_vote
from tests.test_train import SMALL, config

A, B, C, D = "1", "2", "3", "4"
VIEWS = {**SMALL, "rollout.prompts_per_step": 4, "rollout.num_votes": 8, "labels.source": "views"}
AVERAGED = {**VIEWS, "views.voter": "ema"}
START = {**VIEWS, "views.voter": "base", "views.rule": "mean", "views.templates": ["{prompt} again"], "views.min_agreeing": 2}
VOTERS = pytest.mark.parametrize("options", [VIEWS, AVERAGED, START], ids=["current", "ema", "base"])
EVERYBODY: tuple[Voter, ...] = ("current", "ema", "base")
THREE = [TemplateWording("{prompt} Think.", {}), TemplateWording("So: {prompt}", {})]


def votes_of(*views: Sequence[str | None]) -> list[Any]:
    return [voted(view).vote for view in views]


def test_both_means_of_three_wordings_by_hand() -> None:
    """A: shares 3/4, 1/2 and 1/4. B: 1/4, 1/4 and 0. The fourth completion of the second wording and two of the third are not read."""
    votes = votes_of([A, A, A, B], [A, A, B, None], [A, C, None, None])
    assert harmonic_means(votes) == {A: Fraction(9, 22)}
    assert arithmetic_means(votes) == {A: Fraction(1, 2), B: Fraction(1, 6), C: Fraction(1, 12)}


def test_the_harmonic_mean_of_two_wordings_is_that_of_second_view() -> None:
    first, second = votes_of([A, A, A, B, B], [A, B, B, B, None])
    assert harmonic_means([first, second]) == {A: Fraction(3, 10), B: Fraction(12, 25)}
    assert by_mean([first, second], harmonic_means, Bounds()) == RULES["harmonic"](first, second, Bounds()) == (Decision.DECIDED, B)


@pytest.mark.parametrize(
    ("views", "harmonic", "mean"),
    [
        ([[A, A, A, B], [A, A, B, C], [A, D, D, D]], (Decision.DECIDED, A), (Decision.DECIDED, A)),
        ([[A] * 6 + [B] * 2, [A, C, D, None, B, B, B, B]], (Decision.DECIDED, B), (Decision.DECIDED, A)),  # 3/14 and 1/3; 7/16 and 6/16
        ([[A, A, A, B], [A, B, B, B]], (Decision.TIE, None), (Decision.TIE, None)),
        ([[A, A, B], [A, A, B], [A, B, B, B, B, B]], (Decision.DECIDED, B), (Decision.TIE, None)),  # 1/3 and 5/12; 1/2 both
        ([[A, A, A, A], [A, A, A, A], [B, B, B, B]], (Decision.VIEWS_DIFFER, None), (Decision.DECIDED, A)),
        ([[A, A, A, A], [None] * 4, [A, A, A, A]], (Decision.NO_ANSWER, None), (Decision.NO_ANSWER, None)),
        ([[A, A, A, A], [A, A, A, A], []], (Decision.NO_ANSWER, None), (Decision.NO_ANSWER, None)),  # no room under that wording
    ],
)
def test_the_label_by_hand(views: list[list[str | None]], harmonic: Any, mean: Any) -> None:
    assert by_mean(votes_of(*views), MEANS["harmonic"], Bounds()) == harmonic
    assert by_mean(votes_of(*views), MEANS["mean"], Bounds()) == mean


def test_the_quorum_holds_for_each_wording_and_the_least_share_for_the_mean() -> None:
    votes = votes_of([A, A, A, B], [A, A, B, None], [A, A, None, None])
    assert by_mean(votes, harmonic_means, Bounds(0.5, 9 / 16)) == (Decision.DECIDED, A)
    assert by_mean(votes, harmonic_means, Bounds(0.5, 0.563)) == (Decision.BELOW_MIN_SHARE, None)
    assert by_mean(votes, harmonic_means, Bounds(0.51, 0.0)) == (Decision.BELOW_QUORUM, None)
    assert by_mean(votes, arithmetic_means, Bounds(0.5, 7 / 12)) == (Decision.DECIDED, A)
    assert by_mean(votes, arithmetic_means, Bounds(0.5, 0.584)) == (Decision.BELOW_MIN_SHARE, None)


@pytest.mark.parametrize(("views", "agreeing"), [([[A, A, B], [A, A, C]], 2), ([[A, A, B], [A, C, C]], 1), ([[A, A, B, B], [A, C, C, C]], 0)])
def test_the_label_must_win_alone_under_enough_wordings(views: list[list[str | None]], agreeing: int) -> None:
    """Where two answers share the first place nobody wins alone."""
    votes = votes_of(*views)
    for needed in range(4):
        expected = (Decision.DECIDED, A) if needed <= agreeing else (Decision.VIEWS_DIFFER, None)
        assert by_mean(votes, harmonic_means, Bounds(), needed) == expected


def with_extras(one: VotedGroup, role: Role, views: dict[str, list[str | None]]) -> VotedGroup:
    made = tuple(read_and_count(replace(group(answers, name, index), role=role)) for index, (name, answers) in enumerate(views.items(), 1))
    return replace(one, group=replace(one.group, extras=(*one.group.extras, *made)))


@pytest.mark.parametrize(("voter", "role"), [("current", Role.VIEW), ("ema", Role.TEACHER), ("base", Role.TEACHER)])
def test_it_asks_once_for_each_wording_and_who_answers_decides(voter: Voter, role: Role) -> None:
    source, one = Views(THREE, harmonic_means, 1, voter), voted([A, A, B])
    own = [] if voter == "current" else [ExtraRequest(0, role, Prompt("p0 wording 0", (Message("user", "p0"),)), 3, voter)]
    worded = [Prompt("p0 wording 1", (Message("user", "p0 Think."),)), Prompt("p0 wording 2", (Message("user", "So: p0"),))]
    further = [ExtraRequest(0, role, prompt, 3, voter) for prompt in worded]
    assert source.requests([one], Bounds()) == [*own, *further]
    served = with_extras(one, role, {"p0 wording 1": [B, B, A], "p0 wording 2": [B, C, A]})
    if voter != "current":
        assert source.requests([served], Bounds()) == own
        assert source([served], Bounds())[0].outcome is Decision.NO_SECOND_VIEW  # as a record that misses it
        served = with_extras(served, role, {"p0 wording 0": [B, B, B]})
    assert source.requests([served], Bounds()) == []
    (label,) = source([served], Bounds())
    words = {"current": "views 0:3", "ema": "average 0:3", "base": "teacher 0:3"}
    if voter == "current":  # A: 3 / (3/2 + 3 + 3) = 2/5, B: 3 / (3 + 3/2 + 3) = 2/5
        assert (label.outcome, label.targets) == (Decision.TIE, (None,) * 3)
    else:
        assert (label.outcome, label.targets) == (Decision.DECIDED, (B,) * 3)
    assert (label.source, label.decided_by, label.uses_truth) == ("views", words[voter], False)
    assert follows(label.decided_by, label.source, load_config(overrides={"views.voter": voter})) == {"current": 1.0, "ema": 0.25, "base": 0.0}[voter]


def test_its_samples_are_not_those_of_another_source() -> None:
    """Each source of a composition looks at its own: none takes another's vote for the one it asked for."""
    one = voted([A, A, B])
    others = with_extras(with_extras(one, Role.TEACHER, {"p0": [A] * 3, "p0 ema": [A] * 3}), Role.VIEW, {"p0 view": [A] * 3})
    assert [len(Views(THREE, harmonic_means, 1, voter).requests([others], Bounds())) for voter in EVERYBODY] == [2, 3, 3]
    mine = with_extras(one, Role.TEACHER, {f"p0 wording {at}": [A] * 3 for at in range(3)})
    mine = with_extras(mine, Role.VIEW, {f"p0 wording {at}": [A] * 3 for at in (1, 2)})
    assert [len(Views(THREE, harmonic_means, 1, voter).requests([mine], Bounds())) for voter in EVERYBODY] == [0, 0, 0]
    for source in (Ema(), Frozen(), SecondView(TaskWording(lambda text: f"{text} again", "{prompt}", {}), RULES["harmonic"])):
        assert len(source.requests([mine], Bounds())) == 1
        assert len(source.requests([others], Bounds())) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "views.templates is empty: 1 training prompts have no second wording of this kind: q ('How many?')"),
        ({}, "for others give --views.templates"),
        ({"views.templates": ["no place"]}, "views.templates = 'no place': it is no named template and has no {prompt}"),
        ({"views.templates": ["boxed", "raw"]}, "views.templates = raw: prompts are put that way already (prompts.template)"),
        ({"views.templates": ["boxed", "boxed"]}, "views.templates = boxed: it stands there twice"),
        ({"views.templates": ["boxed"], "views.min_agreeing": 3}, "a prompt has 2 wordings, its own and 1 more"),
        ({"labels.clustering": "overlap"}, "the answers of the other wordings would be clustered apart"),
        ({"labels.clustering": "judge", "views.voter": "ema"}, "the answers of the teacher would be clustered apart"),
        ({"views.templates": ["boxed", "So: {prompt}"], "views.min_agreeing": 3}, None),
        ({"labels.source": "majority", "labels.clustering": "overlap", "views.min_agreeing": 9}, None),
    ],
)
def test_what_cannot_work_is_said_before_the_first_sample(options: dict[str, Any], words: str | None) -> None:
    prompts = PromptSet((Prompt("q", (Message("user", "How many?"),)),), AnswerSheet({}), "here")
    given = {"prompts.task": "add:2", "labels.source": "views", **options}
    if words is None:
        compose.make_labelling(load_config(overrides=given), prompts)
        return
    with pytest.raises(ConfigError) as caught:
        compose.make_labelling(load_config(overrides=given), prompts)
    assert words in str(caught.value)


@pytest.mark.parametrize("whole", [{"labels.source": "first_of", "first_of.sources": ["views", "majority"]}, {"labels.source": "mixture"}], ids=str)
def test_a_composition_that_holds_it_says_what_cannot_work(whole: dict[str, Any]) -> None:
    prompts = PromptSet((Prompt("q", (Message("user", "How many?"),)),), AnswerSheet({}), "here")
    given = {"prompts.task": "add:2", "mixture.weights": {"views": 1.0, "majority": 1.0}, **whole}
    with pytest.raises(ConfigError, match="have no second wording"):
        compose.make_labelling(load_config(overrides=given), prompts)
    with pytest.raises(ConfigError, match=r"(first_of.sources|mixture.weights) = views, labels.clustering"):
        load_config(overrides={**given, "labels.clustering": "overlap"})


def views_in(one: ScoredGroup, options: dict[str, Any]) -> list[VotedGroup]:
    """The votes that decided about a group, the first wording first."""
    extras = sorted(one.voted.group.extras, key=lambda extra: extra.group.prompt.id)
    return [one.voted, *extras] if options is VIEWS else extras


@VOTERS
def test_a_run_records_every_view_and_is_replayed_without_a_model(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(options)
    for one in groups_of(outcome.folder):
        views, text = views_in(one, options), one.voted.group.prompt.text
        assert [view.group.prompt.text for view in views] == [text, f"{text} again"]
        updates = 0 if options is START else one.voted.group.completions[0].version.updates
        assert {done.version for view in views for done in view.group.completions} == {PolicyVersion(0, updates)}
        agreeing, mean = (2, "mean") if options is START else (1, "harmonic")
        assert by_mean([view.vote for view in views], MEANS[mean], Bounds(0.25), agreeing) == (one.label.outcome, one.label.key)
    for record in read(outcome.folder).steps():
        counted = {name: record.metrics.values.get(f"cost/{name}_tokens", 0) for name in ("vote", "view", "teacher")}
        assert counted == {"vote": 4 * 8 * 2, "view": 4 * 8 * 2 if options is VIEWS else 0, "teacher": 0 if options is VIEWS else 4 * 2 * 8 * 2}
    monkeypatch.setattr(ToyPolicy, "sample", None)
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees


def test_the_average_answers_every_wording(tmp_path: Path) -> None:
    """The samples in the record are those of a policy whose weights are a^t w_0 + (1 - a) sum_s a^(t - s) w_s, and not of the policy."""
    run = start(config(tmp_path, "a", AVERAGED, ema__decay=0.8))
    assert isinstance(run.policy, ToyPolicy)
    weights = [run.policy.weights.copy()]
    for event in run.events():
        if isinstance(event, StepReport):
            weights.append(run.policy.weights.copy())
    scored = groups_of(Path(str(run.folder)))
    for step in (1, 11):
        teacher = ToyPolicy("toy", run.config.update)
        teacher.weights = 0.8**step * weights[0] + 0.2 * sum((0.8 ** (step - at) * weights[at] for at in range(1, step + 1)), np.zeros_like(weights[0]))
        for extra in (extra.group for one in scored[4 * step : 4 * step + 4] for extra in one.voted.group.extras):
            (drawn,) = teacher.sample([SampleRequest(extra.prompt, 8, step, extra.index)], SamplingParams(512), Stream(0, stream="teacher"))
            assert [done.text for done in drawn.completions] == [done.text for done in extra.completions]
            mine, recorded = ([value for done in one.completions for value in done.logprobs] for one in (drawn, extra))
            assert mine == pytest.approx(recorded, abs=1e-5)


@pytest.mark.parametrize("options", [AVERAGED, START], ids=["ema", "base"])
def test_a_run_that_was_cut_off_or_killed_ends_the_same(tmp_path: Path, options: dict[str, Any], recorded_run: RecordedRuns) -> None:
    assert_it_ends_the_same(recorded_run(options), lambda name: config(tmp_path, name, options))


@pytest.mark.parametrize("checkpoint", ["step-000003", "start"])
def test_a_rollback_takes_the_average_back_too(tmp_path: Path, checkpoint: str) -> None:
    assert_a_rollback_takes_the_average_back(config(tmp_path, "a", AVERAGED), checkpoint)


def test_beside_other_sources_everybody_has_samples_of_their_own(tmp_path: Path) -> None:
    weights = dict.fromkeys(("views", "ema", "frozen", "second_view"), 1.0)
    outcome = train_to_end(config(tmp_path, "a", {**AVERAGED, "labels.source": "mixture", "mixture.weights": weights, "run.num_steps": 2}))
    for one in groups_of(outcome.folder):
        own, extras = one.voted.group.prompt.id, one.voted.group.extras
        names = {f"{own} wording 0", f"{own} wording 1", f"{own} ema", f"{own} view", own}
        assert {extra.group.prompt.id for extra in extras} == names
        assert len(extras) == 5
    texts = [
        {extra.group.prompt.id.removeprefix(one.voted.group.prompt.id): [done.text for done in extra.group.completions] for extra in one.voted.group.extras}
        for one in groups_of(outcome.folder)
    ]
    assert any(one[" wording 0"] != one[" ema"] for one in texts)  # one policy, one text, two streams
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees


@pytest.mark.parametrize("voter", EVERYBODY)
def test_labels_that_survive_rewording_are_right_more_often(tmp_path: Path, voter: Voter) -> None:
    """On the weak toy, whose distractor is another one in the second wording, against the plain vote of the policy's completions."""
    assert_labels_beat_the_vote(tmp_path, {"labels.source": "views", "views.voter": voter})
