"""From a prompt to the token ids that the policy is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.config import PolicySection
from selftrain.errors import ModelError
from selftrain.types import Prompt


@dataclass(frozen=True, slots=True)
class Encoder:
    """Chat template (with system turn and extra arguments), or the plain template with {system} and {prompt} replaced."""

    tokenizer: Any
    config: PolicySection

    def text_of(self, prompt: Prompt) -> str:
        """The full text before tokenisation. Raises ModelError when the chat template refuses the messages."""
        if self.config.prompt_format == "plain":
            system = self.config.system_prompt or ""
            return self.config.plain_template.replace("{system}", system).replace("{prompt}", prompt.text)
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        if self.config.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self.config.system_prompt})
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **self.config.chat_template_args))
        except TemplateError as error:
            raise ModelError(
                f"prompt {prompt.id}",
                f"the chat template refuses its messages: {error}",
                "check policy.system_prompt, policy.chat_template_args and the roles of the messages",
            ) from error

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids, at least one. A chat template writes its own special tokens; a plain template gets those the tokenizer adds in front."""
        is_plain = self.config.prompt_format == "plain"
        ids: list[int] = self.tokenizer.encode(self.text_of(prompt), add_special_tokens=is_plain)
        if is_plain and len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]  # some tokenizers end every text; a completion could not follow
        if not ids:
            raise ModelError(f"prompt {prompt.id}", "it becomes no token at all", "use a template that writes something before the completion")
        return tuple(ids)

    def too_long(self, prompts: Sequence[Prompt], max_prompt_tokens: int) -> list[tuple[str, int]]:
        """(prompt id, length in tokens) of every prompt above the limit, in the order given."""
        lengths = [(prompt.id, len(self.encode(prompt))) for prompt in prompts]
        return [(prompt_id, length) for prompt_id, length in lengths if length > max_prompt_tokens]
