"""Which prompts a step trains on: epochs in a fresh shuffle each, of all prompts or of each of several strata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selftrain.errors import PromptError
from selftrain.seeds import Stream
from selftrain.types import Prompt


@dataclass(frozen=True, slots=True)
class Stratum:
    """Prompts of which every step takes `per_step` >= 1 different ones, in epochs of their own. what: they are, for errors.

    stream: names their shuffles, other ones for each stratum of a run.
    """

    prompts: tuple[Prompt, ...]
    per_step: int
    what: str = "prompts"
    stream: str = "prompts"


def draw(strata: Sequence[Stratum], step: int, seeds: Stream) -> tuple[Prompt, ...]:
    """The distinct prompts of step `step` >= 0; a pure function of its arguments, so a resumed run needs no state.

    Several strata, which share no prompt, are mixed by a draw of their own, so that the place of a prompt in the step, and with it the minibatch, says nothing
    about its stratum. PromptError when a stratum has fewer prompts than a step takes of it.
    """
    drawn = tuple(prompt for stratum in strata for prompt in _draw_from(stratum, step, seeds))
    if len(strata) == 1:
        return drawn
    order = seeds.at(stream="places of prompts", step=step, prompt_id="", index=0).generator().permutation(len(drawn))
    return tuple(drawn[i] for i in order)


def _draw_from(stratum: Stratum, step: int, seeds: Stream) -> tuple[Prompt, ...]:
    """`per_step` prompts of a stratum. An epoch is floor(len / per_step) steps over one shuffle, drawn from `seeds.at(stream=stratum.stream, step=epoch)`;
    the len mod per_step prompts that are left at the end of a shuffle sit that epoch out.
    """
    count, per_step = len(stratum.prompts), stratum.per_step
    if per_step > count:
        raise PromptError(f"{count} {stratum.what}", f"a step takes {per_step} different ones of them", "give more prompts, or lower rollout.prompts_per_step")
    epoch, place = divmod(step, count // per_step)
    order = seeds.at(stream=stratum.stream, step=epoch, prompt_id="", index=0).generator().permutation(count)
    return tuple(stratum.prompts[i] for i in order[place * per_step : (place + 1) * per_step])
