"""Answers in words: number words, dates, times of day, and the normalised text of everything else. English and German."""

from __future__ import annotations

import re
from hashlib import sha256


def _list(text: str) -> list[str]:
    return text.split()


_ENGLISH = _list("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_GERMAN = _list("null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn")
_TENS = _list("twenty thirty forty fifty sixty seventy eighty ninety")
_GERMAN_TENS = _list("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
_SMALL: dict[str, int] = {
    **{word: n for n, word in enumerate(_ENGLISH)},
    **{word: n for n, word in enumerate(_GERMAN)},
    **{word: 20 + 10 * n for n, word in enumerate(_TENS)},
    **{word: 20 + 10 * n for n, word in enumerate(_GERMAN_TENS)},
    **{f"{ones}und{tens}": 20 + 10 * n + m for n, tens in enumerate(_GERMAN_TENS) for m, ones in enumerate(["ein", *_GERMAN[2:10]], 1)},
    "fourty": 40,
    "dreissig": 30,
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "hundert": 100, "tausend": 1000}
_FRACTIONS = {
    name: value
    for value, names in {
        "1/2": "half, one half, a half, ein halb", "1/3": "one third, a third, ein drittel", "2/3": "two thirds, zwei drittel",
        "1/4": "one quarter, a quarter, one fourth, ein viertel", "3/4": "three quarters, three fourths, drei viertel", "1/5": "one fifth, ein fünftel",
        "2/5": "two fifths", "3/5": "three fifths", "4/5": "four fifths", "1/6": "one sixth", "5/6": "five sixths", "1/8": "one eighth",
        "3/8": "three eighths", "5/8": "five eighths", "7/8": "seven eighths", "1/10": "one tenth",
    }.items()
    for name in names.split(", ")
}  # fmt: skip
_NUMBER_WORDS = re.compile(r"[a-zäöüß]+(?:[ -][a-zäöüß]+){0,12}")

_MONTHS = {
    name: number
    for number, names in enumerate(
        ("january januar jan jänner", "february februar feb", "march märz mar maerz", "april apr", "may mai", "june juni jun", "july juli jul",
         "august aug", "september sep sept", "october oktober oct okt", "november nov", "december dezember dec dez"), 1)
    for name in names.split()
}  # fmt: skip
_DAY_FIRST = re.compile(r"(\d{1,2})(?:st|nd|rd|th|\.)?(?: of)? ([a-zä]{3,9})\.?,? (\d{4})")
_MONTH_FIRST = re.compile(r"([a-zä]{3,9})\.? (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})")
_ISO = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})")
_DOTTED_DATE = re.compile(r"(\d{1,2})\. ?(\d{1,2})\. ?(\d{4})")
_MONTH_DAY = re.compile(r"([a-zä]{3,9})\.? (\d{1,2})(?:st|nd|rd|th)?|(\d{1,2})(?:st|nd|rd|th|\.)?(?: of)? ([a-zä]{3,9})")
_SLASHED = re.compile(r"\d{1,2}/\d{1,2}/\d{4}")
_TIME = re.compile(
    r"(\d{1,2})(?:[:.](\d\d))?(?::(\d\d))? ?([ap])\.? ?m\.?|(\d{1,2}):(\d\d)(?::(\d\d))? ?(?:uhr|h|hours|hrs)|(\d{1,2}) uhr(?: (\d\d))?"
    r"|(\d{1,2}):(\d\d)(?::(\d\d))?"
)
_DOTTED_TIME = re.compile(r"^(\d{1,2})\.(\d\d) ?uhr$")
_MAYBE_MOMENT = re.compile(
    r"\d ?:\d|\d ?[ap]\.? ?m|uhr|\d{4}|(?:jan|feb|jän|mar|mär|mae|apr|may|mai|jun|jul|aug|sep|okt|oct|nov|de[cz])[a-z]* \d|\d.{0,6} [a-zä]{3}"
)
_AROUND_COLON = re.compile(r"(?<=\d) ?: ?(?=\d\d)")
_SPACE = re.compile(r"\s+")
_PUNCTUATION_SPACE = re.compile(r"\s*([,;:=<>|()\[\]{}])\s*")
MAX_SHOWN = 300


def number_in_words(text: str) -> str | None:
    """The digits of `twenty-one`, `Two hundred and five`, `einundzwanzig`, the quotient of `two thirds`; None where other words occur."""
    text = text.casefold().strip()
    if len(text) > 100:
        return None
    if text.startswith(("minus ", "negative ")):
        positive = number_in_words(text.partition(" ")[2])
        return None if positive is None or positive.startswith("-") else "-" * (positive != "0") + positive
    if not _NUMBER_WORDS.fullmatch(text):
        return None
    if text.replace("-", " ") in _FRACTIONS:
        return _FRACTIONS[text.replace("-", " ")]
    total, current, seen = 0, 0, False
    for word in text.replace("-", " ").split():
        if word in _SMALL:
            if (current % 10 and _SMALL[word] < 20) or (current % 100 and _SMALL[word] >= 20):
                return None
            current, seen = current + _SMALL[word], True
        elif word in ("hundred", "hundert"):
            current, seen = max(current, 1) * 100, True
        elif word in _SCALES:
            total, current, seen = total + max(current, 1) * _SCALES[word], 0, True
        elif not (word in ("and", "und") and seen) and not (word in ("a", "ein") and not seen):
            return None
    return str(total + current) if seen else None


def digits_first(text: str) -> str:
    """`five apples` as `5 apples`: a number word before one plural word; any other text unchanged."""
    first, _, rest = text.partition(" ")
    if not (rest.isalpha() and rest.islower() and (rest[-1] in "sn" or rest in ("percent", "pct", "prozent"))):
        return text
    number = number_in_words(first)
    return text if number is None else f"{number} {rest}"


def moment(text: str) -> str | None:
    """`2020-07-04` for a date with a month in words or in ISO or dotted form, `--07-04` without the year, `15:30` for a time of day."""
    text = _AROUND_COLON.sub(":", _SPACE.sub(" ", text.casefold().strip()))
    if len(text) > 40 or not _MAYBE_MOMENT.search(text):
        return None
    found = _TIME.fullmatch(_DOTTED_TIME.sub(r"\1:\2 uhr", text))
    if found:
        return _clock(found)
    return _date(text)


def _clock(found: re.Match[str]) -> str | None:
    hour, minute, second, half, *rest = found.groups()
    if half:
        number = int(hour) % 12 + (12 if half == "p" else 0)
        if int(hour) > 12:
            return None
    else:
        number = int(rest[0] or rest[3] or rest[5])
        minute, second = rest[1] or rest[4] or rest[6], rest[2] or rest[7]
    return f"{number}:{minute or '00'}" + (f":{second}" if second else "")


def _date(text: str) -> str | None:
    if (found := _DAY_FIRST.fullmatch(text)) and found.group(2) in _MONTHS:
        day, month, year = found.group(1), _MONTHS[found.group(2)], found.group(3)
    elif (found := _MONTH_FIRST.fullmatch(text)) and found.group(1) in _MONTHS:
        month, day, year = _MONTHS[found.group(1)], found.group(2), found.group(3)
    elif found := _ISO.fullmatch(text):
        year, month, day = found.group(1), int(found.group(2)), found.group(3)
    elif found := _DOTTED_DATE.fullmatch(text):
        day, month, year = found.group(1), int(found.group(2)), found.group(3)
    elif (found := _MONTH_DAY.fullmatch(text)) and (found.group(1) or found.group(4)) in _MONTHS:
        month, day, year = _MONTHS[found.group(1) or found.group(4)], found.group(2) or found.group(3), "-"
    else:
        return f"date {text}" if _SLASHED.fullmatch(text) else None
    return f"{year}-{month:02d}-{int(day):02d}" if month <= 12 and int(day) <= 31 else None


def text_key(text: str) -> str:
    """The key of words: quoted, case folded, spaces collapsed; LaTeX loses all spaces and keeps its case. At most `MAX_SHOWN` characters and a hash."""
    if "\\" in text:
        text = "".join(text.replace("\\mid", "|").split())
    else:
        text = _PUNCTUATION_SPACE.sub(r"\1", " ".join(text.split())) if len(text) <= 4000 else " ".join(text.split())
        text = text.casefold().replace('"', "'")
        text = text.rstrip("!?.") or text
    return shortened(f"'{text}'")


def shortened(text: str) -> str:
    """`text` made printable and, when it is long, cut with a hash of the whole, so that different texts stay different."""
    if len(text) > MAX_SHOWN:
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        text = f"{text[:60]}…{digest}"
    if text.isprintable():
        return text
    return "e" + "".join(sign if sign.isprintable() else f"\\{ord(sign):x};" for sign in text)
