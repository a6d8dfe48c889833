"""Any run's steps -> the guard's verdicts: our run folders, rows with a trainer's own signals, rows with completions. It judges and touches nothing.

A row with a `step` and numbers is one step's signals (`trainer_log`); a row with a prompt and completions is (part of) a group (`vote_stream`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice

from selftrain.answers import read as read_answers
from selftrain.config import GuardSection, RollbackSection
from selftrain.control import overruled_steps
from selftrain.errors import PromptError
from selftrain.guard import RULES, Guard, Rule
from selftrain.ledger import lineage, read
from selftrain.ledger.objects import Place
from selftrain.metrics import collision_frac, compress_ratio, halves_agree, mean, repeat_frac
from selftrain.remedies import changes_signals
from selftrain.row_files import Row, log_rows
from selftrain.trainer_log import Seen, columns_of, flat, known_names, signals_of, step_in
from selftrain.types import AnswerKey, PolicyVersion, StepMetrics, Verdict
from selftrain.vote_stream import COLUMNS, COMPLETION_FIELDS, GROUP_FIELDS, PROMPT_FIELDS, RawGroup, groups_of_numbered, vote_of

RESTARTED = "it looks like a run that was restarted from a checkpoint: keep the newer rows of each step, sorted by step"
ONE_ROW = "sort the rows by step, one row per step"


@dataclass(frozen=True, slots=True)
class Step:
    """A step to judge. winners: by prompt id, of clear votes. learned: its metrics with those of its update, which came after the verdict."""

    metrics: StepMetrics
    winners: Mapping[str, AnswerKey] = field(default_factory=dict)
    learned: StepMetrics | None = None


def verdicts(steps: Iterable[Step], section: GuardSection, rules: Sequence[Rule] = tuple(RULES.values()), seen: Seen | None = None) -> Iterator[Verdict]:
    """One verdict a step, as the loop's guard would give it. rules: other than its own, to see what they would say. seen: told which had their signals."""
    guard = Guard(section, rules=rules)
    for step in steps:
        verdict = judged(guard, step)
        if seen is not None:
            names = guard.measured()
            seen.rules |= names
            seen.judged += bool(names) and verdict.health is not None
        yield verdict


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
    came before on its branch and on those that this one goes on from, measures anew where a remedy changed what votes can be compared with, is overruled
    where a person overruled the run's own, and has the run's budget of drift.
    """
    ledger, recorded = read(folder), dict[int, list[StepMetrics]]()
    for step in ledger.steps(rolled_back=True):
        recorded.setdefault(step.metrics.version.branch, []).append(step.metrics)
    anew = {record.branch for record in ledger.branches if changes_signals(ledger.branches, record)}
    overruled = overruled_steps(ledger)
    budget = RollbackSection(max_drift_nats=ledger.header["config"].get("rollback", {}).get("max_drift_nats"))
    for branch in recorded:
        guard = Guard(section, budget)
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


def steps_of_rows(rows: Iterable[Row], origin: str, names: Mapping[str, str], per_step: int | None, seen: Seen | None = None) -> Iterator[Step]:
    """The steps in rows of signals or of groups; which of them the first row says.

    names: field -> signal, beside our own names and those of TRL and verl. per_step: prompts of a step, for groups whose rows do not say theirs.
    seen: told of what is in the rows.
    """
    rows, seen = iter(rows), seen or Seen()
    first = next(rows, None)
    if first is None:
        raise PromptError(origin, "there is nothing in it", "give rows of signals, or of prompts with completions")
    whole = (row for part in ((first,), rows) for row in part)
    seen.kind = "groups" if has_completions(first, names) else "signals"
    return steps_of_groups(whole, origin, per_step, seen) if seen.kind == "groups" else steps_of_signals(whole, origin, names, seen)


def has_completions(row: Row, names: Mapping[str, str]) -> bool:
    """Whether a row is of completions. A text without a prompt, beside signals, is only something more that a trainer logs."""
    if not any(name in row for name in (*COMPLETION_FIELDS, *GROUP_FIELDS)):
        return False
    return any(row.get(name) is not None for name in PROMPT_FIELDS) or not flat(row).keys() & known_names(names).keys()


def rows_in(path: str, names: Mapping[str, str] | None = None, seen: Seen | None = None) -> Iterator[Row]:
    """The rows of a file or of standard input for `-`. names, seen: as for `steps_of_rows`."""
    return log_rows(path, {*COLUMNS, *columns_of(names or {})}, (seen or Seen()).tear)


def steps_of_signals(rows: Iterable[Row], origin: str, names: Mapping[str, str], seen: Seen) -> Iterator[Step]:
    """One step per row that has any signal; others, of evaluations for example, are passed over. A row without a step is the next one."""
    known = known_names(names)
    step, found = -1, False
    for number, given in enumerate(rows, 1):
        row, where = flat(given), f"{origin}, row {number}"
        numbers = signals_of(row, known, names, where, seen)
        if numbers is None:
            continue
        named = step_in(row, where)
        if named is not None and named <= step:
            raise PromptError(where, f"its step {named} does not come after step {step}", RESTARTED if named < step else ONE_ROW)
        step, found = step + 1 if named is None else named, True
        yield Step(StepMetrics(step, PolicyVersion(0, step), numbers))
    if not found:
        why = "no row has a field that is a signal"
        raise PromptError(origin, why, "say which field is which with --map, for example --map share=vote/share_mean_frac (docs/guard.md has the names)")


def steps_of_groups(rows: Iterable[Row], origin: str, per_step: int | None, seen: Seen) -> Iterator[Step]:
    """Groups of one `step` are a step; without that field, `per_step` groups."""
    given = -1

    def key(one: tuple[int, Row]) -> int:
        step = step_in(one[1], f"{origin}, row {one[0]}")
        if step is None and per_step is None:
            raise PromptError(f"{origin}, row {one[0]}", "it does not say of which step it is", "add a field step, or give --prompts-per-step")
        return -1 if step is None or per_step is not None else step

    for step, part in groupby(enumerate(rows, 1), key):
        groups = counted(groups_of_numbered(part, origin), seen)
        if per_step is None:
            if step <= given:
                raise PromptError(origin, f"step {step} comes after step {given}", RESTARTED)
            given = step
            yield measured(step, list(groups), seen)
        else:
            while len(held := list(islice(groups, per_step))) == per_step:
                given += 1
                yield measured(given, held, seen)
            seen.left = len(held)


def counted(groups: Iterable[RawGroup], seen: Seen) -> Iterator[RawGroup]:
    for group in groups:
        seen.groups += 1
        seen.single += len(group.texts) <= 1
        yield group


def measured(step: int, groups: Sequence[RawGroup], seen: Seen) -> Step:
    """The signals of a step that texts alone give. Lengths are in characters, which rules take for tokens: they look at ratios."""
    texts = [text for group in groups for text in group.texts]
    voted = [vote_of(group, read_answers) for group in groups]
    votes = [one.vote for one in voted]
    seen.completions += len(texts)
    seen.answers += sum(vote.num_read for vote in votes)
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
