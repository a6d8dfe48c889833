"""TOML files and command-line values -> RunConfig. Later layers win: defaults < files from left to right < command line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from selftrain.config import ONE_ANSWER_CLUSTERINGS, RunConfig
from selftrain.config_section import Section
from selftrain.errors import ConfigError

Layer = dict[str, dict[str, Any]]
KINDS: Mapping[Any, str] = {
    bool: "yes or no",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a table",
    tuple: "a list of texts, none of them empty, on the command line the option once for each",
    Literal: "one of these names",
}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def load_config(files: str | Path | Sequence[str | Path] = (), overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The resolved config.

    files: a TOML file, or several, the later ones above the earlier ones. overrides: values by dotted name, for example {"update.learning_rate": 1e-6};
    texts are parsed to the option's type. Where no layer names `policy.model`, the recipe of the embedded model (recipes/embedded.toml) lies under them,
    so that a run without any argument works; its task gives way to a file or dataset. Raises ConfigError for a missing file, bad TOML, an unknown key (the
    nearest one is named) or a bad value or combination.
    """
    named = [files] if isinstance(files, str | Path) else files
    own = {name: str(value) if isinstance(value, Path) else value for name, value in (overrides or {}).items()}
    layers = [read_toml(Path(file)) for file in named] + [unflatten(own)]
    if not any("model" in layer.get("policy", {}) for layer in layers):
        below = recipe("embedded")
        if any(layer.get("prompts", {}).get(source) is not None for layer in layers for source in ("file", "dataset")):
            del below["prompts"]["task"]
        layers.insert(0, below)
    merged: Layer = {}
    for layer in layers:
        for section, values in layer.items():
            merged.setdefault(section, {}).update(values)
    return validate(merged)


def recipe(name: str) -> Layer:
    """A config that ships with the package, as a layer."""
    return tomllib.loads(resources.files("selftrain.recipes").joinpath(f"{name}.toml").read_text("utf-8"))


def read_toml(path: Path) -> Layer:
    try:
        layer: Layer = tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"config file {path}", "there is no such file", "Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path}", f"it cannot be read ({error})", "Give a readable UTF-8 TOML file.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config file {path}", f"it is not TOML ({error})", "Mend that line; docs/configuration.md shows a file.") from error
    check_names(layer, str(path))
    return layer


def unflatten(overrides: Mapping[str, Any]) -> Layer:
    """{"run.seed": 1} -> {"run": {"seed": 1}}."""
    layer: Layer = {}
    for name, value in overrides.items():
        section, dot, field = name.partition(".")
        if not dot:
            raise ConfigError(f"option {name}", "an option has the form section.name", f"Did you mean {nearest(name, option_names())}?")
        layer.setdefault(section, {})[field.replace("-", "_")] = value
    check_names(layer, "command line")
    return layer


def option_names() -> list[str]:
    """All options, dotted, in order: run.name, run.folder, ..."""
    return [f"{section}.{field}" for section, info in RunConfig.model_fields.items() for field in fields_of(info.annotation)]


def fields_of(section: Any) -> dict[str, Any]:
    assert issubclass(section, Section)
    return dict(section.model_fields)


def nearest(name: str, known: Sequence[str]) -> str:
    return (difflib.get_close_matches(name, known, n=1, cutoff=0.0) or [known[0]])[0]


def check_names(layer: Mapping[str, Any], origin: str) -> None:
    """Raises ConfigError for a section or option that does not exist, naming the nearest one that does."""
    known = option_names()
    for section, values in layer.items():
        if section not in RunConfig.model_fields:
            given = f"{section}.{next(iter(values))}" if isinstance(values, Mapping) and values else section
            raise ConfigError(f"{origin}: [{section}]", "there is no such section", f"The nearest option is {nearest(given, known)}.")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{origin}: {section} = {values!r}", "a section is a table", f"Write [{section}] and its options below it.")
        for field in values:
            if f"{section}.{field}" not in known:
                near = nearest(f"{section}.{field}", known)
                raise ConfigError(f"{origin}: {section}.{field}", "there is no such option", f"The nearest one is {near}.")


def validate(merged: Layer) -> RunConfig:
    try:
        config = RunConfig.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:2])
        place = ".".join([name, *(part for part in first["loc"][2:] if isinstance(part, str) and part != "[key]")])
        why = first["msg"].removeprefix("Value error, ").replace("Tuple", "List").replace("tuple", "list")
        raise ConfigError(f"{place} = {first['input']!r}", why[0].lower() + why[1:], what_to_give(name)) from error
    check_combination(config)
    return config


def with_options(config: RunConfig, options: Mapping[str, Any]) -> RunConfig:
    """The config with other values for some options, by dotted name. Raises ConfigError where they are not allowed."""
    values = config.model_dump()
    for option, value in options.items():
        section, _, field = option.partition(".")
        values[section][field] = value
    return validate(values)


RETIRED = ("rollout.sequences_per_batch",)
"""options of earlier versions that said how the work is cut up and not what it gives; recorded configs may still hold them"""


def validate_recorded(recorded: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """The config of a recorded run, which an earlier version may have written. Raises ConfigError as `validate` does."""
    return validate({section: {field: value for field, value in values.items() if f"{section}.{field}" not in RETIRED} for section, values in recorded.items()})


def what_to_give(name: str) -> str:
    """What an option takes, its unit and its meaning: `Give a number (allowed: above 0). update.learning_rate [1/update]: Peak learning rate.`"""
    section, _, field = name.partition(".")
    info = fields_of(RunConfig.model_fields[section].annotation)[field]
    kinds = [kind for kind in (info.annotation, *get_args(info.annotation)) if (get_origin(kind) or kind) in KINDS]
    choices = get_args(kinds[0]) if get_origin(kinds[0]) is Literal else ()
    bounds = [f"{words} {getattr(limit, sign):g}" for limit in info.metadata for sign, words in BOUNDS.items() if getattr(limit, sign, None) is not None]
    allowed = ", ".join(choices or bounds)
    given = KINDS[get_origin(kinds[0]) or kinds[0]] + (f" (allowed: {allowed})" if allowed else "")
    return f"Give {given}. {name} [{info.json_schema_extra['unit']}]: {info.description}"


def check_combination(config: RunConfig) -> None:
    """Raises ConfigError for values that are right alone and wrong together."""
    rollout, objective = config.rollout, config.objective
    if rollout.group_size is not None and rollout.group_size > rollout.num_votes:
        raise ConfigError(
            f"rollout.group_size = {rollout.group_size}, rollout.num_votes = {rollout.num_votes}",
            "more completions cannot be trained on than vote",
            "Lower rollout.group_size or raise rollout.num_votes.",
        )
    if objective.kl_in == "loss" and objective.kl_estimator == "k1":
        raise ConfigError(
            "objective.kl_in = loss, objective.kl_estimator = k1",
            "the gradient of k1 in the loss has mean zero, so it would do nothing",
            "Use k2 in the loss, or k1 in the reward.",
        )
    sources = [name for name in ("file", "dataset", "task") if getattr(config.prompts, name) is not None]
    if config.policy.model.partition(":")[0] != "toy" and len(sources) != 1:
        raise ConfigError(
            f"prompts: {' and '.join(sources) or 'no source'}",
            "exactly one of prompts.file, prompts.dataset and prompts.task is needed",
            "For example --prompts.file questions.jsonl",
        )
    check_clustering(config)
    if (config.second_view.wording == "template") != (config.second_view.template is not None):
        raise ConfigError(
            f"second_view.wording = {config.second_view.wording}, second_view.template {'is unset' if config.second_view.template is None else 'is given'}",
            "a second template is needed for that wording and for no other",
            "Give --second-view.wording template and --second-view.template together, or neither.",
        )
    if objective.mask_answer and config.labels.clustering != "exact":
        raise ConfigError(
            f"objective.mask_answer = yes, labels.clustering = {config.labels.clustering}",
            "a free-form answer has no place of its own in the completion: it may be all of it, and nothing would be left to learn",
            "Leave labels.clustering at exact, or objective.mask_answer at no.",
        )
    if config.evals.file is not None and config.evals.task is not None:
        raise ConfigError("evals.file and evals.task", "held-out problems come from one place", "Leave one of them out.")
    if config.update.num_minibatches > rollout.prompts_per_step:
        raise ConfigError(
            f"update.num_minibatches = {config.update.num_minibatches}, rollout.prompts_per_step = {rollout.prompts_per_step}",
            "a group is never split, so there cannot be more minibatches than groups",
            "Lower update.num_minibatches.",
        )
    if config.probes.canaries and not config.probes.num_prompts:
        raise ConfigError(
            f"probes.canaries = {', '.join(config.probes.canaries)}, probes.num_prompts = 0",
            "without probes no canary is asked",
            "Leave probes.canaries out, or give --probes.num-prompts a number of prompts.",
        )
    check_devices(config)


def check_clustering(config: RunConfig) -> None:
    """Raises ConfigError for a label source that compares keys which the clustering does not make comparable."""
    clustering = config.labels.clustering
    follows = "Take labels.source majority, the policy's own vote, or labels.clustering exact or text, whose keys follow from each answer alone."
    apart = {
        who: (ONE_ANSWER_CLUSTERINGS, (f"the answers of {who} would be clustered apart from the policy's, so its label would mean nothing among them", follows))
        for who in ("the teacher", "the second view", "the other wordings")
    }
    limits = {
        "reference": (
            ("exact",),
            ("a reference answer is compared by its canonical key, not by clusters", "Leave labels.clustering at exact, or take a vote as label source."),
        ),
        "frozen": apart["the teacher"],
        "ema": apart["the teacher"],
        "stored": apart["the teacher"],
        "second_view": apart["the second view"],
        "views": apart["the other wordings" if config.views.voter == "current" else "the teacher"],
        "flip_damped": (ONE_ANSWER_CLUSTERINGS, ("clusters of two steps have other names, so every visit to a prompt would count as a flip", follows)),
    }
    if "second_view" in config.gate.conditions:
        limits["gate"] = apart["the second view"]
    if {"base", "ema", "stored"} & set(config.gate.conditions):
        limits["gate"] = apart["the teacher"]
    if config.restrained.prompt_sigma_frac is not None and clustering == "judge":
        why = "nobody judges the start's answers, so its vote share, by which restrained.prompt_sigma_frac weighs the prompt, would be that of equal words"
        limits["restrained"] = ((), (why, "Leave restrained.prompt_sigma_frac unset, or take another labels.clustering."))
    for option, name in config.label_sources:
        allowed, (why, do) = limits.get(name, ((clustering,), ("", "")))
        if clustering not in allowed:
            raise ConfigError(f"{option} = {name}, labels.clustering = {clustering}", why, do)


def check_devices(config: RunConfig) -> None:
    """Raises ConfigError for an optimizer or sampler that the policy or its device does not have."""
    policy, optimizer = config.policy, config.update.optimizer
    if policy.model.partition(":")[0] == "toy" and optimizer != "adamw":
        raise ConfigError(
            f"policy.model = {policy.model}, update.optimizer = {optimizer}", "the toy policy has one optimizer", "Leave update.optimizer at adamw."
        )
    if optimizer == "adamw_paged_8bit" and policy.device != "cuda":
        raise ConfigError(
            f"update.optimizer = {optimizer}, policy.device = {policy.device}",
            "paged states live in CUDA managed memory",
            "Take adamw_8bit, or set policy.device to cuda.",
        )
    if policy.sampler == "vllm" and policy.model.partition(":")[0] == "toy":
        raise ConfigError(f"policy.sampler = vllm, policy.model = {policy.model}", "vLLM runs Hugging Face models", "Leave policy.sampler at torch.")
    sure = next((f"{option} = {name}" for option, name in config.label_sources if name in ("token_entropy", "self_certainty")), None)
    if policy.sampler == "vllm" and sure is not None:
        raise ConfigError(
            f"policy.sampler = vllm, {sure}",
            "vLLM gives the probabilities of the tokens it drew and not of the others, from which this reward is made",
            "Set policy.sampler to torch, or take another label source.",
        )
    if policy.sampler == "vllm" and policy.device != "cuda":
        raise ConfigError(
            f"policy.sampler = vllm, policy.device = {policy.device}", "vLLM samples on a GPU", "Set policy.device to cuda, or leave policy.sampler at torch."
        )
