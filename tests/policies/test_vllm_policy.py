"""The policy whose samples come from vLLM, on the engine that ships for tests: versions, order of calls, seeds, finishes, offsets, importance weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch_models import PROMPTS, policy_of, requests_for, samples_of, write_model
from transformers import AutoConfig, AutoModelForCausalLM

from selftrain.compose import load_policy
from selftrain.config_load import load_config
from selftrain.errors import ConfigError, MissingExtraError, PromptError, SamplerError
from selftrain.metrics import completion_values
from selftrain.objective import Objective
from selftrain.policies.base import Policy, SamplingParams
from selftrain.policies.torch.text import TextDecoder
from selftrain.policies.torch.transfer import transferred
from selftrain.policies.vllm import VllmPolicy
from selftrain.policies.vllm.fake import FakeEngine
from selftrain.policies.vllm.sampler import VllmSampler
from selftrain.seeds import Stream
from selftrain.train import objective_of
from selftrain.types import Finish, Group, PolicyVersion

SEEDS = Stream(5, stream="sample")
PARAMS = SamplingParams(12)


def engine_of(source: str, policy: Any) -> FakeEngine:
    """An engine that runs the transferred weights in a model of its own."""
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source), dtype=torch.float32).eval()
    held: dict[str, Any] = {}

    def logits(weights: Mapping[str, Any], ids: Sequence[int]) -> Any:
        if held.get("weights") is not weights:
            model.load_state_dict(dict(weights), strict=False)
            held["weights"] = weights
        with torch.inference_mode():
            return model(torch.tensor([list(ids)])).logits[0, -1].numpy()

    return FakeEngine(logits, TextDecoder(policy.tokenizer).decode)


def colocated(source: str, sleep_level: int = 2, options: dict[str, Any] | None = None) -> tuple[VllmPolicy, FakeEngine]:
    learner = policy_of(source, options)
    engine = engine_of(source, learner)
    sampler = VllmSampler(engine.started(), learner.encode, TextDecoder(learner.tokenizer), learner.sampler.stop_ids, 64, sleep_level)
    sampler.sleep()
    return VllmPolicy(learner, sampler, "float32"), engine


def draw(policy: Policy, params: SamplingParams = PARAMS, step: int = 0) -> list[Group]:
    return policy.sample(requests_for(step=step), params, SEEDS)


def test_samples_are_those_of_the_learners_weights_before_and_after_an_update(tmp_path: Path) -> None:
    policy, engine = colocated(write_model(tmp_path))
    assert isinstance(policy, Policy)
    for step in range(2):
        groups = draw(policy, step=step)
        scored = policy.learner.logprobs(groups, 1.0)
        for group, values in zip(groups, scored, strict=True):
            for done, expected in zip(group.completions, values, strict=True):
                assert done.logprobs == pytest.approx(expected, abs=1e-5)
                assert done.version == PolicyVersion(0, step)
        stats = policy.update(samples_of(groups), Objective(weight_max=2.0), 0.05)
        assert stats.logprob_gap_nats < 1e-5
    assert len(engine.weights) == 0  # asleep at level 2: the learner has the memory


TRANSFER = ["reload_weights", "reset_prefix_cache"]
CALLS = {
    0: [*TRANSFER, "generate 12", "generate 12", *TRANSFER, "generate 12"],
    1: [
        "sleep 1",
        *("wake_up weights", *TRANSFER, "wake_up kv_cache", "generate 12", "sleep 1"),
        *("wake_up weights", "wake_up kv_cache", "generate 12", "sleep 1"),
        *("wake_up weights", *TRANSFER, "wake_up kv_cache", "generate 12", "sleep 1"),
    ],
    2: ["sleep 2", *("wake_up weights", *TRANSFER, "wake_up kv_cache", "generate 12", "sleep 2") * 3],
}
"""what the engine is asked for by two samplings of one version, an update and one more sampling, by sleep level"""


@pytest.mark.parametrize("level", CALLS)
def test_weights_are_transferred_when_they_must_be_and_memory_is_given_back(level: int, tmp_path: Path) -> None:
    policy, engine = colocated(write_model(tmp_path), level)
    draw(policy)
    policy.update(samples_of(draw(policy)), Objective(), 0.01)
    draw(policy)
    assert engine.calls == CALLS[level]


def test_the_sampler_refuses_any_other_version(tmp_path: Path) -> None:
    policy, engine = colocated(write_model(tmp_path), sleep_level=0)
    sampler = policy.sampler
    with pytest.raises(SamplerError, match="the engine holds no weights"):
        sampler.sample(requests_for(), PARAMS, SEEDS, policy.version)
    draw(policy)
    with pytest.raises(SamplerError, match="the engine holds 0:0"):
        sampler.sample(requests_for(), PARAMS, SEEDS, PolicyVersion(0, 1))
    with pytest.raises(SamplerError, match="the engine holds 0:0"):
        sampler.sample(requests_for(), PARAMS, SEEDS, PolicyVersion(1, 0))
    assert engine.calls.count("generate 12") == 1


def test_loaded_weights_are_transferred_even_if_their_version_is_the_held_one(tmp_path: Path) -> None:
    source = write_model(tmp_path / "start")
    policy, engine = colocated(source, sleep_level=0)
    other = policy_of(write_model(tmp_path / "other", seed=9))
    other.save(tmp_path / "kept")
    other.save_optimizer(tmp_path / "kept")
    before = draw(policy)
    policy.load(tmp_path / "kept")
    after = draw(policy)
    assert policy.version == PolicyVersion(0, 0)
    assert engine.calls.count("reload_weights") == 2
    assert before != after


def test_the_start_is_transferred_again_even_if_its_version_is_the_held_one(tmp_path: Path) -> None:
    policy, engine = colocated(write_model(tmp_path / "start"), sleep_level=0)
    before = draw(policy)
    policy.restart()
    assert draw(policy) == before
    assert engine.calls.count("reload_weights") == 2


def test_a_failed_transfer_leaves_nothing_to_sample_from(tmp_path: Path) -> None:
    policy, engine = colocated(write_model(tmp_path), sleep_level=0)
    draw(policy)
    policy.start_branch(1)
    engine.reset_prefix_cache = None  # type: ignore[assignment, method-assign]
    with pytest.raises(SamplerError, match="vLLM, taking the learner's weights: TypeError"):
        draw(policy)
    assert policy.sampler.held is None


def test_weights_of_another_model_are_noticed_at_the_first_samples(tmp_path: Path) -> None:
    source = write_model(tmp_path / "start")
    learner = policy_of(source)
    engine = engine_of(source, learner)
    logits = engine.logits
    policy = VllmPolicy(learner, VllmSampler(engine.started(), learner.encode, TextDecoder(learner.tokenizer), learner.sampler.stop_ids, 64, 0), "float32")
    engine.logits = lambda weights, ids: 5 * logits(weights, ids)
    with pytest.raises(SamplerError, match=r"nats from the learner's.*\n?"):
        draw(policy)


def test_every_completion_has_the_seed_of_its_own_stream(tmp_path: Path) -> None:
    policy, engine = colocated(write_model(tmp_path))
    draw(policy, step=7)
    addresses = [(prompt.id, vote) for prompt in PROMPTS for vote in range(4)]
    assert [one.seed for one in engine.params] == [SEEDS.at(step=7, prompt_id=name, index=vote).seed() % 2**63 for name, vote in addresses]
    assert len({one.seed for one in engine.params}) == 12
    again, _ = colocated(write_model(tmp_path))
    assert draw(again, step=7) == draw(policy, step=7)
    engine.params.clear()
    policy.sample([replace(request, seeds=Stream(6)) for request in requests_for(PROMPTS[:1], count=2)], PARAMS, SEEDS)
    assert [one.seed for one in engine.params] == [Stream(6).at(prompt_id=PROMPTS[0].id, index=vote).seed() % 2**63 for vote in range(2)]


def test_what_the_engine_is_asked_for(tmp_path: Path) -> None:
    policy, engine = colocated(write_model(tmp_path))
    draw(policy, SamplingParams(9, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, stop=("a",)))
    one = engine.params[0]
    assert (one.n, one.temperature, one.top_p, one.top_k, one.min_p) == (1, 0.7, 0.9, 5, 0.1)
    assert (one.stop, one.stop_token_ids, one.ignore_eos, one.detokenize, one.logprobs) == (["a"], [2], True, True, 0)
    assert one.max_tokens == 9
    draw(policy, SamplingParams(1000))
    lengths = [len(policy.learner.encode(prompt)) for prompt in PROMPTS for _ in range(4)]
    assert [one.max_tokens for one in engine.params] == [64 - length for length in lengths]
    assert not engine.params[0].detokenize


def test_finishes_texts_and_offsets(tmp_path: Path) -> None:
    policy, _ = colocated(write_model(tmp_path, spread=0.5))
    groups = draw(policy, SamplingParams(20, stop=("7", "b")))
    done = [completion for group in groups for completion in group.completions]
    for one in done:
        ended = one.token_ids[-1] == 2 or "7" in one.text or "b" in one.text
        assert one.finish is (Finish.STOP if ended else Finish.LENGTH)
        assert (len(one.token_ids) == 20) or one.finish is Finish.STOP
        assert len(one.token_ends) == len(one.logprobs) == len(one.token_ids)
        assert one.token_ends[-1] == len(one.text)
    assert {one.finish for one in done} == {Finish.STOP, Finish.LENGTH}
    assert any(one.text.endswith(("7", "b")) for one in done)  # the stop text stays in


def test_greedy_draws_have_the_log_probability_of_certainty(tmp_path: Path) -> None:
    policy, _ = colocated(write_model(tmp_path))
    mine = draw(policy, SamplingParams(12, temperature=0))
    its = draw(policy.learner, SamplingParams(12, temperature=0))
    assert [done.token_ids for group in mine for done in group.completions] == [done.token_ids for group in its for done in group.completions]
    assert {value for group in mine for done in group.completions for value in done.logprobs} == {0.0}


def test_entropies_are_absent_and_their_mean_is_estimated_from_the_samples(tmp_path: Path) -> None:
    policy, _ = colocated(write_model(tmp_path))
    groups = draw(policy)
    done = [completion for group in groups for completion in group.completions]
    assert all(one.entropies == () for one in done)
    scored = [type("Scored", (), {"voted": type("Voted", (), {"group": group})})() for group in groups]
    values = completion_values(scored)  # type: ignore[arg-type]
    expected = -math.fsum(value for one in done for value in one.logprobs) / sum(len(one.logprobs) for one in done)
    assert values["policy/entropy_mean_nats"] == pytest.approx(expected)


@pytest.mark.parametrize("damage", ["no logprobs", "aborted", "other prompt", "too few"])
def test_what_vllm_should_not_give_is_refused(damage: str, tmp_path: Path) -> None:
    policy, engine = colocated(write_model(tmp_path))
    generate = engine.generate

    def damaged(*args: Any, **kwargs: Any) -> list[Any]:
        outputs = generate(*args, **kwargs)
        if damage == "no logprobs":
            outputs[0].outputs[0].logprobs.token_ids[0] += 1
        elif damage == "aborted":
            outputs[0].outputs[0].finish_reason = "abort"
        elif damage == "other prompt":
            outputs[0].prompt_token_ids = [1, 2]
        return outputs[1:] if damage == "too few" else outputs

    engine.generate = damaged  # type: ignore[method-assign]
    with pytest.raises(SamplerError, match="vLLM: it gave"):
        draw(policy)


def test_a_prompt_without_room_is_an_error(tmp_path: Path) -> None:
    policy, _ = colocated(write_model(tmp_path))
    policy.sampler.max_model_tokens = 6
    lengths = {prompt.id: len(policy.learner.encode(prompt)) for prompt in PROMPTS}
    assert policy.too_long(PROMPTS) == [(name, length) for name, length in lengths.items() if length > 5]
    assert policy.too_long(PROMPTS, 100) == policy.too_long(PROMPTS)
    with pytest.raises(PromptError, match="the engine takes 6"):
        draw(policy)


def test_the_start_is_sampled_by_the_learner(tmp_path: Path) -> None:
    policy, engine = colocated(write_model(tmp_path))
    groups = policy.base().sample(requests_for(), PARAMS, SEEDS)
    assert [len(group.completions) for group in groups] == [4, 4, 4]
    assert engine.calls == ["sleep 2"]


@pytest.mark.parametrize(
    ("family", "options"), [("llama", {}), ("llama_tied", {}), ("qwen3", {}), ("llama", {"lora_rank": 4}), ("llama_tied", {"lora_rank": 4})]
)
def test_weights_go_by_the_names_and_values_of_a_checkpoint(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path / "start", family), options)
    policy.update(samples_of(draw(policy)), Objective(), 0.01)
    policy.save(tmp_path / "kept")
    kept = load_file(tmp_path / "kept" / "model.safetensors")
    handed = dict(transferred(policy.forward.model, policy.adapters is not None, "float32"))
    assert set(handed) == set(kept)
    assert all(torch.equal(handed[name], value) for name, value in kept.items())
    assert {weight.dtype for _, weight in transferred(policy.forward.model, False, "bfloat16")} == {torch.bfloat16}


def test_the_engines_samples_get_truncated_weights() -> None:
    """The engine's distribution is the learner's at another temperature: weights above 2 are cut, and the option says where."""
    config = load_config(overrides={"policy.sampler": "vllm", "policy.device": "cuda", "vllm.weight_max": 3.0})
    assert objective_of(config).weight_max == 3.0
    assert objective_of(load_config()).weight_max == math.inf


def test_it_is_refused_before_a_model_is_loaded_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.policies.vllm.policy.find_spec", lambda name: None)
    config = load_config(overrides={"policy.sampler": "vllm", "policy.device": "cuda", "policy.model": "/there/is/no/such/model", "prompts.task": "add:2"})
    with pytest.raises(MissingExtraError, match=r"install selftrain\[vllm\]"):
        load_policy(config)


def test_it_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="vLLM samples on a GPU"):
        load_config(overrides={"policy.sampler": "vllm"})
    with pytest.raises(ConfigError, match="vLLM runs Hugging Face models"):
        load_config(overrides={"policy.sampler": "vllm", "policy.model": "toy", "policy.device": "cuda"})
