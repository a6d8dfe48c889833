"""Makes the embedded models: character-level Llamas, taught by short supervised training on easy levels of the procedural tasks.

    python scripts/make_model.py                       # both starts, into src/selftrain/models
    python scripts/make_model.py --measure FOLDER      # avg@16 and maj@16 per task, level and form on 200 held-out problems each

Everything is drawn from one seed. The same machine, thread count and torch version give the same weights.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from selftrain.answers import extract, key
from selftrain.prompts.tasks import TASKS, Form
from selftrain.seeds import Stream

PAD, UNK, SYSTEM, USER, ASSISTANT, END = SPECIAL = ("<|pad|>", "<|unk|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
CHARACTERS = ["####", "\n", *(chr(code) for code in range(32, 127))]
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
HELD_OUT_SEED = 1000
"""Seed of the problems that are measured on; they are barred from the supervised training."""
BATCHES_SORTED = 8
"""Batches whose examples are sorted by length together."""


@dataclass(frozen=True)
class Recipe:
    """What is trained for how long.

    steps: where the training stops. schedule_steps: where the cosine of the learning rate would reach a tenth of its peak.
    words_frac: share of problems in the words form.
    slip_frac: share of solution steps with a wrong value that is carried on, so that single samples fail where the vote does not.
    skills: share of the examples that are a judgement, a correction turn or a new problem; the rest are solutions.
    """

    hidden: int
    layers: int
    mlp: int
    batch: int
    learning_rate: float
    steps: int
    schedule_steps: int
    words_frac: float = 0.35
    slip_frac: float = 0.11
    skills: dict[str, float] = field(default_factory=lambda: {"judge": 0.07, "correct": 0.1, "pose": 0.02})


LEVEL_WEIGHTS = {
    "add": (0.8, 1.2, 1.2, 0.4),
    "sub": (0.4, 0.6, 0.5),
    "mul": (0.8, 0.8, 0.4),
    "digits": (1, 0.6, 0.4),
    "sort": (0.5, 0.5, 0.4),
    "tall": (0.6, 0.6, 0.4),
    "truth": (0.7, 0.7, 0.4),
}
"""How often each level of a task is taught; the levels above are not taught."""

RECIPES = {
    "default": Recipe(hidden=128, layers=4, mlp=240, batch=128, learning_rate=2e-3, steps=800, schedule_steps=1600),
    "weak": Recipe(hidden=128, layers=4, mlp=240, batch=128, learning_rate=2e-3, steps=620, schedule_steps=1600, slip_frac=0),
    "large": Recipe(hidden=256, layers=5, mlp=640, batch=128, learning_rate=1.5e-3, steps=4000, schedule_steps=4000, slip_frac=0.06),
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, `####` one token, five special tokens and a chat template without line breaks."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"####|[\s\S]"), behavior="isolated")
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


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def barred_texts() -> set[str]:
    """The prompt texts that are measured on, of all levels with room for them."""
    return {problem.text for _, _, _, listed in measured() for _, problem in listed}


def measured(count: int = 200) -> list[tuple[str, int, Form, list]]:
    """The held-out problems of every task, level and form; a level with fewer than 10 times `count` problems gives a tenth of them."""
    cells = []
    for name, task in TASKS.items():
        for level in range(1, 6):
            num = min(count, task.size(level) // 10)
            cells += [(name, level, form, task.listed(num, level, HELD_OUT_SEED, form)) for form in Form]
    return cells


class Lessons:
    """The supervised examples in a fixed order: (text given, text to learn)."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self.recipe, self.stream, self.drawn, self.barred = recipe, Stream(seed), 0, barred_texts()
        self.cells = [(name, level) for name, weights in LEVEL_WEIGHTS.items() for level in range(1, len(weights) + 1)]
        weights = np.array([weight for weights in LEVEL_WEIGHTS.values() for weight in weights])
        self.weights = weights / weights.sum()

    def example(self) -> tuple[str, str]:
        while True:
            self.drawn += 1
            stream = self.stream.at(stream="supervised", index=self.drawn)
            choice = stream.at(prompt_id="choice").generator()
            name, level = self.cells[choice.choice(len(self.cells), p=self.weights)]
            form = Form.WORDS if choice.random() < self.recipe.words_frac else Form.SYMBOLS
            skill = choice.choice(["solve", *self.recipe.skills], p=[1 - sum(self.recipe.skills.values()), *self.recipe.skills.values()])
            text = TASKS[name].draw(stream, level, form).text
            if text not in self.barred:
                given, learned = self.lesson(skill, name, level, text, stream)
                system = f"{SYSTEM}Solve the problem." if choice.random() < 0.02 else ""
                return f"{system}{USER}{given}{ASSISTANT}", f"{learned}{END}"

    def lesson(self, skill: str, name: str, level: int, text: str, stream: Stream) -> tuple[str, str]:
        """What is given and what is learned. Slips are in first solutions only: a second look is a clean one."""
        task, clean = TASKS[name], TASKS[name].solve(text).solution
        if skill == "solve":
            return text, task.slipped(text, stream.at(prompt_id="slip"), self.recipe.slip_frac)[0]
        first, answer = task.slipped(text, stream.at(prompt_id="slip"), 3 * self.recipe.slip_frac)
        if skill == "correct":
            return f"{text}{ASSISTANT}{first}{END}{USER}check", clean
        if skill == "judge":
            steps, _, right = clean.partition("####")
            return f"{text} is {answer}?", f"{steps};{right}####{'yes' if answer == right else 'no'}"
        return f"new {name}:{level}", text


class Examples(Protocol):
    """(text given, text to learn), one after the other. stream: what they are drawn from. drawn: how many there were."""

    stream: Stream
    drawn: int

    def example(self) -> tuple[str, str]: ...


def batches_of(lessons: Examples, size: int) -> Iterator[list[tuple[str, str]]]:
    """Without end, batches whose examples are of similar length, in random order."""
    while True:
        pool = sorted((lessons.example() for _ in range(BATCHES_SORTED * size)), key=lambda pair: len(pair[0]) + len(pair[1]))
        order = lessons.stream.at(stream="batches", index=lessons.drawn).generator().permutation(BATCHES_SORTED)
        yield from (pool[index * size : (index + 1) * size] for index in reversed(order))


def encode_batch(tokenizer: PreTrainedTokenizerFast, batch: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) padded on the right, and labels with -100 where nothing is learned."""
    given = tokenizer([pair[0] for pair in batch])["input_ids"]
    learned = tokenizer([pair[1] for pair in batch])["input_ids"]
    width = max(len(a) + len(b) for a, b in zip(given, learned, strict=True))
    ids = torch.full((len(batch), width), tokenizer.pad_token_id)
    labels = torch.full((len(batch), width), -100)
    for row, (a, b) in enumerate(zip(given, learned, strict=True)):
        ids[row, : len(a) + len(b)] = torch.tensor(a + b)
        labels[row, len(a) : len(a) + len(b)] = torch.tensor(b)
    return ids, labels


def train(recipe: Recipe, seed: int, keep: dict[int, Path]) -> None:
    """Trains and saves the weights after each step that `keep` has a folder for: the moving average of the last 30 steps or so."""
    tokenizer = build_tokenizer()
    model = build_model(recipe, tokenizer, seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    start = time.monotonic()
    for step, loss in taught(model, tokenizer, recipe, Lessons(recipe, seed), average):
        if step % 25 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.monotonic() - start:.0f} s", flush=True)
        if step in keep:
            save(model, average, tokenizer, keep[step])


def taught(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, lessons: Examples, average: dict[str, Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """Teaches the model and gives (step, loss) after each of the recipe's steps; `average`, which begins as the weights, follows them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    for step, batch in zip(range(1, recipe.steps + 1), batches_of(lessons, recipe.batch), strict=False):
        ids, labels = encode_batch(tokenizer, batch)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, step / 50) * (0.55 + 0.45 * math.cos(math.pi * step / recipe.schedule_steps))
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for name, p in model.named_parameters():
                average[name].lerp_(p, max(0.03, 1 / step))
        yield step, loss


def save(model: LlamaForCausalLM, average: dict[str, Tensor], tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """A Hugging Face folder with the averaged weights in half precision; its config says float32, so they are loaded as float32."""
    kept = LlamaForCausalLM(model.config)
    kept.load_state_dict({**average, "lm_head.weight": average["model.embed_tokens.weight"]})
    kept.generation_config.eos_token_id, kept.generation_config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    kept.to(torch.float16).save_pretrained(folder)
    kept.config.dtype = torch.float32
    kept.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    named = folder / "tokenizer_config.json"
    named.write_text(named.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))
    for file in folder.iterdir():
        file.chmod(0o644)


@torch.no_grad()
def sample(model: LlamaForCausalLM, prompt_ids: Tensor, max_new: int, generator: torch.Generator) -> Tensor:
    """Completions (B, max_new) at temperature 1 of prompts (B, T) of one length; pad after the end token."""
    end, pad = model.config.eos_token_id, model.config.pad_token_id
    done = torch.zeros(len(prompt_ids), dtype=torch.bool)
    ids, cache, out = prompt_ids, None, []
    for _ in range(max_new):
        result = model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = result.past_key_values
        ids = torch.multinomial(result.logits[:, -1].softmax(-1), 1, generator=generator).masked_fill(done[:, None], pad)
        out.append(ids)
        done |= ids[:, 0] == end
        if done.all():
            break
    return torch.cat(out, 1)


def measure(folder: Path, num_votes: int, count: int, cells: set[str] | None = None) -> None:
    """Prints a Markdown table of avg@k and maj@k per task, level and form on held-out problems."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    print("| task | avg symbols | maj symbols | avg words | maj words |\n|---|---|---|---|---|")
    row: list[str] = []
    for name, level, form, listed in measured(count):
        if cells and f"{name}:{level}" not in cells:
            continue
        right, votes = score(model, tokenizer, [problem for _, problem in listed], num_votes)
        row += [f"{right:.2f}", f"{votes:.2f}"]
        if form is Form.WORDS:
            print(f"| {name}:{level} | {' | '.join(row)} |", flush=True)
            row = []


def score(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: list, num_votes: int, seed: int = 0) -> tuple[float, float]:
    """avg@k and maj@k; a tie counts as its share that is right."""
    right, votes = 0.0, 0.0
    by_length: dict[int, list] = {}
    for problem in problems:
        ids = tokenizer(f"{USER}{problem.text}{ASSISTANT}")["input_ids"]
        by_length.setdefault(len(ids), []).append((ids, problem))
    for entries in by_length.values():
        generator = torch.Generator().manual_seed(seed)
        ids = torch.tensor([ids for ids, _ in entries]).repeat_interleave(num_votes, 0)
        texts = tokenizer.batch_decode(sample(model, ids, max(len(p.solution) for _, p in entries) + 4, generator), skip_special_tokens=True)
        for place, (_, problem) in enumerate(entries):
            keys = [key(text) for text in map(extract, texts[place * num_votes : (place + 1) * num_votes]) if text is not None]
            truth = key(problem.answer)
            right += keys.count(truth) / num_votes
            top = max((keys.count(entry) for entry in keys), default=0)
            winners = {entry for entry in keys if keys.count(entry) == top}
            votes += (truth in winners) / max(1, len(winners))
    return right / len(problems), votes / len(problems)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/selftrain/models")
    parser.add_argument("--recipe", choices=RECIPES, help="only this one; default and weak otherwise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="supervised steps, instead of the recipe's")
    parser.add_argument("--keep-every", type=int, default=0, metavar="STEPS", help="also save after each so many steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", type=Path, help="measure this model folder instead of making one")
    parser.add_argument("--cells", nargs="*", help="with --measure: only these, such as add:4")
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    if arguments.measure:
        measure(arguments.measure, 16, arguments.count, set(arguments.cells or ()))
        return
    for name in [arguments.recipe] if arguments.recipe else ("default", "weak"):
        recipe = RECIPES[name] if arguments.steps is None else replace(RECIPES[name], steps=arguments.steps)
        keep = {recipe.steps: arguments.out / name}
        if arguments.keep_every:
            keep |= {step: arguments.out / f"{name}-{step}" for step in range(arguments.keep_every, recipe.steps, arguments.keep_every)}
        train(recipe, arguments.seed, keep)


if __name__ == "__main__":
    main()
