"""Undressed answer text -> tokens.

A token is (kind, text): `num` digits with at most one point, `name` a function, constant or variable, `word` letters that are none of these,
`op` everything else (operators, brackets, relations, separators), already in one spelling.
"""

from __future__ import annotations

import re

Token = tuple[str, str]
MAX_TOKENS = 1500

_TOKEN = re.compile(
    r"\s*(?:(?P<num>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,5}(?![\d.]))?)|\\(?P<cmd>[A-Za-z]+)|\\(?P<esc>.)|(?P<word>[^\W\d_]+)|(?P<op>\*\*|<=|>=|=<|=>|!=|==|<>|\.\.\.|.))",
    re.DOTALL,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = _words(
    """sin cos tan cot sec csc arcsin arccos arctan arccot asin acos atan sinh cosh tanh coth sech csch arsinh arcosh artanh asinh acosh atanh
    ln log lg exp sqrt cbrt abs floor ceil sgn max min gcd lcm factorial binomial re im"""
)
_FUNCTION_ALIASES = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "tg": "tan", "ctg": "cot", "cosec": "csc", "arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh",
    "ceiling": "ceil", "Re": "re", "Im": "im", "comb": "binomial", "binom": "binomial", "dbinom": "binomial", "tbinom": "binomial",
    "arctg": "atan", "signum": "sgn",
}  # fmt: skip
_GREEK = _words(
    """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon phi varphi chi psi omega
    Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar"""
)
_COMMANDS = {
    "cdot": "*", "times": "*", "permille": "‰",
    "ast": "*", "star": "*", "div": "/", "pm": "±", "mp": "∓", "le": "<=", "leq": "<=", "leqslant": "<=", "leqq": "<=", "ge": ">=",
    "geq": ">=", "geqslant": ">=", "geqq": ">=", "lt": "<", "gt": ">", "ne": "!=", "neq": "!=", "approx": "≈", "simeq": "≈", "equiv": "=",
    "in": "∈",
    "cup": "∪", "bigcup": "∪", "vee": "∨", "lor": "∨", "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]",
    "lparen": "(", "rparen": ")", "vert": "|", "mid": "∣",
    "lvert": "⟦", "rvert": "⟧", "langle": "⟨", "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "infty": "∞", "infin": "∞",
    "emptyset": "∅", "varnothing": "∅", "frac": "frac", "binom": "binom", "dbinom": "binom", "tbinom": "binom", "choose": "choose", "over": "over",
    "colon": ":", "bmod": "mod", "mod": "mod", "R": "ℝ", "Z": "ℤ", "N": "ℕ", "Q": "ℚ", "C": "ℂ", "setminus": "∖", "backslash": "∖", "overline": "overline",
    "implies": "⇒", "Rightarrow": "⇒", "to": "→", "rightarrow": "→", "land": "∧", "wedge": "∧", "prime": "'",
}  # fmt: skip
_ESCAPES = {"{": "\\{", "}": "\\}", "%": "%", "|": "‖", "\\": "\\\\", "&": "&", "#": "#", "_": "_"}
_OPERATORS = {"**": "^", "=<": "<=", "=>": ">=", "==": "=", "<>": "!="}
_WORDS = {"pi": "pi", "Pi": "pi", "PI": "pi", "infinity": "∞", "inf": "∞", "oo": "∞", "Infinity": "∞", "unendlich": "∞"}
_SEPARATING = frozenset(("and", "or", "und", "oder"))
_PRODUCTS = frozenset("xyz")
_SHORT_PRODUCTS = _words("abc xyz pqr rst abcd lwh mgh bca cab bh gh ih")
_VARIABLES = frozenset("abcdkmnpqrstvwxyz")
_SHORT_WORDS = _words("an as at ad by my pa ma tv pm vs mr ms dr st rd nd cm mm km kg kb mb pc")
_WORDS_OR_PRODUCTS = _words("an as at ad by my pa ma tv vs ms dr st rd nd ai bi ci di ki ni yi ix iy iz ib")
_ARITHMETIC = frozenset(("+", "^", "frac", "="))


class Unreadable(ValueError):
    """The text is not mathematics as this parser knows it."""


def tokens_of(text: str) -> list[Token]:
    """The tokens of an undressed text of at most `MAX_TOKENS`; raises `Unreadable` beyond that or for unknown commands."""
    tokens: list[Token] = []
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup
        if kind == "num":
            tokens.append(("num", found.group("num")))
        elif kind == "word":
            _add_word(tokens, found.group("word"))
        elif kind == "cmd":
            tokens.append(_command(found.group("cmd")))
        elif kind == "esc":
            tokens.append(("op", _ESCAPES.get(found.group("esc"), "?")))
        elif kind == "op":
            tokens.append(("op", _OPERATORS.get(found.group("op"), found.group("op"))))
        if len(tokens) > MAX_TOKENS:
            raise Unreadable
    return _products(tokens) if any(token[0] == "word" and token[1] in _WORDS_OR_PRODUCTS for token in tokens) else tokens


def _products(tokens: list[Token]) -> list[Token]:
    """Short words such as `ad`, `by` and `bi` as products of variables and i where they stand among signs of arithmetic; tokens unchanged where they do not."""
    if not _ARITHMETIC.intersection(token[1] for token in tokens if token[0] == "op"):
        return tokens
    found: list[Token] = []
    for kind, text in tokens:
        found.extend([("const" if letter == "i" else "var", letter) for letter in text] if kind == "word" and text in _WORDS_OR_PRODUCTS else [(kind, text)])
    return found


def _command(name: str) -> Token:
    sign = _COMMANDS.get(name)
    if sign is not None:
        return "op", sign
    name = _FUNCTION_ALIASES.get(name, name)
    if name in FUNCTIONS:
        return "func", name
    if name in ("pi", "varpi"):
        return "const", "pi"
    if name in ("imath", "i"):
        return "const", "i"
    if name == "e":
        return "const", "e"
    if name in _GREEK:
        return "var", name.removeprefix("var")
    return "word", "\\" + name


def _add_word(tokens: list[Token], word: str) -> None:
    """Appends what a run of letters stands for; a run that is no name becomes one `word` token."""
    if len(word) == 1:
        tokens.append(("const", word) if word in "ei" else ("var", word))
        return
    if word in _WORDS:
        sign = _WORDS[word]
        tokens.append(("const", "pi") if sign == "pi" else ("op", sign))
        return
    lowered = word.casefold()
    if lowered in _SEPARATING:
        tokens.append(("sep", "or" if lowered in ("or", "oder") else "and"))
        return
    function = _FUNCTION_ALIASES.get(lowered, lowered)
    if function in FUNCTIONS and word.isascii() and word[1:].islower():
        tokens.append(("func", function))
        return
    if word in ("choose", "mod"):
        tokens.append(("op", word))
        return
    if lowered in _GREEK and word.isascii():
        tokens.append(("var", word))
        return
    _add_run(tokens, word)


def is_product(word: str) -> bool:
    """Whether a run of letters is usually meant as a product of variables (`xy`, `abc`), not as a word."""
    if len(word) < 2:
        return False
    return word in _SHORT_PRODUCTS or _PRODUCTS.issuperset(word) or (len(word) == 2 and _VARIABLES.issuperset(word) and word not in _SHORT_WORDS)


def _add_run(tokens: list[Token], word: str) -> None:
    """A run without a meaning of its own: a function with its variable (`sinx`), a product (`xy`, `2abc`), or a word."""
    for size in (6, 5, 4, 3, 2):
        if len(word) - size in (1, 2) and word[:size] in FUNCTIONS and word[size:].islower():
            tokens.append(("func", _FUNCTION_ALIASES.get(word[:size], word[:size])))
            _add_word(tokens, word[size:])
            return
    if word.startswith("pi") and len(word) == 3:
        tokens.extend((("const", "pi"), ("var", word[2])))
        return
    after_number = bool(tokens) and tokens[-1][0] == "num" and len(word) <= 4
    if is_product(word) or (after_number and word.isascii()):
        for letter in word:
            tokens.append(("const", letter) if letter in "ei" else ("var", letter))
        return
    tokens.append(("word", word))
