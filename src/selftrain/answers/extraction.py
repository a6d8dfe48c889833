"""Where the final answer of a completion stands.

Only the text after the last `</think>` counts. The last complete marker wins, in this order of kinds: `\\boxed{}`, `<answer></answer>`, `####`,
a phrase (`The answer is`), the last number. A marker that is opened last and never finished means no answer: the completion was cut off.
Every step is a search from the end or one pass over the text, so time is linear in the length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from selftrain.answers.phrases import find_phrase, last_number, trimmed

_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_OPEN_TAGS = ("<answer>", "<Answer>", "<ANSWER>")
_CLOSE_TAGS = ("</answer>", "</Answer>", "</ANSWER>")
_HEADING = re.compile(r"(?:step|schritt|part|case|fall|teil|final|answer|the |solution|lösung|conclusion|explanation|\*\*)|\d+[.)]\s+[^\W\d_]", re.IGNORECASE)
_BARE_BOX = re.compile(r"\s?([^\s{}$\\.,;]+)")
_MAX_EMPTY_BOXES = 8
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Span:
    """An answer and its place: `completion[start:end] == text`, 0 <= start < end <= len(completion)."""

    text: str
    start: int
    end: int


def extract(completion: str) -> str | None:
    """The final answer as it was written, without surrounding space and delimiters; None where the completion has none. Never raises."""
    place = _place(completion)
    return None if place is None else completion[place[0] : place[1]]


def extract_span(completion: str) -> Span | None:
    """The same answer with its character offsets."""
    place = _place(completion)
    return None if place is None else Span(completion[place[0] : place[1]], *place)


def marked_span(completion: str) -> tuple[bool, Span | None]:
    """(whether the completion was cut off in its thoughts or in a marker, the answer that a marker or phrase names); the last number does not count."""
    start = _after_thoughts(completion)
    cut_off, place = (True, None) if start is None else _marked(completion, start)
    return cut_off, None if place is None else Span(completion[place[0] : place[1]], *place)


def _place(text: str) -> Place | None:
    start = _after_thoughts(text)
    if start is None:
        return None
    cut_off, place = _marked(text, start)
    return place if cut_off or place is not None else last_number(text, start)


def _after_thoughts(text: str) -> int | None:
    """Where the text after the last `</think>` begins; None where a `<think>` never closes."""
    start = text.rfind("</think>")
    start = 0 if start < 0 else start + 8
    return None if text.rfind("<think>", start) >= 0 else start


def _marked(text: str, start: int) -> tuple[bool, Place | None]:
    for find in (_boxed, _tagged, _hashes, find_phrase):
        cut_off, place = find(text, start)
        if cut_off or place is not None:
            return cut_off, place
    return False, None


def _boxed(text: str, start: int) -> tuple[bool, Place | None]:
    """(whether the last box or a tag behind it was never finished, the last box that holds something)."""
    end = len(text)
    for attempt in range(_MAX_EMPTY_BOXES):
        at = max(text.rfind("\\boxed", start, end), text.rfind("\\fbox", start, end))
        if at < 0:
            return False, None
        inside = at + (6 if text.startswith("\\boxed", at) else 5)
        while text.startswith(" ", inside):
            inside += 1
        place, closed = _braced(text, inside)
        if attempt == 0 and not closed:
            return True, None
        if place is not None:
            opened = text.rfind("<answer>", place[1])
            return (True, None) if opened >= 0 and text.find("</answer>", opened) < 0 else (False, place)
        end = at
    return False, None


def _braced(text: str, at: int) -> tuple[Place | None, bool]:
    """(the content of the brace group that opens at `at`, None when it is empty; whether it is closed). `\\{` and `\\}` are no braces."""
    if not text.startswith("{", at):
        bare = _BARE_BOX.match(text, at)
        return ((bare.start(1), bare.end(1)), True) if bare else (None, False)
    depth = 0
    for brace in _BRACES.finditer(text, at):
        sign = brace.group()
        if sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if not depth:
                return trimmed(text, at + 1, brace.start()), True
    return None, False


def _tagged(text: str, start: int) -> tuple[bool, Place | None]:
    closed = max(text.rfind(tag, start) for tag in _CLOSE_TAGS)
    opened = max(text.rfind(tag, start) for tag in _OPEN_TAGS)
    if opened < 0:
        return False, None
    if closed < opened:
        return True, None
    place = trimmed(text, opened + 8, text.find("</", opened))
    if place is None:
        return False, None
    _, inner = find_phrase(text, place[0], place[1])
    return False, inner or place


def _hashes(text: str, start: int) -> tuple[bool, Place | None]:
    """The rest of the line after the last `####`, unless that is the heading of a section."""
    at = text.rfind("####", start)
    if at < 0:
        return False, None
    line_end = text.find("\n", at)
    line_end = len(text) if line_end < 0 else line_end
    place = trimmed(text, at + 4, line_end)
    if place is None:
        return not text[at:].strip("# \t\r\n"), None
    if _HEADING.match(text, *place) or text[place[1] - 1] == ":":
        return False, None
    has_digit = any(sign.isdigit() for sign in text[place[0] : min(place[1], place[0] + 200)])
    if not has_digit and (place[1] - place[0] > 60 or text[line_end:].strip()):
        return False, None
    return False, place
