"""Where the final answer of a completion stands."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Span:
    """An answer and its place: `completion[start:end] == text`, 0 <= start <= end <= len(completion)."""

    text: str
    start: int
    end: int


def extract_span(completion: str) -> Span | None:
    """The final answer with its character offsets, or None where the completion has none."""
    start = completion.rfind("</think>")
    if start < 0 and "<think>" in completion:
        return None
    at = completion.rfind("\\boxed{", max(start, 0))
    if at >= 0:
        depth = 0
        for i in range(at + 6, len(completion)):
            depth += (completion[i] == "{") - (completion[i] == "}")
            if depth == 0:
                return Span(completion[at + 7 : i], at + 7, i)
        return None
    last = None
    for last in _NUMBER.finditer(completion, max(start, 0)):
        pass
    return Span(last.group().rstrip(","), last.start(), last.start() + len(last.group().rstrip(","))) if last else None


def extract(completion: str) -> str | None:
    """The final answer as it was written, or None where the completion has none."""
    span = extract_span(completion)
    return None if span is None else span.text
