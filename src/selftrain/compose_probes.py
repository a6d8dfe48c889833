"""The prompts of a run -> its held-aside prompts and the probe set made of them. Part of the composition root: `compose.py` calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from selftrain.answers import key
from selftrain.answers.freeform import reader
from selftrain.compose_labels import uses_reference, verifies
from selftrain.config import ONE_ANSWER_CLUSTERINGS, RunConfig
from selftrain.errors import ConfigError, PromptError
from selftrain.policies import toy
from selftrain.policies.base import Policy
from selftrain.probes import Drawing, Prober
from selftrain.probes.off_domain import OFF_DOMAIN
from selftrain.probes.probe_set import ProbeSet, Wordings, make_probe_set
from selftrain.prompts import ids_of_forms, tasks
from selftrain.prompts.loading import in_template, training_template
from selftrain.prompts.tasks import mixture
from selftrain.prompts.templates import template_text
from selftrain.rollout import read_and_count
from selftrain.seeds import Stream
from selftrain.train import vote_params
from selftrain.types import AnswerKey, AnswerSheet, Prompt, PromptSet

NO_PROMPTS = PromptSet((), AnswerSheet({}), "none")
TOY_ASIDE_FIRST, TOY_OFF_DOMAIN_FIRST = 2_000_000, 3_000_000
SPARE = 3
"""times `probes.num_prompts`: a start that agrees on a quarter of its prompts needs two or three times as many until half of that number are easy"""
LEAST_LEFT, LEAST_ASIDE = 7, 16
"""Of the prompts of a file or dataset as many are taken out of training as leave this many times as many in it; none where that is fewer than the other."""


def set_aside(config: RunConfig, train: PromptSet, labelled: Sequence[PromptSet], count: int) -> tuple[PromptSet, PromptSet]:
    """(training prompts, up to `count` held-aside prompts without answers). labelled: the held-out and the validation problems.

    The toy and the built-in tasks make further problems, so training keeps all of its own; tasks `SPARE` times as many, of which the start is asked until
    enough are easy. Of a file or dataset, or where a task's level has no more,
    those with the smallest stable hash of their id are taken out of training, an eighth of them at most; where that is fewer than 16, as many as are wanted are
    watched and trained on.
    """
    if not count:
        return train, NO_PROMPTS
    if toy.is_toy(config.policy.model):
        return train, without_answers(toy.problems(count, first=TOY_ASIDE_FIRST))
    for wanted in (SPARE * count, count):
        if (further := _further(config, train, labelled, wanted)) is not None:
            return train, further
    fits = min(count, len(train) // (LEAST_LEFT + 1))
    is_taken = fits >= min(count, LEAST_ASIDE) and len(train) - fits >= config.rollout.prompts_per_step
    chosen = sorted(train, key=lambda prompt: Stream(0, stream="held aside", prompt_id=prompt.id).seed())[: fits if is_taken else count]
    ids = {prompt.id for prompt in chosen}
    aside = replace(without_answers(train), prompts=tuple(prompt for prompt in train if prompt.id in ids))
    if not is_taken:
        return train, aside
    return replace(train, prompts=tuple(prompt for prompt in train if prompt.id not in ids)), aside


def _further(config: RunConfig, train: PromptSet, labelled: Sequence[PromptSet], count: int) -> PromptSet | None:
    """Problems of the training task that are in none of these sets; None where there are no such."""
    name = config.prompts.task
    if name is None or name.startswith("gym:"):
        return None
    taken = ids_of_forms(train).union(*map(ids_of_forms, labelled))
    try:
        made = mixture(name, count, Stream(config.run.seed).at(stream="held aside").seed() % 2**32, exclude=taken)
    except PromptError:
        return None
    return without_answers(in_template(made, training_template(config.prompts)))


def without_answers(prompts: PromptSet) -> PromptSet:
    """The prompts alone: no probe may know a true answer."""
    return replace(prompts, sheet=AnswerSheet({}), gym_entries={})


def make_probes(config: RunConfig, aside: PromptSet) -> ProbeSet:
    """The probe set of held-aside prompts; nothing is asked without any. Raises ConfigError for canaries that do not exist."""
    if not len(aside):
        return ProbeSet(())
    known = make_canaries(config) if config.probes.canaries else None
    if toy.is_toy(config.policy.model):
        texts = [prompt.text for prompt in toy.problems(len(OFF_DOMAIN), first=TOY_OFF_DOMAIN_FIRST)]
        return make_probe_set(aside, Wordings(template_text("raw"), toy.second_wording), texts, known)
    wordings = Wordings(training_template(config.prompts), tasks.second_wording, tasks.is_problem_where)
    return make_probe_set(aside, wordings, OFF_DOMAIN, known)


def make_prober(config: RunConfig, aside: PromptSet, policy: Policy) -> Prober:
    """The stage of the loop, without the prompts that leave the policy no room for a completion."""
    probes = make_probes(config, aside)
    too_long = {prompt_id for prompt_id, _ in policy.too_long([one.prompt for one in probes.probes])}
    fitting = replace(probes, probes=tuple(one for one in probes.probes if one.prompt.id not in too_long))
    return Prober(fitting, drawing(config), config.probes.every_steps, config.run.num_steps)


def drawing(config: RunConfig) -> Drawing:
    """How probes are drawn and read: as the votes are. Free-form answers are compared by their text, as clusters of two steps have other names."""
    read = reader(config.labels.clustering if config.labels.clustering in ONE_ANSWER_CLUSTERINGS else "text")
    params, probes = replace(vote_params(config), certainties=False), config.probes
    return Drawing(
        params,
        probes.num_votes,
        Stream(config.run.seed),
        lambda group: read_and_count(group, read),
        max(1, probes.num_prompts),
        0 if uses_reference(config) or verifies(config) else max(1, probes.num_prompts),
        is_exact=config.policy.sampler != "vllm",
    )


def make_canaries(config: RunConfig) -> Mapping[Prompt, AnswerKey]:
    """Problems of built-in tasks in the training template, as many as prompts are held aside, with the key of the right answer.

    Raises ConfigError for the toy and for an unknown task.
    """
    names, count = config.probes.canaries, config.probes.num_prompts
    given = f"probes.canaries = {', '.join(names)}"
    if toy.is_toy(config.policy.model):
        raise ConfigError(f"{given}, policy.model = {config.policy.model}", "the toy policy knows its own problems only", "Leave probes.canaries out.")
    try:
        made = mixture(",".join(names), count, Stream(config.run.seed).at(stream="canaries").seed() % 2**32)
    except PromptError as error:
        raise ConfigError(given, error.why, f"{error.do[0].upper()}{error.do[1:]}.") from error
    shown = in_template(made, training_template(config.prompts))
    return {prompt: key(tasks.solved(problem.text)) for prompt, problem in zip(shown, made, strict=True)}
