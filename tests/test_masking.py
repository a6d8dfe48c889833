"""Masked answers: which tokens by hand, what the learner is given, and that an answer's tokens do not learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.ledger import read
from selftrain.masking import answer_mask
from selftrain.models import folder as embedded_folder
from selftrain.objective import Objective
from selftrain.policies.base import SampleRequest, SamplingParams
from selftrain.policies.toy import STYLES, ToyPolicy
from selftrain.replay import replay
from selftrain.run import read_config, start, train_to_end
from selftrain.scoring import compile_samples
from selftrain.seeds import Stream
from selftrain.types import Admission, Completion, Finish, Label, Message, PolicyVersion, Prompt, Rewards, ScoredGroup
from selftrain.types import Outcome as Decision
from tests.builders import voted
from tests.killing import cut_off_and_resumed
from tests.test_train import SMALL, config, finish

MASKED = {**SMALL, "objective.mask_answer": True}


def written(tokens: Sequence[str], finish: Finish = Finish.STOP) -> Completion:
    ends = tuple(np.cumsum([len(token) for token in tokens]).tolist())
    count = len(tokens)
    return Completion("".join(tokens), tuple(range(count)), (-0.5,) * count, ends, (), finish, PolicyVersion(0, 0))


@pytest.mark.parametrize(
    ("tokens", "masked"),
    [
        (["3", "+", "4", "=", "7", "####", "7", ""], [6]),  # the END token adds no character
        (["3+4=7", "####", "1", "3", "2", ""], [2, 3, 4]),
        (["So ", "\\boxed{", "1", "2}", "."], [2, 3]),  # a token that writes more than the answer is masked whole
        (["So ", "\\box", "ed{12", "}"], [2]),
        (["####", " ", "", "", "½", ""], [2, 3, 4]),  # three bytes of one character: the first two add nothing yet
        (["The answer is", " 12", " apples", "."], [1, 2]),
        (["hm", "..."], []),
        (["7"], [0]),
    ],
)
def test_the_tokens_of_the_answer_by_hand(tokens: list[str], masked: list[int]) -> None:
    assert [at for at, learns in enumerate(answer_mask(written(tokens))) if not learns] == masked


def test_a_truncated_completion_has_no_answer_to_mask() -> None:
    assert answer_mask(written(["####", "7"], Finish.LENGTH)) == (True, True)


def scored(texts: Sequence[Sequence[str]]) -> ScoredGroup:
    one = voted(["1"] * len(texts))
    completions = tuple(written(tokens) for tokens in texts)
    one = replace(one, group=replace(one.group, completions=completions))
    values = tuple(float(at % 2) for at in range(len(texts)))
    label = Label(Decision.DECIDED, ("1",) * len(texts), "majority", "vote 0:0")  # type: ignore[arg-type]
    return ScoredGroup(one, label, Rewards(values, ("match",) * len(texts)), (), values, values, Admission.ADMITTED, tuple(range(len(texts))))


@pytest.mark.parametrize(
    ("norm", "scales"),
    [("tokens", [1 / 5, 1 / 5]), ("sequence", [1 / (2 * 3), 1 / (2 * 2)]), ("max_tokens", [1 / 20, 1 / 20])],
)
def test_length_normalisation_counts_what_is_not_masked(norm: str, scales: list[float]) -> None:
    """3 and 2 tokens are left of 4 and 3; the third completion is nothing but its answer, and is left out."""
    part = [scored([["a", "b", "####", "7"], ["a", "####", "7"], ["7"]])]
    samples = compile_samples(part, {}, norm, 10, mask_answer=True)
    assert [sample.mask for sample in samples] == [(True, True, True, False), (True, True, False)]
    assert [sample.scale for sample in samples] == pytest.approx(scales)
    assert [len(sample.advantages) for sample in samples] == [4, 3]
    plain = compile_samples(part, {}, norm, 10)
    assert [sample.mask for sample in plain] == [(True,) * 4, (True,) * 3, (True,)]
    assert plain[0].scale == pytest.approx({"tokens": 1 / 8, "sequence": 1 / (3 * 4), "max_tokens": 1 / 30}[norm])
    assert compile_samples([scored([["7"], ["8"]])], {}, norm, 10, mask_answer=True) == []


def test_the_answers_of_the_toy_give_no_gradient(tmp_path: Path) -> None:
    """Its second token is `#### 3`, which is masked, or without an answer `hm`, which is not; the style word before it always learns."""
    options = {**MASKED, "update.weight_decay": 0}
    run = start(config(tmp_path, "a", options))
    assert isinstance(run.policy, ToyPolicy)
    before = run.policy.weights.copy()
    request = [SampleRequest(Prompt("toy-1", (Message("user", "toy-1"),)), 32, 0, 0)]
    (group,) = run.policy.sample(request, SamplingParams(4), Stream(0))
    mask = [answer_mask(done) for done in group.completions]
    assert {(done.text.endswith("hm"), flags) for done, flags in zip(group.completions, mask, strict=True)} == {(False, (True, False)), (True, (True, True))}
    finish(run)
    changed = run.policy.weights != before
    assert changed[2 : 2 + len(STYLES)].all()
    stats = [record.updates["0"]["num_tokens"] for record in read(tmp_path / "a").steps() if record.updates]
    whole = start(config(tmp_path, "b", {**options, "objective.mask_answer": False}))
    finish(whole)
    unmasked = [record.updates["0"]["num_tokens"] for record in read(tmp_path / "b").steps() if record.updates]
    assert unmasked[0] / 2 <= stats[0] < unmasked[0]


def test_a_masked_update_of_the_embedded_model_is_the_sum_of_its_unmasked_tokens() -> None:
    """The loss is that of the tokens that are left, and their number is what the statistics say."""
    from selftrain.config import PolicySection, UpdateSection
    from selftrain.policies.torch import load_policy

    policy = load_policy(PolicySection(num_threads=1), UpdateSection(), str(embedded_folder("default")))
    prompt = Prompt("add", (Message("user", "57+80"),))
    (group,) = policy.sample([SampleRequest(prompt, 8, 0, 0)], SamplingParams(48), Stream(3, stream="sample"))
    base = scored([["7"]] * 8)
    one = replace(base, voted=replace(base.voted, group=group))
    samples = compile_samples([one], {}, "tokens", 48, mask_answer=True)
    left = sum(sum(sample.mask) for sample in samples)
    digits = [done.text.rpartition("####")[2] for done in group.completions]
    assert all(digit.isdigit() for digit in digits)
    assert left == sum(len(done.token_ids) for done in group.completions) - sum(map(len, digits))
    stats = policy.update(samples, Objective(), 1e-5)
    with_signal = [sample for sample in samples if any(sample.advantages)]
    assert stats.num_tokens == sum(sum(sample.mask) for sample in with_signal)
    assert stats.loss == pytest.approx(-sum(sum(sample.mask) for sample in with_signal) / left, rel=1e-4)


def test_a_masked_run_is_replayed_and_ends_the_same_when_cut_off(tmp_path: Path) -> None:
    expected = train_to_end(config(tmp_path, "whole", MASKED))
    assert replay(read(expected.folder), read_config(expected.folder)).agrees
    outcome = cut_off_and_resumed(config(tmp_path, "cut", MASKED), step=4)
    assert (outcome.head, outcome.after) == (expected.head, expected.after)


def test_free_form_answers_have_no_place(tmp_path: Path) -> None:
    options: dict[str, Any] = {**MASKED, "labels.clustering": "text"}
    with pytest.raises(ConfigError, match="nothing would be left to learn"):
        load_config(overrides={**options, "run.folder": str(tmp_path)})
