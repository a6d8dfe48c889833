"""What trainers write to a terminal -> rows of signals, for runs of which nothing else is left.

verl writes `step:34 - actor/entropy:0.22 - ...` (behind what Ray says of the process), transformers' trainers one Python dict a step, among
bars and other lines.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
VERL = re.compile(r"(?:^|\s)step:(\d{1,18}) - (\S.*)")
NAMED = re.compile(r"(\S+):(?:np\.\w+\()?([-+]?(?:\d+(?:\.\d*)?(?:e[-+]?\d+)?|nan|inf))\)?(?:\s|$)", re.IGNORECASE)
DICT = re.compile(r"\{'.*\}")
BARE = re.compile(r"(?<=: )(nan|-?inf)(?=[,}])")
LONGEST = 1 << 20
"""characters of a line: longer ones are no step's"""


def console_rows(lines: Iterable[str], torn: Callable[[], None]) -> Iterator[Mapping[str, Any]]:
    """The rows among these lines; what is none is passed over. torn: told of a last line of numbers that has no end, of which a digit may be missing."""
    for line in lines:
        if len(line) > LONGEST or (row := console_row(line)) is None:
            continue
        if not line.endswith(("\n", "}")):
            torn()
            return
        yield row


def console_row(line: str) -> Mapping[str, Any] | None:
    """What a line says of a step; None where it says nothing."""
    line = COLOUR.sub("", line)
    if step := VERL.search(line):
        return {**{name: float(value) for name, value in NAMED.findall(step[2])}, "step": int(step[1])}
    if (found := DICT.search(line)) is None:
        return None
    try:
        row = ast.literal_eval(BARE.sub(r"'\1'", found[0]))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return row if isinstance(row, dict) and all(isinstance(name, str) for name in row) else None
