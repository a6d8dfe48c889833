"""Coverage-guided fuzzing of keys and extraction: `python benchmarks/answers/fuzz.py CORPUS -max_total_time=1800` (needs `pip install atheris`).

Looks for exceptions other than `Unreadable`, unprintable or unstable keys, spans that do not match, and inputs that take longer than 0.2 s.
"""

from __future__ import annotations

import contextlib
import sys
import time

import atheris

with atheris.instrument_imports(include=["selftrain.answers"]):
    from selftrain.answers import extract_span, key
    from selftrain.answers.dressing import undress
    from selftrain.answers.keys import MAX_PARSED, structured
    from selftrain.answers.lexer import Unreadable
    from selftrain.answers.precision import OutOfRange

MAX_S = 0.2


def check(text: str) -> None:
    """Raises for whatever must not happen with any text."""
    began = time.process_time()
    found = key(text)
    assert found.isprintable(), "unprintable key"
    assert found == key(text), "unstable key"
    if len(text) <= MAX_PARSED:
        with contextlib.suppress(Unreadable, OutOfRange):
            structured(undress(text))
    for completion in (text, f"The answer is {text}", f"\\boxed{{{text}"):
        span = extract_span(completion)
        assert span is None or (completion[span.start : span.end] == span.text and span.start < span.end), "span does not match"
    assert time.process_time() - began < MAX_S * 5, "too slow"


def one_input(data: bytes) -> None:
    check(data.decode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
