"""Every label source in a whole run on the toy policy: repeated, resumed, replayed, and blind to true answers unless it says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selftrain.ledger import Status, read, verify
from selftrain.replay import replay
from selftrain.run import read_config, resume, start, train_to_end
from selftrain.train import StepReport
from tests.recorded import RecordedRuns
from tests.test_train import SMALL, change_all_truth, config, files_of, finish

LABEL_FREE: Mapping[str, Mapping[str, Any]] = {
    "random": {"labels.source": "random"},
    "format_only": {"labels.source": "format_only"},
    "inverted": {"labels.source": "inverted"},
    "ema": {"labels.source": "ema"},
    "second_view": {"labels.source": "second_view", "second_view.rule": "crossed"},
    "second_view, paraphrased": {"labels.source": "second_view", "second_view.wording": "paraphrase"},
    "ema and frozen": {"labels.source": "mixture", "mixture.weights": {"ema": 1.0, "frozen": 1.0, "second_view": 1.0}},
    "views": {"labels.source": "views", "views.min_agreeing": 2},
    "views of the average": {"labels.source": "views", "views.voter": "ema", "views.rule": "mean"},
    "views of the start, else the vote": {"labels.source": "first_of", "first_of.sources": ["views", "majority"], "views.voter": "base"},
    "token_entropy": {"labels.source": "token_entropy", "policy.model": "toy:sure", "advantage.rule": "grpo"},
    "self_certainty": {"labels.source": "self_certainty", "policy.model": "toy:sure"},
    "majority and self_certainty": {"labels.source": "mixture", "mixture.weights": {"majority": 1.0, "self_certainty": 0.5}, "policy.model": "toy:sure"},
    "gate, else token_entropy": {"labels.source": "first_of", "first_of.sources": ["gate", "token_entropy"], "policy.model": "toy:sure"},
    "self_judge": {"labels.source": "self_judge", "self_judge.num_judgements": 3},
    "self_judge by the start": {"labels.source": "self_judge", "self_judge.policy": "base", "labels.clustering": "text"},
    "self_judge among others": {
        "labels.source": "mixture",
        "mixture.weights": {"self_judge": 1.0, "ema": 1.0, "token_entropy": 0.2},
        "self_judge.policy": "ema",
        "policy.model": "toy:sure",
    },
    "restrained": {"labels.source": "restrained", "restrained.min_share_frac": 0.4},
    "restrained, weighted prompts": {"labels.source": "restrained", "restrained.prompt_sigma_frac": 0.5},
    "novelty": {"labels.source": "novelty", "novelty.num_chars": 3},
    "mixture": {"labels.source": "mixture"},
    "mixture that remembers": {"labels.source": "mixture", "mixture.weights": {"flip_damped": 2.0, "random": 1.0}, "policy.model": "toy:weak"},
    "first_of": {"labels.source": "first_of", "first_of.sources": ["gate", "restrained"]},
    "gate": {"labels.source": "gate", "gate.conditions": ["share", "halves", "base"], "gate.min_share_frac": 0.4},
    "gate, second view and average": {"labels.source": "gate", "gate.conditions": ["second_view", "ema", "base"]},
    "flip_damped": {"labels.source": "flip_damped", "policy.model": "toy:weak"},
}
RUNS = {
    **LABEL_FREE,
    "reference for a fifth": {"labels.source": "reference", "reference.frac": 0.2},
    "first_of with a safety net": {"labels.source": "first_of", "reference.frac": 0.2},
    "mixture with the truth": {"labels.source": "mixture", "mixture.weights": {"majority": 1.0, "reference": 1.0}},
}
every_source = pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
QUICK = {"guard.action": "warn", **SMALL, "run.num_steps": 8, "rollout.prompts_per_step": 8, "prompts.count": 16}
"""each prompt is drawn four times"""


@every_source
def test_a_run_that_was_cut_off_ends_like_one_that_was_not_and_follows_from_its_completions(
    tmp_path: Path, options: Mapping[str, Any], recorded_run: RecordedRuns
) -> None:
    expected = recorded_run({**QUICK, **options})
    run = start(config(tmp_path, "cut", {**QUICK, **options}))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 4:
            break
    run.ledger.close()
    outcome = finish(resume(tmp_path / "cut"))
    assert (outcome.head, outcome.handed_over) == (expected.head, expected.handed_over)
    assert verify(outcome.folder).status is Status.INTACT
    found = replay(read(outcome.folder), read_config(outcome.folder))
    assert found.agrees, found.groups.mismatches
    assert found.groups.num_groups == 8 * 8


@pytest.mark.parametrize("options", LABEL_FREE.values(), ids=LABEL_FREE)
def test_a_label_free_source_is_blind_to_true_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Mapping[str, Any], recorded_run: RecordedRuns
) -> None:
    """Design law 1, as in tests/test_train.py: with all true answers changed, ledger and checkpoints are the same byte for byte."""
    honest = recorded_run({**QUICK, **options})
    assert (read(honest.folder).header["label_free"], read(honest.folder).header["truth_channels"]) == (True, [])
    change_all_truth(monkeypatch)
    blind = train_to_end(config(tmp_path, "b", {**QUICK, **options}))
    assert files_of(honest.folder) == files_of(blind.folder)
    assert honest.before != blind.before


@pytest.mark.parametrize("where", ["reward", "loss"])
def test_completions_that_are_all_cut_off_train_where_a_source_rewards_them(tmp_path: Path, where: str) -> None:
    """The random control looks at nothing, so a run of truncated completions learns from them like any other."""
    options = {**QUICK, "run.num_steps": 2, "labels.source": "random", "rollout.max_new_tokens": 1}
    outcome = train_to_end(config(tmp_path, "a", {**options, "objective.kl_in": where, "objective.kl_estimator": "k2"}))
    ledger = read(outcome.folder)
    assert {reason for one in ledger.groups(0) for reason in one.rewards.reasons} == {"drawn_0", "drawn_1"}
    assert all(step.metrics.values["completion/truncated_frac"] == 1 and step.metrics.values["update/grad_norm"] > 0 for step in ledger.steps())
    assert replay(ledger, read_config(outcome.folder)).agrees
