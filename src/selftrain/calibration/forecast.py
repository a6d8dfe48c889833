"""Will this run gain or lose? A logistic score of a few terms, none of which needs a true answer; the coefficients and where they come from stand here.

    chance of a gain = 1 / (1 + exp(-(INTERCEPT + sum of coefficient x term)))

It is a forecast for the whole config: the start, the prompts, the label source, the learning rate and the number of steps. The same start gains at one rate
and collapses at another (docs/labels.md), so no number of the start alone could tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from selftrain.calibration.evidence import Evidence

LIKELY = 0.7
"""From this chance on a gain is called likely, from 1 - LIKELY down a loss; between them it is open."""


@dataclass(frozen=True, slots=True)
class Term:
    """of: evidence -> the term's value; None where the evidence for it is missing, and then it counts as 0. meaning: with its sign in words."""

    meaning: str
    of: Callable[[Evidence], float | None]


@dataclass(frozen=True, slots=True)
class Part:
    """A term in a forecast. contribution: coefficient x value, above 0 speaks for a gain; value is None where the evidence is missing."""

    name: str
    meaning: str
    value: float | None
    coefficient: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """gain_chance in [0, 1]. verdict: gain, loss or open."""

    gain_chance: float
    parts: tuple[Part, ...]

    @property
    def verdict(self) -> str:
        return "gain" if self.gain_chance >= LIKELY else "loss" if self.gain_chance <= 1 - LIKELY else "open"


def agreement(evidence: Evidence) -> float | None:
    """The mean of the agreements that can be had."""
    found = [value for name in ("halves_frac", "greedy_frac", "view_frac") if (value := evidence[name]) is not None]
    return fmean(found) if found else None


def trust(evidence: Evidence) -> float | None:
    """How right the rewards look, around 1/2: the truth counts 1, a vote its agreement, rewards without a label their agreement with the vote as well."""
    agree, truth, keyless = agreement(evidence), evidence["truth_frac"], evidence["keyless_frac"]
    if agree is None or truth is None or keyless is None:
        return None
    with_vote = 1 - keyless + keyless * (evidence["vote_corr"] or 0.0)
    return truth + (1 - truth) * agree * with_vote - 0.5


def rate(evidence: Evidence) -> float | None:
    """Powers of ten of the way over 1 nat a token."""
    way = evidence["travel_nats"]
    return math.log10(way) if way else None


def chase(evidence: Evidence) -> float | None:
    """Powers of ten of the way over FIRM nats a token, as far as the labels move along; less is no merit of its own."""
    way, follows = rate(evidence), evidence["follows_frac"]
    return None if way is None or follows is None else follows * max(0.0, way - math.log10(FIRM))


def shortcut(evidence: Evidence) -> float | None:
    """How strongly shorter completions are favoured, as far as the labels move along."""
    push, follows = evidence["push_corr"], evidence["follows_frac"]
    return None if push is None or follows is None else follows * max(0.0, -push)


def trains(evidence: Evidence) -> float | None:
    """Around 1/2."""
    value = evidence["trains_frac"]
    return None if value is None else value - 0.5


FIRM = 0.1
"""nats a token: below, a policy is practically where it was"""
TERMS: Mapping[str, Term] = {
    "trust": Term("halves, greedy answer and second wording agree with the vote, or the truth decides", trust),
    "rate": Term("the rate and the steps move the policy far", rate),
    "chase": Term("they move it far while its own votes decide", chase),
    "shortcut": Term("shorter completions win while the policy's own votes decide", shortcut),
    "trains": Term("many of the prompts train", trains),
}
COEFFICIENTS: Mapping[str, float] = {"trust": 6.0, "rate": 0.0, "chase": -6.0, "shortcut": -5.0, "trains": 6.0}
INTERCEPT = 2.0
ORIGIN = (
    "signs from theory, sizes by hand on ten runs of the two embedded starts whose end was known; they were not fitted. On 127 runs of four other tasks they "
    "tell gain from loss with AUROC 0.89, but take random rewards for a gain (docs/calibrate.md)"
)


def forecast(evidence: Evidence) -> Forecast:
    values = {name: term.of(evidence) for name, term in TERMS.items()}
    parts = tuple(
        Part(name, TERMS[name].meaning, value, COEFFICIENTS[name], 0.0 if value is None else COEFFICIENTS[name] * value) for name, value in values.items()
    )
    return Forecast(logistic(INTERCEPT + math.fsum(part.contribution for part in parts)), parts)


def logistic(score: float) -> float:
    """1 / (1 + exp(-score)), also of scores whose exponential no float holds."""
    return 1 / (1 + math.exp(-score)) if score >= 0 else 1 - 1 / (1 + math.exp(score))
