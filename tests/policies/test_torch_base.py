"""The frozen start as a sampler: what the policy was before the first update, whatever it has learned since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch_models import groups_of, policy_of, requests_for, samples_of, write_model

from selftrain.objective import Objective
from selftrain.policies.base import Sampler, SamplingParams
from selftrain.seeds import Stream
from selftrain.types import Group, PolicyVersion

OBJECTIVE = Objective()
HOW = (SamplingParams(12), Stream(5, stream="sample"))


def alike(found: Sequence[Group], expected: Sequence[Group]) -> bool:
    """The same tokens, with log-probabilities equal but for rounding: frozen weights may take another kernel."""
    pairs = [(a, b) for one, other in zip(found, expected, strict=True) for a, b in zip(one.completions, other.completions, strict=True)]
    return all(a.token_ids == b.token_ids and a.logprobs == pytest.approx(b.logprobs, abs=1e-5) for a, b in pairs)


@pytest.mark.parametrize("options", [{}, pytest.param({"lora_rank": 2}, marks=pytest.mark.filterwarnings("ignore"))], ids=["weights", "lora"])
def test_the_start_draws_as_before_the_first_update(tmp_path: Path, options: dict[str, Any]) -> None:
    policy = policy_of(write_model(tmp_path), options)
    base = policy.base()
    assert isinstance(base, Sampler)
    before = groups_of(policy)
    assert alike(base.sample(requests_for(), *HOW), before)
    for _ in range(3):
        policy.update(samples_of(groups_of(policy)), OBJECTIVE, 0.05)
    assert not alike(groups_of(policy), before)
    assert alike(base.sample(requests_for(), *HOW), before)
    assert base.version == PolicyVersion(0, 0)
    assert groups_of(policy)[0].completions[0].version == PolicyVersion(0, 3)


def test_a_resumed_policy_has_the_start_of_the_run(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path / "start"))
    before = groups_of(policy)
    policy.update(samples_of(before), OBJECTIVE, 0.05)
    (tmp_path / "checkpoint").mkdir()
    policy.save(tmp_path / "checkpoint")
    policy.save_optimizer(tmp_path / "checkpoint")
    resumed = policy_of(str(tmp_path / "start"))
    resumed.load(tmp_path / "checkpoint")
    assert groups_of(resumed) == groups_of(policy) != before
    assert alike(resumed.base().sample(requests_for(), *HOW), before)


def test_only_the_context_is_a_limit_where_none_is_given(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    long = requests_for()[0].prompt
    long = type(long)("long", (type(long.messages[0])("user", "a" * 140),))
    assert policy.too_long([requests_for()[0].prompt, long]) == [("long", len(policy.encode(long)))]
    assert policy.too_long([requests_for()[0].prompt], 2) == [("p0", len(policy.encode(requests_for()[0].prompt)))]
