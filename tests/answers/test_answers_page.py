"""The examples of docs/answers.md hold."""

import re
from pathlib import Path

import pytest

from selftrain.answers import extract, key

PAGE = (Path(__file__).parents[2] / "docs" / "answers.md").read_text(encoding="utf-8")
EQUALITIES = re.findall(r"^\| `(.+?)` \| (=|!=) \| `(.+?)` \|", PAGE, re.MULTILINE)
EXTRACTIONS = re.findall(r"^\| `(.+?)` \| (?:`(.+?)`|(none)) \|$", PAGE, re.MULTILINE)


def test_the_page_has_its_examples():
    assert len(EQUALITIES) > 60
    assert len(EXTRACTIONS) >= 10


@pytest.mark.parametrize(("a", "sign", "b"), EQUALITIES)
def test_equalities(a, sign, b):
    a, b = a.replace("\\|", "|"), b.replace("\\|", "|")
    assert (key(a) == key(b)) is (sign == "="), (key(a), key(b))


@pytest.mark.parametrize(("completion", "answer", "none"), EXTRACTIONS)
def test_extractions(completion, answer, none):
    assert extract(completion) == (None if none else answer)
