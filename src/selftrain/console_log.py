"""What trainers write to a terminal -> rows of signals, for runs of which nothing else is left.

verl writes `step:34 - actor/entropy:0.22 - ...` (behind what Ray says of the process), transformers' trainers one Python dict a step, among
bars and other lines. Only numbers are taken: what else is printed is no signal.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
"""colours and cursor movements; titles of the window"""
STEP = re.compile(r"(?:^|[\s:\]])step: ?(\d{1,18}) - ")
NUMBER = re.compile(r"(?:[\w.]{1,40}\()?([-+]?(?:\d{1,40}(?:\.\d{0,40})?(?:e[-+]?\d{1,4})?|nan|inf))(?![\w.])", re.IGNORECASE)
CALL = re.compile(r"\b(?:(?:np|numpy|torch)\.\w{1,40}|tensor)\(([^(),]{0,60})[^()]{0,60}\)")
"""a number as NumPy and torch print it inside a dict"""
BARE = re.compile(r"(?<=[ \[(])(nan|-?inf)(?=[,}\])])")
LONGEST = 1 << 16
"""characters of a line: longer ones are no step's"""


def console_rows(lines: Iterable[str], torn: Callable[[], None]) -> Iterator[Mapping[str, Any]]:
    """The rows among these lines; what is none is passed over. torn: told of a last line of verl's that has no end, of which a digit may be missing."""
    for line in lines:
        if len(line) > LONGEST:
            continue
        plain = ESCAPES.sub("", line)
        step = STEP.search(plain)
        if step is not None and not line.endswith("\n"):
            torn()
        elif row := dict_row(plain) if step is None else verl_row(plain[step.end() :]):
            yield row if step is None else {**row, "step": int(step[1])}


def verl_row(text: str) -> dict[str, float]:
    """The numbers of `name:value - name:value ...`."""
    pairs = (part.partition(":") for part in text.split(" - "))
    found = {name.strip(): NUMBER.match(value) for name, _, value in pairs}
    return {name: float(number[1]) for name, number in found.items() if name and number}


def dict_row(line: str) -> dict[str, Any]:
    """The numbers, also in quotes, of a Python dict in a line; nothing where there is none."""
    text = line[line.find("{'") : line.rfind("}") + 1]
    if not text.startswith("{'"):
        return {}
    try:
        row = ast.literal_eval(BARE.sub(r"'\1'", CALL.sub(r"\1", text)))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return {}
    if not isinstance(row, dict) or any(isinstance(value, str) and not is_number(value) for value in row.values()):
        return {}  # an example of a data set, or settings
    return {name: value for name, value in row.items() if isinstance(name, str) and is_number(value)}


def is_number(value: Any) -> bool:
    if isinstance(value, str):
        return (found := NUMBER.fullmatch(value)) is not None and found[1] == value
    return isinstance(value, int | float) and not isinstance(value, bool)
