"""Equations, inequalities and memberships -> key texts.

`x = 5` is 5, whatever the unknown is called, except y, which keeps its equation (`y = 5` may be a line); an inequality of one unknown is its interval;
`S ∈` and a label (`AB =`, `f(x) =`, `(p, q) =`) before the value are dropped. Every other equation is the set of its zeros: lhs - rhs up to a factor.
"""

from __future__ import annotations

from selftrain.answers import precision as fixed
from selftrain.answers import shapes
from selftrain.answers.evaluate import as_complex
from selftrain.answers.fingerprint import Expression, key_of_values, number_text, same
from selftrain.answers.lexer import Token, Unreadable
from selftrain.answers.precision import Complex

_KEPT_NAMES = frozenset("y")
_MINUS: Token = ("op", "-")
_ORDERS = {"<": (1, False), "<=": (1, True), ">": (-1, False), ">=": (-1, True)}


def relation(tokens: list[Token], places: list[int], depth: int) -> str:
    """The key text of `part op part ...`; `places` are the positions of the operators."""
    operators = [tokens[at][1] for at in places]
    parts = shapes.split_at(tokens, places)
    if "≈" in operators:
        cut = operators.index("≈")
        if cut == 0 and len(operators) == 1 and is_label(parts[0]):
            return shapes.shape(parts[1], depth + 1)
        operators, parts = operators[:cut], parts[: cut + 1]
        if not operators:
            return shapes.shape(parts[0], depth + 1)
    if operators == ["∈"]:
        if not is_label(parts[0]):
            raise Unreadable
        return _named(parts[0], shapes.shape(parts[1], depth + 1))
    if all(operator == "=" for operator in operators):
        return _equation(parts[0], parts[-1], depth)
    if len(operators) == 1:
        return _inequality(operators[0], parts[0], parts[1])
    if len(operators) == 2 and all(operator in _ORDERS for operator in operators):
        return _between(operators, parts)
    raise Unreadable


def assignment(tokens: list[Token]) -> tuple[str, list[Token]] | None:
    """(name, value tokens) of `name = ... = value`, or None where the tokens are something else."""
    tokens = [token for token in tokens if token[0] != "skip"]
    marks = shapes.top_level(tokens)
    equals = [at for at in marks if tokens[at] == ("op", "=")]
    if any(tokens[at][0] == "sep" or tokens[at][1] in (",", ";") for at in marks):
        return None
    if not equals or not is_label(tokens[: equals[0]]) or equals[-1] == len(tokens) - 1:
        return None
    value = tokens[equals[-1] + 1 :]
    if any(kind in ("var", "word") for kind, _ in value):
        return None
    return "".join(text for _, text in tokens[: equals[0]]), value


def is_label(tokens: list[Token]) -> bool:
    """Whether tokens only name something: a variable, a function of variables, a word or several, a tuple or ratio of names."""
    names = [token for token in tokens if token[0] in ("var", "word")]
    if not names or tokens[0][0] == "num":
        return False
    if any(kind == "word" for kind, _ in names):
        return all(kind != "func" for kind, _ in tokens)
    signs = [text for kind, text in tokens if kind == "op"]
    if len(names) == 1 and len(tokens) == 1:
        return True
    if "_" in signs and all(sign in ("_", "{", "}") for sign in signs) and tokens[0][0] == "var":
        return True
    if tokens[0] == ("op", "(") and tokens[-1] == ("op", ")") and all(text in "(),;_{}" for text in signs) and "," in signs:
        return True
    if len(tokens) >= 4 and tokens[0][0] == "var" and tokens[1] == ("op", "(") and tokens[-1] == ("op", ")"):
        return tokens[0][1] in ("f", "g", "h", "P", "W", "F", "G", "p", "q") and all(text in "()," for text in signs)
    return ":" in signs and all(text in ":_{}" for text in signs)


def _named(label: list[Token], key: str) -> str:
    """`key`, with the name kept where it is one that makes the equation itself the answer."""
    return f"{label[0][1]} = {key}" if len(label) == 1 and label[0][1] in _KEPT_NAMES else key


def _equation(left: list[Token], right: list[Token], depth: int) -> str:
    if is_label(right) and not is_label(left):
        left, right = right, left
    if is_label(left):
        single = len(left) == 1 and left[0][0] == "var"
        if not single or (left[0][1] not in _KEPT_NAMES and (left[0][1].isupper() or not _has_names(right))):
            return _named(left, shapes.shape(right, depth + 1))
    if not _has_names(left) and not _has_names(right):
        return shapes.shape(right, depth + 1)
    difference = Expression([*_grouped(left), _MINUS, *_grouped(right)])
    if difference.has_sign:
        if len(left) == 1:
            return _named(left, shapes.shape(right, depth + 1))
        raise Unreadable
    values = [as_complex(value) for value in difference.values()]
    if len(difference.variables) == 1:
        (name,) = difference.variables
        root = _root(name, values)
        if root is not None:
            return f"{name} = {root}" if name in _KEPT_NAMES else root
    return "0 = " + _up_to_factor(values)


def _inequality(operator: str, left: list[Token], right: list[Token]) -> str:
    if operator == "!=":
        key = _equation(left, right, 0)
        return shapes.without([key]) if _is_rational(key) else "!= " + key
    if operator not in _ORDERS:
        raise Unreadable
    direction, closed = _ORDERS[operator]
    if len(left) == 1 and left[0][0] == "var" and not _has_names(right):
        return _ray(left[0][1], shapes.expression_key(right), below=direction > 0, closed=closed)
    if len(right) == 1 and right[0][0] == "var" and not _has_names(left):
        return _ray(right[0][1], shapes.expression_key(left), below=direction < 0, closed=closed)
    difference = Expression([*_grouped(left), _MINUS, *_grouped(right)])
    values = [as_complex(value) for value in difference.values()]
    if direction < 0:
        values = [fixed.negate(value) for value in values]
    if len(difference.variables) == 1:
        (name,) = difference.variables
        root = _root(name, values)
        if root is not None:
            rising = values[0][0] > values[1][0]
            return _ray(name, root, below=rising, closed=closed)
    size = fixed.modulus(values[0])
    scaled = [fixed.multiply_small(value, fixed.invert((size, 0))) for value in values]
    return ("0 >= " if closed else "0 > ") + key_of_values(list(scaled))


def _is_rational(key: str) -> bool:
    return key.removeprefix("-").replace("/", "", 1).isdecimal()


def _ray(name: str, end: str, *, below: bool, closed: bool) -> str:
    key = f"(-inf, {end}{']' if closed else ')'}" if below else f"{'[' if closed else '('}{end}, inf)"
    return f"{name} = {key}" if name in _KEPT_NAMES else key


def _between(operators: list[str], parts: list[list[Token]]) -> str:
    """`a < x <= b` as an interval; the middle may be any label or one variable."""
    (first, left_closed), (second, right_closed) = _ORDERS[operators[0]], _ORDERS[operators[1]]
    if first != second or not (is_label(parts[1]) or _is_modulus(parts[1])) or _has_names(parts[0]) or _has_names(parts[2]):
        raise Unreadable
    low, high = shapes.shape(parts[0], 1), shapes.shape(parts[2], 1)
    if first < 0:
        low, high, left_closed, right_closed = high, low, right_closed, left_closed
    key = f"{'[' if left_closed and low != '-inf' else '('}{low}, {high}{']' if right_closed and high != 'inf' else ')'}"
    return f"|{key}|" if _is_modulus(parts[1]) else _named(parts[1], key)


def _is_modulus(tokens: list[Token]) -> bool:
    return len(tokens) == 3 and tokens[1][0] == "var" and tokens[0][1] in ("|", "⟦")


def _has_names(tokens: list[Token]) -> bool:
    return any(kind in ("var", "word") for kind, _ in tokens)


def _grouped(tokens: list[Token]) -> list[Token]:
    return [("op", "("), *tokens, ("op", ")")]


def _root(name: str, values: list[Complex]) -> str | None:
    """The zero of a function that is affine in its only variable, given its values at the points; None where it is not affine."""
    x, y, *others = map(as_complex, Expression([("var", name)]).values())
    slope = fixed.multiply_small(fixed.add(values[1], fixed.negate(values[0])), fixed.invert(fixed.add(y, fixed.negate(x))))
    if slope == fixed.ZERO:
        return None
    for value, z in zip(values[2:], others, strict=False):
        if not same(fixed.add(values[0], fixed.multiply_small(slope, fixed.add(z, fixed.negate(x)))), value):
            return None
    return number_text(fixed.add(x, fixed.negate(fixed.multiply_small(values[0], fixed.invert(slope)))))


def _up_to_factor(values: list[Complex]) -> str:
    first = values[0]
    if first == fixed.ZERO or len(values) == 1:
        raise Unreadable
    return key_of_values([fixed.multiply_small(value, fixed.invert(first)) for value in values])
