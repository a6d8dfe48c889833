"""Which tokens of a completion give gradient: all, or all but those that write its final answer (OM-GRPO, arXiv 2608.03119)."""

from __future__ import annotations

from selftrain.answers import extract_span
from selftrain.types import Completion, Finish


def answer_mask(completion: Completion) -> tuple[bool, ...]:
    """T flags, False on every token that writes a character of the final answer; all True where none was read, as in a truncated completion.

    Tokens are told by the offsets that the sampler kept. One that adds no character is part of the next one, whose first bytes it is, or an end token.
    Example: of `3+4=7####7` in tokens 3 + 4 = 7 #### 7 END the answer is the last 7, and END and #### give gradient.
    """
    span = extract_span(completion.text) if completion.finish is Finish.STOP else None
    if span is None:
        return (True,) * len(completion.token_ids)
    starts = (0, *completion.token_ends[:-1])
    return tuple(
        not (start < span.end and end > span.start if start < end else span.start <= start < span.end)
        for start, end in zip(starts, completion.token_ends, strict=True)
    )
