"""What a reader must not conclude from a run: limits and warnings in plain words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from selftrain.compose_labels import VALIDATION
from selftrain.report.record import RunRecord
from selftrain.report.words import after_steps
from selftrain.types import StepMetrics

LAST_STEPS = 10
NOTABLE_FRAC = 0.1


def limits_of(record: RunRecord) -> tuple[str, ...]:
    """Every limit that applies, the weightiest first."""
    found = (rule(record) for rule in LIMITS)
    return tuple(sentence for sentence in found if sentence)


def unfinished(record: RunRecord) -> str | None:
    if record.end_reason is not None:
        return None
    return "The run has no end in its record: it is running or was interrupted. Everything here may change."


def no_problems(record: RunRecord) -> str | None:
    if record.header["held_out"] is not None:
        return None
    return (
        "No held-out problems: a rising vote share or reward says that the model agrees with itself, not that it is right. "
        "Nothing here says that the model became better or worse."
    )


def few_problems(record: RunRecord) -> str | None:
    before = record.evaluation("before")
    if before is None:
        return None
    half_width = 100 * (before.avg.high - before.avg.low) / 2
    return (
        f"{len(before.results)} held-out problems of one origin ({before.origin}): "
        f"avg@{before.num_samples} is known to about ±{half_width:.1f} points, and there only."
    )


def guard_off(record: RunRecord) -> str | None:
    if record.config.guard.action in ("halt", "roll_back"):
        return None
    return f"guard.action was {record.config.guard.action}: nothing would have stopped a collapse."


def not_label_free(record: RunRecord) -> str | None:
    if record.label_free:
        return None
    if record.header["truth_channels"] == [VALIDATION]:
        return "The checkpoint was chosen on labelled problems: without them another one might have been handed over."
    return f"True answers reached this run through {', '.join(record.header['truth_channels'])}: it says nothing about label-free training."


def truncated(record: RunRecord) -> str | None:
    share = late_mean(record.steps, "completion/truncated_frac")
    if share is None or share < NOTABLE_FRAC:
        return None
    return (
        f"{100 * share:.0f} % of the last completions were cut off at rollout.max_new_tokens = {record.config.rollout.max_new_tokens} and had no vote. "
        "A higher limit may change the result."
    )


def unread(record: RunRecord) -> str | None:
    read = late_mean(record.steps, "vote/read_mean_frac")
    if read is None or 1 - read < NOTABLE_FRAC:
        return None
    return f"No answer could be read in {100 * (1 - read):.0f} % of the last completions: the vote speaks for the others only."


def undecided(record: RunRecord) -> str | None:
    decided = late_mean(record.steps, "label/decided_frac")
    if decided is None or 1 - decided < NOTABLE_FRAC:
        return None
    return f"{100 * (1 - decided):.0f} % of the last groups had no decided label and trained nothing."


def outside_code(record: RunRecord) -> str | None:
    if not record.header.get("outside_code"):
        return None
    names = ", ".join(record.header["outside_code"])
    return f"Functions from outside the package decided part of this run ({names}); the record holds the hash of their source, not the source."


def asked_for(record: RunRecord) -> str | None:
    actions = [f"{one.action} {after_steps(one.step)}" for one in record.ledger.requests()]
    if not actions:
        return None
    return f"Somebody asked for something while it ran ({', '.join(actions)}): the command alone does not repeat it."


def forked(record: RunRecord) -> str | None:
    if not record.num_forks:
        return None
    return f"A resumed step differed from its first recording {record.num_forks} time(s); the record names what was given up."


def one_seed(record: RunRecord) -> str | None:
    return f"One run with one seed ({record.config.run.seed}): another seed may end elsewhere. The intervals are over problems, not over seeds."


LIMITS: Sequence[Callable[[RunRecord], str | None]] = (
    unfinished,
    no_problems,
    not_label_free,
    guard_off,
    truncated,
    unread,
    undecided,
    few_problems,
    outside_code,
    asked_for,
    forked,
    one_seed,
)


def late_mean(steps: Sequence[StepMetrics], key: str) -> float | None:
    """Mean of a metric over the last steps; None without steps."""
    values = [step.values[key] for step in steps[-LAST_STEPS:] if key in step.values]
    return sum(values) / len(values) if values else None
