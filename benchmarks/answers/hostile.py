"""Answers that attack a grader: towers, factorials, code, long and deep text, odd Unicode. Each must give a key within 0.1 s and do nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_WRITTEN = (Path(__file__).parent / "hostile.txt").read_text(encoding="utf-8").splitlines()
_UNICODE = [
    '5\x00', '\x00', '\ud800', '5\udfff', '\ud83d', '\u202e5', '\u200b', '\ufeff5', '1\u066b5', '\u0663', '\u096b', '\U0001d7d3', '\U0001d499\xb2',
    '\xdf', '\ufb01', '\u0130', '\u0131', '\u1e9e', '\u2167', '\u2460', '\u32bf', '\xbd\xbd', '\xb2', 'x\xb2\xb3', '\u2075', '\u2085', '\u221a',
    '\u221a\u221a\u221a\u221a2', '\u221e\u221e', '\u2212\u22125', '5\u2030', '\u0301', '5\u0301', '\xe9', 'e\u0301', '\U0001f44d',
    '\U0001f468\u200d\U0001f469\u200d\U0001f467', '\U0010ffff', '\u3000', '\uff15\uff0b\uff15', '\u4e00\u767e\u4e8c\u5341\u4e09',
    '\u4e09\u5206\u4e4b\u4e00', '\u2028', '\x85', '\x1b[31m', '\x7f', '5\r\n', '\xad5', '0.3\u0305', '\u0305', '\u01c5', '\u1e9e', 'a\u200db',
    '\u2177',
    "\u03c0" * 50, "\u00bd" * 300, "\u00b2" * 500, "\ufdfa" * 80,
]  # fmt: skip
_PIECES = (
    "\\frac", "%", "9", "(", "{", "[", "\\left(", "-", "+", "1+", "1,", "1,111", "a", " ", "\n", "$", "\\", "\\\\", "^", "2^", "x", "|", "!",
    "\\sqrt{", "\\text{", "{,}", ".", "0.", "'", "\\boxed{", "\u00bd", "\ud800", "\u00b2", "\u00b0", "\u03c0", "\u00e9", "/", "1/", "e", "_", "\\{",
    "&", ";", "=", "<", "and ", "1 ", "#", "*", "`", "\u202e", "one ", "\\,", "~",
)  # fmt: skip


def _long() -> Iterator[str]:
    for piece in _PIECES:
        for count in (1000, 100_000):
            yield piece * count
    yield "9" * 1_000_000
    yield "x" * 1_000_000
    yield "1" * 4301
    yield "1." + "3" * 5000
    yield "0." + "3" * 900
    for count in (30, 45, 100, 300, 700, 50_000):
        yield "-(" * count + "1" + ")" * count
        yield "(" * count + "1" + ")" * count
        yield "{" * count + "1" + "}" * count
        yield "\\sqrt{" * count + "2" + "}" * count
        yield "\\frac{1}{" * count + "2" + "}" * count
        yield "2^{" * count + "2" + "}" * count
        yield "-" * count + "5"
        yield "|" * count + "x" + "|" * count
        yield "\\{" * count + "1" + "\\}" * count
        yield "\\sin " * count + "x"
        yield "[" * count + "]" * count
        yield "1+" * count + "1"
        yield "x*" * count + "x"
        yield "(x+1)" * count
        yield "\\sin(x)" * count
        yield "\\ln(x+" * count + "x" + ")" * count
    yield "1,111" * 30_000 + "x"
    yield "a" * 50_000 + "!"
    yield "\\begin{pmatrix}" + " & ".join(["1"] * 300) + "\\end{pmatrix}"
    yield "\\begin{pmatrix}" + "\\\\".join(" & ".join(["1"] * 15) for _ in range(15)) + "\\end{pmatrix}"
    yield "\\{" + ",".join(str(n) for n in range(350)) + "\\}"
    yield "(" + ",".join(f"\\sqrt{{{n}}}" for n in range(2, 130)) + ")"
    yield "+".join(f"\\sqrt{{{n}}}" for n in range(2, 130))
    yield "\\cup".join(f"({n},{n + 1})" for n in range(110))
    yield "x=" * 500 + "5"


def hostile_answers() -> list[str]:
    """At least 431 answers, in a fixed order."""
    return [*_WRITTEN, *_UNICODE, *_long()]
