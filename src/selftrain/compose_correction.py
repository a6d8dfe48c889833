"""The [correction] section -> the second turns of training and of evaluations. Part of the composition root."""

from __future__ import annotations

from selftrain.config import ONE_ANSWER_CLUSTERINGS, RunConfig
from selftrain.correction import ANSWERS, Correction
from selftrain.errors import ConfigError, ModelError
from selftrain.evals import SecondTurns
from selftrain.policies.base import Policy
from selftrain.policies.toy import is_toy
from selftrain.types import Message, Prompt

OFF = "off"
TEXTS = {
    "own": "Check your solution step by step. If there is an error in it, find it. Then give the final answer again.",
    "group": "Different attempts at this problem gave the answers {answers}. Check your solution step by step. If there is an error in it, find it. "
    "Then give the final answer again.",
}
"""what the user says in the second turn where correction.text is unset"""
KEYLESS = ("random", "format_only", "inverted", "token_entropy", "self_certainty", "self_judge", "verifier")
"""label sources that name no pseudo-label, so that there is nothing that a correction could agree with"""


def make_correction(config: RunConfig) -> Correction:
    """The second turns of training; none where they are off."""
    section = config.correction
    return Correction() if section.mode == OFF else Correction(text_of(config), section.num_completions, section.num_corrections)


def second_turns(config: RunConfig, policy: Policy) -> SecondTurns | None:
    """The second turns of evaluations; None where they are off."""
    return None if config.correction.mode == OFF else SecondTurns(policy, Correction(text_of(config)))


def text_of(config: RunConfig) -> str:
    section = config.correction
    return section.text if section.text is not None else TEXTS[section.mode]


def check_correction(config: RunConfig) -> None:
    """Raises ConfigError for second turns that could not be asked for or rewarded."""
    if config.correction.mode == OFF:
        return
    given = f"correction.mode = {config.correction.mode}"
    if ANSWERS not in text_of(config) and config.correction.mode == "group":
        raise ConfigError(
            f"{given}, correction.text = {text_of(config)!r}",
            "the group's answers are shown in this mode, and the text has no place for them",
            f"Write {ANSWERS} into --correction.text where they belong.",
        )
    if ANSWERS in text_of(config) and config.correction.mode == "own":
        raise ConfigError(
            f"{given}, correction.text = {text_of(config)!r}",
            f"{ANSWERS} stands for the group's answers, and in this mode the policy sees its own completion only",
            f"Take {ANSWERS} out of --correction.text, or choose --correction.mode group.",
        )
    if config.policy.prompt_format == "plain":
        raise ConfigError(
            f"{given}, policy.prompt_format = plain",
            "a second turn is a conversation, and a plain prompt has room for one text",
            "Train a model with a chat template.",
        )
    if config.labels.clustering not in ONE_ANSWER_CLUSTERINGS:
        raise ConfigError(
            f"{given}, labels.clustering = {config.labels.clustering}",
            "the answers of a second turn would be clustered apart from those of the vote, so their keys could not be compared",
            f"Choose a clustering that looks at one answer at a time: {' or '.join(ONE_ANSWER_CLUSTERINGS)}.",
        )
    asked = [name for _, name in config.label_sources if name not in ("first_of", "mixture")]
    if all(name in KEYLESS for name in asked):
        raise ConfigError(
            f"{given}, labels.source = {', '.join(asked)}",
            "it names no pseudo-label, so there is nothing that a corrected answer could agree with",
            "Take a label source with a label, such as ema, or leave the second turn off.",
        )


def check_second_turns(config: RunConfig, policy: Policy, prompt: Prompt) -> None:
    """Raises ModelError where the chat template refuses a second turn or leaves out what the policy said in the first."""
    if config.correction.mode == OFF or is_toy(config.policy.model):
        return
    said = ("####", "#### 1 2 3 4 5 6 7 8 9")
    turns = [Prompt(f"{prompt.id} said {one}", (*prompt.messages, Message("assistant", one), Message("user", text_of(config)))) for one in said]
    short, long = (tokens for _, tokens in policy.too_long(turns, 0))
    if short == long:
        raise ModelError(
            f"correction.mode = {config.correction.mode}, policy.model = {config.policy.model}",
            "its chat template leaves out what the assistant said before, so nothing could be corrected",
            "Train a model whose chat template keeps earlier turns, or leave the second turn off.",
        )
