"""What makes two prompts the same: ids from content, the hash of a prompt set, and the check that two sets share nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from selftrain.errors import PromptError
from selftrain.prompts.tasks import same_in_symbols
from selftrain.types import Message, Prompt, PromptSet

_MAX_NAMED = 3


def content_id(messages: tuple[Message, ...]) -> str:
    """16 hex digits of the hash of the messages: the same in every process and for every template around them."""
    return hashlib.sha256(_bytes(messages)).hexdigest()[:16]


def prompt_set_hash(prompts: Iterable[Prompt]) -> str:
    """SHA-256 over ids and messages in their order, 64 hex digits. Answers are left out: other answers give the same hash (design law 1)."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps(prompt.id).encode() + b"\t" + _bytes(prompt.messages) + b"\n")
    return digest.hexdigest()


def check_disjoint(train: PromptSet, held_out: PromptSet) -> None:
    """PromptError, naming the first overlaps, when a prompt is in both sets.

    Two prompts are the same when their ids are, or their messages before the template, up to case and white space; a problem of a built-in task
    is the same in both its forms.
    """
    ids, texts = {prompt.id: prompt.id for prompt in train}, same_texts(train, held_out)
    shared = [(prompt.id, ids.get(prompt.id) or texts.get(prompt.id)) for prompt in held_out]
    overlaps = [f"{held} (training: {trained})" for held, trained in shared if trained is not None]
    if overlaps:
        more = f" and {len(overlaps) - _MAX_NAMED} more" if len(overlaps) > _MAX_NAMED else ""
        raise PromptError(
            f"held-out problems of {held_out.origin}",
            f"{len(overlaps)} of {len(held_out)} are training prompts of {train.origin} as well: {', '.join(overlaps[:_MAX_NAMED])}{more}",
            "remove them from one of the two sets: what was trained on cannot show what was learned",
        )


def same_texts(train: PromptSet, held_out: PromptSet) -> dict[str, str]:
    """Held-out id -> id of the training prompt that asks the same, whatever their ids are; in the order of the held-out ones."""
    texts = {normal_text(train.questions.get(prompt.id, prompt.messages)): prompt.id for prompt in train}
    asked = ((prompt.id, normal_text(held_out.questions.get(prompt.id, prompt.messages))) for prompt in held_out)
    return {held: texts[text] for held, text in asked if text in texts}


def normal_text(messages: tuple[Message, ...]) -> str:
    """The messages as one text, case folded, white space collapsed, a task's problem in symbols: what `check_disjoint` compares."""
    return "\n".join(f"{message.role}: {same_in_symbols(' '.join(message.content.split()).casefold())}" for message in messages)


def _bytes(messages: tuple[Message, ...]) -> bytes:
    return json.dumps([[message.role, message.content] for message in messages]).encode()
