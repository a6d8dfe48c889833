"""Answer text without its dressing: delimiters, styles, spacing commands, typographic signs.

`undress` keeps the meaning and drops what only concerns the looks: `$\\left(3,\\,\\tfrac{π}2\\right)$.` becomes `(3, \\tfrac{\\pi }2)`.
Input is at most `keys.MAX_PARSED` characters; every pattern is linear, each is applied a fixed number of times.
"""

from __future__ import annotations

import re
import unicodedata

_SIGNS: dict[int, str] = {ord(sign): text for sign, text in (
    *((sign, "-") for sign in "−–—‒‐‑﹣－"),
    *((sign, " ") for sign in "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"),
    *((sign, "") for sign in "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufeff\u00ad"),
    *((sign, "\\cdot ") for sign in "·⋅∙•"), ("×", "\\times "), ("✕", "\\times "), ("÷", "/"), ("∕", "/"), ("⁄", "/"), ("∗", "*"), ("∶", ":"),
    ("√", "\\sqrt "), ("∛", "\\sqrt[3] "), ("∜", "\\sqrt[4] "), ("π", "\\pi "), ("∞", "\\infty "), ("±", "\\pm "), ("∓", "\\mp "),
    ("≤", "\\le "), ("≥", "\\ge "), ("⩽", "\\le "), ("⩾", "\\ge "), ("≠", "\\ne "), ("≈", "\\approx "), ("∈", "\\in "), ("∪", "\\cup "), ("∩", "\\cap "),
    ("∅", "\\emptyset "), ("ℝ", "\\R "), ("ℤ", "\\Z "), ("ℕ", "\\N "), ("ℚ", "\\Q "), ("ℂ", "\\C "), ("∖", "\\setminus "), ("º", "°"), ("˚", "°"),
    ("½", " \\frac{1}{2} "), ("⅓", " \\frac{1}{3} "), ("⅔", " \\frac{2}{3} "), ("¼", " \\frac{1}{4} "), ("¾", " \\frac{3}{4} "),
    ("⅕", " \\frac{1}{5} "), ("⅖", " \\frac{2}{5} "), ("⅗", " \\frac{3}{5} "), ("⅘", " \\frac{4}{5} "), ("⅙", " \\frac{1}{6} "), ("⅚", " \\frac{5}{6} "),
    ("⅐", " \\frac{1}{7} "), ("⅛", " \\frac{1}{8} "), ("⅜", " \\frac{3}{8} "), ("⅝", " \\frac{5}{8} "), ("⅞", " \\frac{7}{8} "),
    ("⅑", " \\frac{1}{9} "), ("⅒", " \\frac{1}{10} "), ("α", "\\alpha "), ("β", "\\beta "), ("γ", "\\gamma "), ("δ", "\\delta "), ("θ", "\\theta "),
    ("λ", "\\lambda "), ("μ", "\\mu "), ("σ", "\\sigma "), ("φ", "\\phi "), ("ω", "\\omega "), ("∠", "\\angle "), ("△", "\\triangle "),
    *((sign, "'") for sign in "‘’′`´"), *((sign, '"') for sign in "“”„«»″"), ("⟨", "\\langle "), ("⟩", "\\rangle "), ("‰", "\\permille "),
    ("，", ","), ("、", ","), ("。", "."), ("；", ";"), ("：", ":"), ("（", "("), ("）", ")"), ("！", "!"), ("％", "%"), ("＝", "="), ("＋", "+"),
)}  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺⁽⁾ⁿˣⁱ", "0123456789-+()nxi")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₋₊ₙ", "0123456789-+n")
_RAISED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺⁽⁾ⁿˣⁱ]+")
_LOWERED_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉₋₊ₙ]+")
_OVERLINED = re.compile(r"(\d)\u0305")

_DELIMITERS = re.compile(r"\\(?:left|right|middle)(?![a-zA-Z])\s?(\||\\\||\.)?|\\[bB]igg?[lrm]?(?![a-zA-Z])")
_STYLE = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|boldsymbol|bm|mathord|mathstrut|hfill|noindent|centering|large|Large|bf|rm|it)(?![a-zA-Z])"
)
_SPACE = re.compile(
    r"(?<!\\)\\(?:[,;:> \n]|quad(?![a-zA-Z])|qquad(?![a-zA-Z])|thinspace(?![a-zA-Z])|hspace\*?\s?\{[^{}]*\}|[hv]?phantom\s?\{[^{}]*\})|~|&nbsp;"
)
_GROUPED_DIGITS = re.compile(r"(?<=\d)\s?(?:\{\s?,\s?\}|\\,|,\s?\\!|\\!,?|\\,|\\;)\s?(?=\d\d\d(?!\d))")
_BRACED_SIGN = re.compile(r"(?<=\d)\s?\{\s?([.:])\s?\}\s?(?=\d)")
_BRACED_MINUS = re.compile(r"(?<![\^_\w}])\{\s?([-+])\s?\}(?=\s?[\d\\.(])")
_COLOR = re.compile(r"\\(?:text)?color\s?\{[A-Za-z]{1,20}\}")
_BRACED_COMMA = re.compile(r"(?<=\d)\s?\{\s?,\s?\}\s?(?=\d)")
_UNWRAPPED = re.compile(
    r"\\(?:text(?:rm|bf|it|sf|tt|up|normal|md|sl|sc)?|math(?:rm|bf|it|sf|tt|normal|ord)|mbox|hbox|operatorname\*?|emph|underline|boxed|fbox|bold|unit|ensuremath|tag)\s?\{([^{}]*)\}"
)
_NESTED_STYLE = re.compile(r"\\(?:boxed|fbox|text(?:bf|it|rm)?|math(?:bf|it|rm|sf)|boldsymbol|bm|ensuremath|underline|emph)\s?(?=\{)")
_ROW_SPACE = re.compile(r"\\\\\s?\[-?\d{1,3}(?:\.\d{1,3})?\s?(?:pt|em|ex|mm|cm)\]")
_DOUBLED = re.compile(
    r"(?<!\\)\\\\(?=(?:[dt]?frac|left|right|sqrt|pi|text|cdot|times|infty|cup|le|ge|in|boxed|pm|begin|end|mathrm|circ|sin|cos|tan|ln|log)(?![a-zA-Z]))"
)
_BLACKBOARD = re.compile(r"\\(?:mathbb|Bbb)\s?(?:\{([RZNQC])\}|([RZNQC]))|\\mathbf\s?\{?([RZNQ])(?:\}|(?![A-Za-z]))")
_DEGREE = re.compile(r"\^\s?(?:\{\s?(?:\\circ|°|o)\s?\}|\\circ(?![a-zA-Z])|°)|\\(?:degrees?|textdegree)(?![a-zA-Z])")
_FRACTION_STYLE = re.compile(r"\\[dtcx]frac(?![a-z])")
_PAIRS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"), ('"', '"'), ("'", "'"), ("__", "__"))
_CURRENCY_DOLLAR = re.compile(r"\\\$|\$")
_TRAILING = " \t\r\n.,;:"
_OPENERS = " \t\r\n$\\*`\"'_"


def undress(answer: str) -> str:
    """The answer in plain LaTeX or ASCII, outer delimiters, styles and final full stops removed; may be empty."""
    text = answer.strip()
    if text.endswith("\\") and not text.endswith("\\\\"):
        text = text[:-1]  # a spacing command that lost its space
    if not text.isascii():
        text = _plain_signs(text)
    text = _unwrap_outer(text)
    if "\\" in text or "{" in text or "~" in text or "&nbsp;" in text:
        text = _without_commands(text)
    if "$" in text:
        text = _CURRENCY_DOLLAR.sub(" ", text)
    return _unwrap_outer(text)


def _plain_signs(text: str) -> str:
    text = _OVERLINED.sub(r"\\overline{\1}", text)
    text = _RAISED_RUN.sub(lambda run: "^{" + run.group().translate(_RAISED) + "}", text)
    text = _LOWERED_RUN.sub(lambda run: "_{" + run.group().translate(_LOWERED) + "}", text)
    return unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS).strip()


def _unwrap_outer(text: str) -> str:
    """`text` without matching outer delimiters that enclose nothing of their own kind, and without final punctuation."""
    if text and text[0] not in _OPENERS and text[-1] not in _TRAILING:
        return text
    for _ in range(8):
        before = text
        text = text.strip()
        if text and text[-1] in _TRAILING and not text.endswith("...") and not text.endswith(("\\,", "\\;", "\\:")):
            text = text.rstrip(_TRAILING)
        for left, right in _PAIRS:
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                inner = text[len(left) : -len(right)]
                if left not in inner and right not in inner and not inner.endswith("\\"):
                    text = inner
        if text == before:
            break
    return text


def _without_commands(text: str) -> str:
    if "\\\\" in text and "&" not in text:
        text = _DOUBLED.sub("\\\\", text)
    if "color" in text:
        text = _COLOR.sub(" ", text)
    text = _BLACKBOARD.sub(lambda found: f"\\{found.group(1) or found.group(2) or found.group(3)} ", text)
    for _ in range(4):
        unwrapped = _UNWRAPPED.sub(r" \1 ", text)
        if unwrapped == text:
            break
        text = unwrapped
    text = _ROW_SPACE.sub(r"\\\\ ", _NESTED_STYLE.sub(" ", text))
    text = _DELIMITERS.sub(_delimiter, text)
    text = _STYLE.sub(" ", text)
    text = _BRACED_SIGN.sub(r"\1", _BRACED_COMMA.sub(".", _GROUPED_DIGITS.sub("", text)))
    text = _BRACED_MINUS.sub(r"\1", text.replace("\\!", ""))
    text = _SPACE.sub(" ", text)
    text = _DEGREE.sub("°", text)
    return _FRACTION_STYLE.sub(r"\\frac", text)


def _delimiter(found: re.Match[str]) -> str:
    """`\\left|` opens and `\\right|` closes, so that nested bars stay readable; `\\left.` is nothing; other fences lose only the size."""
    sign = found.group(1)
    if sign is None or sign == ".":
        return ""
    side = "l" if "left" in found.group() else "r"
    return f"\\{side}vert " if sign == "|" else f"\\{side}Vert "
