"""What is changed when the guard rolls a run back, and the config of each branch that follows from it: functions of configs and records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from selftrain.config import RunConfig
from selftrain.config_labels import StepShareSection
from selftrain.config_load import with_options
from selftrain.errors import ConfigError
from selftrain.ledger import BranchRecord, lineage, read
from selftrain.ledger.objects import Place
from selftrain.types import PromptSet, ScoredGroup

GUARD = "guard"
"""who rolled back, where it was no person"""
Options = Mapping[str, Any]

REMEDIES: Mapping[str, Callable[[RunConfig, float], Options]] = {
    "lower_rate": lambda config, factor: {"update.learning_rate": config.update.learning_rate * factor},
    "higher_min_share": lambda config, factor: {"labels.min_share_frac": 1.0 - (1.0 - config.labels.min_share_frac) * factor},
    "frozen_teacher": lambda config, factor: {"labels.source": "frozen"},
    "ema_teacher": lambda config, factor: {"labels.source": "ema"},
    "easier_prompts": lambda config, factor: {},
    "fewer_votes": lambda config, factor: fewer_votes(config, factor),
}
"""rollback.remedy -> the options that it changes"""
OTHERWISE = "Choose another rollback.remedy, or guard.action = halt."
UNBOUNDED = ("random", "format_only", "token_entropy", "self_certainty", "self_judge", "verifier", "reference", "mixture")
"""label sources that ask for no least share of a vote's winner (a mixture stands for what it is made of, which is named beside it)"""
LEAST_VOTES = 3
NEW_SIGNALS = ("easier_prompts", "fewer_votes")
"""remedies after which vote shares cannot be compared with those before: the guard measures the first steps anew"""


def fewer_votes(config: RunConfig, factor: float) -> Options:
    """At least three votes, since two agree or tie, and neither teaches anything; the trained part of a group is not larger than the group."""
    votes = min(config.rollout.num_votes, max(LEAST_VOTES, round(config.rollout.num_votes * factor)))
    size = config.rollout.group_size
    return {"rollout.num_votes": votes} if size is None else {"rollout.num_votes": votes, "rollout.group_size": min(size, votes)}


def remedy_of(config: RunConfig, groups: Callable[[], Iterable[ScoredGroup]], branches: Sequence[BranchRecord] = ()) -> Options:
    """What the record of a rollback says about its remedy: `kind`, the changed `options`, and for easier prompts the `prompts` that are left, by id.

    config: of the branch that is left. groups: gives those of its history, in order; only easier prompts look at them, and at what the branches so far left.
    """
    kind, factor = config.rollback.remedy, config.rollback.factor
    found: dict[str, Any] = {"kind": kind, "options": dict(REMEDIES[kind](config, factor))}
    if kind == "easier_prompts":
        found["prompts"] = easiest(groups(), factor, config.rollout.prompts_per_step, left_by(branches))
    return found


def check(config: RunConfig, num_prompts: int, check_parts: Callable[[RunConfig], None]) -> None:
    """Raises ConfigError where the first rollback's remedy would change nothing, or make a config that is not allowed, as check_parts knows it."""
    kind, options = config.rollback.remedy, REMEDIES[config.rollback.remedy](config, config.rollback.factor)
    given, sources = ", ".join(f"{name} = {value}" for name, value in options.items()), [name for _, name in config.label_sources if name != "first_of"]
    try:
        changed = with_options(config, options)
        check_parts(changed)
    except ConfigError as error:
        raise ConfigError(f"rollback.remedy = {kind}, which makes it {error.given}", error.why, OTHERWISE) from error
    why = None
    if changed == config and kind != "easier_prompts":
        why = f"{given} already"
    elif kind == "higher_min_share" and all(name in UNBOUNDED for name in sources):
        why = f"labels.source = {', '.join(sources)} asks for no least share of a winner"
    elif kind == "easier_prompts" and num_prompts <= config.rollout.prompts_per_step:
        why = f"all {num_prompts} prompts are in every step of {config.rollout.prompts_per_step}, and a step's worth is kept"
    if why is not None:
        raise ConfigError(f"guard.action = roll_back, rollback.remedy = {kind}", f"{why}, so a rollback would change nothing", OTHERWISE)
    if kind == "easier_prompts" and config.step_share != StepShareSection():
        why = "the prompts that a safety net holds need not be among the easier ones, and each step wants its share of them"
        raise ConfigError("rollback.remedy = easier_prompts with a [step_share]", why, "Leave step_share unset, or choose another remedy.")


def groups_so_far(folder: Place, branches: Sequence[BranchRecord], steps_done: int) -> Iterator[ScoredGroup]:
    """The recorded groups of the newest branch's history, in order."""
    ledger, history = read(folder), lineage(branches, len(branches))
    for branch, (first, end) in sorted(history.items()):
        for step in range(first, steps_done if end is None else end):
            yield from ledger.groups(step, branch)


def easiest(groups: Iterable[ScoredGroup], factor: float, at_least: int, left: Collection[str] | None = None) -> list[str]:
    """Of the prompts that were voted on, the share `factor` with the largest vote share at their first vote, but a step's worth; sorted by id.

    Prompts that were not seen are left out: nobody knows how easy they are. left: by an earlier remedy, of which all were seen then; where too few of them are
    in this history, the others fill the step.
    """
    shares: dict[str, float] = {}
    for one in groups:
        if left is None or one.voted.group.prompt.id in left:
            shares.setdefault(one.voted.group.prompt.id, one.voted.vote.share_frac)
    ranked = sorted(shares, key=lambda prompt_id: (-shares[prompt_id], prompt_id))
    ranked += sorted(set(left or ()) - shares.keys())
    return sorted(ranked[: max(at_least, round(factor * len(shares)))])


def left_by(branches: Sequence[BranchRecord]) -> set[str] | None:
    """The prompts that remedies so far left, by id; None for all."""
    chosen = [set(record.remedy["prompts"]) for record in branches if "prompts" in record.remedy]
    return set.intersection(*chosen) if chosen else None


def branch_config(config: RunConfig, branches: Sequence[BranchRecord]) -> RunConfig:
    """The config of the newest branch: every remedy so far lies over the config of the run, later ones over earlier ones."""
    for record in branches:
        config = with_options(config, record.remedy.get("options", {}))
    return config


def branch_prompts(prompts: PromptSet, branches: Sequence[BranchRecord]) -> PromptSet:
    """The prompts of the newest branch."""
    left = left_by(branches)
    return prompts if left is None else replace(prompts, prompts=tuple(prompt for prompt in prompts if prompt.id in left))


def by_guard(branches: Sequence[BranchRecord]) -> int:
    """How many rollbacks the guard decided."""
    return sum(record.who == GUARD for record in branches)


def changes_signals(branches: Sequence[BranchRecord], record: BranchRecord) -> bool:
    """Whether the guard has to measure the first steps anew after this rollback: it goes back to a place from before a remedy after which votes are others, its
    own or an earlier one, which still applies.
    """
    return any(one.remedy.get("kind") in NEW_SIGNALS for one in branches[record.parent : record.branch])
