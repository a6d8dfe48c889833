"""Tokens -> the key text of an answer of any shape: lists, tuples, sets, intervals, matrices, ratios, and in them expressions.

A bare list `a, b`, a tuple `(a, b)`, a list in brackets `[a, b]`, half-open `(a, b]` and a set `{a, b}` (sorted, without repeats) have different keys.
`Unreadable` is raised for everything that is not one of these.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from selftrain.answers import relations
from selftrain.answers.fingerprint import Expression, key_of_values
from selftrain.answers.lexer import Token, Unreadable

MAX_NESTING = 12
_OPENING = frozenset(("(", "[", "{", "\\{", "⟨", "⌊", "⌈", "⟦"))
_CLOSING = frozenset((")", "]", "}", "\\}", "⟩", "⌋", "⌉", "⟧"))
_RELATIONS = frozenset(("=", "<", ">", "<=", ">=", "!=", "≈", "∈"))
_ATOMS = {"ℝ": "(-inf, inf)", "ℤ": "ℤ", "ℕ": "ℕ", "ℚ": "ℚ", "ℂ": "ℂ", "∅": "{}", "∞": "inf"}
Separator = tuple[str, int]


def shape(tokens: list[Token], depth: int = 0) -> str:
    """The key text of the tokens as a whole."""
    if depth > MAX_NESTING or not tokens:
        raise Unreadable
    if tokens[0] == ("op", "\\{") and tokens.count(("op", "|")) == 1:
        tokens = [("op", "∣") if token == ("op", "|") else token for token in tokens]
    marks = top_level(tokens)
    separators = [at for at in marks if tokens[at] in (("op", ","), ("op", ";")) or tokens[at][0] == "sep"]
    if separators:
        return _list(tokens, separators, depth)
    if any(tokens[at][1] in _RELATIONS for at in marks):
        return relations.relation(tokens, [at for at in marks if tokens[at][1] in _RELATIONS], depth)
    unions = [at for at in marks if tokens[at] == ("op", "∪")]
    if unions:
        parts = {shape(part, depth + 1) for part in split_at(tokens, unions)}
        return union(parts)
    if len(tokens) > 2 and tokens[:2] == [("op", "ℝ"), ("op", "∖")]:
        key = shape(tokens[2:], depth + 1)
        if not key.startswith("{") or key == "{}":
            raise Unreadable
        return without(key[1:-1].split("; "))
    ratios = [at for at in marks if tokens[at] == ("op", ":")]
    if ratios:
        return ":".join(shape(part, depth + 1) for part in split_at(tokens, ratios))
    return _single(tokens, depth)


def top_level(tokens: list[Token]) -> list[int]:
    """Positions of the operators outside all brackets and bars; `Unreadable` where brackets are not balanced. `]a, b[` counts as brackets."""
    found: list[int] = []
    depth = bars = 0
    reversed_brackets = _is_reversed(tokens)
    for at, (kind, text) in enumerate(tokens):
        if kind == "sep" and not depth:
            found.append(at)
        if kind != "op":
            continue
        edge = reversed_brackets and at in (0, len(tokens) - 1)
        if text in _OPENING if not edge else at == 0:
            depth += 1
        elif text in _CLOSING or edge:
            depth -= 1
            if depth < 0:
                raise Unreadable
        elif text == "|":
            bars ^= 1
        elif not depth and not bars:
            found.append(at)
    if depth or bars:
        raise Unreadable
    return found


def _is_reversed(tokens: list[Token]) -> bool:
    return len(tokens) > 3 and tokens[0][1] in ("]", "[") and tokens[-1][1] in ("[", "]") and (tokens[0][1] == "]" or tokens[-1][1] == "[")


def split_at(tokens: list[Token], places: list[int]) -> list[list[Token]]:
    """The runs between the places; `Unreadable` where one is empty, except a last one after a final separator."""
    edges = [-1, *places, len(tokens)]
    parts = [tokens[left + 1 : right] for left, right in pairwise(edges)]
    if not all(parts):
        raise Unreadable
    return parts


def union(parts: set[str]) -> str:
    """The union of set keys: sorted, the empty set dropped, finite sets joined."""
    finite = [part[1:-1] for part in parts if part.startswith("{")]
    rest = sorted(part for part in parts if not part.startswith("{"))
    if any(not part.startswith(("(", "[")) for part in rest):
        raise Unreadable
    members = sorted({member for part in finite if part for member in part.split("; ")})
    return " ∪ ".join(([f"{{{'; '.join(members)}}}"] if members else []) + rest) or "{}"


def _list(tokens: list[Token], separators: list[int], depth: int) -> str:
    """A bare list. `y = 2, x = 1` lists its values in the order of the names, `x < 1 or x > 2` is a union, `p = 5, q = 2; p = 7, q = 2` two tuples."""
    semicolons = [at for at in separators if tokens[at][1] == ";"]
    is_or = all(tokens[at] == ("sep", "or") for at in separators)
    places = semicolons if semicolons and len(semicolons) < len(separators) else separators
    parts = split_at(tokens, _without_doubled(tokens, places))
    named = [relations.assignment(part) for part in parts]
    names = [pair[0] for pair in named if pair is not None]
    if len(names) == len(parts) and len(names) > 1:
        values = [pair[1] for pair in named if pair is not None]
        if _neighbours(names):
            values = [value for _, value in sorted(zip(names, values, strict=True), key=lambda pair: pair[0])]
        return ", ".join(shape(value, depth + 1) for value in values)
    keys = [shape(part, depth + 1) for part in parts]
    if len(places) < len(separators):
        keys = [f"({key})" if _is_pair(key) else key for key in keys]
    if is_or and all(key.startswith(("(", "[", "{")) and ("inf" in key) for key in keys):
        return union(set(keys))
    return ", ".join(keys)


def _neighbours(names: list[str]) -> bool:
    """Whether the names are different neighbours of the alphabet, such as x and y, which have an order of their own."""
    codes = sorted(ord(name) for name in names if len(name) == 1)
    return len(codes) == len(names) and all(right - left == 1 for left, right in pairwise(codes))


def _without_doubled(tokens: list[Token], places: list[int]) -> list[int]:
    """`a, b, and c` has one separator between b and c: of neighbours only the last counts, the others are removed from `tokens` by blanking."""
    kept: list[int] = []
    for at in places:
        if kept and kept[-1] == at - 1:
            tokens[at - 1] = ("skip", "")
            kept[-1] = at
        else:
            kept.append(at)
    return kept


def _single(tokens: list[Token], depth: int) -> str:
    tokens = [token for token in tokens if token[0] != "skip"]
    if not tokens:
        raise Unreadable
    first, last = tokens[0], tokens[-1]
    if len(tokens) <= 2 and last[1] in _ATOMS and last[0] == "op":
        if len(tokens) == 1:
            return _ATOMS[last[1]]
        if last[1] == "∞" and first[1] in ("+", "-"):
            return "inf" if first[1] == "+" else "-inf"
    if first == ("word", "\\begin"):
        return _matrix(tokens, depth)
    opening, closing = first[1], last[1]
    if first[0] == last[0] == "op" and _encloses(tokens):
        inner = tokens[1:-1]
        if opening == "\\{" and closing == "\\}":
            return _set(inner, depth)
        if opening in ("(", "[", "]", "⟨") and closing in (")", "]", "[", "⟩"):
            bracketed = _bracketed(opening, inner, closing, depth)
            if bracketed is not None:
                return bracketed
        if opening == "{" and closing == "}":
            marks = {inner[at][1] for at in top_level(inner)}
            if "," in marks or ";" in marks:
                return _set(inner, depth)
            if not marks & {"over", "choose"}:
                return shape(inner, depth + 1)
    return expression_key(tokens)


def expression_key(tokens: list[Token]) -> str:
    """The key of one expression; with ± the list of both values, plus first."""
    expression = Expression(tokens)
    if expression.has_sign:
        return f"{key_of_values(expression.values(1))}, {key_of_values(expression.values(-1))}"
    return key_of_values(expression.values())


def _encloses(tokens: list[Token]) -> bool:
    """Whether the first token's bracket is closed by the last token and not before."""
    if _is_reversed(tokens):
        return True
    depth = 0
    for at, (kind, text) in enumerate(tokens):
        if kind == "op":
            depth += (text in _OPENING) - (text in _CLOSING)
        if not depth:
            return at == len(tokens) - 1
    return False


def _members(inner: list[Token], depth: int) -> list[str]:
    inner = [token for token in inner if token[0] != "skip"]
    if not inner:
        return []
    marks = top_level(inner)
    wanted = ";" if any(inner[at] == ("op", ";") for at in marks) else ","
    places = [at for at in marks if inner[at] == ("op", wanted) or inner[at][0] == "sep"]
    return [shape(part, depth + 1) for part in split_at(inner, _without_doubled(inner, places))]


def _set(inner: list[Token], depth: int) -> str:
    bar = next((at for at, token in enumerate(inner) if token in (("op", "∣"), ("op", ":"))), None)
    if bar is not None:
        return _where(inner[:bar], inner[bar + 1 :], depth)
    members = {member for key in _members(inner, depth) for member in (key.split(", ") if _is_pair(key) else [key])}
    return f"{{{'; '.join(sorted(members))}}}"


def _where(left: list[Token], condition: list[Token], depth: int) -> str:
    """`{x | x > 2}` as the interval of its condition; `Unreadable` for conditions that are none."""
    if len(left) not in (1, 3) or left[0][0] != "var" or left[1:] not in ([], [("op", "∈"), ("op", "ℝ")]):
        raise Unreadable
    if any(condition[at] == ("op", ",") or condition[at][0] == "sep" for at in top_level(condition)):
        raise Unreadable
    key = shape(condition, depth + 1).removeprefix(f"{left[0][1]} = ")
    if left[0] not in condition or not key.startswith(("(", "[")) or not key.endswith((")", "]")):
        raise Unreadable
    return key


def without(members: list[str]) -> str:
    """The real numbers but for some rationals, as a union of intervals."""
    ends = [str(number) for number in sorted({Fraction(member) for member in members})]
    return " ∪ ".join(sorted(f"({low}, {high})" for low, high in pairwise(["-inf", *ends, "inf"])))


def _is_pair(key: str) -> bool:
    """Whether a member is the two values of a ±."""
    return ", " in key and not key.startswith(("(", "[", "{", "]", "⟨"))


def _bracketed(opening: str, inner: list[Token], closing: str, depth: int) -> str | None:
    """A tuple, list or interval; None where `(a)` only groups."""
    members = _members(inner, depth)
    if len(members) == 1 and ((opening == "(" and closing == ")") or members[0].startswith("matrix[")):
        return members[0]
    if opening == "]":
        opening = "("
    if closing == "[":
        closing = ")"
    if len(members) == 2 and members[0] == "-inf" and opening == "[":
        opening = "("
    if len(members) == 2 and members[1] == "inf" and closing == "]":
        closing = ")"
    return f"{opening}{', '.join(members)}{closing}"


def _matrix(tokens: list[Token], depth: int) -> str:
    """`\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}`: p and b are one, v is a determinant; an array in brackets is a matrix."""
    text = "".join(token[1] for token in tokens[1:4])
    name = text.strip("{}").replace("\\", "")
    if tokens[1:2] != [("op", "{")] or ("word", "\\end") not in tokens:
        raise Unreadable
    start = tokens.index(("op", "}")) + 1
    end = tokens.index(("word", "\\end"))
    if [token[1] for token in tokens[end + 1 :]] != [token[1] for token in tokens[1:start]]:
        raise Unreadable
    body = tokens[start:end]
    if name == "array" and body and body[0] == ("op", "{"):
        body = body[body.index(("op", "}")) + 1 :] if ("op", "}") in body else body
    body = [token for token in body if token != ("word", "\\hline")]
    marks = top_level(body)
    rows = _cells(body, [at for at in marks if body[at] == ("op", "\\\\")])
    if rows and not rows[-1]:
        rows.pop()
    keys = [[shape(cell, depth + 1) for cell in _cells(row, [at for at in top_level(row) if row[at] == ("op", "&")])] for row in rows]
    kind = {"vmatrix": "det", "Vmatrix": "norm", "cases": "cases", "aligned": "cases"}.get(name, "matrix")
    if name not in ("pmatrix", "bmatrix", "vmatrix", "Vmatrix", "matrix", "array", "smallmatrix", "Bmatrix"):
        raise Unreadable
    return f"{kind}[{' | '.join(' & '.join(row) for row in keys)}]"


def _cells(tokens: list[Token], places: list[int]) -> list[list[Token]]:
    edges = [-1, *places, len(tokens)]
    return [tokens[left + 1 : right] for left, right in pairwise(edges)]
