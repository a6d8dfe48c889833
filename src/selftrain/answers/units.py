"""Units and currencies behind or before a number.

A bare number equals the number with its unit, and two units differ: both cannot hold for a transitive relation. So each unit is either *silent*
(the number alone is the answer: dollars, miles, hours, degrees, apples) or *counted* (multiples and powers of metric units, which would
otherwise make 5 cm equal 5 m). A word that is no known unit is silent.
"""

from __future__ import annotations

import re

from selftrain.answers.lexer import is_product


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COUNTED: dict[str, str] = {
    spelling: unit
    for unit, spellings in {
        "mm": "mm millimeter millimeters millimetre millimetres millimetern",
        "cm": "cm centimeter centimeters centimetre centimetres zentimeter zentimetern",
        "dm": "dm decimeter decimeters dezimeter",
        "km": "km kilometer kilometers kilometre kilometres kilometern",
        "mg": "mg milligram milligrams milligramm",
        "g": "g gram grams gramm gramme",
        "t": "tonne tonnes",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "cl": "cl centiliter centiliters",
        "ms": "ms millisecond milliseconds millisekunden",
        "kmh": "kmh kph km/h km/hr",
        "°f": "°f fahrenheit",
        "kj": "kj kilojoule kilojoules",
        "kw": "kw kilowatt kilowatts",
        "kwh": "kwh",
        "gb": "gb",
        "mb": "mb",
        "kb": "kb",
    }.items()
    for spelling in spellings.split()
}
_SILENT = _words(
    """m meter meters metre metres metern s sec secs second seconds sekunde sekunden h hr hrs hour hours stunde stunden min mins minute minutes
    minuten day days tag tage tagen week weeks woche wochen month months monat monate monaten year years yr yrs jahr jahre jahren
    mi mile miles meile meilen in inch inches ft foot feet yd yard yards kg kilogram kilograms kilo kilos kilogramm lb lbs pound pounds oz ounce ounces
    l liter liters litre litres gallon gallons cup cups quart quarts pint pints mph mps knots degree degrees deg grad radian radians rad
    dollar dollars usd us$ eur euro euros cent cents penny pennies gbp pence chf yen jpy rupees rs inr unit units einheit einheiten piece pieces stück
    percent pct k c f n j w v a hz pa mol watt watts volt volts newton newtons joule joules celsius kelvin person people ways times square cubic sq cu per
    uhr °c"""
)
_POWER_WORDS = {"square": 2, "sq": 2, "squared": 2, "quadrat": 2, "cubic": 3, "cu": 3, "cubed": 3, "kubik": 3}
_PERCENT = _words("percent pct percentage prozent")
_TAIL = re.compile(
    r"[ ]*(?<![\\A-Za-z])([A-Za-zµäöüßÄÖÜ€£¥¢°](?:[A-Za-zµäöüßÄÖÜ€£¥¢°/{} .'\-]|(?>\^ ?\{? ?[-−]?[23])(?![0-9])|(?<=[A-Za-zµ])[23](?![0-9A-Za-z]))*)$"
)
"""Behind the number: words and powers. Another number there (`7 feet 2 inches`, `5 over 3`) makes it no unit; 2 and 3 are powers behind a letter or `^`."""
_HEAD = re.compile(r"^\s*([-+]?)\s*(?:[€£¥]|(?:USD|EUR|US|GBP|CHF|Rs\.?|INR)\b)\s*(?=[\d.\\-])", re.IGNORECASE)
_NAMES = re.compile(r"[A-Za-zµäöüßÄÖÜ€£¥¢°]+")
_EXPONENT = re.compile(r"\^\s*\{?\s*([23])\s*\}?|(?<=[a-z])([23])(?![0-9])")
_SINGLE = frozenset("mgshlLNJWVACFKT€£¥¢°")
_SINGLE_GLUED = frozenset("m")
NOT_UNITS = _words(
    """pi e i x y z or and und oder sqrt log ln sin cos tan exp am pm choose mod base infty inf to is of the if
    million millions billion billions trillion trillions thousand thousands hundred hundreds mln mio mrd bn millionen milliarden tausend dozen dozens dutzend
    lakh lakhs crore crores thirds fifths sixths sevenths eighths ninths tenths hundredths thousandths factorial binary octal hex hexadecimal below true false
    st nd rd th"""
)
"""Words that change the value, or say something else than what was counted; a bare `squared` or `cubed` does too."""


def split_unit(text: str) -> tuple[str, str] | None:
    """(number text, canonical unit) of `text`, unit "" when it is silent and "%" for percent; None where there is no unit at all."""
    head = _HEAD.match(text)
    if head:
        text = head.group(1) + text[head.end() :]
    start = max(0, len(text) - 60)
    tail = _TAIL.search(text, start)
    if tail is None:
        return (text, "") if head else None
    number = text[: tail.start()].rstrip()
    if not number or (number[-1] not in "0123456789.)}]!°%" and not number.endswith("\\pi")) or tail.group(1) == "°":
        return None
    if number.endswith("\\pi") and len(_NAMES.findall(tail.group(1))[0]) < 2:
        return None
    unit = _canonical(tail.group(1), glued=text[tail.start()] != " ", decimal="." in number or "," in number)
    return None if unit is None else (number, unit)


def _canonical(tail: str, *, glued: bool, decimal: bool) -> str | None:
    """The unit in one spelling; "" for a silent one; None where the tail is no unit (variables, functions)."""
    words = [word.casefold() for word in _NAMES.findall(tail)]
    if not words or NOT_UNITS.intersection(words) or words[0] in ("squared", "cubed"):
        return None
    if " ".join(words) in _PERCENT or words == ["per", "cent"]:
        return "%"
    if is_product(words[0]) or (len(words[0]) == 1 and tail[0] not in _SINGLE):
        return None
    known = [word for word in words if word in _COUNTED or word in _SILENT]
    if any(len(word) < 3 and word not in known for word in words) and not all(sign in "€£¥¢°" for sign in "".join(set(words) - set(known))):
        return None
    if len(words) == 1 and len(words[0]) == 1 and glued and words[0].isalpha() and not (words[0] in _SINGLE_GLUED and decimal):
        return None
    return _spelled(tail, words)


def _spelled(tail: str, words: list[str]) -> str:
    lowered = tail.casefold().replace(" ", "")
    if "/" in lowered or "per" in words:
        return "kmh" if words[0] in ("km", "kilometers", "kilometer", "kilometres") and words[-1][0] == "h" else ""
    exponents = _EXPONENT.findall(tail.casefold())
    power = int(exponents[0][0] or exponents[0][1]) if exponents else 1
    for word in words:
        power = _POWER_WORDS.get(word, power)
    bases = [word for word in words if word not in _POWER_WORDS]
    base = bases[0] if bases else ""
    unit = _COUNTED.get(base, "")
    if power == 1:
        return unit
    if unit == "cm" and power == 2:
        return ""
    if unit or base in ("m", "meter", "meters", "metre", "metres"):
        return f"{unit or 'm'}^{power}"
    return ""
