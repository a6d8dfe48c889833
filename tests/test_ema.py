"""The averaged teacher: the formula by hand on the toy policy, and whole runs that are replayed, cut off, killed and rolled back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.labels import Bounds
from selftrain.labels.ema import Ema
from selftrain.labels.frozen import Frozen
from selftrain.ledger import read
from selftrain.policies.base import ExtraRequest, SampleRequest, SamplingParams
from selftrain.policies.toy import ToyPolicy
from selftrain.replay import replay
from selftrain.run import Outcome, Run, read_config, resume, start, train_to_end
from selftrain.seeds import Stream
from selftrain.train import StepReport
from selftrain.types import Outcome as Decision
from selftrain.types import PolicyVersion, Role
from tests.builders import group, voted
from tests.killing import assert_a_rollback_takes_the_average_back, killed_and_resumed
from tests.test_extras import groups_of
from tests.test_train import SMALL, config, finish

EMA = {**SMALL, "rollout.prompts_per_step": 4, "rollout.num_votes": 8, "labels.source": "ema"}


def test_it_asks_once_and_its_vote_decides_under_the_bounds() -> None:
    one = voted(["1", "2", "2"])
    (asked,) = Ema().requests([one], Bounds())
    assert asked == ExtraRequest(0, Role.TEACHER, replace(one.group.prompt, id="p0 ema"), 3, policy="ema")
    teacher = replace(voted(["5", "5", "6"]), group=replace(group(["5", "5", "6"], "p0 ema", index=1), role=Role.TEACHER))
    frozen = replace(voted(["7", "7", "7"]), group=replace(group(["7", "7", "7"], "p0", index=2), role=Role.TEACHER))
    served = replace(one, group=replace(one.group, extras=(frozen, teacher)))
    assert Ema().requests([served], Bounds()) == Frozen().requests([served], Bounds()) == []
    (label,) = Ema()([served], Bounds())
    assert (label.targets, label.source, label.decided_by, label.uses_truth) == (("5",) * 3, "ema", "average 0:3", False)
    assert Frozen()([served], Bounds())[0].targets == ("7",) * 3
    assert Ema()([served], Bounds(min_share_frac=0.7))[0].outcome is Decision.BELOW_MIN_SHARE


def weights_by_step(run: Run) -> list[Any]:
    assert isinstance(run.policy, ToyPolicy)
    found = [run.policy.weights.copy()]
    for event in run.events():
        if isinstance(event, StepReport):
            found.append(run.policy.weights.copy())
    return found


def test_the_teacher_is_the_moving_average_of_the_weights(tmp_path: Path) -> None:
    """The samples in the record are those of a policy whose weights are a^t w_0 + (1 - a) sum_s a^(t - s) w_s."""
    run = start(config(tmp_path, "a", EMA, ema__decay=0.8))
    weights = weights_by_step(run)
    scored = groups_of(run.folder)  # type: ignore[arg-type]
    assert len(weights) == 13
    for step in (0, 1, 5, 11):
        done = scored[4 * step].voted.group.completions[0].version.updates
        assert done == step
        expected = 0.8**step * weights[0] + 0.2 * sum((0.8 ** (step - at) * weights[at] for at in range(1, step + 1)), np.zeros_like(weights[0]))
        teacher = ToyPolicy("toy", run.config.update)
        teacher.weights = expected
        for one in scored[4 * step : 4 * step + 4]:
            (extra,) = one.voted.group.extras
            request = SampleRequest(extra.group.prompt, 8, step, extra.group.index)
            (drawn,) = teacher.sample([request], SamplingParams(512), Stream(0, stream="teacher"))
            assert [one.text for one in drawn.completions] == [one.text for one in extra.group.completions]
            mine, recorded = ([value for done in sampled.completions for value in done.logprobs] for sampled in (drawn, extra.group))
            assert mine == pytest.approx(recorded, abs=1e-5)
            assert {one.version for one in extra.group.completions} == {PolicyVersion(0, step)}
            assert one.label.decided_by == f"average 0:{step}"


def test_it_is_kept_only_when_somebody_asks(tmp_path: Path) -> None:
    run = start(config(tmp_path, "a", {**EMA, "labels.source": "majority"}))
    finish(run)
    assert isinstance(run.policy, ToyPolicy)
    assert run.policy._average is None


def test_a_decay_near_one_is_the_frozen_start(tmp_path: Path) -> None:
    """Its labels differ from the frozen teacher's by their streams only; with the frozen one's ids they are the same."""
    run = start(config(tmp_path, "a", EMA, ema__decay=1 - 1e-12))
    start_weights = weights_by_step(run)[0]
    assert isinstance(run.policy, ToyPolicy)
    assert run.policy._average == pytest.approx(start_weights, abs=1e-9)
    assert run.policy.weights != pytest.approx(start_weights, abs=1e-2)


def test_everything_follows_from_the_record_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = train_to_end(config(tmp_path, "a", EMA))
    assert all(record.metrics.values["cost/teacher_tokens"] == 4 * 8 * 2 for record in read(outcome.folder).steps())
    monkeypatch.setattr(ToyPolicy, "sample", None)
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees


def test_a_run_that_was_cut_off_or_killed_ends_the_same(tmp_path: Path) -> None:
    whole = start(config(tmp_path, "whole", EMA))
    expected = finish(whole)
    run = start(config(tmp_path, "cut", EMA))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 4:
            run.stop()
    resumed = resume(tmp_path / "cut")
    outcome = next(event for event in resumed.events() if isinstance(event, Outcome))
    assert (outcome.head, outcome.after) == (expected.head, expected.after)
    assert np.array_equal(resumed.policy._average, whole.policy._average)  # type: ignore[attr-defined]
    assert killed_and_resumed(config(tmp_path, "killed", EMA), times=2, max_events=6) == 2
    assert read(tmp_path / "killed").head == expected.head


@pytest.mark.parametrize("checkpoint", ["step-000003", "start"])
def test_a_rollback_takes_the_average_back_too(tmp_path: Path, checkpoint: str) -> None:
    assert_a_rollback_takes_the_average_back(config(tmp_path, "a", EMA), checkpoint)


def test_clusterings_of_a_whole_group_are_refused() -> None:
    with pytest.raises(ConfigError, match="the answers of the teacher would be clustered apart"):
        load_config(overrides={"policy.model": "toy", "labels.source": "ema", "labels.clustering": "judge"})
