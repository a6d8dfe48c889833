"""[step_share] -> the strata from which the prompts of a step are drawn. Part of the composition root: `compose.py` calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selftrain.config import RunConfig
from selftrain.errors import ConfigError
from selftrain.labels.reference import Reference
from selftrain.prompts.order import Stratum
from selftrain.seeds import Stream
from selftrain.types import PromptSet
from selftrain.verifiers.verification import sees


@dataclass(frozen=True, slots=True)
class Net:
    """A source that holds some prompts, of which a step can be given more. share: of a step's prompts. holds: prompt id -> whether it labels it."""

    source: str
    option: str
    share: float
    frac: float
    holds: Callable[[str], bool]
    what: str


def make_strata(config: RunConfig, prompts: PromptSet) -> tuple[Stratum, ...]:
    """All prompts; or those that each net with a share holds, and then the others. A prompt that both nets hold counts for the reference.

    Of the true answers nothing is looked at but whether a prompt has one. Raises ConfigError where the shares cannot be had.
    """
    total, nets = config.rollout.prompts_per_step, nets_of(config, prompts)
    if not nets:
        return (Stratum(prompts.prompts, total, f"prompts of {prompts.origin}"),)
    given = f"{', '.join(f'{net.option} = {net.share:g}' for net in nets)}, rollout.prompts_per_step = {total}"
    check_shares(config, nets, given)
    strata, left, wanted = [], prompts.prompts, total
    for at, net in enumerate(nets):
        held = tuple(prompt for prompt in left if net.holds(prompt.id))
        left = tuple(prompt for prompt in left if not net.holds(prompt.id))
        count = round(sum(one.share for one in nets[: at + 1]) * total) - (total - wanted)
        if not 1 <= count <= len(held):
            raise ConfigError(
                given,
                f"a step would take {count} different prompts {net.what}, of the {len(held)} that there are with {net.source}.frac = {net.frac:g}",
                f"Raise {net.source}.frac or give more prompts, or {'raise' if count < 1 else 'lower'} {net.option} or rollout.prompts_per_step.",
            )
        strata.append(Stratum(held, count, f"prompts {net.what}", f"prompts {net.what}"))
        wanted -= count
    if wanted > len(left):
        raise ConfigError(
            given,
            f"a step would take {wanted} different prompts beside those {' and '.join(net.what for net in nets)}, of the {len(left)} that there are",
            "Raise the share (1: no other prompts are drawn), or leave it unset: prompts are then drawn as they come.",
        )
    return (*strata, Stratum(left, wanted, "other prompts", "other prompts")) if wanted else tuple(strata)


def nets_of(config: RunConfig, prompts: PromptSet) -> list[Net]:
    """The nets whose share of a step is given."""
    seeds, shares = Stream(config.run.seed), config.step_share
    known = Reference(prompts.sheet, config.reference.frac, seeds)
    found = []
    if shares.reference_frac is not None:
        found.append(Net("reference", "step_share.reference_frac", shares.reference_frac, config.reference.frac, known.has, "with a true answer"))
    if shares.verifier_frac is not None:
        frac = config.verifier.frac
        found.append(Net("verifier", "step_share.verifier_frac", shares.verifier_frac, frac, lambda one: sees(seeds, frac, one), "that the verifier sees"))
    return found


def check_shares(config: RunConfig, nets: list[Net], given: str) -> None:
    """Raises ConfigError for the share of a source that labels nothing, and for more than all of a step."""
    idle = next((net for net in nets if net.source not in [name for _, name in config.label_sources]), None)
    if idle is not None:
        raise ConfigError(
            f"{idle.option} = {idle.share:g}, {', '.join(f'{option} = {name}' for option, name in config.label_sources)}",
            f"{idle.source} labels nothing in this run, so other prompts would be drawn and no more would be known of them",
            f"Leave {idle.option} unset, or name {idle.source} among the sources, for example in first_of.sources.",
        )
    if sum(net.share for net in nets) > 1 + 1e-9:
        raise ConfigError(given, "together they are more than a whole step", "Lower one of them.")
