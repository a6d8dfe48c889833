"""Any run's steps -> the guard's verdicts: our run folders, rows with a trainer's own signals, rows with completions. It judges and touches nothing.

A row with a `step` and numbers is one step's signals; a row with a prompt and completions is (part of) a group, as `vote_stream` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Any

from selftrain.answers import read as read_answers
from selftrain.config import GuardSection
from selftrain.control import overruled_steps
from selftrain.errors import ConfigError, PromptError
from selftrain.guard import RULES, Guard, Rule
from selftrain.ledger import lineage, read
from selftrain.ledger.objects import Place
from selftrain.metrics import METRICS, collision_frac, compress_ratio, halves_agree, mean, repeat_frac
from selftrain.remedies import changes_signals
from selftrain.types import AnswerKey, PolicyVersion, StepMetrics, Verdict
from selftrain.vote_stream import COMPLETION_FIELDS, GROUP_FIELDS, RawGroup, Row, groups_of_rows, rows_of, vote_of

STEP_FIELDS = ("step", "global_step", "training/global_step")
ALIASES: Mapping[str, str] = {
    "completions/mean_length": "completion/length_mean_tokens",
    "completions/clipped_ratio": "completion/truncated_frac",
    "entropy": "policy/entropy_mean_nats",
    "grad_norm": "update/grad_norm",
    "actor/entropy": "policy/entropy_mean_nats",
    "actor/grad_norm": "update/grad_norm",
    "response_length/mean": "completion/length_mean_tokens",
    "response_length/clip_ratio": "completion/truncated_frac",
}
"""names in the logs of TRL and verl -> ours"""
SIGNALS = frozenset(METRICS) | {signal for rule in RULES.values() for signal in rule.signals}


@dataclass(frozen=True, slots=True)
class Step:
    """A step to judge. winners: by prompt id, of clear votes. learned: its metrics with those of its update, which came after the verdict."""

    metrics: StepMetrics
    winners: Mapping[str, AnswerKey] = field(default_factory=dict)
    learned: StepMetrics | None = None


def verdicts(steps: Iterable[Step], section: GuardSection, rules: Sequence[Rule] = tuple(RULES.values())) -> Iterator[Verdict]:
    """One verdict a step, as the loop's guard would give it. rules: other than its own, to see what they would say."""
    guard = Guard(section, rules=rules)
    return (judged(guard, step) for step in steps)


def judged(guard: Guard, step: Step) -> Verdict:
    """The verdict of this guard's next step."""
    verdict = guard.judge(guard.compared(step.metrics, step.winners))
    if step.learned is not None:
        guard.learned(step.learned)
    return verdict


def steps_of_run(folder: Place) -> Iterator[Step]:
    """The recorded metrics of a run, of the history of its newest branch."""
    return (step_of_run(step.metrics) for step in read(folder).steps())


def verdicts_of_run(folder: Place, section: GuardSection) -> Iterator[tuple[int, Verdict]]:
    """(branch, verdict) of every recorded step of a run, in order, those among them that rollbacks left behind: each as a guard gives it that has seen what
    came before on its branch and on those that this one goes on from, measures anew where a remedy changed what votes can be compared with, and is overruled
    where a person overruled the run's own.
    """
    ledger, recorded = read(folder), dict[int, list[StepMetrics]]()
    for step in ledger.steps(rolled_back=True):
        recorded.setdefault(step.metrics.version.branch, []).append(step.metrics)
    anew = {record.branch for record in ledger.branches if changes_signals(record)}
    overruled = overruled_steps(ledger)
    for branch in recorded:
        guard = Guard(section)
        for at, (begin, end) in sorted(lineage(ledger.branches, branch).items()):
            if at in anew:
                guard.start_over()
            found = []
            for one in (one for one in recorded.get(at, ()) if begin <= one.step and (end is None or one.step < end)):
                if (at, one.step) in overruled:
                    guard.overrule()
                found.append(judged(guard, step_of_run(one)))
            if (at, end) in overruled:
                guard.overrule()
        yield from ((branch, verdict) for verdict in found)  # those of the last of its lineage, which is the branch itself


def step_of_run(metrics: StepMetrics) -> Step:
    """Recorded metrics as the guard saw them; they hold what a memory is needed for already."""
    return Step(replace(metrics, values={key: value for key, value in metrics.values.items() if not key.startswith("update/")}), learned=metrics)


def steps_of_rows(rows: Iterable[Row], origin: str, names: Mapping[str, str], per_step: int | None) -> Iterator[Step]:
    """The steps in rows of signals or of groups; which of them the first row says.

    names: field -> signal, beside our own names and `ALIASES`. per_step: prompts of a step, for groups whose rows do not say theirs.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        raise PromptError(origin, "there is nothing in it", "give rows of signals, or of prompts with completions")
    whole = (row for part in ((first,), rows) for row in part)
    if any(name in first for name in (*COMPLETION_FIELDS, *GROUP_FIELDS)):
        return steps_of_groups(whole, origin, per_step)
    return steps_of_signals(whole, origin, names)


def rows_in(path: str) -> Iterator[Row]:
    """The rows of a file or of standard input for `-`."""
    return rows_of(path, STEP_FIELDS)


def steps_of_signals(rows: Iterable[Row], origin: str, names: Mapping[str, str]) -> Iterator[Step]:
    """One step per row that has any signal; others, of evaluations for example, are passed over. A row without a step is the next one."""
    known = {**{name: name for name in SIGNALS}, **ALIASES, **names}
    step, found = -1, False
    for number, row in enumerate(rows, 1):
        values = {name: value for name, value in row.items() if name in known and value is not None}
        if not values:
            continue
        given = step_in(row, origin, number)
        if given is not None and given <= step:
            raise PromptError(f"{origin}, row {number}", f"its step {given} does not come after step {step}", "sort the rows by step, one row per step")
        step, found = step + 1 if given is None else given, True
        numbers = {known[name]: number_in(value, name, origin, number) for name, value in values.items()}
        yield Step(StepMetrics(step, PolicyVersion(0, step), numbers))
    if not found:
        why = "no row has a field that is a signal"
        raise PromptError(origin, why, "say which field is which with --map, for example --map share=vote/share_mean_frac (docs/guard.md has the names)")


def steps_of_groups(rows: Iterable[Row], origin: str, per_step: int | None) -> Iterator[Step]:
    """Groups of one `step` are a step; without that field, `per_step` groups."""
    numbered = enumerate(rows, 1)
    given = -1

    def key(one: tuple[int, Row]) -> int:
        step = step_in(one[1], origin, one[0])
        if step is None and per_step is None:
            raise PromptError(f"{origin}, row {one[0]}", "it does not say of which step it is", "add a field step, or give --prompts-per-step")
        return -1 if step is None or per_step is not None else step

    for step, part in groupby(numbered, key):
        groups = groups_of_rows((row for _, row in part), origin)
        if per_step is None:
            if step <= given:
                raise PromptError(origin, f"step {step} comes after step {given}", "sort the rows by step")
            given = step
            yield measured(step, list(groups))
        else:
            while len(held := list(islice(groups, per_step))) == per_step:
                given += 1
                yield measured(given, held)


def measured(step: int, groups: Sequence[RawGroup]) -> Step:
    """The signals of a step that texts alone give. Lengths are in characters, which rules take for tokens: they look at ratios."""
    texts = [text for group in groups for text in group.texts]
    voted = [vote_of(group, read_answers) for group in groups]
    votes = [one.vote for one in voted]
    values = {
        "vote/share_mean_frac": mean([vote.share_frac for vote in votes]),
        "vote/margin_mean_frac": mean([vote.margin_frac for vote in votes]),
        "vote/read_mean_frac": sum(vote.num_read for vote in votes) / max(1, sum(vote.num_votes for vote in votes)),
        "vote/tie_frac": mean([float(vote.is_tie) for vote in votes]),
        "vote/collision_frac": collision_frac(votes),
        "vote/split_half_frac": mean([float(halves_agree(one.answers.keys)) for one in voted]),
        "completion/length_mean_tokens": mean([len(text) for text in texts]),
        "completion/compress_ratio": compress_ratio(texts),
        "completion/repeat_frac": mean([repeat_frac(text.split()) for text in texts]),
    }
    winners = {one.prompt: winner for one in voted if (winner := one.vote.winner) is not None}
    return Step(StepMetrics(step, PolicyVersion(0, step), values), winners)


def names_from(pairs: Sequence[str]) -> dict[str, str]:
    """Field -> signal, from `field=signal` each. Raises ConfigError for a signal that there is not."""
    found = {}
    for pair in pairs:
        field, _, signal = pair.partition("=")
        if not field or signal not in SIGNALS:
            raise ConfigError(f"--map {pair}", f"{signal or 'nothing'} is no signal", "Write FIELD=SIGNAL with a signal of docs/metrics.md.")
        found[field] = signal
    return found


def step_in(row: Row, origin: str, number: int) -> int | None:
    value = next((row[name] for name in STEP_FIELDS if row.get(name) is not None), None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise PromptError(f"{origin}, row {number}", f"its step is {value!r}", "give steps as whole numbers from 0 on")
    return int(value)


def number_in(value: Any, name: str, origin: str, number: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value in (float("inf"), float("-inf")):
        raise PromptError(f"{origin}, row {number}", f"its {name} is {value!r}", "give finite numbers, or leave the field out of that row")
    return float(value)
