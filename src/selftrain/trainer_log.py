"""Rows of a trainer's log -> a step's number and its signals, and what of the rows could not be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selftrain.errors import ConfigError, PromptError
from selftrain.guard import RULES
from selftrain.metrics import METRICS
from selftrain.row_files import Row

STEP_FIELDS = ("step", "global_step", "training/global_step", "train/global_step", "_step")
ALIASES: Mapping[str, str] = {
    "completions/mean_length": "completion/length_mean_tokens",
    "completions/clipped_ratio": "completion/truncated_frac",
    "entropy": "policy/entropy_mean_nats",
    "grad_norm": "update/grad_norm",
    "actor/entropy": "policy/entropy_mean_nats",
    "actor/entropy_loss": "policy/entropy_mean_nats",
    "actor/grad_norm": "update/grad_norm",
    "majority_ratio": "vote/share_mean_frac",
    "ensemble/majority_ratio": "vote/share_mean_frac",
    "response_length/mean": "completion/length_mean_tokens",
    "response_length/clip_ratio": "completion/truncated_frac",
}
"""names in the logs of TRL, verl and TTRL -> ours"""
SIGNALS = frozenset(METRICS) | {signal for rule in RULES.values() for signal in rule.signals}
PREFIX = "train/"
"""what W&B has before the names of TRL, and TTRL before its own"""
UNNAMED = ("data", "metrics")
"""objects in a row whose fields are fields of the row; verl writes `data`"""
SIGNED = frozenset({"probe/base_lost_frac", "probe/base_lost_low_frac", "glance/fallen_frac"})
"""fractions that are differences"""
MOST, MOST_STEPS = 1e100, 2**53
"""numbers from here on are none that a trainer measured"""


@dataclass(slots=True)
class Seen:
    """What there was in a stream, counted while it is read.

    kind: `signals` or `groups`. judged: steps with a verdict that a rule had the signals for; rules: these rules. fields: those of `--map` that were there;
    nowhere: its options whose field was not. not_finite: by field, rows whose value is no finite number. single, left: groups of one completion or none, and
    those that were too few for a step. completions, answers: of the steps' groups, and those of them in which an answer was read.
    """

    kind: str = ""
    judged: int = 0
    rules: set[str] = field(default_factory=set)
    signals: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    passed: int = 0
    not_finite: Counter[str] = field(default_factory=Counter)
    groups: int = 0
    single: int = 0
    left: int = 0
    completions: int = 0
    answers: int = 0
    is_torn: bool = False
    nowhere: list[str] = field(default_factory=list)

    @property
    def is_unread(self) -> bool:
        """Whether nothing votes."""
        return self.kind == "groups" and not self.answers

    def tear(self) -> None:
        """The last line was cut off."""
        self.is_torn = True

    def notes(self) -> Iterator[str]:
        """A sentence for everything that was not used as it was given, and one for the rules that judged."""
        yield from (f"{option}: no row has that field" for option in self.nowhere)
        if self.passed:
            yield f"rows without a signal that were passed over: {self.passed}"
        for name, count in self.not_finite.items():
            yield f"{name} is no finite number in {count} row{'s' if count > 1 else ''} and counts as missing there"
        if self.single:
            yield f"{self.single} of {self.groups} groups have one completion or none, which agrees with itself: those of a prompt must follow each other"
        if self.left:
            yield f"groups at the end that are too few for a step of --prompts-per-step and were left out: {self.left}"
        if self.is_torn:
            yield "the last line is cut off and was left out"
        if 0 < 10 * self.answers < self.completions:
            yield f"an answer was read in {self.answers} of {self.completions} completions only"
        if self.kind and self.judged and not self.is_unread:
            yield f"rules that had all of their signals: {', '.join(name for name in RULES if name in self.rules)}"


def known_names(names: Mapping[str, str]) -> dict[str, str]:
    """Field -> signal: our names, those of TRL and verl, these with W&B's prefix, and `names`."""
    own = {**{name: name for name in SIGNALS}, **ALIASES}
    return {**own, **{f"{PREFIX}{name}": signal for name, signal in own.items()}, **names}


def columns_of(names: Mapping[str, str]) -> set[str]:
    """Columns of a table in which a step or a signal may stand, those that hold others among them."""
    fields = (*STEP_FIELDS, *known_names(names))
    return {*fields, *(name.partition("/")[0] for name in fields), *UNNAMED}


def flat(row: Row) -> Row:
    """With the fields of the objects in it: `{"train": {"entropy": 1}}` has the field train/entropy, and those of `data` and `metrics` are its own."""
    inner = {one if name in UNNAMED else f"{name}/{one}": of for name, value in row.items() if isinstance(value, dict) for one, of in value.items()}
    return {**inner, **row} if inner else row


def signals_of(row: Row, known: Mapping[str, str], names: Mapping[str, str], place: str, seen: Seen) -> dict[str, float] | None:
    """By signal, the finite numbers of a row; None for a row that has no signal. Where two fields are one signal, that of `names` counts."""
    fields = [name for name, value in row.items() if name in known and value is not None]
    if not fields:
        seen.passed += 1
        return None
    found = {}
    for name in sorted(fields, key=lambda name: name in names):
        value = number_in(row[name], known[name], name, place)
        if value is None:
            seen.not_finite[name] += 1
        else:
            found[known[name]] = value
    seen.fields.update(fields)
    seen.signals.update(found)
    return found


def names_from(pairs: Sequence[str]) -> dict[str, str]:
    """Field -> signal, from `field=signal` each. Raises ConfigError for a signal that there is not."""
    found = {}
    for pair in pairs:
        name, sign, signal = pair.partition("=")
        do = "Write FIELD=SIGNAL with a signal of docs/metrics.md, for example --map share=vote/share_mean_frac."
        if not sign:
            raise ConfigError(f"--map {pair}", "it names one thing, not a field and its signal", do)
        if not name:
            raise ConfigError(f"--map {pair}", "it has no field before the =", do)
        if signal not in SIGNALS:
            raise ConfigError(f"--map {pair}", f"{signal or 'nothing'} is no signal", do)
        found[name] = signal
    return found


def step_in(row: Row, place: str) -> int | None:
    """The step that a row names, in digits too; None where it names none."""
    value = next((row[name] for name in STEP_FIELDS if row.get(name) is not None), None)
    if value is None:
        return None
    given = value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_STEPS or value != int(value):
        raise PromptError(place, f"its step is {short(given)}", "give steps as whole numbers from 0 on")
    return int(value)


def number_in(value: Any, signal: str, name: str, place: str) -> float | None:
    """A number, in digits too; None for one that is not finite. Raises PromptError for what is no number, and for a fraction that is none."""
    number = value
    if isinstance(value, str) and len(value) < 40:
        try:
            number = float(value)
        except ValueError:
            number = value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise PromptError(place, f"its {name} is {short(value)}", "give numbers, or leave the field out of that row")
    if not -MOST < number < MOST:  # NaN is not either
        return None
    number = float(number)
    low, high = (-3.0, 3.0) if signal in SIGNED else (0.0, 1.000001)
    if signal.endswith("_frac") and not low <= number <= high:
        why = f"its {name} is {number:g}, and {signal} is a fraction from 0 to 1"
        raise PromptError(place, why + ("; it looks like percent" if number > 1 else ""), "divide by 100" if number > 1 else "give it as a fraction")
    return number


def short(value: Any) -> str:
    """A value as it was written, but not all of a long one."""
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
