"""Logic: who tells the truth, when each speaks about somebody who spoke before."""

from __future__ import annotations

import math
import re

from selftrain.prompts.tasks.family import Family, Form, Numbers, Slip, arrangement

NAMES = "abcdefghij"
_SYMBOLS = re.compile(r"[a-j][+-](?: [a-j]:[a-j][+-]){1,9}")
_WORDS = re.compile(r"[a-j] is (?:true|false)(?:, [a-j] says [a-j] is (?:true|false)){1,9}")


def _size_truth(level: int) -> int:
    return math.perm(len(NAMES), level + 1) * (1 << (level + 1)) * math.factorial(level)


def _pick_truth(level: int, index: int) -> Numbers:
    """Numbers are triples (speaker, of whom, said to be true); the first person is given, as if speaking of itself."""
    people, index = arrangement(index, len(NAMES), level + 1)
    index, given = divmod(index, 2)
    numbers = [people[0], people[0], given]
    for count in range(1, len(people)):
        index, said = divmod(index, 2)
        index, earlier = divmod(index, count)
        numbers += [people[count], people[earlier], said]
    return tuple(numbers)


def _triples(numbers: Numbers) -> list[tuple[int, int, int]]:
    return list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


def _write_truth(numbers: Numbers, form: Form) -> str:
    (first, _, given), *claims = _triples(numbers)
    if form is Form.SYMBOLS:
        return " ".join([f"{NAMES[first]}{'-+'[given]}", *(f"{NAMES[who]}:{NAMES[whom]}{'-+'[said]}" for who, whom, said in claims)])
    words = ("false", "true")
    return ", ".join([f"{NAMES[first]} is {words[given]}", *(f"{NAMES[who]} says {NAMES[whom]} is {words[said]}" for who, whom, said in claims)])


def _read_truth(text: str) -> Numbers | None:
    if _WORDS.fullmatch(text):
        text = text.replace(" is true", "+").replace(" is false", "-").replace(" says ", ":").replace(",", "")
    if not _SYMBOLS.fullmatch(text):
        return None
    first, *claims = text.split(" ")
    numbers = [NAMES.index(first[0]), NAMES.index(first[0]), int(first[1] == "+")]
    for claim in claims:
        who, whom = NAMES.index(claim[0]), NAMES.index(claim[2])
        if who in numbers[::3] or whom not in numbers[::3]:
            return None
        numbers += [who, whom, int(claim[3] == "+")]
    return tuple(numbers)


def _solve_truth(numbers: Numbers, slip: Slip) -> tuple[str, str]:
    """A speaker is true if and only if what is said is so."""
    (first, _, given), *claims = _triples(numbers)
    is_true = {first: bool(given)}
    for who, whom, said in claims:
        is_true[who] = bool(slip(int(is_true[whom] == bool(said)), 2))
    steps = ";".join(f"{NAMES[who]}{'-+'[truth]}" for who, truth in is_true.items())
    return steps, ",".join(sorted(NAMES[who] for who, truth in is_true.items() if truth)) or "none"


TRUTH = Family("truth", "which of LEVEL + 1 people tell the truth", 9, _size_truth, _pick_truth, _write_truth, _read_truth, _solve_truth)
