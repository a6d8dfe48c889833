"""Untrusted text: bounded in time, never raising, never run; safe in threads."""

import contextlib
import hashlib
import random
import sys
import threading
import time
from pathlib import Path

import pytest

from selftrain.answers import extract, key, read
from selftrain.answers.dressing import undress
from selftrain.answers.keys import structured
from selftrain.answers.lexer import Unreadable
from selftrain.answers.precision import OutOfRange
from selftrain.vote import count

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "answers"
CORPUS = Path(__file__).parent / "corpus"


@pytest.fixture(scope="module")
def hostile():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from hostile import hostile_answers

        return hostile_answers()
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_hostile_answers_are_bounded(hostile):
    assert len(hostile) >= 431
    for answer in hostile:
        began = time.process_time()
        assert key(answer).isprintable()
        extract(f"The answer is {answer}")
        assert time.process_time() - began < 0.3, answer[:80]


def test_the_kept_corpus_is_still_bounded():
    texts = [line.encode("ascii").decode("unicode_escape") for line in (CORPUS / "found.txt").read_text(encoding="ascii").splitlines()]
    assert len(texts) > 1000
    digest = hashlib.sha256()
    for text in texts:
        found = key(text)
        assert found.isprintable()
        with contextlib.suppress(Unreadable, OutOfRange):
            structured(undress(text))
        extract(text)
        extract("The answer is " + text)
        digest.update(found.encode())


def test_a_deep_caller_does_not_matter():
    def deep(n):
        return key("((((((((((1+x))))))))))+\\frac{1}{2}") if n == 0 else deep(n - 1)

    assert deep(0) == deep(300)


def test_sixteen_threads_read_alike():
    rng = random.Random(3)
    patterns = ["\\frac{%d}{7}", "%d\\sqrt{3}", "x^%d+1", "%d", "(%d, 2)"]
    texts = ["\\boxed{" + rng.choice(patterns).replace("%d", str(rng.randint(2, 400))) + "}" for _ in range(2000)]
    expected = count(read(texts).keys)
    results, errors = [], []

    def work():
        try:
            results.append(count(read(rng.sample(texts, len(texts))).keys))
        except Exception as error:  # noqa: BLE001 - a thread's error has to reach the test
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert results == [expected] * 16
