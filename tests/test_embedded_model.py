"""The embedded models and their maker: sizes, tokens, what the default model can do, and that the large recipe runs."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from selftrain.answers import extract
from selftrain.errors import ModelError
from selftrain.models import EMBEDDED, folder
from selftrain.prompts.tasks import task

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder("default"))


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_model", ROOT / "scripts" / "make_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_model"] = module
    spec.loader.exec_module(module)
    return module


def greedy(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    given = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    ids = model.generate(**given, max_new_tokens=60, do_sample=False)  # type: ignore[operator]
    return str(tokenizer.decode(ids[0, given["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("name", EMBEDDED)
def test_small_enough_and_loaded_in_float32(name: str) -> None:
    assert sum(file.stat().st_size for file in folder(name).iterdir()) <= 2_000_000
    model = AutoModelForCausalLM.from_pretrained(folder(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == 645_120
    assert model.dtype == torch.float32
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 5


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ModelError, match="default, weak"):
        folder("strong")


@pytest.mark.parametrize("text", ["5+7+0=12;4+8+1=13####132", "#####", " a  b\n\\boxed{\\frac12} \n", "".join(map(chr, range(32, 127))), ""])
def test_decode_undoes_encode(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.tokenize("1=1####1") == ["1", "=", "1", "####", "1"]
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token) == ("<|pad|>", "<|end|>", "<|unk|>", None)
    assert tokenizer("é")["input_ids"] == [tokenizer.unk_token_id]
    assert len(tokenizer) == 103


def test_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [{"role": role, "content": text} for role, text in [("system", "s"), ("user", "1+2"), ("assistant", "3"), ("user", "check")]]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>s<|user|>1+2<|assistant|>3<|end|><|user|>check<|assistant|>"
    ids = tokenizer.apply_chat_template(turns[1:2], add_generation_prompt=True)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|user|>", "1", "+", "2", "<|assistant|>"]


def test_greedy_answers_of_easy_problems_are_right(tokenizer: PreTrainedTokenizerBase) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder("default"))
    assert greedy(model, tokenizer, [{"role": "user", "content": "45+87"}]) == "5+7+0=12;4+8+1=13####132"
    right = 0
    for name in ("add", "sub", "sort"):
        for prompt in task(name).problems(4, 2, seed=77):
            answer = extract(greedy(model, tokenizer, [{"role": "user", "content": prompt.text}]))
            right += answer is not None and task(name).check(prompt.text, answer)
    assert right >= 10


def test_the_same_seed_makes_the_same_weights(maker: ModuleType, tmp_path: Path) -> None:
    recipe = dataclasses.replace(maker.RECIPES["default"], batch=4, steps=2)
    for name in ("first", "again"):
        maker.train(recipe, seed=3, keep={2: tmp_path / name})
    assert (tmp_path / "first/model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()


def test_the_large_recipe_runs(maker: ModuleType, tmp_path: Path) -> None:
    recipe = dataclasses.replace(maker.RECIPES["large"], batch=4, steps=2)
    maker.train(recipe, seed=0, keep={2: tmp_path / "large"})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "large")
    assert 3_000_000 < sum(parameter.numel() for parameter in model.parameters()) <= 4_000_000


def test_lessons_teach_every_skill_and_no_held_out_problem(maker: ModuleType) -> None:
    lessons = maker.Lessons(maker.RECIPES["default"], seed=0)
    pairs = [lessons.example() for _ in range(500)]
    assert sum(given.endswith("<|user|>check<|assistant|>") for given, _ in pairs) >= 20
    assert sum(learned.endswith(("####yes<|end|>", "####no<|end|>")) for _, learned in pairs) >= 10
    assert sum(given.startswith("<|user|>new ") for given, _ in pairs) >= 3
    assert sum(given.startswith("<|system|>") for given, _ in pairs) >= 3
    assert not {given.removeprefix("<|user|>").removesuffix("<|assistant|>") for given, _ in pairs} & lessons.barred
