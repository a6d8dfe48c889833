"""labels.source and the sections of named sources -> the label source with all that it needs. Part of the composition root: `compose.py` calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.compose_stored import stored_votes
from selftrain.compose_wording import second_view, views
from selftrain.config import RunConfig
from selftrain.errors import ConfigError
from selftrain.extension import imported, requests_of, resolve
from selftrain.labels import LABEL_SOURCES, Bounds, Labelling, LabelSource
from selftrain.labels.composed import FirstOf, Mixture
from selftrain.labels.controls import Random
from selftrain.labels.flip_damped import FlipDamped
from selftrain.labels.gate import Condition, Gate
from selftrain.labels.gate import second_view as second_view_holds
from selftrain.labels.novelty import Novelty
from selftrain.labels.reference import Reference
from selftrain.labels.restrained import Restrained
from selftrain.labels.self_judge import SelfJudge
from selftrain.labels.source import Remembers
from selftrain.labels.stored import Stored
from selftrain.labels.verified import verified
from selftrain.policies.base import SamplingParams
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, PromptSet, question_of

TRUTH_CHANNELS = ("reference", "verifier")
"""label sources through which truth reaches an update (design law 1)"""
VALIDATION = "validation"
"""the channel through which truth chooses the checkpoint and nothing else"""
OWN_REWARDS = ("random", "format_only", "inverted", "restrained", "novelty", "token_entropy", "self_certainty", "self_judge", "verifier", "mixture")
"""label sources that give the rewards themselves, so that no reward rule is asked"""
OTHER_VOTES = ("split_vote", "frozen", "ema", "stored", "second_view", "views", "reference")
"""label sources whose label is not the vote of the whole group, which is all that reward.rule = share looks at"""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a source may be bound to. prompts: to train on, for sources that word them anew, and with them the true answers, for `reference` alone.
    seeds: of the run.
    """

    config: RunConfig
    prompts: PromptSet
    seeds: Stream

    @property
    def sheet(self) -> AnswerSheet:
        return self.prompts.sheet

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.config.labels.min_read_frac, self.config.labels.min_share_frac)


def label_source(needs: Needs, option: str, name: str) -> Labelling:
    """The source that `option` names. Raises ConfigError for an unknown name and for a source that misses what it needs."""
    if name in BOUND:
        source = BOUND[name](needs, option)
        return Labelling(source, getattr(source, "requests", None), needs.bounds)
    if name not in KNOWN_SOURCES and isinstance(imported(option, name, KNOWN_SOURCES), Remembers):
        raise ConfigError(
            f"{option} = {name}",
            "it has `state` and `load`, but what a source of yours remembers is in no checkpoint, so a resumed or rolled-back run would differ from its record",
            "Make it a pure function of its arguments, or build it into the package as labels/flip_damped.py is.",
        )
    return Labelling(resolve(option, name, KNOWN_SOURCES), requests_of(option, name, KNOWN_SOURCES), needs.bounds)


def reference(needs: Needs, option: str) -> Reference:
    if not len(needs.sheet):
        raise ConfigError(
            f"{option} = reference",
            f"no prompt has a true answer in column {needs.config.prompts.answer_field}",
            "Name the column with --prompts.answer-field, or train label-free with --labels.source ema.",
        )
    return Reference(needs.sheet, needs.config.reference.frac, needs.seeds)


def first_of(needs: Needs, option: str) -> FirstOf:  # noqa: ARG001
    return FirstOf(parts(needs, "first_of", "first_of.sources", needs.config.first_of.sources, ("first_of",)))


def mixture(needs: Needs, option: str) -> Mixture:  # noqa: ARG001
    weights = needs.config.mixture.weights
    return Mixture(parts(needs, "mixture", "mixture.weights", sorted(weights), ("first_of", "mixture")), weights)


def parts(needs: Needs, whole: str, option: str, names: Sequence[str], without: Sequence[str]) -> dict[str, Labelling]:
    """The sources that a composition is made of, by name. Raises ConfigError for one that it cannot hold or that stands there twice."""
    given = f"{option} = {', '.join(names)}"
    held = next((name for name in names if name in without), None)
    if held is not None:
        raise ConfigError(given, f"{whole} cannot hold {held}: a composition would hold itself", "Name sources that are not made of others, or gate.")
    if len(set(names)) != len(names):
        raise ConfigError(given, "a source stands there twice, and would decide as it did before", "Name each once.")
    return {name: label_source(needs, option, name) for name in names}


def verifier(needs: Needs, option: str) -> LabelSource:
    prompts = needs.config.prompts
    if needs.config.verifier.function is None and not (prompts.task or "").startswith("gym:"):
        given = next(
            (f"prompts.{name} = {value}" for name in ("task", "file", "dataset") if (value := getattr(prompts, name)) is not None), "the toy's problems"
        )
        raise ConfigError(
            f"{option} = verifier, {given}",
            "these prompts have no verifier of their own, and verifier.function names none",
            "Name one with --verifier.function package.module:function, or train on a reasoning-gym task (--prompts.task gym:NAME).",
        )
    return verified


def gate(needs: Needs, option: str) -> Gate:  # noqa: ARG001
    section = needs.config.gate
    bound: dict[str, Condition] = {}
    if "stored" in section.conditions:
        bound["stored"] = Condition(stored_votes(needs.config, needs.prompts, "gate.conditions").agree)
    if "second_view" in section.conditions:
        bound["second_view"] = second_view_holds(second_view(needs.config, needs.prompts))
    return Gate(section.conditions, section.min_share_frac, bound)


def restrained(needs: Needs, option: str) -> Restrained:  # noqa: ARG001
    section = needs.config.restrained
    return Restrained(section.sigma_frac, section.min_share_frac, section.penalty, section.prompt_sigma_frac)


def novelty(needs: Needs, option: str) -> Novelty:  # noqa: ARG001
    return Novelty(needs.config.novelty.num_chars, needs.config.novelty.mean_frac)


def self_judge(needs: Needs, option: str) -> SelfJudge:
    section = needs.config.self_judge
    if section.temperature == 0 and section.num_judgements > 1:
        raise ConfigError(
            f"{option} = self_judge, self_judge.temperature = 0, self_judge.num_judgements = {section.num_judgements}",
            "greedy replies to one question are all the same, so all but the first would cost and say nothing",
            "Set self_judge.num_judgements to 1, or self_judge.temperature above 0.",
        )
    params = SamplingParams(section.max_new_tokens, section.temperature)
    questions = needs.prompts.questions
    return SelfJudge(lambda prompt: question_of(prompt, questions), section.num_judgements, params, section.policy)


BOUND: Mapping[str, Callable[[Needs, str], LabelSource]] = {
    "reference": reference,
    "verifier": verifier,
    "first_of": first_of,
    "mixture": mixture,
    "gate": gate,
    "stored": lambda needs, option: Stored(stored_votes(needs.config, needs.prompts, option)),
    "random": lambda needs, option: Random(needs.seeds),
    "second_view": lambda needs, option: second_view(needs.config, needs.prompts),
    "views": lambda needs, option: views(needs.config, needs.prompts),
    "restrained": restrained,
    "novelty": novelty,
    "self_judge": self_judge,
    "flip_damped": lambda needs, option: FlipDamped(),
}
"""Sources that are made for a run: (what there is, the option that names it) -> the source."""
KNOWN_SOURCES: Mapping[str, Any] = {**LABEL_SOURCES, **BOUND}


def check_reward_rule(config: RunConfig) -> None:
    """Raises ConfigError for a reward rule that would never be asked, and for a label that the rule would never look at."""
    rule, asked = config.reward.rule, [one for one in config.label_sources if one[1] != "first_of" and one[0] != "mixture.weights"]
    if rule != "match" and all(name in OWN_REWARDS for _, name in asked):
        given = ", ".join(name for _, name in asked)
        raise ConfigError(
            f"{asked[0][0]} = {given}, reward.rule = {rule}",
            "this label source gives the rewards itself, so the rule would do nothing",
            "Leave reward.rule at match, or take another label source.",
        )
    other = next((f"{option} = {name}" for option, name in asked if name in OTHER_VOTES), None)
    if rule == "share" and other is not None:
        raise ConfigError(
            f"{other}, reward.rule = share",
            "share rewards each answer by its own votes in the group, whatever the label is, so who labels would change nothing but which groups train",
            "Take labels.source majority (or gate or flip_damped), whose label is the group's own vote, or leave reward.rule at match.",
        )


def verifies(config: RunConfig) -> bool:
    return any(name == "verifier" for _, name in config.label_sources)


def uses_reference(config: RunConfig) -> bool:
    return any(name == "reference" for _, name in config.label_sources)


def truth_channels(config: RunConfig) -> list[str]:
    """The named channels by which truth can reach an update, a verdict or the choice of the checkpoint; empty means label-free (design law 1)."""
    sources = [f"{option}={name}" for option, name in config.label_sources if name in TRUTH_CHANNELS]
    return [*sources, *(f"probes.canaries={name}" for name in config.probes.canaries), *([VALIDATION] if config.validation.is_on else [])]
