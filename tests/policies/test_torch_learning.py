"""What is learned: the gradient of the written loss, whatever the batches, and nothing when it is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, log, nan
from pathlib import Path

import pytest
import torch
from torch_models import FAMILIES, NEWER, groups_of, policy_of, samples_of, write_model

from selftrain.errors import UpdateError
from selftrain.objective import Objective
from selftrain.policies.torch import TorchPolicy, behind, scoring
from selftrain.policies.torch.logprobs import score
from selftrain.policies.torch.trees import TokenSequence
from selftrain.types import PolicyVersion, TrainingSample

REINFORCE = Objective()
CLIPPED_KL = Objective("clipped", kl_coef=0.1, kl_estimator="k3", temperature=0.8)


def gradient_of(policy: TorchPolicy, samples: Sequence[TrainingSample], objective: Objective) -> dict[str, torch.Tensor]:
    policy.learner.optimizer.zero_grad(set_to_none=True)
    policy.learner.accumulate(samples, objective)
    return {name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for name, weight in policy.learner.weights.items()}


def naive_gradient(policy: TorchPolicy, samples: Sequence[TrainingSample], objective: Objective) -> dict[str, torch.Tensor]:
    """One sample at a time, whole logits, autograd through the value of the loss."""
    policy.learner.optimizer.zero_grad(set_to_none=True)
    for sample in samples:
        logits_TV = policy.forward.model(torch.tensor([sample.prompt_ids + sample.token_ids])).logits[0, len(sample.prompt_ids) - 1 : -1]
        logprobs_T = (logits_TV / objective.temperature).log_softmax(-1)[range(len(sample.token_ids)), sample.token_ids]
        reference_T = torch.tensor(sample.ref_logprobs) if objective.kl_coef else None
        value_T = objective.token_loss(torch, logprobs_T, torch.tensor(sample.logprobs), torch.tensor(sample.advantages), reference_T).value
        (value_T * torch.tensor(sample.mask) * sample.scale).sum().backward()
    return {name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for name, weight in policy.learner.weights.items()}


def largest_gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def with_other_logprobs(policy: TorchPolicy, temperature: float = 1.0) -> list[TrainingSample]:
    """Samples whose sampling log-probabilities lie up to 0.4 nats beside the learner's, with reference log-probabilities."""
    groups = groups_of(policy, temperature=temperature)
    samples = samples_of(groups, policy.reference_logprobs(groups, temperature))
    return [
        replace(
            sample,
            logprobs=tuple(value + 0.2 * (at % 5 - 2) for at, value in enumerate(sample.logprobs)),
            ref_logprobs=tuple(value - 0.3 for value in sample.ref_logprobs),
        )
        for sample in samples
    ]


@pytest.mark.parametrize("family", [*FAMILIES, *NEWER])
@pytest.mark.parametrize("objective", [REINFORCE, CLIPPED_KL], ids=["reinforce", "clipped_kl"])
def test_gradient_equals_the_naive_one(family: str, objective: Objective, tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path, family))
    samples = with_other_logprobs(policy, objective.temperature)
    assert largest_gap(gradient_of(policy, samples, objective), naive_gradient(policy, samples, objective)) < 1e-5


def test_microbatches_sum_to_the_batch_and_padding_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path)
    whole, cut = policy_of(source), policy_of(source, update={"tokens_per_microbatch": 40})
    samples = with_other_logprobs(whole)
    gradient = gradient_of(whole, samples, REINFORCE)
    assert largest_gap(gradient_of(cut, samples, REINFORCE), gradient) < 1e-6
    assert largest_gap(gradient_of(whole, samples[::-1], REINFORCE), gradient) < 1e-6
    one_by_one = [gradient_of(whole, [sample], REINFORCE) for sample in samples]
    assert largest_gap({name: sum(part[name] for part in one_by_one) for name in gradient}, gradient) < 1e-6
    monkeypatch.setitem(scoring.LOGITS_AT_ONCE, "cpu", 48 * 7)  # seven positions at a time
    assert largest_gap(gradient_of(whole, samples, REINFORCE), gradient) < 1e-6


def test_microbatch_plan_keeps_the_budget() -> None:
    assert scoring.microbatches([3, 10, 3, 9, 30], 20) == [[4], [1, 3], [0, 2]]
    assert scoring.microbatches([100, 80, 80, 73], 400) == [[0], [1, 2, 3]]  # 100 fills an eighth and 80 would pad; 73 would pad too little to cut
    assert scoring.microbatches([120, 20, 20, 8], 2000) == [[0], [1, 2], [3]]  # half as long is too much padding, however little there is
    assert scoring.microbatches([100, 80, 69], 400, 0.7) == [[0, 1], [2]]
    assert scoring.microbatches([], 20) == []


def test_loss_by_hand(tmp_path: Path) -> None:
    """A model of zero weights gives every one of 48 tokens log-probability -log 48."""
    policy = policy_of(write_model(tmp_path))
    with torch.no_grad():
        for weight in policy.learner.weights.values():
            weight.zero_()
    level = -log(48)
    sample = TrainingSample((4, 5), (6, 7, 8, 2), (1.0, -2.0, 3.0, 1.0), (True, True, False, True), (level,) * 4, (), 0.5, 0, PolicyVersion(0, 0))
    stats = policy.learner.accumulate([sample], REINFORCE)
    assert stats.loss == pytest.approx(-0.5 * (1 - 2 + 1), abs=1e-6)
    assert (stats.tokens, stats.clipped) == (3, 0)
    assert stats.gap_nats == pytest.approx(0, abs=1e-5)
    doubled = replace(sample, logprobs=(level - log(2),) * 4, ref_logprobs=(level - 0.1,) * 4)  # every ratio is 2
    stats = policy.learner.accumulate([doubled], Objective("clipped", kl_coef=0.5, kl_estimator="k2"))
    assert stats.loss == pytest.approx(0.5 * (-1.2 + 4.0 - 1.2 + 3 * 0.5 * 0.005), abs=1e-5)
    assert (stats.clipped, stats.ratio_max) == (2, pytest.approx(2))
    assert stats.kl_nats == pytest.approx(3 * 0.005, abs=1e-5)


def test_slope_equals_finite_differences(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    samples = [replace(sample, scale=1.0) for sample in with_other_logprobs(policy)]
    gradient = gradient_of(policy, samples, REINFORCE)
    generator = torch.Generator().manual_seed(0)
    direction = {name: torch.randn(weight.shape, generator=generator) for name, weight in policy.learner.weights.items()}
    direction["model.embed_tokens.weight"][0] = 0  # transformers gives the pad token's embedding no gradient
    losses = []
    for step in (2e-4, -4e-4):
        with torch.no_grad():
            for name, weight in policy.learner.weights.items():
                weight.add_(direction[name], alpha=step)
        losses.append(policy.learner.accumulate(samples, REINFORCE).loss)
    slope = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
    assert (losses[0] - losses[1]) / 4e-4 == pytest.approx(slope, rel=1e-2)


def test_one_step_is_adamw_by_hand(tmp_path: Path) -> None:
    """The first step of AdamW moves every weight by lr against the sign of its gradient; matrices decay, vectors do not."""
    policy = policy_of(write_model(tmp_path), update={"weight_decay": 0.1, "max_grad_norm": 1e9})
    samples = samples_of(groups_of(policy))
    gradient = gradient_of(policy, samples, REINFORCE)
    before = {name: weight.detach().clone() for name, weight in policy.learner.weights.items()}
    stats = policy.update(samples, REINFORCE, 1e-3)
    for name, weight in policy.learner.weights.items():
        decayed = before[name] * (1 - 1e-3 * 0.1) if weight.ndim > 1 else before[name]
        expected = decayed - 1e-3 * gradient[name] / (gradient[name].abs() + 1e-8)
        torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=0)
    assert stats.grad_norm == pytest.approx(sum(float((part**2).sum()) for part in gradient.values()) ** 0.5, rel=1e-5)
    assert stats.num_tokens == sum(sum(sample.mask) for sample in samples)
    assert (stats.learning_rate, policy.version) == (1e-3, PolicyVersion(0, 1))


def test_an_update_raises_what_was_rewarded(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    groups = groups_of(policy)
    first = groups[0].completions[0]
    samples = [replace(sample, advantages=(float(sample.token_ids == first.token_ids) or -0.2,) * len(sample.token_ids)) for sample in samples_of(groups)]
    policy.update(samples, REINFORCE, 1e-3)
    after = score(policy.forward, [TokenSequence(groups[0].prompt_ids, first.token_ids, range(len(first.token_ids)))], 1.0, 4096)[0]
    assert sum(after) > sum(first.logprobs)


def test_clipping_bounds_the_gradient_that_is_applied(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path), update={"max_grad_norm": 0.01})
    samples = samples_of(groups_of(policy))
    stats = policy.update(samples, REINFORCE, 1e-3)
    moments = [policy.learner.optimizer.state[weight]["exp_avg"] for weight in policy.learner.weights.values()]
    assert stats.grad_norm > 0.1
    assert float(torch.nn.utils.get_total_norm(moments)) == pytest.approx(0.01 * (1 - 0.9), rel=1e-3)


@pytest.mark.parametrize("broken", [{"advantages": nan}, {"advantages": inf}, {"logprobs": -inf}], ids=str)
def test_an_update_that_is_not_finite_is_refused_before_a_weight_moves(broken: dict[str, float], tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    samples = samples_of(groups_of(policy))
    before = policy.weights_hash()
    name, value = next(iter(broken.items()))
    bad = replace(samples[3], **{name: (value, *getattr(samples[3], name)[1:])})
    with pytest.raises(UpdateError, match="none has moved"):
        policy.update([*samples[:3], bad, *samples[4:]], REINFORCE, 1e-3)
    assert policy.weights_hash() == before
    assert policy.version == PolicyVersion(0, 0)
    assert not policy.learner.optimizer.state
    policy.update(samples, REINFORCE, 1e-3)
    assert policy.weights_hash() != before


def test_samples_without_signal_are_not_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(write_model(tmp_path))
    samples = samples_of(groups_of(policy))
    silent = [replace(sample, advantages=(0.0,) * len(sample.advantages)) for sample in samples[:4]]
    gradient = gradient_of(policy, samples[4:], REINFORCE)
    assert largest_gap(gradient_of(policy, silent + samples[4:], REINFORCE), gradient) == 0
    monkeypatch.setattr(policy.forward, "hidden", None)
    assert policy.update(silent, REINFORCE, 1e-3).num_tokens == 0


def test_stale_samples_are_refused_unless_the_config_makes_several_updates(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    policy, several = policy_of(source), policy_of(source, update={"num_minibatches": 2})
    for each in (policy, several):
        samples = samples_of(groups_of(each))
        each.update(samples, REINFORCE, 1e-3)
        if each is policy:
            with pytest.raises(UpdateError, match="version 0:0 for the learner at 0:1"):
                each.update(samples, REINFORCE, 1e-3)
        else:
            assert each.update(samples, REINFORCE, 1e-3).logprob_gap_nats > 1e-4
            with pytest.raises(UpdateError, match="at most 1 updates old"):
                each.update(samples, REINFORCE, 1e-3)
    several.start_branch(1)
    assert several.version == PolicyVersion(1, 2)
    with pytest.raises(UpdateError, match="same branch"):
        several.update([replace(sample, version=PolicyVersion(0, 2)) for sample in samples], REINFORCE, 1e-3)
    with pytest.raises(UpdateError, match="without samples"):
        policy.update([], REINFORCE, 1e-3)


def test_reference_is_the_start_after_updates(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    groups = groups_of(policy)
    policy.update(samples_of(groups), REINFORCE, 1e-2)
    for group, references in zip(groups, policy.reference_logprobs(groups, 1.0), strict=True):
        for done, reference in zip(group.completions, references, strict=True):
            assert reference == pytest.approx(done.logprobs, abs=1e-4)


def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    plain, saving = policy_of(source), policy_of(source, {"gradient_checkpointing": True})
    samples = samples_of(groups_of(plain))
    # another order of summation: with checkpointing prompts are not shared
    assert largest_gap(gradient_of(saving, samples, REINFORCE), gradient_of(plain, samples, REINFORCE)) < 5e-6
    assert not saving.forward.model.training


def test_bfloat16_arithmetic_keeps_float32_weights(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path), {"dtype": "bfloat16"})
    samples = samples_of(groups_of(policy))
    stats = policy.update(samples, REINFORCE, 1e-3)
    assert 0 < stats.logprob_gap_nats < 0.1
    assert {weight.dtype for weight in policy.learner.weights.values()} == {torch.float32}


def test_the_same_update_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    hashes = []
    for _ in range(2):
        policy = policy_of(source)
        for step in range(2):
            policy.update(samples_of(groups_of(policy, step=step)), REINFORCE, 1e-3)
        hashes.append(policy.weights_hash())
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget_tokens", [1, 40, 4096])
def test_completions_are_scored_behind_prompts_that_are_run_once(family: str, budget_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(write_model(tmp_path, family))
    groups = groups_of(policy, temperature=0.8)
    run: list[tuple[int, ...]] = []
    made = behind.Prompts.__init__

    def counted(self: behind.Prompts, forward: object, prompts: Sequence[tuple[int, ...]]) -> None:
        run.extend(prompts)
        made(self, forward, prompts)  # type: ignore[arg-type]

    monkeypatch.setattr(behind.Prompts, "__init__", counted)
    # some tokens only, a sequence without any, and prompts mixed up
    sequences = [
        TokenSequence(group.prompt_ids, done.token_ids, range(0, len(done.token_ids), 1 + at % 2) if at != 1 else ())
        for at in range(len(groups[0].completions))
        for group in groups
        for done in [group.completions[at]]
    ]
    found = score(policy.forward, sequences, 0.8, budget_tokens)
    assert sorted(run) == sorted({group.prompt_ids for group in groups})
    for sequence, values in zip(sequences, found, strict=True):
        logits_TV = policy.forward.model(torch.tensor([sequence.prompt_ids + sequence.token_ids])).logits[0, len(sequence.prompt_ids) - 1 : -1]
        expected_T = (logits_TV / 0.8).log_softmax(-1)[range(len(sequence.token_ids)), sequence.token_ids].tolist()
        assert values == pytest.approx([expected_T[at] for at in sequence.wanted], abs=1e-4)
