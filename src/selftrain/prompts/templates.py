r"""What is wrapped around a question: nothing, the boxed instruction of Self-Rewarded Training, or a text of the user."""

from __future__ import annotations

from dataclasses import replace

from selftrain.errors import ConfigError
from selftrain.types import Message

TEMPLATES: dict[str, str] = {
    "raw": "{prompt}",
    "boxed": "{prompt} Let's think step by step and output the final answer within \\boxed{}.",
}
"""Named templates. `boxed` is the prompt of Self-Rewarded Training (arXiv 2505.21444)."""


def template_text(template: str, option: str = "prompts.template") -> str:
    """The text of a named template, or the text itself when it has {prompt} in it. ConfigError, naming the option, for any other text."""
    if template in TEMPLATES:
        return TEMPLATES[template]
    if "{prompt}" not in template:
        raise ConfigError(
            f"{option} = {template!r}",
            "it is no named template and has no {prompt}, so every prompt would be the same",
            f"write {{prompt}} where the question belongs, or name one of {', '.join(TEMPLATES)}",
        )
    return template


def apply_template(text: str, messages: tuple[Message, ...], question: str | None = None) -> tuple[Message, ...]:
    r"""The messages with {prompt} in `text` replaced by the last turn, or by `question`. Other braces stay, so `\boxed{}` needs no escape."""
    *before, last = messages
    return (*before, replace(last, content=text.replace("{prompt}", last.content if question is None else question)))
