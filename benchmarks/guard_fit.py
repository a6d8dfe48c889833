"""What each rule of the guard is worth, and how its limits trade collapses that are found in time against healthy runs that are disturbed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guard_curves import Fate, in_time
from guard_runs import SECTION, LabRun, judged, with_limits
from guard_tables import HEAD, Score, row_of, score
from selftrain.guard import RULES, Kind, Rule
from selftrain.guard_stream import verdicts

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "collisions": ("constant_answer",),
    "entropy": ("noise", "hollow"),
    "length": ("shortcut", "shrinking", "length_reward"),
    "reading and repetition": ("unread", "repetition"),
    "label flips": ("flips",),
    "gradient": ("unstable",),
    "standstill": ("no_signal",),
    "probes of answers": ("off_base", "deaf", "rewording", "canaries", "bias"),
    "looks at the support": ("estranged",),
    "probes of length and drift": ("probe_shortcut", "off_domain"),
}
"""each rule by the signal that it is about"""
SCALES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
SCALED = tuple(name for name, rule in RULES.items() if rule.kind is not Kind.STALL and rule.limit > 0)
"""rules whose limit is a number that can be larger or smaller"""


def scored(runs: Sequence[LabRun], rules: Sequence[Rule]) -> Score:
    return score(judged(run, rules) for run in runs)


def ablation(runs: Sequence[LabRun]) -> Iterator[tuple[str, Score]]:
    """(what is left out or alone, what the guard makes of the runs then), the whole guard first."""
    rules = tuple(RULES.values())
    yield "all rules", scored(runs, rules)
    for family, names in FAMILIES.items():
        yield f"without {family}", scored(runs, [rule for rule in rules if rule.name not in names])
        yield f"only {family}", scored(runs, [rule for rule in rules if rule.name in names])
    for name in RULES:
        yield f"without `{name}`", scored(runs, [rule for rule in rules if rule.name != name])
        yield f"only `{name}`", scored(runs, [RULES[name]])


def ablation_page(runs: Sequence[LabRun]) -> str:
    """As Markdown; rules that change nothing when they are left out and find nothing alone are named in one line."""
    (_, whole), *others = ablation(runs)
    idle = [
        name.removeprefix("without ")
        for (name, without), (_, alone) in zip(others[::2], others[1::2], strict=True)
        if without == whole and not any(sum(part.values()) for part in (alone.found, alone.fallen_found, alone.disturbed))
    ]
    lines = [f"# Rules left out and alone, {len(runs)} runs ({fates_of(runs)})", "", *HEAD, row_of("all rules", whole)]
    lines += [row_of(name, one) for name, one in others if name.removeprefix("without ").removeprefix("only ") not in idle]
    return "\n".join([*lines, "", f"Leaving them out changes nothing, and alone they find nothing: {', '.join(idle) or 'none'}."]) + "\n"


def headroom(runs: Sequence[LabRun]) -> dict[str, tuple[list[float], list[float]]]:
    """By harm rule, the largest value over its limit that each healthy run reaches, and each collapsed or fallen one before 5 points are lost; up to 4."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name, rule in RULES.items() if rule.kind is Kind.HARM}
    for run in runs:
        if run.fate is not Fate.BETWEEN:
            said = [verdict for verdict in verdicts(run.steps, SECTION) if verdict.health and (run.fate is Fate.HEALTHY or in_time(run.curve, verdict.step))]
            for name, of in found.items():
                bits = [verdict.health.parts.get(name, 0.0) for verdict in said if verdict.health]
                of[run.fate is not Fate.HEALTHY].append(math.sqrt(max(bits, default=0.0)))
    return found


def headroom_page(runs: Sequence[LabRun]) -> list[str]:
    """As Markdown."""
    lines = ["| rule | limit | healthy runs: highest | 95th percentile | collapsed and fallen, in time: median | lowest | at its limit or above |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, (healthy, fell) in headroom(runs).items():
        well = f"{max(healthy):.2f} | {np.percentile(healthy, 95):.2f}" if healthy else " | "
        ill = f"{np.median(fell):.2f} | {min(fell):.2f} | {sum(one >= 1 for one in fell)} of {len(fell)}" if fell else " | | "
        lines.append(f"| `{name}` | {RULES[name].limit:.3g} | {well} | {ill} |")
    return lines


def fates_of(runs: Sequence[LabRun]) -> str:
    """Example: `2 collapsed, 0 fallen, 1 between, 5 healthy`."""
    return ", ".join(f"{sum(run.fate is fate for run in runs)} {fate}" for fate in Fate)


@dataclass(frozen=True)
class Fit:
    """scales: of each rule's limit, those that are not 1. tried: (what, its score)."""

    scales: Mapping[str, float]
    tried: tuple[tuple[str, Score], ...]


def better(one: Score, other: Score, max_disturbed_frac: float = 0.05) -> bool:
    """Whether the first finds more and does not disturb too many, or disturbs less and finds as much: what would halt counts, then findings.

    Where more healthy runs are disturbed than may be, fewer of them come first.
    """

    def excess(of: Score) -> float:
        return max(0.0, of.disturbed["harmed"] - max_disturbed_frac * of.healthy)

    def rank(of: Score) -> tuple[float, ...]:
        found = [of.found[by] + of.fallen_found[by] for by in ("harmed", "warned")]
        return (-excess(of), found[0], -of.disturbed["harmed"], found[1], -of.disturbed["warned"])

    return rank(one) > rank(other)


def fitted(measure: Callable[[Mapping[str, float]], Score]) -> Fit:
    """Coordinate ascent over `SCALES`: in each pass the one rule's scale that betters the score most, until none does; 1 wins where nothing is gained."""
    now = measure({})
    tried = [("all as they are", now)]
    tried += [(f"all times {scale}", measure(dict.fromkeys(SCALED, scale))) for scale in SCALES if scale != 1]
    tried += [(f"`{name}` times {scale}", measure({name: scale})) for name in SCALED for scale in SCALES if scale != 1]
    scales: dict[str, float] = {}
    while True:
        best: dict[str, float] | None = None
        for name in SCALED:
            for scale in sorted(SCALES, key=lambda one: abs(one - 1)):
                given = {**scales, name: scale}
                if given != scales and better(found := measure(given), now):
                    best, now = given, found
        if best is None:
            return Fit({name: scale for name, scale in scales.items() if scale != 1}, tuple(tried))
        scales = best


def fit_page(runs: Sequence[LabRun]) -> str:
    """As Markdown. runs: of the half that thresholds may be set on."""
    known: dict[tuple[tuple[str, float], ...], Score] = {}

    def measure(scales: Mapping[str, float]) -> Score:
        key = tuple(sorted((name, scale) for name, scale in scales.items() if scale != 1))
        if key not in known:
            known[key] = scored(runs, with_limits(scales))
        return known[key]

    found = fitted(measure)
    whole = measure({})
    shown = [row_of(name, one) for name, one in found.tried if name.startswith("all") or one != whole]
    idle = [name for name in SCALED if all(one == whole for what, one in found.tried if what.startswith(f"`{name}`"))]
    said = ", ".join(f"`{name}` times {scale} ({RULES[name].limit * scale:.3g})" for name, scale in found.scales.items()) or "no change"
    lines = [f"# Limits on the FIT half, {len(runs)} runs ({fates_of(runs)})", "", "Rows that differ from the limits as they are.", "", *HEAD, *shown, ""]
    lines += [f"No scale from {min(SCALES)} to {max(SCALES)} of these changes anything: {', '.join(f'`{name}`' for name in idle) or 'none'}.", ""]
    lines += ["What each rule reaches, over its limit, in the time in which a finding would count:", "", *headroom_page(runs), ""]
    lines += [f"Coordinate ascent ends at: {said}.", "", *HEAD, row_of("as they are", whole), row_of("there", measure(found.scales))]
    return "\n".join(lines) + "\n"
