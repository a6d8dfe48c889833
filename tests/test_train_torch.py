"""The whole loop on the embedded model: the same config twice, SIGKILL and resume, KL, true answers shuffled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.ledger import read
from selftrain.policies.torch.average import EMA_FILE
from selftrain.replay import replay
from selftrain.run import Outcome, Run, read_config, resume, start, train_to_end
from selftrain.train import StepReport
from selftrain.types import Role
from tests.killing import cut_off_and_resumed, killed_and_resumed

SMALL = {
    "labels.source": "majority",
    "run.num_steps": 6,
    "run.checkpoint_every_steps": 2,
    "policy.num_threads": 1,
    "prompts.count": 64,
    "rollout.prompts_per_step": 4,
    "rollout.num_votes": 4,
    "rollout.max_new_tokens": 24,
    "probes.num_prompts": 4,
    "evals.num_problems": 4,
    "evals.num_samples": 2,
    "prompts.task": "add:2",
}


def config(tmp_path: Path, name: str, options: Mapping[str, Any] = SMALL, **more: Any) -> RunConfig:
    return load_config(overrides={**options, "run.folder": str(tmp_path), "run.name": name, **{key.replace("__", "."): value for key, value in more.items()}})


def finish(run: Run) -> Outcome:
    return next(event for event in run.events() if isinstance(event, Outcome))


def weights(outcome: Outcome) -> bytes:
    return (Path(outcome.path) / "model.safetensors").read_bytes()


def test_the_same_config_twice_and_an_interrupted_one_are_the_same(tmp_path: Path) -> None:
    first, second = (finish(start(config(tmp_path, name))) for name in ("a", "b"))
    assert first.reason == "done"
    assert read(first.folder).header["class"] == "exact"
    assert (first.head, weights(first)) == (second.head, weights(second))
    run = start(config(tmp_path, "c"))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 2:
            run.stop()
    third = finish(resume(tmp_path / "c"))
    assert (first.head, weights(first)) == (third.head, weights(third))
    assert first.after == third.after


@pytest.mark.parametrize(
    "options", [{"objective.kl_in": "reward"}, {"objective.kl_in": "loss", "objective.kl_estimator": "k2", "update.num_epochs": 2}], ids=str
)
def test_drift_is_measured_against_the_start_also_after_a_resume(tmp_path: Path, options: Mapping[str, Any]) -> None:
    chosen = {**SMALL, "run.num_steps": 4, **options, "objective.kl_coef": 0.1, "update.learning_rate": 1e-3}
    whole = train_to_end(config(tmp_path, "whole", chosen))
    assert cut_off_and_resumed(config(tmp_path, "cut", chosen), step=1).head == whole.head
    key = "reward/kl_penalty_mean_nats" if "kl_estimator" not in str(options) else "update/kl_loss_nats"
    drift = [abs(step.metrics.values[key]) for step in read(whole.folder).steps() if key in step.metrics.values]
    assert drift[0] < max(drift[1:])


@pytest.mark.parametrize(
    ("options", "role"),
    [
        ({"labels.source": "frozen"}, Role.TEACHER),
        ({"labels.source": "ema"}, Role.TEACHER),
        ({"labels.clustering": "judge"}, Role.JUDGE),
        ({"labels.source": "self_judge", "self_judge.max_new_tokens": 4}, Role.JUDGE),
    ],
    ids=str,
)
def test_extra_samples_are_drawn_again_after_a_resume_and_replayed(tmp_path: Path, options: Mapping[str, Any], role: Role) -> None:
    chosen = {**SMALL, "run.num_steps": 3, "run.checkpoint_every_steps": 1, **options, "judge.max_pairs": 2, "judge.max_new_tokens": 4}
    whole = train_to_end(config(tmp_path, "whole", chosen))
    assert cut_off_and_resumed(config(tmp_path, "cut", chosen), step=1).head == whole.head
    ledger = read(whole.folder)
    voted = [one.voted.group for one in ledger.groups(2)]
    extras = [extra.group for group in voted for extra in group.extras]
    assert {group.role for group in extras} == {role}
    current = str(voted[0].completions[0].version)
    judges_itself = options.get("labels.source") == "self_judge"  # the embedded model's grades can hardly be read, so that nothing trains
    assert current == "0:2" or judges_itself
    assert {str(done.version) for group in extras for done in group.completions} == {"0:0" if options.get("labels.source") == "frozen" else current}
    assert replay(ledger, read_config(whole.folder)).agrees


@pytest.mark.parametrize(
    "options", [{}, {"views.templates": ["{prompt}=", "0+{prompt}"], "views.rule": "mean", "labels.min_read_frac": 0.0}], ids=["task", "templates"]
)
def test_the_average_answers_several_wordings(tmp_path: Path, options: Mapping[str, Any]) -> None:
    """Its weights are in the checkpoints; a resumed run ends the same, and the record is replayed."""
    chosen = {**SMALL, "run.num_steps": 3, "run.checkpoint_every_steps": 1, "labels.source": "views", "views.voter": "ema", **options}
    whole = train_to_end(config(tmp_path, "whole", {**chosen, "update.learning_rate": 1e-3}))
    assert cut_off_and_resumed(config(tmp_path, "cut", {**chosen, "update.learning_rate": 1e-3}), step=1).head == whole.head
    averages = [(tmp_path / name / "checkpoints" / "step-000003" / EMA_FILE).read_bytes() for name in ("whole", "cut")]
    assert averages[0] == averages[1]
    ledger = read(whole.folder)
    for one in ledger.groups(2):
        extras = [extra.group for extra in one.voted.group.extras]
        assert [extra.prompt.id for extra in extras] == [f"{one.voted.group.prompt.id} wording {at}" for at in range(3 if options else 2)]
        assert {extra.role for extra in extras} == {Role.TEACHER}
        assert {done.version for extra in extras for done in extra.completions} == {one.voted.group.completions[0].version}
    if not options:  # the embedded model does not answer in other templates, so that nothing trains there
        assert str(ledger.groups(2)[0].voted.group.completions[0].version) == "0:2"
    assert replay(ledger, read_config(whole.folder)).agrees


def test_confidence_is_the_same_after_a_resume_and_follows_from_the_record(tmp_path: Path) -> None:
    """Both kinds at once, from the model's own tokens; the groups train and the model learns."""
    weights = {"token_entropy": 1.0, "self_certainty": 0.1}
    chosen = {**SMALL, "run.num_steps": 3, "run.checkpoint_every_steps": 1, "labels.source": "mixture", "mixture.weights": weights}
    whole = train_to_end(config(tmp_path, "whole", chosen))
    assert cut_off_and_resumed(config(tmp_path, "cut", chosen), step=1).head == whole.head
    ledger = read(whole.folder)
    groups = [one for step in range(3) for one in ledger.groups(step)]
    assert "admitted" in {one.admission.value for one in groups}
    assert all(len(done.certainties) == len(done.token_ids) for one in groups for done in one.voted.group.completions)
    assert all(step.metrics.values["policy/certainty_mean_nats"] > 1 for step in ledger.steps())
    assert replay(ledger, read_config(whole.folder)).agrees


def test_killed_twice(tmp_path: Path) -> None:
    expected = train_to_end(config(tmp_path, "whole"))
    assert killed_and_resumed(config(tmp_path, "cut"), times=2, max_events=3) == 2
    assert read(tmp_path / "cut").head == expected.head
    assert (tmp_path / "cut" / "checkpoints" / expected.handed_over / "model.safetensors").read_bytes() == weights(expected)


def test_a_probe_that_is_drawn_beside_the_votes_is_drawn_again_after_a_resume(tmp_path: Path) -> None:
    chosen = {**SMALL, "probes.every_steps": 2, "guard.action": "warn", "update.learning_rate": 1e-4}
    whole = train_to_end(config(tmp_path, "whole", chosen))
    for step in (3, 4):
        assert cut_off_and_resumed(config(tmp_path, f"cut-{step}", chosen), step=step).head == whole.head
    ledger = read(whole.folder)
    probed = {step: ledger.probed(step) for step in (2, 4)}
    assert [{str(done.version) for one in found for done in one.group.completions} for found in probed.values()] == [{"0:2"}, {"0:4"}]
    assert replay(ledger, read_config(whole.folder)).agrees


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_ten_times(tmp_path: Path) -> None:
    options = {**SMALL, "run.num_steps": 40, "run.checkpoint_every_steps": 1}
    expected = train_to_end(config(tmp_path, "whole", options))
    assert killed_and_resumed(config(tmp_path, "cut", options), times=10, max_events=4) == 10
    assert read(tmp_path / "cut").head == expected.head
    assert (tmp_path / "cut" / "checkpoints" / expected.handed_over / "model.safetensors").read_bytes() == weights(expected)
