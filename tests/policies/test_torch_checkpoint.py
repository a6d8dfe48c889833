"""What is kept: a folder that `transformers` loads, and everything needed to go on bit for bit; the same under LoRA."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch_models import PROMPTS, groups_of, policy_of, requests_for, samples_of, write_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from selftrain.errors import CheckpointError, MissingExtraError, ModelError, StorageError
from selftrain.objective import Objective
from selftrain.policies.base import SamplingParams
from selftrain.policies.torch import TorchPolicy, lora
from selftrain.policies.torch.loading import quiet
from selftrain.seeds import Stream
from selftrain.types import PolicyVersion

LORA: dict[str, Any] = {"lora_rank": 4, "lora_alpha": 8.0}
ADAPTED = ("llama_tied", "gpt2", "mixtral", "qwen3_moe", "phimoe")
KINDS = pytest.mark.parametrize(
    ("family", "options"), [("llama", {}), ("llama_tied", {}), ("gemma2", {}), ("mixtral", {}), *((family, LORA) for family in ADAPTED)], ids=str
)


def steps(policy: TorchPolicy, begin: int, end: int) -> list[Any]:
    return [policy.update(samples_of(groups_of(policy, step=step)), Objective(), 1e-2) for step in range(begin, end)]


def draws(sampler: Any) -> list[Any]:
    return list(sampler.sample(requests_for(), SamplingParams(12, 1.0), Stream(3)))


def keep(policy: TorchPolicy, folder: Path) -> Path:
    policy.save(folder)
    policy.save_optimizer(folder)
    return folder


@KINDS
def test_a_resumed_policy_goes_on_bit_for_bit(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    source = write_model(tmp_path / "start", family)
    policy = policy_of(source, options)
    steps(policy, 0, 2)
    folder = keep(policy, tmp_path / "kept")
    resumed = policy_of(source, options)
    assert resumed.weights_hash() != policy.weights_hash()
    resumed.load(folder)
    assert (resumed.version, resumed.weights_hash()) == (PolicyVersion(0, 2), policy.weights_hash())
    assert steps(resumed, 2, 4) == steps(policy, 2, 4)
    assert resumed.weights_hash() == policy.weights_hash()


@KINDS
@pytest.mark.parametrize("knows_start", [True, False])
def test_a_policy_that_starts_again_is_a_new_one_bit_for_bit(family: str, options: dict[str, Any], knows_start: bool, tmp_path: Path) -> None:
    source = write_model(tmp_path / "start", family)
    policy, new = policy_of(source, options), policy_of(source, options)
    module, average = policy.forward.model, policy.ema()
    if knows_start:
        policy.reference_logprobs(groups_of(policy), 1.0)
    steps(policy, 0, 2)
    assert policy.weights_hash() != new.weights_hash()
    policy.restart()
    assert (policy.version, policy.weights_hash()) == (PolicyVersion(0, 0), new.weights_hash())
    assert policy.forward.model is module
    assert policy.ema().average is not average.average
    new.ema()
    assert steps(policy, 0, 2) == steps(new, 0, 2)
    assert policy.weights_hash() == new.weights_hash()
    assert [group.completions for group in draws(policy.ema())] == [group.completions for group in draws(new.ema())]


@pytest.mark.parametrize("knows_start", [True, False])
def test_a_policy_in_bfloat16_starts_again_unrounded_and_runs_what_it_holds(knows_start: bool, tmp_path: Path) -> None:
    source, options = write_model(tmp_path / "start"), {"dtype": "bfloat16"}
    policy = policy_of(source, options)
    before, first = groups_of(policy), policy.weights_hash()
    if knows_start:
        policy.reference_logprobs(before, 1.0)
    steps(policy, 0, 2)
    assert groups_of(policy) != before
    policy.restart()
    assert policy.weights_hash() == first
    assert groups_of(policy) == before


@KINDS
def test_the_folder_loads_in_transformers_and_answers_alike(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path / "start", family), options)
    steps(policy, 0, 2)
    folder = keep(policy, tmp_path / "kept")
    with quiet():
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids = torch.tensor([policy.encode(PROMPTS[0])])
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(ids).logits, policy.forward.model(ids).logits, atol=1e-5, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == policy.tokenizer.chat_template
    assert policy_of(str(folder)).encode(PROMPTS[1]) == policy.encode(PROMPTS[1])


@KINDS
def test_reference_of_a_resumed_policy_is_the_start(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    source = write_model(tmp_path / "start", family)
    policy = policy_of(source, options)
    groups = groups_of(policy)
    steps(policy, 0, 2)
    resumed = policy_of(source, options)
    resumed.load(keep(policy, tmp_path / "kept"))
    for group, references in zip(groups, resumed.reference_logprobs(groups, 1.0), strict=True):
        for done, reference in zip(group.completions, references, strict=True):
            assert reference == pytest.approx(done.logprobs, abs=1e-4)
    assert (resumed._reference is None) == bool(options)


def test_lora_trains_adapters_alone_from_a_named_start(tmp_path: Path) -> None:
    source = write_model(tmp_path / "start")
    policy, twin, full = policy_of(source, LORA), policy_of(source, LORA), policy_of(source)
    assert all(".lora_" in name for name in policy.learner.weights)
    assert len(policy.learner.weights) == 2 * 2 * 7
    assert policy.weights_hash() == twin.weights_hash()
    for mine, its in zip(groups_of(policy), groups_of(full), strict=True):
        assert [done.text for done in mine.completions] == [done.text for done in its.completions]
    frozen = {name: weight.clone() for name, weight in policy.forward.model.named_parameters() if not weight.requires_grad}
    steps(policy, 0, 1)
    assert policy.weights_hash() != twin.weights_hash()
    assert all(torch.equal(weight, frozen[name]) for name, weight in policy.forward.model.named_parameters() if name in frozen)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "phimoe"])
def test_experts_and_routers_get_no_adapters(family: str, tmp_path: Path) -> None:
    """They are no linear layers: experts lie in one tensor, and a router does more than to multiply."""
    names = policy_of(write_model(tmp_path, family), LORA).learner.weights
    projections = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert {name.split(".lora_")[0] for name in names} == {f"model.layers.{layer}.self_attn.{name}" for layer in (0, 1) for name in projections}


def test_adapters_that_no_checkpoint_could_hold_are_refused_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(lora, "plain_weights", lambda model: {})
        with pytest.raises(ModelError, match=r"adapter of model\.layers\.0.* cannot be added to its weight"):
            policy_of(source, LORA)
    model = torch.nn.Sequential(torch.nn.Embedding(3, 4))
    with pytest.raises(ModelError, match="no linear layers"):
        lora.linear_layers(SimpleNamespace(named_modules=model.named_modules, get_output_embeddings=lambda: None, config=SimpleNamespace(model_type="bare")))


def test_lora_without_peft_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"selftrain\[lora\]"):
        policy_of(source, LORA)


def test_weights_hash_by_hand(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path, "llama_tied"))
    digest = hashlib.sha256()
    weights = dict(policy.forward.model.named_parameters())
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")  # one tensor of two names goes by the first
    for name in sorted(weights):
        digest.update(f"{name}\x1ftorch.float32\x1f{tuple(weights[name].shape)}\x1e".encode() + weights[name].detach().numpy().tobytes())
    assert policy.weights_hash() == digest.hexdigest()
    first = policy.weights_hash()
    with torch.no_grad():
        weights["model.norm.weight"][0] += 1e-6
    assert policy.weights_hash() != first


def damage(folder: Path, how: str) -> None:
    optimizer, record = folder / "optimizer.safetensors", folder / "learner.json"
    if how == "no record":
        record.unlink()
    elif how == "cut moments":
        optimizer.write_bytes(optimizer.read_bytes()[:-100])
    elif how == "no moments":
        optimizer.unlink()
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "cut weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    elif how == "other format":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 99}))
    elif how == "not json":
        record.write_text("{")


@pytest.mark.parametrize("how", ["no record", "cut moments", "no moments", "no weights", "cut weights", "other format", "not json"])
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(how: str, tmp_path: Path) -> None:
    source = write_model(tmp_path / "start")
    policy = policy_of(source)
    steps(policy, 0, 1)
    folder = keep(policy, tmp_path / "kept")
    damage(folder, how)
    fresh = policy_of(source)
    before = fresh.weights_hash()
    with pytest.raises(CheckpointError) as caught:
        fresh.load(folder)
    assert str(folder) in caught.value.given
    assert (fresh.version, fresh.weights_hash()) == (PolicyVersion(0, 0), before)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "start")
    full = policy_of(source)
    steps(full, 0, 1)
    with pytest.raises(CheckpointError, match="lora"):
        policy_of(source, LORA).load(keep(full, tmp_path / "kept"))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path / "start"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        policy.save(tmp_path / "file")
    with pytest.raises(StorageError, match="cannot be written"):
        policy.save_optimizer(tmp_path / "file")
