"""Why two surface forms are one answer, in words for a person."""

from __future__ import annotations

from selftrain.answers.dressing import undress
from selftrain.answers.keys import MAX_PARSED, key
from selftrain.types import AnswerKey


def kind_of(found: AnswerKey) -> str:
    """What a key stands for: `number`, `irrational number`, `function`, `text` ..., in a noun."""
    if found.startswith(("'", "e'")):
        return "text"
    if ", " in found and found[0] not in "([{⟨":
        return "list"
    starts = {"f:": "function", "0 = ": "equation", "0 >": "inequality", "!= ": "inequality", "matrix[": "matrix", "det[": "determinant", "{": "set"}
    for start, noun in starts.items():
        if found.startswith(start):
            return noun
    if "∪" in found or (found[0] in "([" and ("inf" in found or found[0] + found[-1] in ("[)", "(]"))):
        return "interval"
    if found[0] in "([⟨":
        return "tuple"
    if " = " in found:
        return "equation"
    if "_" in found:
        return "number in a base"
    if " " in found:
        return "number with a unit"
    if found.lstrip("-~")[:1].isdigit():
        return "irrational number" if found.lstrip("-").startswith("~") else "number"
    return "choice or name" if len(found) == 1 else "value"


def why_equal(a: str, b: str) -> str:
    """One sentence: why `a` and `b` are one answer, or why they are two. Example: why_equal("0.5", "\\\\frac12") says that both are the number 1/2."""
    found, other = key(a), key(b)
    if found != other:
        return f"different: {_shown(a)} is the {kind_of(found)} {found}, {_shown(b)} is the {kind_of(other)} {other}"
    if a == b:
        return "written alike"
    if len(a) <= MAX_PARSED and len(b) <= MAX_PARSED and undress(a) == undress(b):
        return f"alike without delimiters, styles and spaces: {_shown(undress(a))}"
    noun = kind_of(found)
    if noun == "text":
        return f"the same text but for case and space: {found}"
    if noun == "function":
        return "the same function: their values agree to 45 digits at six fixed points"
    if noun == "irrational number":
        return f"the same number to 45 digits: {found}"
    return f"both are the {noun} {found}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
