"""The pairs that are measured: (kind, a, b, whether they are equal), made of `forms.json` and of generated families. Deterministic.

`forms.json` is written for this project from the rules of equality. Every list of a kind under `equal` is one answer in many spellings, different lists are
different answers; `different` are near misses. Facts that other graders test too (Math-Verify, hendrycks/math, prm800k, verl, TTRL) are in our words.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

Pair = tuple[str, str, str, bool]
_WRITTEN = json.loads((Path(__file__).parent / "forms.json").read_text(encoding="utf-8"))


def written_pairs() -> Iterator[Pair]:
    """All pairs within each answer's spellings (at most 30 of each), pairs across the answers of a kind, and the near misses."""
    rng = random.Random(0)
    for kind, answers in _WRITTEN["equal"].items():
        for spellings in answers:
            pairs = [(a, b) for i, a in enumerate(spellings) for b in spellings[i + 1 :]]
            for a, b in pairs if len(pairs) <= 30 else rng.sample(pairs, 30):
                yield kind, a, b, True
        for i, spellings in enumerate(answers):
            for others in answers[i + 1 :][:4]:
                if not set(spellings) & set(others):
                    yield kind, rng.choice(spellings), rng.choice(others), False
    for a, b in _WRITTEN["different"]:
        yield "near_miss", a, b, False


def generated_pairs(count: int = 1500) -> Iterator[Pair]:
    """Random numbers and expressions in two spellings that are equal by construction, or off by the smallest step."""
    rng = random.Random(1)
    for _ in range(count):
        family = rng.choice(_FAMILIES)
        yield family(rng)


def held_out_pairs() -> Iterator[Pair]:
    """Pairs written from the rules before anybody looked at what the code makes of them; they are measured apart from the others."""
    for line in (Path(__file__).parent / "held_out.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["kind"], row["a"], row["b"], row["equal"]


def sample_pairs(folder: Path) -> Iterator[Pair]:
    """The shipped samples, where they are present."""
    path = folder / "equivalence.jsonl"
    if path.exists():
        for line in path.read_text().splitlines():
            row = json.loads(line)
            yield row["kind"], row["a"], row["b"], row["equal"]


def _integer(rng: random.Random) -> Pair:
    n = rng.randint(-(10 ** rng.randint(1, 30)), 10 ** rng.randint(1, 30))
    equal = rng.random() < 0.5
    m = n if equal else n + rng.choice((-1, 1, 2, 10))
    return (
        "integers",
        str(n),
        rng.choice((f"{m:,}", f"{m}.0", f"${m}$", f"{m:,}".replace(",", "{,}"), f"{2 * m}/2", f"\\frac{{{3 * m}}}{{3}}", f"\\boxed{{{m}}}")),
        equal,
    )


def _fraction(rng: random.Random) -> Pair:
    p, q, k = rng.randint(-99, 99), rng.randint(1, 60), rng.randint(1, 9)
    equal = rng.random() < 0.6
    top = p * k if equal else p * k + rng.choice((-1, 1))
    return (
        "fractions",
        f"{p}/{q}",
        rng.choice((f"\\frac{{{top}}}{{{q * k}}}", f"\\dfrac{{{top}}}{{{q * k}}}", f"({top})/({q * k})", f"-\\frac{{{-top}}}{{{q * k}}}")),
        equal,
    )


def _decimal(rng: random.Random) -> Pair:
    digits = rng.randint(1, 8)
    n = rng.randint(1, 10**digits)
    equal = rng.random() < 0.6
    m = n if equal else n + 1
    return (
        "decimals",
        f"{n}/{10**digits}",
        rng.choice((f"{m // 10**digits}.{m % 10**digits:0{digits}d}", f"{m}e-{digits}", f"{m}\\cdot 10^{{-{digits}}}")),
        equal,
    )


def _polynomial(rng: random.Random) -> Pair:
    a, b, c = (rng.choice([n for n in range(-9, 10) if n]) for _ in range(3))
    equal = rng.random() < 0.6
    d = b * c if equal else b * c + rng.choice((-1, 1))
    x, y = rng.sample("xyzntk", 2)
    return "polynomials", f"({a}{x}{b:+d}{y})({x}{c:+d})", f"{a}{x}^2{a * c:+d}{x}{b:+d}{x}{y}{d:+d}{y}", equal


def _radical(rng: random.Random) -> Pair:
    a, b = rng.randint(2, 30), rng.choice((2, 3, 5, 6, 7, 10, 11, 13))
    equal = rng.random() < 0.6
    inside = a * a * b if equal else a * a * b + 1
    return "radicals", f"{a}\\sqrt{{{b}}}", rng.choice((f"\\sqrt{{{inside}}}", f"({inside})^{{1/2}}", f"\\frac{{{inside}}}{{\\sqrt{{{inside}}}}}")), equal


def _rational_function(rng: random.Random) -> Pair:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    equal = rng.random() < 0.6
    c = a + b if equal else a + b + 1
    return "rational functions", f"\\frac{{{a}}}{{x+1}}+\\frac{{{b}}}{{x-1}}", f"\\frac{{{c}x{b - a:+d}}}{{x^2-1}}", equal


def _trigonometric(rng: random.Random) -> Pair:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    equal = rng.random() < 0.6
    sign = "-" if equal else "+"
    return "trigonometric", f"\\cos({a}x+{b}y)", f"\\cos {a}x\\cos {b}y{sign}\\sin({a}x)\\sin({b}y)", equal


def _point(rng: random.Random) -> Pair:
    p, q, r = rng.randint(-9, 9), rng.randint(-9, 9), rng.randint(1, 9)
    equal = rng.random() < 0.6
    s = q if equal else q + 1
    return "points", f"({p}, {q}/{r})", f"\\left({p},\\frac{{{s}}}{{{r}}}\\right)", equal


def _line(rng: random.Random) -> Pair:
    m, b, k = rng.randint(2, 9), rng.randint(1, 9), rng.randint(2, 5)
    equal = rng.random() < 0.6
    c = k * b if equal else k * b + 1
    return "lines", f"y={m}x+{b}", f"{k * m}x-{k}y+{c}=0", equal


_FAMILIES = (_integer, _fraction, _decimal, _polynomial, _radical, _rational_function, _trigonometric, _point, _line)
