"""Config -> the parts of a run: prompts, policy, label source, scorer, guard. Everything is checked here, before the first sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from typing import Any

from selftrain.advantage import ADVANTAGE_RULES
from selftrain.answers import KEY_VERSION
from selftrain.answers.freeform import reader
from selftrain.compose_correction import check_correction, check_second_turns
from selftrain.compose_labels import Needs, check_reward_rule, label_source, truth_channels, uses_reference, verifies
from selftrain.compose_order import make_strata
from selftrain.compose_probes import NO_PROMPTS, make_probes, set_aside
from selftrain.compose_stored import stored_header
from selftrain.config import RunConfig
from selftrain.errors import ConfigError, ModelError, PromptError, RunFolderError
from selftrain.evals import true_answers
from selftrain.extension import imported, resolve, source_hash
from selftrain.extras import RoleReader
from selftrain.labels import Labelling
from selftrain.labels.reference import answers_hash
from selftrain.ledger.objects import Place
from selftrain.models import folder as embedded_folder
from selftrain.policies.base import Policy, SamplingParams
from selftrain.policies.toy import START, ToyPolicy, is_toy
from selftrain.policies.toy import problems as toy_problems
from selftrain.probes import ProbeSet
from selftrain.prompts import check_disjoint, ids_of_forms, load_problems, load_prompts, load_validation, prompt_set_hash
from selftrain.reading import JudgedReading, PlainReading, Reading, read_judge, read_paraphrases
from selftrain.reward import REWARD_RULES
from selftrain.run_folder import named_as
from selftrain.scoring import Scorer
from selftrain.seeds import Stream
from selftrain.types import Message, PromptSet, Role, VotedGroup, question_of
from selftrain.verifiers import GYM
from selftrain.verifiers.pool import Limits, VerifierPool
from selftrain.verifiers.verification import Verification

TOY_PROMPTS = 256
TOY_HELD_OUT_FIRST = 1_000_000
HELD_OUT_ANSWERS = "held_out_answers_hash"
"""in the environment of run.json: these answers reach no decision, so they stand outside the chain, and evaluations of one run must agree in them"""
VALIDATION_ANSWERS = "validation_answers_hash"
"""in the header of a run whose checkpoint these answers choose"""
VERIFIER = "verifier.function"
COMPOSED_OF = ("first_of.sources", "mixture.weights")
"""options that name the label sources of a composition"""
PLACE_OPTIONS = ("name", "folder")
"""options of [run] that say where a run is kept; they do not change what it does and are left out of its hash"""

Verify = Callable[[Sequence[VotedGroup]], list[VotedGroup]]


@dataclass(frozen=True, slots=True)
class Problems:
    """The prompts to train on and, where there are any, the held-out problems, those that choose the checkpoint, and the prompts held aside for probes."""

    train: PromptSet
    held_out: PromptSet | None
    validation: PromptSet | None = None
    aside: PromptSet = NO_PROMPTS


def load_sets(config: RunConfig) -> Problems:
    """Training prompts and held-out problems, disjoint, the held-out ones with true answers. Raises PromptError or ConfigError."""
    sets = with_aside(config, toy_sets(config) if is_toy(config.policy.model) else named_sets(config))
    train, held_out, validation = sets.train, sets.held_out, sets.validation
    for labelled in (held_out, validation):
        if labelled is not None:
            check_disjoint(train, labelled)
            true_answers(labelled)
    if held_out is not None and validation is not None:
        check_disjoint(validation, held_out)
    if len(train) < config.rollout.prompts_per_step:
        raise PromptError(
            f"{len(train)} prompts from {train.origin}, rollout.prompts_per_step = {config.rollout.prompts_per_step}",
            "a step needs that many different prompts",
            "Give more prompts or lower --rollout.prompts-per-step.",
        )
    return sets


def as_recorded(sets: Problems, config: RunConfig, at_home: RunConfig) -> Problems:
    """Sets that were read where they lie now (`at_home`), called as the run called them."""
    held_out, validation = (None if one is None else named_as(config, at_home, one) for one in (sets.held_out, sets.validation))
    return Problems(named_as(config, at_home, sets.train), held_out, validation, sets.aside)


def with_aside(config: RunConfig, sets: Problems) -> Problems:
    """The sets with the prompts of probes held aside."""
    labelled = [one for one in (sets.held_out, sets.validation) if one is not None]
    train, aside = set_aside(config, sets.train, labelled, config.probes.num_prompts)
    return replace(sets, train=train, aside=aside)


def named_sets(config: RunConfig) -> Problems:
    """The sets that [prompts], [evals] and [validation] name. A task does not make labelled problems again, in neither form."""
    held_out = load_problems(config.evals, config.prompts, config.run.seed)
    exclude = ids_of_forms(held_out) if held_out and config.evals.file is None else frozenset()
    validation = load_validation(config.validation, config.prompts, config.run.seed, exclude)
    exclude |= ids_of_forms(validation) if validation and config.validation.task is not None else frozenset()
    return Problems(load_prompts(config.prompts, config.run.seed, exclude), held_out, validation)


def toy_sets(config: RunConfig) -> Problems:
    """The toy policy's own problems. Raises ConfigError for a source that it could not read."""
    named = ("prompts.file", "prompts.dataset", "prompts.task", "evals.file", "evals.task", "validation.file")
    values = {name: getattr(getattr(config, name.partition(".")[0]), name.partition(".")[2]) for name in named}
    given = [f"{name} = {value}" for name, value in values.items() if value is not None]
    if given:
        raise ConfigError(
            f"policy.model = {config.policy.model}, {', '.join(given)}", "the toy policy knows its own problems only", "Leave them out, or name another model."
        )
    held_out = toy_problems(config.evals.num_problems, first=TOY_HELD_OUT_FIRST)
    if not config.validation.is_on:
        return Problems(toy_problems(config.prompts.count or TOY_PROMPTS), held_out)
    if config.validation.task != "toy":
        raise ConfigError(f"validation.task = {config.validation.task}", "the toy policy knows its own problems only", "Give --validation.task toy.")
    validation = toy_problems(config.validation.num_problems, first=TOY_HELD_OUT_FIRST + config.evals.num_problems)
    return Problems(toy_problems(config.prompts.count or TOY_PROMPTS), held_out, validation)


def load_policy(config: RunConfig) -> Policy:
    """The policy at its start. Raises ModelError, MissingExtraError or ConfigError."""
    if is_toy(config.policy.model):
        if config.policy.model not in START:
            raise ConfigError(f"policy.model = {config.policy.model}", "there is no such toy policy", f"Choose one of {', '.join(START)}.")
        return ToyPolicy(config.policy.model, config.update, config.ema.decay)
    if config.policy.sampler == "vllm":
        from selftrain.policies.vllm import check_installed

        check_installed()
    from selftrain.policies.torch import load_policy as load_torch_policy

    source = model_source(config.policy.model)
    policy = load_torch_policy(config.policy, config.update, source, config.rollout.cache_mib, config.run.seed, config.ema.decay)
    if not policy.sampler.stop_ids and not config.rollout.stop:
        raise ModelError(
            f"policy.model = {config.policy.model}",
            "neither its tokenizer nor its configs name an end token, so no completion would ever end",
            "Set eos_token in its tokenizer_config.json, or give texts that end a completion with --rollout.stop.",
        )
    if config.policy.sampler == "torch":
        return policy
    from selftrain.policies.vllm import with_vllm

    return with_vllm(policy, config, source)


def check_lengths(config: RunConfig, policy: Policy, problems: Problems) -> None:
    """Raises PromptError when a prompt is longer than `prompts.max_prompt_tokens` or than the model can take."""
    sets = [one for one in (problems.train, problems.aside, problems.held_out) if one is not None]
    found = list(dict.fromkeys(one for prompts in sets for one in policy.too_long(prompts.prompts, config.prompts.max_prompt_tokens)))
    if not found:
        return check_second_turns(config, policy, problems.train.prompts[0])
    beyond = list(dict.fromkeys(one for prompts in sets for one in policy.too_long(prompts.prompts)))
    found = beyond or found
    shown = ", ".join(f"{prompt_id} ({tokens} tokens)" for prompt_id, tokens in found[:3])
    given = f"{len(found)} prompt{'s' if len(found) > 1 else ''}: {shown}{', ...' if len(found) > 3 else ''}"
    if beyond:
        why = f"the context of {config.policy.model} has no room for them and a completion"
        raise PromptError(given, why, "Take them out or shorten them, or train a model with a longer context.")
    raise PromptError(
        given,
        f"they are longer than prompts.max_prompt_tokens = {config.prompts.max_prompt_tokens}",
        "Take them out, or raise --prompts.max-prompt-tokens (sampling then needs more memory).",
    )


def model_source(model: str) -> str:
    """The folder of an embedded model; any other name is a folder or hub id already."""
    kind, _, name = model.partition(":")
    return str(embedded_folder(name)) if kind == "embedded" else model


def make_labelling(config: RunConfig, prompts: PromptSet) -> Labelling:
    """The label source with its bounds. Only `reference` is handed the true answers. Raises ConfigError for a source that misses something in the prompts."""
    return label_source(Needs(config, prompts, Stream(config.run.seed)), "labels.source", config.labels.source)


def make_verification(config: RunConfig, prompts: PromptSet) -> Verify:
    """The stage that asks the verifier; it changes nothing in a run without one. Raises ConfigError when it cannot start."""
    if not verifies(config):
        return list
    section = config.verifier
    if section.function is not None:
        imported(VERIFIER, section.function, {})
    entries = prompts.gym_entries if section.function is None else {}
    tasks = dict.fromkeys((entry["task"], entry["level"]) for entry in entries.values())
    pool = VerifierPool(section.function or GYM, Limits(section.timeout_s, section.memory_mib), tasks=tuple(tasks))
    pool.start()
    return Verification(pool, section.frac, Stream(config.run.seed), prompts.questions, entries)


def check_verifier(config: RunConfig, prompts: PromptSet) -> None:
    """Raises ConfigError where the verifier of a run could not start. Nothing that was started for it is kept."""
    verify = make_verification(config, prompts)
    if isinstance(verify, Verification):
        verify.pool.close()


def make_reading(config: RunConfig, questions: Mapping[str, tuple[Message, ...]]) -> Reading:
    """How completions are read. questions: by prompt id, what was asked without the template, which is what a judge is told."""
    if config.labels.clustering != "judge":
        return PlainReading(reader(config.labels.clustering))
    section = config.judge
    return JudgedReading(section.max_pairs, SamplingParams(section.max_new_tokens, section.temperature), lambda prompt: question_of(prompt, questions))


def role_readers(reading: Reading) -> Mapping[Role, RoleReader]:
    """How the groups of each role are read: the answers of teachers, views and corrections as the votes are, a judge's replies as verdicts, paraphrases as
    wordings.
    """
    return {Role.TEACHER: reading, Role.VIEW: reading, Role.CORRECTION: reading, Role.JUDGE: read_judge, Role.PARAPHRASE: read_paraphrases}


def make_scorer(config: RunConfig) -> Scorer:
    return Scorer(
        reward=resolve("reward.rule", config.reward.rule, REWARD_RULES),
        advantage=resolve("advantage.rule", config.advantage.rule, ADVANTAGE_RULES),
        group_size=config.rollout.group_size or config.rollout.num_votes,
        kl_coef=config.objective.kl_coef if config.objective.kl_in == "reward" else None,
        kl_estimator=config.objective.kl_estimator,
    )


def check_parts(config: RunConfig, problems: Problems) -> None:
    """Raises ConfigError for a label source, rule or clustering that does not exist or misses something, and for a second turn that cannot be rewarded."""
    check_reward_rule(config)
    check_correction(config)
    make_labelling(config, problems.train)
    make_strata(config, problems.train)
    make_scorer(config)
    make_reading(config, problems.train.questions)
    make_probes(config, problems.aside)


def deciding(config: RunConfig) -> dict[str, Any]:
    """The options that decide a run, as JSON values: all but its name and folder."""
    values: dict[str, Any] = config.model_dump(mode="json")
    values["run"] = {name: value for name, value in values["run"].items() if name not in PLACE_OPTIONS}
    return values


def config_hash(config: RunConfig) -> str:
    return hash_of_options(deciding(config))


def hash_of_options(values: Mapping[str, Any]) -> str:
    """Of a config as it is recorded. An earlier version's has fewer options, so it is hashed as it stands and not as this version would write it."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def about(prompts: PromptSet | None) -> Mapping[str, Any] | None:
    """What the header says of a prompt set; its hash leaves answers out."""
    return None if prompts is None else {"origin": prompts.origin, "count": len(prompts), "hash": prompt_set_hash(prompts)}


def about_probes(probes: ProbeSet) -> Mapping[str, Any] | None:
    """What the header says of the prompts of probes, all wordings together; None without probes."""
    prompts = [one.prompt for one in probes.probes]
    return {"count": len(prompts), "hash": prompt_set_hash(prompts)} if prompts else None


def outside_functions(config: RunConfig) -> list[tuple[str, str]]:
    """(option, `package.module:function`) of the functions of the user's that decide in a run."""
    named = (
        *config.label_sources,
        ("labels.clustering", config.labels.clustering),
        ("reward.rule", config.reward.rule),
        ("advantage.rule", config.advantage.rule),
        (VERIFIER, (config.verifier.function or "") if verifies(config) else ""),
    )
    return [(option, name) for option, name in named if ":" in name]


def code_key(option: str, name: str) -> str:
    """What the header calls an outside function: compositions have several for one option."""
    return f"{option}={name}" if option in COMPOSED_OF else option


def header_of(config: RunConfig, problems: Problems, policy: Policy) -> Mapping[str, Any]:
    """What the ledger starts with: nothing in it depends on the clock, the place or a true answer."""
    return {
        "config": deciding(config),
        "config_hash": config_hash(config),
        "class": "exact" if config.policy.device == "cpu" and not verifies(config) else "replayable",  # a verifier's limits depend on the clock
        "label_free": not truth_channels(config),
        "truth_channels": truth_channels(config),
        "outside_code": {code_key(option, name): source_hash(name, {}) for option, name in outside_functions(config)},
        "answers_hash": answers_hash(problems.train) if uses_reference(config) else None,
        **({} if problems.validation is None else {VALIDATION_ANSWERS: answers_hash(problems.validation)}),
        **stored_header(config, problems.train),
        "prompts": about(problems.train),
        "held_out": about(problems.held_out),
        "validation": about(problems.validation),
        "probes": about_probes(make_probes(config, problems.aside)),
        "model_hash": policy.weights_hash(),
        "key_version": KEY_VERSION,
        "selftrain_version": installed_version("selftrain"),
    }


def environment_of(problems: Problems) -> dict[str, Any]:
    """What run.json says of the problems outside the header: the hash of the held-out answers."""
    return {} if problems.held_out is None else {HELD_OUT_ANSWERS: answers_hash(problems.held_out)}


def check_held_out_answers(folder: Place, environment: Mapping[str, Any], problems: Problems) -> None:
    """Raises RunFolderError where the evaluations that are recorded were made with other true answers. Runs of earlier versions do not say."""
    recorded = environment.get(HELD_OUT_ANSWERS)
    if recorded is not None and problems.held_out is not None and answers_hash(problems.held_out) != recorded:
        why = "they are not those the run was started with, so its evaluations could not be compared"
        raise RunFolderError(f"run {folder}: the true answers of the held-out problems", why, "Restore them, or start a new run.")


def check_answers(prompts: PromptSet, recorded: Mapping[str, Any]) -> None:
    """Raises RunFolderError unless the training prompts have the true answers whose hash the run's header has."""
    if recorded.get("answers_hash") not in (None, answers_hash(prompts)):
        why = "they are not those the run was started with, so its labels cannot be made again"
        raise RunFolderError(f"the prompts or true answers of {prompts.origin}", why, "Restore them.")


def check_header(folder: Place, recorded: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    """Raises RunFolderError when a run that is taken up would go on with other prompts, another model or other functions than it began with."""
    for name, what in (
        ("prompts", "the training prompts"),
        ("held_out", "the held-out problems"),
        ("validation", "the validation problems"),
        ("probes", "the prompts of the probes"),
        ("model_hash", "the model at the start"),
        ("key_version", "the answer keys"),
        ("outside_code", "the functions of yours that its config names"),
        ("answers_hash", "the reference answers"),
        (VALIDATION_ANSWERS, "the true answers of the validation problems"),
        ("stored_labels", "the stored labels"),
    ):
        from_before = name == VALIDATION_ANSWERS and name not in recorded  # earlier versions did not record it
        if header.get(name) != recorded.get(name) and not from_before:
            do = "Go on with the version of selftrain that began it, or start a new run." if name == "key_version" else "Restore them, or start a new run."
            raise RunFolderError(f"run {folder}: {what}", "they are not those the run was started with", do)
