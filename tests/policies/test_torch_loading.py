"""What cannot be loaded says what was given, why it cannot work and what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch_models import NEWER, character_tokenizer, groups_of, policy_of, requests_for, samples_of, write_model
from transformers import BertConfig, BertForMaskedLM, MambaConfig, MambaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel

from selftrain.config import PolicySection, RunConfig
from selftrain.errors import ModelError
from selftrain.objective import Objective
from selftrain.policies.base import SamplingParams
from selftrain.policies.torch.attention import NAME
from selftrain.policies.torch.forward import check_layers
from selftrain.policies.torch.loading import check_unquantised, quiet
from selftrain.run_folder import resolved
from selftrain.seeds import Stream


def without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [path.unlink() for name in names for path in folder.glob(name)] and None  # type: ignore[func-returns-value]


def with_tokenizer(**special: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        without("tokenizer*", "special_tokens*", "chat_template*")(folder)
        character_tokenizer(**special).save_pretrained(folder)

    return write


def other_model(make: Callable[[], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        with quiet():
            make().save_pretrained(folder)

    return write


def bert() -> Any:
    return BertForMaskedLM(BertConfig(vocab_size=48, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))


def mamba() -> Any:
    return MambaForCausalLM(MambaConfig(vocab_size=48, hidden_size=16, num_hidden_layers=1, state_size=4))


def cut_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])


def other_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))


def with_weights(name: str, value: float) -> Callable[[Path], None]:
    """One row of a weight is filled."""

    def write(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights[name][5] = value
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return write


def with_config(**changed: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changed))

    return write


def with_quantisation(method: str, **options: Any) -> Callable[[Path], None]:
    return with_config(quantization_config={"quant_method": method, **options})


def with_tokenizer_type(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["type"] = "nosuch"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def with_end(end: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end})) and None  # type: ignore[func-returns-value]


def with_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "a/b"}))


def adapter_alone(folder: Path) -> None:
    with_adapter(folder)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def with_more_weights(*names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file(weights | {name: torch.zeros(32) for name in names}, folder / "model.safetensors", {"format": "pt"})

    return write


def with_own_code(folder: Path) -> None:
    with_config(auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}, model_type="own")(folder)
    (folder / "own.py").write_text("raise SystemExit('code of the folder was run')")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (without("config.json"), "has no config.json"),
    "no weights": (without("model.safetensors"), "has no weights"),
    "no tokenizer": (without("tokenizer*"), "has no tokenizer"),
    "no pad and no end": (with_tokenizer(pad_token=None, eos_token=None), "neither a pad nor an end token"),
    "no chat template": (without("chat_template.jinja"), "no chat template"),
    "cut weights": (cut_weights, "cannot be loaded"),
    "missing layers": (other_size, "weights are missing"),
    "weights that are none": (with_weights("model.layers.0.mlp.down_proj.weight", float("nan")), r"infinite or no numbers \(model.layers.0.mlp.down_proj"),
    "one infinite logit": (with_weights("lm_head.weight", float("inf")), r"infinite or no numbers \(lm_head.weight"),
    "one letter's embedding": (with_weights("model.embed_tokens.weight", float("nan")), r"infinite or no numbers \(model.embed_tokens.weight"),
    "weights that are too large": (with_weights("lm_head.weight", 3e38), "logits are infinite or no numbers"),
    "4 bits": (with_quantisation("bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type="nf4"), r"quantised \(quantization_config with method bitsandbytes\)"),
    "8 bits": (with_quantisation("bitsandbytes", load_in_8bit=True), r"quantised \(quantization_config with method bitsandbytes\)"),
    "needs another package": (with_quantisation("gptq", bits=4, group_size=128, desc_act=False), r"quantised \(quantization_config with method gptq\)"),
    "needs one too": (with_quantisation("awq", bits=4, group_size=128), r"quantised \(quantization_config with method awq\)"),
    "unknown quantisation": (with_quantisation("nosuch"), r"quantised \(quantization_config with method nosuch\)"),
    "code of its own": (with_own_code, "code of its own, which is not run"),
    "heads that do not divide": (with_config(num_attention_heads=5), "cannot be loaded: .*not a multiple of the number of attention heads"),
    "unknown activation": (with_config(hidden_act="nosuch"), "cannot be loaded: KeyError: 'nosuch'"),
    "a word for a number": (with_config(hidden_size="abc"), "cannot be loaded: .*hidden_size"),
    "unknown tokenizer": (with_tokenizer_type, "the tokenizer of .* cannot be loaded: data did not match"),
    "a word for the end": (with_end("</s>"), r"generation_config.json of .* eos_token_id is '</s>', which is no token id"),
    "words for the end": (with_end([2, "</s>"]), "which is no token id"),
    "other shapes": (with_config(vocab_size=40), "weights of other shapes than its config.json says"),
    "fewer layers": (with_config(num_hidden_layers=1), r"9 weights of layers that its config.json does not know \(model.layers.1.input_layernorm.weight"),
    "biases": (with_more_weights("model.layers.0.self_attn.q_proj.bias"), r"1 weights of layers that .* \(model.layers.0.self_attn.q_proj.bias\)"),
    "an adapter": (adapter_alone, "holds an adapter"),
    "a model and an adapter": (with_adapter, "holds an adapter"),
    "no language model": (other_model(bert), "depend on later tokens"),
    "no attention": (other_model(mamba), "state other than keys and values"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_folder_that_cannot_serve(name: str, tmp_path: Path) -> None:
    source = write_model(tmp_path)
    break_it, why = BROKEN[name]
    break_it(tmp_path)
    with pytest.raises(ModelError, match=why) as caught:
        policy_of(source)
    assert caught.value.do
    assert caught.value.exit_status == 2


def test_adapters_are_refused_as_the_model_alone_is(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    other_model(mamba)(tmp_path)
    with pytest.raises(ModelError, match="state other than keys and values"):
        policy_of(source, {"lora_rank": 4})


def test_what_peft_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise ValueError("no adapters here\nmore")

    monkeypatch.setattr("peft.get_peft_model", refused)
    with pytest.raises(ModelError) as caught:
        policy_of(write_model(tmp_path), {"lora_rank": 4})
    assert caught.value.why == "peft refuses it: no adapters here"


@pytest.mark.parametrize("more", [{"attention_mask": torch.zeros(1)}, {"position_bias": torch.zeros(1)}, {"indices": torch.zeros(1)}])
def test_attention_that_chooses_its_keys_itself_is_refused(more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tokens alone would not tell: the most important four of them are all."""
    attend = ALL_ATTENTION_FUNCTIONS[NAME]
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, NAME, lambda *args, **named: attend(*(args[:4] if "attention_mask" in more else args), **{**named, **more}))
    with pytest.raises(ModelError, match="its layers choose themselves what a token looks at, so sequences cannot share their prompt"):
        policy_of(write_model(tmp_path))


@pytest.mark.skipif("afmoe" not in NEWER, reason="this version of transformers has no AFMoE")
def test_weights_that_the_architecture_does_not_train_stay_as_they_are(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path, "afmoe"), update={"weight_decay": 0.5})
    fixed = {name: weight.clone() for name, weight in policy.forward.model.named_parameters() if name.endswith("expert_bias")}
    assert any(bias.any() for bias in fixed.values())
    assert not fixed.keys() & policy.learner.weights.keys()
    before = policy.weights_hash()
    policy.update(samples_of(groups_of(policy)), Objective(), 0.1)
    assert policy.weights_hash() != before
    assert all(torch.equal(policy.forward.model.get_parameter(name), bias) for name, bias in fixed.items())


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_padding_row_that_every_load_sets_to_zero(is_tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tied head no gradient reaches it."""

    def forgetful(model: Any, module: Any) -> None:
        before(model, module)
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            torch.nn.init.zeros_(module.weight.data[module.padding_idx])

    before = LlamaPreTrainedModel._init_weights
    source = write_model(tmp_path, "llama_tied" if is_tied else "llama")
    policy_of(source)
    monkeypatch.setattr(LlamaPreTrainedModel, "_init_weights", forgetful)
    with pytest.raises(ModelError, match="the row of the padding token 0 to zero at every load") if is_tied else nullcontext():
        policy_of(source)


def test_windows_of_different_lengths_are_refused() -> None:
    layers = [SimpleNamespace(sliding_window=4), SimpleNamespace(sliding_window=None), SimpleNamespace(sliding_window=8)]
    text = SimpleNamespace(per_layer_config=layers, num_hidden_layers=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"])
    with pytest.raises(ModelError, match="windows of its layers have different lengths, 4, 8 tokens"):
        check_layers(SimpleNamespace(get_text_config=lambda decoder: text, model_type="uneven"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU keeps 8 bits")
def test_weights_that_transformers_makes_whole_again_are_welcome(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    with_quantisation("fp8", activation_scheme="dynamic", weight_block_size=[128, 128])(tmp_path)
    assert {weight.dtype for weight in policy_of(source).learner.weights.values()} == {torch.float32}


def test_weights_that_are_integers() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.weight = torch.nn.Parameter(torch.zeros((2, 2), dtype=torch.int8), requires_grad=False)
    layer.config = SimpleNamespace()  # type: ignore[assignment]
    with pytest.raises(ModelError, match=r"quantised \(weight is torch.int8\)"):
        check_unquantised("somewhere", layer)


def test_code_of_a_folder_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anybody asked on the terminal; a folder whose architecture transformers has is loaded without its code."""
    source = write_model(tmp_path)
    with_own_code(tmp_path)
    with_config(model_type="llama")(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    assert policy_of(source).forward.config.model_type == "llama"


@pytest.mark.parametrize("source", ["/no/such/folder", "./neither", "nothing"])
def test_a_folder_that_is_not_there(source: str) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        policy_of(source)


def test_a_hub_id_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        policy_of("nobody/no-such-model")
    assert "hub id" in caught.value.do


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="sees no CUDA device"):
        policy_of(write_model(tmp_path), {"device": "cuda"})


def test_the_end_token_pads_where_no_pad_token_is(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    padded = policy_of(source).sample(requests_for(), SamplingParams(8), Stream(1))
    with_tokenizer(pad_token=None)(tmp_path)
    policy = policy_of(source)
    assert policy.pad_id == 2
    for group, same in zip(policy.sample(requests_for(), SamplingParams(8), Stream(1)), padded, strict=True):
        assert [done.token_ids for done in group.completions] == [done.token_ids for done in same.completions]


def test_a_pad_token_that_the_model_does_not_know_is_replaced(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    with_tokenizer(pad_token="<more>")(tmp_path)
    policy = policy_of(source)
    assert policy.tokenizer.pad_token_id == 48
    assert policy.pad_id == 0
    assert policy.sample(requests_for(), SamplingParams(8), Stream(1))


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    with_tokenizer(additional_special_tokens=["12+5"])(tmp_path)
    with pytest.raises(ModelError, match="has token 48 and the model knows tokens up to 47"):
        policy_of(source).sample(requests_for(), SamplingParams(8), Stream(1))


def test_tensors_without_a_place_in_the_model_are_left_out(tmp_path: Path) -> None:
    """Tables of positions, masks, other heads and what is trained beside the layers: files of good models hold them."""
    source = write_model(tmp_path)
    before = policy_of(source).weights_hash()
    with_more_weights("model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.1.attn.masked_bias", "score.weight", "v_head.summary.bias")(tmp_path)
    assert policy_of(source).weights_hash() == before


@pytest.mark.parametrize("source", ["models/no_such_folder", "nobody/no-such-model"])
def test_one_that_may_be_a_path_or_a_hub_id_is_told_both(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as caught:
        policy_of(source)
    assert "no folder of that name" in caught.value.do


def test_a_model_whose_forward_pass_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise AttributeError("no such attribute")

    monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaMLP.forward", fail)
    with pytest.raises(ModelError, match="forward pass of two tokens fails: AttributeError: no such attribute"):
        policy_of(source)


def test_a_base_model_without_chat_template_takes_the_plain_one(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    without("chat_template.jinja")(tmp_path)
    assert policy_of(source, {"prompt_format": "plain"}).encode(requests_for()[0].prompt)


@pytest.mark.parametrize(
    ("template", "why"),
    [("{{ raise_exception('no system turn') }}", "no system turn"), ("{{ messages + 1 }}", "can only concatenate list"), ("{{ 1 / 0 }}", "division by zero")],
    ids=["itself", "type", "number"],
)
def test_a_chat_template_that_refuses_the_messages(template: str, why: str, tmp_path: Path) -> None:
    source = write_model(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=f"the chat template refuses its messages: {why}"):
        policy_of(source).encode(requests_for()[0].prompt)


def test_the_number_of_threads_is_set(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        policy_of(write_model(tmp_path), {"num_threads": 1})
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "given"), [("1", 1), ("3", 3), (" 3, 2", 3), ("0", None), ("-1", None), ("many", None), ("", None), (None, None)])
def test_unset_it_is_what_openmp_is_told_else_one_per_core(monkeypatch: pytest.MonkeyPatch, asked: str | None, given: int | None) -> None:
    """A batch system or `make test` shares cores between processes by this variable; what cannot be read as a number is ignored, as OpenMP does."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = resolved(RunConfig()).policy.num_threads
    assert cores == len(os.sched_getaffinity(0))
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert resolved(RunConfig()).policy.num_threads == (given or cores)
    assert resolved(RunConfig(policy=PolicySection(num_threads=5))).policy.num_threads == 5


def test_the_arithmetic_is_bfloat16_on_a_gpu_and_float32_elsewhere_unless_it_is_named() -> None:
    assert PolicySection().compute_dtype == "float32"
    assert PolicySection(device="cuda").compute_dtype == "bfloat16"
    assert PolicySection(device="cuda", dtype="float32").compute_dtype == "float32"
    assert resolved(RunConfig(policy=PolicySection(device="cuda"))).policy.dtype == "bfloat16"


def test_dropout_is_off_for_good(tmp_path: Path) -> None:
    model = policy_of(write_model(tmp_path, "gpt2")).forward.model.train()
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}
