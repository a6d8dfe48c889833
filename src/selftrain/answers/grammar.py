"""Tokens -> expression tree.

Nodes are tuples whose first element names them: ("num", Fraction), ("var", name), ("const", "pi"), ("+", a, b), ("±", a, b), ("-", a),
("*", a, b), ("/", a, b), ("^", a, b), ("°", a), ("call", function, arguments).
Juxtaposition multiplies with the rank of `*`, from left to right, so `1/2x` is x/2;
-2^2 is -(2^2); an argument without brackets reaches to the next sum, function or explicit sign (`sin 2x cos y`).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from selftrain.answers.lexer import Token, Unreadable
from selftrain.answers.numerals import plain_number

Node = tuple[Any, ...]
MAX_DEPTH = 40
_CLOSING = {"(": ")", "[": "]", "{": "}", "⌊": "⌋", "⌈": "⌉", "⟦": "⟧"}
_STARTS = frozenset(("(", "[", "{", "frac", "binom", "⌊", "⌈", "⟦"))
_BEFORE_NUMBER = frozenset((("op", ")"), ("op", "!"), ("const", "i")))
_END: Token = ("end", "")


class Parser:
    """One expression of a token list. `variables` are the free names that were met, `has_sign` whether ± or ∓ occurs."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = [*tokens, _END]
        self._at = 0
        self._depth = 0
        self._bars = 0
        self.variables: set[str] = set()
        self.has_sign = False

    def parse(self) -> Node:
        """The tree of all tokens; raises `Unreadable` where they are not one expression."""
        tree = self._sum()
        if self._peek() != _END:
            raise Unreadable
        return tree

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._tokens[self._at]
        if token is _END:
            raise Unreadable
        self._at += 1
        return token

    def _accept(self, sign: str) -> bool:
        if self._tokens[self._at] == ("op", sign):
            self._at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._accept(sign):
            raise Unreadable

    def _sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable
        tree = self._product()
        while True:
            kind, sign = self._peek()
            if kind != "op" or sign not in "+-±∓" or not sign:
                break
            self._at += 1
            right = self._product()
            if sign in "±∓":
                self.has_sign = True
                tree = (sign, tree, right)
            else:
                tree = ("+", tree, right if sign == "+" else ("-", right))
        self._depth -= 1
        return tree

    def _product(self) -> Node:
        kind, sign = self._peek()
        if kind == "op" and sign in ("+", "-", "±", "∓"):
            self._at += 1
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise Unreadable
            inner = self._product()
            self._depth -= 1
            if sign in "±∓":
                self.has_sign = True
                return (sign, ("num", Fraction(0)), inner)
            return inner if sign == "+" else ("-", inner)
        tree = self._power()
        while True:
            kind, sign = self._peek()
            if kind == "op" and sign in ("*", "/", "mod"):
                self._at += 1
                right = self._signed_power()
                tree = ("call", "mod", (tree, right)) if sign == "mod" else (sign, tree, right)
            elif kind == "op" and sign == "choose":
                self._at += 1
                tree = ("call", "binomial", (tree, self._signed_power()))
            elif self._juxtaposed(kind, sign):
                tree = ("*", tree, self._power())
            else:
                return tree

    def _juxtaposed(self, kind: str, sign: str) -> bool:
        if kind in ("var", "const", "func"):
            return True
        if kind == "num":
            return self._tokens[self._at - 1] in _BEFORE_NUMBER
        return kind == "op" and (sign in _STARTS or (sign == "|" and not self._bars))

    def _signed_power(self) -> Node:
        kind, sign = self._peek()
        if kind == "op" and sign in ("+", "-"):
            self._at += 1
            return self._signed_power_limited(sign)
        return self._power()

    def _signed_power_limited(self, sign: str) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable
        inner = self._signed_power()
        self._depth -= 1
        return inner if sign == "+" else ("-", inner)

    def _power(self) -> Node:
        tree = self._postfixed(self._atom())
        if self._accept("^"):
            tree = self._postfixed(("^", tree, self._exponent()))
        return tree

    def _postfixed(self, tree: Node) -> Node:
        while True:
            if self._accept("!"):
                tree = ("call", "factorial2", (tree[2][0],)) if tree[0] == "call" and tree[1] == "factorial" else ("call", "factorial", (tree,))
            elif self._accept("°"):
                tree = ("°", tree)
            elif self._accept("%"):
                tree = ("/", tree, ("num", Fraction(100)))
            else:
                return tree

    def _exponent(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable
        kind, sign = self._peek()
        if kind == "op" and sign in ("+", "-"):
            self._at += 1
            inner = self._exponent()
            tree: Node = inner if sign == "+" else ("-", inner)
        else:
            tree = self._atom()
            if self._accept("^"):
                tree = ("^", tree, self._exponent())
        self._depth -= 1
        return tree

    def _atom(self) -> Node:
        kind, text = self._take()
        if kind == "num":
            return self._number(text)
        if kind == "const":
            return ("const", text)
        if kind == "var":
            return self._variable(text)
        if kind == "func":
            return self._call(text)
        if kind != "op":
            raise Unreadable
        if text == "frac":
            return self._fraction()
        if text == "binom":
            return ("call", "binomial", (self._argument(), self._argument()))
        if text == "|":
            self._bars += 1
            inner = self._sum()
            self._expect("|")
            self._bars -= 1
            return ("call", "abs", (inner,))
        if text in _CLOSING:
            return self._bracketed(text)
        raise Unreadable

    def _fraction(self) -> Node:
        top, bottom = self._argument(), self._argument()
        if bottom[0] == "*" and bottom[1] == ("var", "d"):
            raise Unreadable  # a derivative, no quotient
        return ("/", top, bottom)

    def _bracketed(self, opening: str) -> Node:
        bars, self._bars = self._bars, 0
        inner = self._sum()
        if opening == "{" and self._peek() in (("op", "over"), ("op", "choose")):
            name = self._take()[1]
            right = self._sum()
            inner = ("/", inner, right) if name == "over" else ("call", "binomial", (inner, right))
        self._expect(_CLOSING[opening])
        self._bars = bars
        name = {"⌊": "floor", "⌈": "ceil", "⟦": "abs"}.get(opening, "")
        return ("call", name, (inner,)) if name else inner

    def _number(self, text: str) -> Node:
        value = plain_number(text)
        if value is None:
            raise Unreadable
        if value.denominator == 1 and "." not in text:
            return self._mixed(value)
        return ("num", value)

    def _mixed(self, whole: Fraction) -> Node:
        """A whole number, with the proper fraction of digits that directly follows it (`3\\frac14`) added."""
        at = self._at
        following = self._tokens[at : at + 3]
        if len(following) == 3 and following[0][0] == following[2][0] == "num" and following[1] == ("op", "/"):
            top, bottom = plain_number(following[0][1]), plain_number(following[2][1])
            if top and bottom and top < bottom and top.denominator == bottom.denominator == 1:
                self._at += 3
                return ("num", whole + top / bottom)
        if self._peek() == ("op", "frac") and (at < 2 or self._tokens[at - 2] not in (("op", "^"), ("op", "/"))):
            self._at += 1
            top_node, bottom_node = self._argument(), self._argument()
            if top_node[0] == bottom_node[0] == "num" and 0 < top_node[1] < bottom_node[1] and (top_node[1] + bottom_node[1]).denominator == 1:
                return ("num", whole + top_node[1] / bottom_node[1])
            return ("*", ("num", whole), ("/", top_node, bottom_node))
        return ("num", whole)

    def _argument(self) -> Node:
        """An argument in LaTeX: a brace group, or one sign (`\\frac12` has two)."""
        kind, text = self._peek()
        if kind == "num" and len(text) > 1 and "." not in text and "e" not in text.lower():
            self._tokens[self._at] = ("num", text[1:])
            return ("num", Fraction(int(text[0])))
        if kind == "num":
            self._at += 1
            value = plain_number(text)
            if value is None:
                raise Unreadable
            return ("num", value)
        return self._atom()

    def _variable(self, name: str) -> Node:
        if self._accept("_"):
            kind, text = self._take()
            if kind == "op" and text == "{":
                text = ""
                while not self._accept("}"):
                    text += self._take()[1]
            name = f"{name}_{text}"
        while self._accept("'"):
            name += "'"
        if self._peek() == ("op", "(") and (name[0] in "fgh" or name.endswith("'")):
            self._at += 1
            arguments = self._arguments(")")
            self.variables.add(name + "()")
            return ("call", "?" + name, arguments)
        self.variables.add(name)
        return ("var", name)

    def _arguments(self, closing: str) -> tuple[Node, ...]:
        found = [self._sum()]
        while self._accept(","):
            found.append(self._sum())
        self._expect(closing)
        return tuple(found)

    def _call(self, name: str) -> Node:
        power: Node | None = None
        base: Node | None = None
        if name == "sqrt" and self._accept("["):
            base = self._sum()
            self._expect("]")
        elif name == "log" and self._accept("_"):
            base = self._argument_or_number()
        if self._accept("^"):
            power = self._exponent()
            if base is None and name == "log" and self._accept("_"):
                base = self._argument_or_number()
        arguments = self._call_arguments(name)
        tree: Node
        if name == "sqrt":
            tree = ("^", arguments[0], ("/", ("num", Fraction(1)), base or ("num", Fraction(2))))
        elif name == "log" and base is not None:
            tree = ("/", ("call", "ln", arguments), ("call", "ln", (base,)))
        elif power == ("-", ("num", Fraction(1))) and name in ("sin", "cos", "tan"):
            return ("call", "a" + name, arguments)
        else:
            tree = ("call", name, arguments)
        return tree if power is None else ("^", tree, power)

    def _argument_or_number(self) -> Node:
        kind, text = self._peek()
        if kind == "num":
            self._at += 1
            return ("num", plain_number(text) or Fraction(0))
        return self._atom()

    def _call_arguments(self, name: str) -> tuple[Node, ...]:
        if self._accept("("):
            bars, self._bars = self._bars, 0
            arguments = self._arguments(")")
            self._bars = bars
            return arguments
        if self._peek() == ("op", "{"):
            return (self._atom(),)
        if self._accept("\\{"):
            return self._arguments("\\}")
        if name in ("sqrt", "cbrt"):
            return (self._argument_or_number(),)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable
        tree = self._signed_power()
        while True:
            kind, sign = self._peek()
            if kind in ("var", "const") or (kind == "op" and sign == "frac"):
                tree = ("*", tree, self._power())
            elif kind == "op" and sign == "/" and self._tokens[self._at + 1][0] in ("num", "const"):
                self._at += 1
                tree = ("/", tree, self._power())
            else:
                break
        self._depth -= 1
        return (tree,)
