"""The supervised start of a climb: a small Llama that is taught written solutions of level k, in a Hugging Face folder.

It shares architecture and optimizer with the embedded models (scripts/make_model.py); the tokenizer has one token for each fixed phrase of the task's questions
and one for any other character. Everything is drawn from one seed. Problems whose texts are barred are not taught.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from climb_lessons import Climb
from selftrain.prompts.gym import load_gym
from selftrain.seeds import Stream

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from make_model import ASSISTANT, CHARACTERS, END, PAD, RECIPES, SPECIAL, SYSTEM, TEMPLATE, UNK, USER, build_model, save, taught

BATCH = 96


def build_tokenizer(climb: Climb) -> PreTrainedTokenizerFast:
    """Phrases, then characters; the chat template of the embedded models."""
    characters = [one for one in CHARACTERS if one not in climb.words()]
    words = sorted((*climb.words(), "####"), key=len, reverse=True)
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*SPECIAL, *characters, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    pattern = "|".join(f"(?:{''.join(escaped(character) for character in word)})" for word in words)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{pattern}|[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )


def escaped(character: str) -> str:
    return character if character.isalnum() or character == " " else "\\n" if character == "\n" else f"\\{character}"


@dataclass(frozen=True)
class Teaching:
    """A stretch of supervised training. learning_rate: its peak, from which it falls to 55 %. slip_frac: of the steps of a solution."""

    steps: int
    learning_rate: float
    slip_frac: float


class Lessons:
    """Solutions of level k in an order drawn from the seed, each time with fresh slips."""

    def __init__(self, climb: Climb, slip_frac: float, seed: int, barred: Collection[str]) -> None:
        made = load_gym(f"gym:{climb.task}:{climb.level}", NUM_PROBLEMS, Stream(seed).at(stream="lessons").seed() % 2**31, exclude=barred)
        self.climb, self.slip_frac, self.stream, self.drawn = climb, slip_frac, Stream(seed), 0
        self.questions = [prompt.text for prompt in made.prompts]

    def example(self) -> tuple[str, str]:
        self.drawn += 1
        random = self.stream.at(stream="lesson", index=self.drawn).generator()
        question = self.questions[int(random.integers(len(self.questions)))]
        return f"{USER}{question}{ASSISTANT}", f"{self.climb.solution(question, random, self.slip_frac)}{END}"


NUM_PROBLEMS = 12_000
"""Questions that are taught; each comes several times."""


def make_start(climb: Climb, teaching: Teaching, seed: int, barred: Collection[str], begin: Path | None, target: Path) -> None:
    """Trains from random weights, or from those in `begin`, and saves the moving average of the last 30 steps or so."""
    steps = teaching.steps
    recipe = replace(RECIPES["default"], batch=BATCH, steps=steps, schedule_steps=2 * steps, learning_rate=teaching.learning_rate)
    tokenizer = build_tokenizer(climb)
    model = build_model(recipe, tokenizer, seed) if begin is None else AutoModelForCausalLM.from_pretrained(begin)
    lessons = Lessons(climb, teaching.slip_frac, seed, barred)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step, loss in taught(model, tokenizer, recipe, lessons, average):
        if step % 50 == 0:
            print(f"  {climb.task}: supervised step {step} loss {loss.item():.3f}", flush=True)
    save(model, average, tokenizer, target)
