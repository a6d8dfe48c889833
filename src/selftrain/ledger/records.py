"""Between the carriers and the record: groups to table rows and back, metrics, verdicts and checkpoints to bodies and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from selftrain.errors import LedgerError
from selftrain.ledger.columns import COMPLETIONS, GROUPS, from_table, to_table
from selftrain.types import (
    Action,
    Admission,
    AnswerKey,
    Answers,
    Check,
    Completion,
    Finding,
    Finish,
    Group,
    Health,
    Label,
    Message,
    Outcome,
    PolicyVersion,
    Prompt,
    Rewards,
    Role,
    ScoredGroup,
    StepMetrics,
    Verdict,
    Vote,
    VotedGroup,
)

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step as recorded. updates: what the optimizer steps saw, as given to the writer. head: hash of the record."""

    metrics: StepMetrics
    updates: Mapping[str, Any]
    head: str


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """That a checkpoint was made: of which step, under which name, of which weights. head: hash of the record."""

    step: int
    name: str
    weights_hash: str
    head: str


@dataclass(frozen=True, slots=True)
class ForkRecord:
    """That the replay of a step differed. abandoned_head: the last record that was given up; num_records: how many were."""

    abandoned_head: str
    num_records: int
    head: str


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """That somebody outside asked for something, before it was done.

    number: of the request's file. action: pause, resume, stop or roll_back. checkpoint: to go back to. step: how many steps were done when it was taken up.
    refused: why it was not done; empty when it was.
    """

    number: int
    action: str
    checkpoint: str | None
    reason: str
    who: str
    step: int
    refused: str


@dataclass(frozen=True, slots=True)
class BranchRecord:
    """A rollback, before it was done: branch `branch` goes on from a checkpoint of branch `parent`.

    step: the first step of the branch, so `parent` counts for the steps before it. left_at: how many steps were done when it was decided.
    remedy: what is changed from there on: its `kind`, the new values of `options`, the ids of the `prompts` that are left; empty where nothing is.
    """

    branch: int
    parent: int
    checkpoint: str
    step: int
    left_at: int
    reason: str
    who: str
    remedy: Mapping[str, Any] = field(default_factory=dict)


def lineage(branches: Sequence[BranchRecord], branch: int) -> dict[int, tuple[int, int | None]]:
    """The history of a branch: for it and each branch it comes from, the first step of it that counts and the step before which it ends (None: open).

    Example: rolled back to step 10 once, `{1: (10, None), 0: (0, 10)}`.
    """
    by_number = {record.branch: record for record in branches}
    found: dict[int, tuple[int, int | None]] = {}
    end: int | None = None
    while branch in by_number:
        found[branch] = (by_number[branch].step, end)
        branch, end = by_number[branch].parent, by_number[branch].step
    return found | {branch: (0, end)}


@dataclass(frozen=True, slots=True)
class _Row:
    """A group as it is recorded: one that votes or is of a probe, or an extra sample for the group `serves`. scored: what was decided; None for most others."""

    voted: VotedGroup
    scored: ScoredGroup | None
    serves: int | None


def to_tables(step: int, scored: Sequence[ScoredGroup], probed: Sequence[VotedGroup] = ()) -> dict[str, pa.Table]:
    """The rows of both tables, by table name. Raises LedgerError when a group is of another step or its parts do not fit together."""
    for item in scored:
        _check(step, item)
    for one in probed:
        _check_read(step, one)
    extras = [_Row(extra, _correction(item, extra), item.voted.group.index) for item in scored for extra in item.voted.group.extras]
    rows = [*(_Row(item.voted, item, None) for item in scored), *sorted(extras, key=lambda row: row.voted.group.index)]
    rows += [_Row(one, None, None) for one in probed]
    indexes = [row.voted.group.index for row in rows]
    if len(set(indexes)) != len(indexes):
        raise LedgerError(f"the groups of step {step} with indexes {indexes}", "two of them share an index", "give each group of a step its own index")
    return {"groups": to_table(GROUPS, _group_values(rows)), "completions": to_table(COMPLETIONS, _completion_values(rows))}


def _correction(scored: ScoredGroup, extra: VotedGroup) -> ScoredGroup | None:
    """What was decided about an extra sample, if it is a correction."""
    return next((one for one in scored.corrections if one.voted.group.index == extra.group.index), None)


def _check(step: int, scored: ScoredGroup) -> None:
    group, num = scored.voted.group, len(scored.voted.group.completions)
    given = f"group {group.index} of step {group.step}"
    for correction in scored.corrections:
        _check(step, correction)
        if correction.voted.group.index not in [extra.group.index for extra in group.extras]:
            raise LedgerError(given, f"its correction {correction.voted.group.index} is not among its extra samples", "give each correction in both places")
    for one in (scored.voted, *group.extras):
        _check_read(step, one)
    optional = {
        "checks": scored.voted.checks,
        "label values": scored.label.values,
        "label notes": scored.label.notes,
        "rewards": scored.rewards.values,
        "reward reasons": scored.rewards.reasons,
        "KL penalties": scored.kl_penalties,
        "shaped rewards": scored.shaped_rewards,
        "advantages": scored.advantages,
    }
    for name, values in optional.items():
        if len(values) != num and values:
            raise LedgerError(given, f"it has {num} completions and {len(values)} {name}", "give one per completion, or none where there are none")
    if list(scored.trained) != sorted({index for index in scored.trained if 0 <= index < num}):
        raise LedgerError(given, f"the trained completions {scored.trained} are not sorted indices below {num}", "give each trained completion once, in order")


def _check_read(step: int, voted: VotedGroup) -> None:
    group = voted.group
    given = f"group {group.index} of step {group.step}"
    if group.step != step:
        raise LedgerError(given, f"it was handed over with step {step}", "append each step's groups with that step")
    for name, values in {"answer texts": voted.answers.texts, "answer keys": voted.answers.keys}.items():
        if len(values) != len(group.completions):
            raise LedgerError(given, f"it has {len(group.completions)} completions and {len(values)} {name}", "give one per completion")


def _group_values(rows: Sequence[_Row]) -> dict[str, Sequence[Any]]:
    groups = [row.voted.group for row in rows]
    votes = [row.voted.vote for row in rows]
    labels = [None if row.scored is None else row.scored.label for row in rows]
    return {
        "step": [group.step for group in groups],
        "group_index": [group.index for group in groups],
        "role": [group.role.value for group in groups],
        "serves": [row.serves for row in rows],
        "prompt_id": [group.prompt.id for group in groups],
        "message_roles": [[message.role for message in group.prompt.messages] for group in groups],
        "message_contents": [[message.content for message in group.prompt.messages] for group in groups],
        "prompt_token_ids": [group.prompt_ids for group in groups],
        "policy_version": [_shared_version(group) for group in groups],
        "num_votes": [vote.num_votes for vote in votes],
        "num_read": [vote.num_read for vote in votes],
        "vote_keys": [[key for key, _ in vote.counts] for vote in votes],
        "vote_counts": [[count for _, count in vote.counts] for vote in votes],
        "label_outcome": [label and label.outcome.value for label in labels],
        "label_key": [label and label.key for label in labels],
        "label_targets": [row.scored and _targets(row.scored) for row in rows],
        "label_source": [label and label.source for label in labels],
        "label_decided_by": [label and label.decided_by for label in labels],
        "label_uses_truth": [label is not None and label.uses_truth for label in labels],
        "label_weight": [label and label.weight for label in labels],
        "label_offset": [label and label.offset for label in labels],
        "admission": [row.scored and row.scored.admission.value for row in rows],
    }


def _shared_version(group: Group) -> str | None:
    versions = {completion.version for completion in group.completions}
    return str(versions.pop()) if len(versions) == 1 else None


def _targets(scored: ScoredGroup) -> tuple[AnswerKey | None, ...] | None:
    shared = (scored.label.key,) * len(scored.voted.group.completions)
    return None if scored.label.targets == shared else scored.label.targets


def _completion_values(rows: Sequence[_Row]) -> dict[str, Sequence[Any]]:
    completions = [completion for row in rows for completion in row.voted.group.completions]
    sizes = [len(row.voted.group.completions) for row in rows]

    def each(values: Sequence[Any]) -> list[Any]:
        return [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]

    def joined(values: Sequence[Sequence[Any]]) -> list[Any]:
        return [entry for part in values for entry in part]

    def decided(values: Callable[[ScoredGroup], Sequence[Any]]) -> list[Any]:
        """Null for each completion of a group that has none of them."""
        parts = [() if row.scored is None else values(row.scored) for row in rows]
        return [entry for part, size in zip(parts, sizes, strict=True) for entry in (part or (None,) * size)]

    return {
        "step": each([row.voted.group.step for row in rows]),
        "group_index": each([row.voted.group.index for row in rows]),
        "completion_index": [index for size in sizes for index in range(size)],
        "text": [completion.text for completion in completions],
        "token_ids": [completion.token_ids for completion in completions],
        "logprobs": [completion.logprobs for completion in completions],
        "entropies": [completion.entropies for completion in completions],
        "certainties": [completion.certainties for completion in completions],
        "token_ends": [completion.token_ends for completion in completions],
        "finish": [completion.finish.value for completion in completions],
        "policy_version": [str(completion.version) for completion in completions],
        "answer_text": joined([row.voted.answers.texts for row in rows]),
        "answer_key": joined([row.voted.answers.keys for row in rows]),
        "check_score": joined([[check.score for check in row.voted.checks] or [None] * size for row, size in zip(rows, sizes, strict=True)]),
        "check_note": joined([[check.note for check in row.voted.checks] or [None] * size for row, size in zip(rows, sizes, strict=True)]),
        "label_value": decided(lambda scored: scored.label.values),
        "label_note": decided(lambda scored: scored.label.notes),
        "reward": decided(lambda scored: scored.rewards.values),
        "reward_reason": decided(lambda scored: scored.rewards.reasons),
        "kl_penalty_nats": decided(lambda scored: scored.kl_penalties),
        "shaped_reward": decided(lambda scored: scored.shaped_rewards),
        "advantage": decided(lambda scored: scored.advantages),
        "trained": joined([_trained(row, size) for row, size in zip(rows, sizes, strict=True)]),
    }


def _trained(row: _Row, size: int) -> list[bool]:
    trained = frozenset(row.scored.trained) if row.scored is not None else frozenset()
    return [index in trained for index in range(size)]


def from_tables(groups: pa.Table, completions: pa.Table) -> list[ScoredGroup]:
    """The groups that vote behind the rows, equal to those that were written (log-probabilities and entropies rounded to 32 bits).

    Raises LedgerError when the completions are not those of the groups, or an extra sample serves no group.
    """
    return _read_tables(groups, completions)[0]


def probes_from_tables(groups: pa.Table, completions: pa.Table) -> list[VotedGroup]:
    """The groups of a probe behind the rows."""
    return _read_tables(groups, completions)[1]


def _read_tables(groups: pa.Table, completions: pa.Table) -> tuple[list[ScoredGroup], list[VotedGroup]]:
    group_rows, rows = from_table(GROUPS, groups), from_table(COMPLETIONS, completions)
    owners = list(zip(rows["step"], rows["group_index"], strict=True))
    voting, probed, start = [], list[VotedGroup](), 0
    extras, corrections = defaultdict[int, list[VotedGroup]](list), defaultdict[int, list[ScoredGroup]](list)
    for at in range(groups.num_rows):
        row = {name: values[at] for name, values in group_rows.items()}
        owner, end = (row["step"], row["group_index"]), start
        while end < len(owners) and owners[end] == owner and rows["completion_index"][end] == end - start:
            end += 1
        own = {name: values[start:end] for name, values in rows.items()}
        if row["role"] == Role.PROBE:
            probed.append(_voted(row, own, ()))
        elif row["serves"] is None:
            voting.append((row, own))
        else:
            extras[row["serves"]].append(_voted(row, own, ()))
            if row["label_outcome"] is not None:
                corrections[row["serves"]].append(_scored(row, own, (), ()))
        start = end
    if start != len(owners):
        raise LedgerError(f"the completion in row {start} of a segment", "its group is not in the segment", "run `selftrain verify`")
    scored = [_scored(row, own, tuple(extras.pop(row["group_index"], ())), tuple(corrections.pop(row["group_index"], ()))) for row, own in voting]
    if extras:
        raise LedgerError(f"the extra samples for group {min(extras)}", "that group is not in the segment", "run `selftrain verify`")
    return scored, probed


def _voted(row: dict[str, Any], rows: dict[str, list[Any]], extras: tuple[VotedGroup, ...]) -> VotedGroup:
    messages = tuple(Message(role, content) for role, content in zip(row["message_roles"], row["message_contents"], strict=True))
    prompt = Prompt(row["prompt_id"], messages)
    group = Group(row["step"], row["group_index"], prompt, row["prompt_token_ids"], _completions(rows), Role(row["role"]), extras)
    counts = tuple((AnswerKey(key), count) for key, count in zip(row["vote_keys"], row["vote_counts"], strict=True))
    checks = tuple(Check(score, note) for score, note in zip(rows["check_score"], rows["check_note"], strict=True) if note is not None)
    return VotedGroup(group, Answers(tuple(rows["answer_text"]), tuple(rows["answer_key"])), Vote(row["num_votes"], row["num_read"], counts), checks)


def _scored(row: dict[str, Any], rows: dict[str, list[Any]], extras: tuple[VotedGroup, ...], corrections: tuple[ScoredGroup, ...]) -> ScoredGroup:
    voted = _voted(row, rows, extras)
    targets = row["label_targets"] if row["label_targets"] is not None else (row["label_key"],) * len(voted.group.completions)
    return ScoredGroup(
        voted=voted,
        label=_label(row, rows, targets),
        rewards=Rewards(_values(rows["reward"]), _values(rows["reward_reason"])),
        kl_penalties=_values(rows["kl_penalty_nats"]),
        shaped_rewards=_values(rows["shaped_reward"]),
        advantages=_values(rows["advantage"]),
        admission=Admission(row["admission"]),
        trained=tuple(index for index, trained in enumerate(rows["trained"]) if trained),
        corrections=corrections,
    )


def _label(row: dict[str, Any], rows: dict[str, list[Any]], targets: tuple[AnswerKey | None, ...]) -> Label:
    return Label(
        outcome=Outcome(row["label_outcome"]),
        targets=targets,
        source=row["label_source"],
        decided_by=row["label_decided_by"],
        uses_truth=row["label_uses_truth"],
        weight=row["label_weight"],
        offset=row["label_offset"],
        values=_values(rows["label_value"]),
        notes=_values(rows["label_note"]),
    )


def _completions(rows: dict[str, list[Any]]) -> tuple[Completion, ...]:
    versions = {text: PolicyVersion.parse(text) for text in set(rows["policy_version"])}
    names = ("text", "token_ids", "logprobs", "token_ends", "entropies", "finish", "policy_version", "certainties")
    return tuple(
        Completion(text, token_ids, logprobs, token_ends, entropies, Finish(finish), versions[version], certainties)
        for text, token_ids, logprobs, token_ends, entropies, finish, version, certainties in zip(*(rows[name] for name in names), strict=True)
    )


def _values(column: list[Any]) -> tuple[Any, ...]:
    return () if all(value is None for value in column) else tuple(column)


def verdict_body(verdict: Verdict) -> dict[str, Any]:
    """The body of a verdict's record."""
    health = None if verdict.health is None else {**asdict(verdict.health), "parts": dict(verdict.health.parts)}
    return {"step": verdict.step, "action": verdict.action.value, "findings": [asdict(finding) for finding in verdict.findings], "health": health}


def verdict_from(body: Mapping[str, Any]) -> Verdict:
    """The verdict in a body. Records from before there was a health score have none, and no examples."""
    findings = tuple(Finding(**{**one, "examples": tuple((group, at) for group, at in one.get("examples", ()))}) for one in body["findings"])
    health = body.get("health")
    return Verdict(body["step"], Action(body["action"]), findings, None if health is None else Health(**health))


def step_body(metrics: StepMetrics, updates: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a step's record."""
    return {"step": metrics.step, "policy_version": str(metrics.version), "metrics": dict(metrics.values), "updates": dict(updates)}


def step_from(body: Mapping[str, Any], head: str) -> StepRecord:
    """The step in a body."""
    metrics = StepMetrics(body["step"], PolicyVersion.parse(body["policy_version"]), body["metrics"])
    return StepRecord(metrics, body["updates"], head)


def request_from(body: Mapping[str, Any]) -> RequestRecord:
    """The request in a body."""
    return RequestRecord(**body)


def branch_body(record: BranchRecord) -> dict[str, Any]:
    """The body of a rollback's record; without a remedy it has no such field."""
    body = asdict(record)
    return body if record.remedy else {name: value for name, value in body.items() if name != "remedy"}


def branch_from(body: Mapping[str, Any]) -> BranchRecord:
    """The rollback in a body."""
    return BranchRecord(**body)
