"""Which prompts a step trains on: epochs in a fresh shuffle each."""

from __future__ import annotations

from selftrain.errors import PromptError
from selftrain.seeds import Stream
from selftrain.types import Prompt, PromptSet


def draw(prompts: PromptSet, step: int, prompts_per_step: int, seeds: Stream) -> tuple[Prompt, ...]:
    """The P distinct prompts of step `step` >= 0; a pure function of its arguments, so a resumed run needs no state.

    An epoch is floor(len / P) steps over one shuffle, drawn from `seeds.at(stream="prompts", step=epoch)`; the len mod P prompts that are left
    at the end of a shuffle sit that epoch out. PromptError when there are fewer than P prompts.
    """
    if prompts_per_step > len(prompts):
        raise PromptError(
            f"{len(prompts)} prompts of {prompts.origin}",
            f"a step takes {prompts_per_step} different ones",
            f"give more prompts, or set rollout.prompts_per_step to {len(prompts)} or less",
        )
    epoch, place = divmod(step, len(prompts) // prompts_per_step)
    order = seeds.at(stream="prompts", step=epoch, prompt_id="", index=0).generator().permutation(len(prompts))
    first = place * prompts_per_step
    return tuple(prompts.prompts[i] for i in order[first : first + prompts_per_step])
