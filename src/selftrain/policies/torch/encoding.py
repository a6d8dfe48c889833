"""From a prompt to the token ids that the policy is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.config import PolicySection
from selftrain.errors import ConfigError, ModelError, PromptError
from selftrain.policies.torch.loading import first_line
from selftrain.types import Prompt

RESERVED_ARGUMENTS = frozenset(
    {"conversation", "messages", "add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation", "max_length"}
    | {"return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"}
)
"""Arguments of `apply_chat_template` that are set here or would change what comes back."""


def check_format(config: PolicySection) -> None:
    """ConfigError for a plain template that would leave something out, or an argument of the chat template that is not the user's to set."""
    if config.prompt_format == "plain":
        needed = ("{prompt}", "{system}") if config.system_prompt is not None else ("{prompt}",)
        missing = [name for name in needed if name not in config.plain_template]
        if missing:
            lost = "every prompt would be the same" if missing[0] == "{prompt}" else "policy.system_prompt would never be seen"
            raise ConfigError(
                f"policy.plain_template = {config.plain_template!r}", f"it has no {missing[0]}, so {lost}", f"write {missing[0]} where the text belongs"
            )
    reserved = sorted(RESERVED_ARGUMENTS & config.chat_template_args.keys())
    if reserved:
        raise ConfigError(
            f"policy.chat_template_args: {', '.join(reserved)}",
            "the policy sets it itself; only variables of the chat template can be given",
            "leave it out; a variable is for example enable_thinking = false",
        )


@dataclass(frozen=True, slots=True)
class Encoder:
    """Chat template (with system turn and extra arguments), or the plain template with {system} and {prompt} replaced."""

    tokenizer: Any
    config: PolicySection

    def text_of(self, prompt: Prompt) -> str:
        """The full text before tokenisation. Raises ModelError when the chat template refuses the messages, PromptError for turns lost or doubled."""
        if self.config.prompt_format == "plain":
            if len(prompt.messages) > 1:
                raise PromptError(
                    f"prompt {prompt.id}",
                    f"it has {len(prompt.messages)} messages and policy.prompt_format is plain, which has room for one",
                    "write it as one text, or set policy.prompt_format to chat",
                )
            system = self.config.system_prompt or ""
            return self.config.plain_template.replace("{system}", system).replace("{prompt}", prompt.text)
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        if self.config.system_prompt is not None:
            if prompt.messages[0].role == "system":
                why = "it has a system turn of its own and policy.system_prompt would add another"
                raise PromptError(f"prompt {prompt.id}", why, "leave policy.system_prompt out, or take the system turn out of the prompt")
            messages.insert(0, {"role": "system", "content": self.config.system_prompt})
        try:
            return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **self.config.chat_template_args))
        except Exception as error:
            raise ModelError(
                f"prompt {prompt.id}",
                f"the chat template refuses its messages: {first_line(error)}",
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

    def too_long(self, prompts: Sequence[Prompt], max_prompt_tokens: int | None) -> list[tuple[str, int]]:
        """(prompt id, length in tokens) of every prompt above the limit, in the order given; none without a limit."""
        if max_prompt_tokens is None:
            return []
        lengths = [(prompt.id, len(self.encode(prompt))) for prompt in prompts]
        return [(prompt_id, length) for prompt_id, length in lengths if length > max_prompt_tokens]
