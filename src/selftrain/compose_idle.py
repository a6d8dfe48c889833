"""What would do nothing: options, and label sources that hold none of the prompts. Part of the composition root, asked of new runs only.

There are records of runs with such options; those are read, resumed and replayed as they are.
"""

from __future__ import annotations

import warnings

from selftrain import remedies
from selftrain.compose import Problems, check_parts
from selftrain.compose_stored import stored_votes
from selftrain.config import RunConfig
from selftrain.errors import ConfigError
from selftrain.labels.reference import Reference
from selftrain.seeds import Stream
from selftrain.types import PromptSet
from selftrain.verifiers.verification import sees

COMPOSITIONS = ("first_of", "mixture")


def check_new(config: RunConfig, problems: Problems) -> None:
    """Raises ConfigError for what is asked of new runs only: options, label sources and a remedy that would do nothing. Asked after `check_parts`."""
    check_idle(config, problems.train)
    if config.guard.action == "roll_back":
        remedies.check(config, len(problems.train), lambda changed: check_parts(changed, problems))


def check_idle(config: RunConfig, prompts: PromptSet) -> None:
    """Raises ConfigError for options that would do nothing and where no label source would label anything; warns of one that leaves all to others.

    prompts: to train on. Asked after `check_parts`.
    """
    check_options(config)
    asked = [(option, name) for option, name in config.label_sources if name not in COMPOSITIONS]
    idle = {f"{option} = {name}": found for option, name in asked if (found := nothing_held(config, prompts, option, name)) is not None}
    given = ", ".join(f"{one}, {found[0]}" for one, found in idle.items())
    why = ", and ".join(dict.fromkeys(why for _, why, _ in idle.values()))
    do = " ".join(dict.fromkeys(do for _, _, do in idle.values()))
    if idle and len(idle) == len(asked):
        raise ConfigError(given, f"{why}: nothing would be labelled, and nothing would train", do)
    if idle:
        warnings.warn(f"{given}: {why}, so it labels nothing in this run and the others decide. {do}", RuntimeWarning, stacklevel=1)


def nothing_held(config: RunConfig, prompts: PromptSet, option: str, name: str) -> tuple[str, str, str] | None:
    """What was given, why and what to do, of a source that holds none of the prompts; None of one that holds some, or that is not bound to prompts."""
    seeds, total, named = Stream(config.run.seed), len(prompts), f"prompts of {prompts.origin}"
    if name == "reference":
        known, seen = Reference(prompts.sheet), Reference(prompts.sheet, config.reference.frac, seeds)
        if any(seen.has(prompt.id) for prompt in prompts):
            return None
        number, frac = sum(known.has(prompt.id) for prompt in prompts), f"{config.reference.frac:g}"
        why = f"of the {total} {named} {number} have a true answer, and a fraction of {frac}, chosen by run seed and prompt id, holds none of those"
        return f"reference.frac = {frac}", why, "Raise --reference.frac, or give more prompts with true answers."
    if name == "verifier":
        frac = f"{config.verifier.frac:g}"
        why = f"a fraction of {frac} of the {total} {named}, chosen by run seed and prompt id, holds none of them"
        idle = not any(sees(seeds, config.verifier.frac, prompt.id) for prompt in prompts)
        return (f"verifier.frac = {frac}", why, "Raise --verifier.frac, or give more prompts.") if idle else None
    if name == "stored" or (name == "gate" and "stored" in config.gate.conditions):
        why = f"it has a vote on none of the {total} {named}"
        do = "Write it again by `selftrain label` with the config of this run, or take another label source."
        return None if stored_votes(config, prompts, option).votes else (f"stored.file = {config.stored_file}", why, do)
    return None


def check_options(config: RunConfig) -> None:
    """Raises ConfigError for options that would do nothing, whatever the prompts are."""
    update, num_steps = config.update, config.run.num_steps
    if (config.objective.kl_in, config.objective.kl_coef) == ("loss", 0):
        do = "Leave objective.kl_in at none; a weight of 0 in the reward measures the KL."
        raise ConfigError("objective.kl_in = loss, objective.kl_coef = 0", "the start would be scored in every step, and nothing be done with it", do)
    if update.schedule != "constant" and update.warmup_steps >= num_steps - 1:  # the first step that falls is the second after the warm-up
        given = f"update.schedule = {update.schedule}, update.warmup_steps = {update.warmup_steps}, run.num_steps = {num_steps}"
        fewer = f"an update.warmup_steps below {num_steps - 1}, " if num_steps > 1 else ""
        do = f"Give {fewer}more steps, or leave update.schedule at constant."
        raise ConfigError(given, "the rate falls from the second step after the warm-up on, and the run ends before", do)
    gate, is_asked = config.gate, any(name == "gate" for _, name in config.label_sources)
    if is_asked and "share" not in gate.conditions and gate.min_share_frac != type(gate)().min_share_frac:
        given = f"gate.min_share_frac = {gate.min_share_frac}, gate.conditions = {', '.join(gate.conditions)}"
        raise ConfigError(given, "only the condition share looks at it", "Add share to gate.conditions, or leave gate.min_share_frac out.")
    nobody = {"probes.num_prompts = 0": not config.probes.num_prompts, "guard.action = off": config.guard.action == "off"}
    if config.rollback.max_drift_nats is not None and any(nobody.values()):
        given = f"rollback.max_drift_nats = {config.rollback.max_drift_nats}, {next(name for name, is_so in nobody.items() if is_so)}"
        raise ConfigError(given, "the drift is measured by probes and judged by the guard", "Give it probes and a guard, or leave rollback.max_drift_nats out.")
