"""The [prompts], [evals] and [validation] sections -> prompt sets."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

from selftrain.config import EvalsSection, PromptsSection, ValidationSection
from selftrain.errors import ConfigError
from selftrain.prompts.dataset import dataset_rows
from selftrain.prompts.files import read_rows
from selftrain.prompts.gym import load_gym
from selftrain.prompts.rows import Columns, prompt_set
from selftrain.prompts.tasks import available, mixture
from selftrain.prompts.templates import apply_template, template_text
from selftrain.seeds import Stream
from selftrain.types import Prompt, PromptSet

DEFAULT_TASK_COUNT = 1024
"""How many prompts a task makes where `prompts.count` is unset; fewer where its level has fewer."""


def load_prompts(section: PromptsSection, seed: int, exclude: frozenset[str] = frozenset()) -> PromptSet:
    """The prompts that a section asks for, in a fixed order, with the answers somebody wrote beside them.

    exclude: ids that a task must not make again (its held-out problems). Rows of a file or dataset are never dropped silently; `check_disjoint`
    finds the overlaps there. Raises ConfigError unless exactly one of file, dataset and task is given, PromptError for what they hold.
    """
    given = {name: value for name in ("file", "dataset", "task") if (value := getattr(section, name)) is not None}
    if len(given) != 1:
        raise ConfigError(
            " and ".join(f"prompts.{name} = {value!r}" for name, value in given.items()) or "none of prompts.file, prompts.dataset and prompts.task",
            "prompts come from one place",
            "give exactly one of prompts.file, prompts.dataset and prompts.task",
        )
    template = training_template(section)
    columns = Columns(section.prompt_field, section.answer_field)
    if section.task is not None:
        return _from_task(section.task, section.count or _default_count(section.task, exclude), seed, template, exclude)
    if section.dataset is not None:
        rows = dataset_rows(section.dataset, section.dataset_split, columns)
        return prompt_set(rows, columns, template, section.count, f"{section.dataset} ({section.dataset_split})")
    return _from_file(str(section.file), columns, template, section.count)


def load_problems(evals: EvalsSection, prompts: PromptsSection, seed: int) -> PromptSet | None:
    """The held-out problems: of `evals.file`, of `evals.task`, or of the training task; None for a training file or dataset without either.

    They get the template of the training prompts.
    A file may have fewer than `evals.num_problems`. Task problems depend on the seed but not on the number of training prompts: load them first and
    give their ids to `load_prompts` as `exclude`. Raises ConfigError when file and task are both given, PromptError for what they hold.
    """
    if evals.file is not None and evals.task is not None:
        raise ConfigError(f"evals.file = {evals.file!r} and evals.task = {evals.task!r}", "held-out problems come from one place", "give one of the two")
    source = next((name for name in ("file", "dataset", "task") if getattr(prompts, name) is not None), "task" if evals.file is None else "file")
    template = _template(prompts, source == "task")
    if evals.file is not None:
        columns = Columns(prompts.prompt_field, prompts.answer_field)
        return prompt_set(islice(read_rows(Path(evals.file)), evals.num_problems), columns, template, None, evals.file)
    name = evals.task or prompts.task
    if name is None:
        return None
    held_out_seed = Stream(seed).at(stream="held-out").seed() % 2**32
    return _from_task(name, evals.num_problems, held_out_seed, template, frozenset())


def load_validation(section: ValidationSection, prompts: PromptsSection, seed: int, exclude: frozenset[str]) -> PromptSet | None:
    """The problems that choose the checkpoint; None without any. exclude: ids that a task must not make again, those of the held-out problems.

    Raises ConfigError when file and task are both given, PromptError for what they hold.
    """
    if not section.is_on:
        return None
    if section.file is not None and section.task is not None:
        given = f"validation.file = {section.file!r} and validation.task = {section.task!r}"
        raise ConfigError(given, "the problems come from one place", "give one of the two")
    template = _template(prompts, prompts.task is not None)
    if section.file is not None:
        columns = Columns(prompts.prompt_field, prompts.answer_field)
        return prompt_set(islice(read_rows(Path(section.file)), section.num_problems), columns, template, None, section.file)
    return _from_task(str(section.task), section.num_problems, Stream(seed).at(stream="validation").seed() % 2**32, template, exclude)


def training_template(section: PromptsSection) -> str:
    """The text of the template around the training prompts."""
    return _template(section, section.task is not None)


def _template(section: PromptsSection, is_task: bool) -> str:
    """The template's text; where the section names none, raw for training on a task and boxed for a file or dataset."""
    return template_text(("raw" if is_task else "boxed") if section.template is None else section.template)


def _default_count(names: str, exclude: frozenset[str]) -> int:
    return DEFAULT_TASK_COUNT if names.startswith("gym:") else available(names, DEFAULT_TASK_COUNT, exclude)


def _from_file(path: str, columns: Columns, template: str, count: int | None) -> PromptSet:
    return prompt_set(read_rows(Path(path)), columns, template, count, path)


def _from_task(names: str, count: int, seed: int, template: str, exclude: frozenset[str]) -> PromptSet:
    """`count` problems of one or several tasks, in equal parts, in the template's text."""
    gym = load_gym(names, count, seed, exclude) if names.startswith("gym:") else None
    made = mixture(names, count, seed, exclude=exclude) if gym is None else gym.prompts
    return replace(in_template(made, template), gym_entries={} if gym is None else gym.entries)


def in_template(made: PromptSet, template: str) -> PromptSet:
    """Bare problems in a template's text, which is kept apart from the question."""
    prompts = tuple(Prompt(prompt.id, apply_template(template, prompt.messages)) for prompt in made)
    return PromptSet(prompts, made.sheet, made.origin, {prompt.id: prompt.messages for prompt in made})
