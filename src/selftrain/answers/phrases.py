"""Answers that a phrase announces (`The answer is`, `Die Antwort lautet`, `答案是`), and the last number of a text."""

from __future__ import annotations

import re

Place = tuple[int, int]

_VERBS = "is|are|was|be|equals|ist|lautet|sind|beträgt|est|es|é|è|является|равен|равно"
_IS = rf"(?:\s?(?:\*\*|\*|__)?\s?(?:{_VERBS})(?![^\W\d_])\s?|\s?(?:\*\*|\*|__|\()?\s?[:：=→]\s?|\s?(?:\*\*|\*|__))"
_LINKS = "to|for|of|in|auf|zu|für|der|von|de|should|must|would|will|therefore|thus|also|daher|somit|here"
_TO = rf"(?:\s(?:{_LINKS})(?![^\W\d_])[^.\n:=]{{0,60}}?)?"
_ENGLISH = re.compile(rf"answers?(?:\s?\([^()\n]{{0,40}}\))?{_TO}{_IS}", re.IGNORECASE)
_HEADED = re.compile(r"(?:final|correct|^|\n|#|\*)\s?(?:answer|antwort)\s?\**\s?(?=\n|$)", re.IGNORECASE)
_GERMAN = re.compile(rf"(?:antwort|endergebnis|ergebnis)(?:\s?\([^()\n]{{0,40}}\))?{_TO}{_IS}", re.IGNORECASE)
_OPTION = re.compile(
    r"(?:correct|right|best|final|richtige|korrekte)\s(?:option|choice|solution|result|value|lösung|option|wahl)\s?(?:ist|is|lautet|:)\s?", re.IGNORECASE
)
_SOLUTION = re.compile(r"(?:final result|(?:die|the)\s(?:gesuchte\s)?(?:lösung|solution|result))\s?(?:ist|is|lautet|beträgt|:)\s?", re.IGNORECASE)
_OTHER = re.compile(
    rf"(?:réponse|reponse|respuesta|resposta|risposta|antwoord|ответ|odpowiedź|odpowiedz|cevap|svaret|svar)(?:\s(?:finale|final|correcte|correcta|correta|corretta|finala))?{_IS}",
    re.IGNORECASE,
)
_ASIAN = re.compile(r"(?:最终)?(?:答案|答え|正解|答|정답|답)\s?(?:应该|應該)?(?:是|为|為|选|選|は|이|은|는|：|:)\s?[:：]?\s?")
_STEMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("nswer", _ENGLISH), ("NSWER", _ENGLISH), ("nswer", _HEADED), ("ntwort", _GERMAN), ("ntwort", _HEADED), ("rgebnis", _GERMAN),
    ("ption", _OPTION), ("hoice", _OPTION), ("esult", _SOLUTION), ("olution", _SOLUTION), ("ösung", _SOLUTION), ("ösung", _OPTION),
    ("ponse", _OTHER), ("espuesta", _OTHER), ("esposta", _OTHER), ("isposta", _OTHER), ("ntwoord", _OTHER), ("твет", _OTHER), ("evap", _OTHER), ("var", _OTHER),
    ("dpowied", _OTHER), ("答", _ASIAN), ("正解", _ASIAN), ("답", _ASIAN),
)  # fmt: skip
_ASCII_STEMS = tuple(pair for pair in _STEMS if pair[0].isascii())
_BEFORE = 24
_AFTER = 160
_MAX_TRIES = 6

_SKIPPED = " \t\r\n:：*_=→>\u00a0"
_LEAD = re.compile(
    r"(?:(?:approximately|about|exactly|simply|just|clearly|therefore|thus|indeed|given by|equal to|ungefähr|genau|also|option|choice|the number|:)\s+)+",
    re.IGNORECASE,
)
_LETTER = re.compile(r"\(([A-J])\)|([A-J])(?=[).:]\s|[).:]?\s*$|\s*[).:]?\s*\n|\*\*)")
_STOP = re.compile(r"[.?](?=\s|$|\*|\")|!(?=\s|$|\*)|[。！]|です|입니다|이다|\n|<\||</|\[/|\\\]|\\end\{", re.DOTALL)
_CLAUSE = re.compile(
    r",?\s(?:because|since|as|which|where|so|hence|when|with|weil|da|denn|wobei|I hope|we)\s|,\s(?:and|und)\s(?=[a-z]{3})"
    r"|\s(?:—|–)\s|\s-\s(?=[a-z]{2})|,\s(?:not|i\.e|nicht|d\.h)(?![a-z])|;\s(?=[a-z]{3})|\s\((?=[a-z]{3})"
)
_JOINED = re.compile(r"\s?(?:,|and|or|und|oder|,\s?and)\s?\$")
_NUMBER = re.compile(
    r"(?<![\w\\])[-−]?\\[dt]?frac\{-?\d{1,20}\}\{\d{1,20}\}|(?:(?<![\w)}\]])[-−])?(?<![^\W\d_])(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:(?<=\d)|(?<![\w.])(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d{1,4}(?!\w))?(?:/\d+)?(?:\s?\\?%)?"
)
_WHOLE = re.compile(
    r"""(?<![\w.,:^\\])(?<!\d\ )(?:
    [-−]?(?<!of\ )(?<!in\ )(?<!In\ )\d{1,2}\ \d{1,4}/\d{1,4}(?![\d/]) | [-−]?\d{1,9}\ ?\\[dt]?frac\{\d{1,9}\}\{\d{1,9}\}
    | [-−]?\d{1,3}(?:(?:[\u00a0\u2009\u202f']|\\,|\{,\})\d{3}){1,5}(?:[.,]\d{1,9})?(?![\w/]|[.,:]\d) | [-−]?\d{1,3}(?:\ 000){1,4}(?![\w/]|[.,:]\d)
    | [-−]?\d{1,12}(?:[.,]\d{1,9})?\ ?(?:\\times|\\cdot|[×x*·])\ ?10\ ?\^\ ?(?:\{[-−]?\d{1,3}\}|[-−]?\d{1,3})
    | [-−]?\d{1,9}(?:\.\d{1,9})?\ ?\^\ ?(?:\{-?\d{1,4}\}|-?\d{1,4})(?![\d}])
    | [-−]?\d{1,9}(?:\.\d{3})+,\d{1,9} | (?<![(\[{])[-−]?(?:\d{2,12},\d{1,9}|0,\d{1,9}|\d,\d{2,9})(?![\d,])
    | [012]?\d(?::[0-5]\d){1,2}(?![\d:]) | \d{1,9}(?:\.\d{1,9}){2,}
    )(?![\d])""",
    re.VERBOSE,
)
"""Numbers that stand in several parts: `3 1/2`, `12 000`, `1.5 \\times 10^3`, `2^{10}`, `12,5`, `12:30`, `1.2.3`. Two numbers beside each other are two:
a plain space joins groups of three zeros only."""
_WIDEST = 64
_MATH = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_DRESSING = (*_MATH, ("**", "**"), ("`", "`"), ('"', '"'), ("“", "”"), ("„", "“"))
_DIGIT = re.compile("[0-9]")
_LONGEST_NUMBER = 2000
_BREAKS = " \t\r\n=$:"
_EDGE = " \t\r\n\u00a0"


def trimmed(text: str, start: int, end: int) -> Place | None:
    """The place without space and matching delimiters at its ends; None when nothing is left."""
    for _ in range(6):
        while start < end and text[start] in _EDGE:
            start += 1
        while end > start and text[end - 1] in _EDGE:
            end -= 1
        for left, right in _DRESSING:
            inner_start, inner_end = start + len(left), end - len(right)
            if inner_start < inner_end and text.startswith(left, start) and text.endswith(right, start, end) and text.find(left, inner_start, inner_end) < 0:
                start, end = inner_start, inner_end
                break
        else:
            break
    return (start, end) if start < end else None


def find_phrase(text: str, start: int, end: int | None = None) -> tuple[bool, Place | None]:
    """(whether the last announced answer never came, its place)."""
    end = len(text) if end is None else end
    last = -1
    for stem, pattern in _ASCII_STEMS if text.isascii() else _STEMS:
        at = text.rfind(stem, max(start, last), end)
        for _ in range(_MAX_TRIES):
            if at < 0:
                break
            behind = _ends_at(text, pattern, at, len(stem), start, end)
            if behind > last:
                last = behind
                break
            at = text.rfind(stem, max(start, last), at)
    if last < 0:
        return False, None
    return _announced(text, last, end)


def _ends_at(text: str, pattern: re.Pattern[str], at: int, size: int, start: int, end: int) -> int:
    """Where the phrase around the stem at `at` ends, or -1 when there is none."""
    left = max(start, at - _BEFORE)
    for found in pattern.finditer(text, left, min(end, at + _AFTER)):
        if found.start() <= at and found.end() >= at + size:
            return found.end()
        if found.start() > at:
            break
    return -1


def _announced(text: str, at: int, end: int) -> tuple[bool, Place | None]:
    while at < end and text[at] in _SKIPPED:
        at += 1
    if text.startswith("- ", at):
        at += 2
    lead = _LEAD.match(text, at, end)
    if lead:
        at = lead.end()
    while at < end and text[at] in _SKIPPED:
        at += 1
    if at >= end or not text[at : at + 40].strip(".:*$ \n"):
        return at >= end or not text[at:end].strip(".:*$ \n"), None
    choice = _LETTER.match(text, at, end)
    if choice:
        return False, choice.span()
    for left, right in _MATH:
        if not text.startswith(left, at):
            continue
        inside = at + len(left)
        close = text.find(right, inside, end)
        while left == "$" and close > 0 and text[close - 1] == "\\":
            close = text.find(right, close + 1, end)
        if left == "$" and text[inside : inside + 1].isdigit() and (close < 0 or "\n" in text[inside:close]):
            break
        if close < 0:
            return True, None
        if _JOINED.match(text, close + len(right), end):
            break
        return False, trimmed(text, inside, close)
    return False, _sentence(text, at, end)


def _sentence(text: str, at: int, end: int) -> Place | None:
    """The rest of the sentence, up to a clause that explains it."""
    stop = _STOP.search(text, at, min(end, at + 400))
    until = stop.start() if stop else min(end, at + 400)
    clause = _CLAUSE.search(text, at + 1, until)
    if clause:
        until = clause.start()
    if until - at > 30 and text[at:until].count(" ") > 5:
        number = _WHOLE.match(text, at, until) or _NUMBER.match(text, at, until)
        if number and number.end() > at:
            until = number.end()
    while until > at and text[until - 1] in " \t\r*_,;:!":
        until -= 1
    return trimmed(text, at, until)


def last_number(text: str, start: int) -> Place | None:
    """The last number of the text from `start`, with its sign, fraction and percent sign, in all of its parts; None where there is none."""
    at = len(text)
    while at > start and not _DIGIT.search(text, max(start, at - 200), at):
        at -= 200
    if at <= start:
        return None
    at -= 1
    while not ("0" <= text[at] <= "9"):
        at -= 1
    left = max(start, at - _LONGEST_NUMBER)
    for edge in range(at, left - 1, -1):
        if text[edge] in _BREAKS:
            left = edge
            break
    last = None
    for found in _NUMBER.finditer(text, left, min(len(text), at + 8)):
        if found.start() < found.end() and found.start() <= at:
            last = found.span()
    return whole(text, start, last or (at, at + 1))


def whole(text: str, start: int, found: Place) -> Place:
    """The number of several parts that ends with this one, if it does."""
    for wider in _WHOLE.finditer(text, max(start, found[0] - _WIDEST), min(len(text), found[1] + 4)):
        if wider.start() <= found[0] and wider.end() >= found[1]:
            return wider.span()
    return found
