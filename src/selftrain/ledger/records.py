"""Between the carriers and the record: groups to table rows and back, metrics, verdicts and checkpoints to bodies and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selftrain.errors import LedgerError
from selftrain.ledger.columns import COMPLETIONS, GROUPS, from_table, to_table
from selftrain.types import (
    Action,
    Admission,
    AnswerKey,
    Answers,
    Completion,
    Finding,
    Finish,
    Group,
    Label,
    Message,
    Outcome,
    PolicyVersion,
    Prompt,
    Rewards,
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


def to_tables(step: int, scored: Sequence[ScoredGroup]) -> dict[str, pa.Table]:
    """The rows of both tables, by table name. Raises LedgerError when a group is of another step or its parts do not fit together."""
    for item in scored:
        _check(step, item)
    return {"groups": to_table(GROUPS, _group_values(scored)), "completions": to_table(COMPLETIONS, _completion_values(scored))}


def _check(step: int, scored: ScoredGroup) -> None:
    group, num = scored.voted.group, len(scored.voted.group.completions)
    given = f"group {group.index} of step {group.step}"
    if group.step != step:
        raise LedgerError(given, f"it was handed over with step {step}", "append each step's groups with that step")
    whole = {"answer texts": scored.voted.answers.texts, "answer keys": scored.voted.answers.keys}
    optional = {
        "rewards": scored.rewards.values,
        "reward reasons": scored.rewards.reasons,
        "KL penalties": scored.kl_penalties,
        "shaped rewards": scored.shaped_rewards,
        "advantages": scored.advantages,
    }
    for name, values in (whole | optional).items():
        if len(values) != num and (name in whole or values):
            raise LedgerError(given, f"it has {num} completions and {len(values)} {name}", "give one per completion, or none where there are none")
    if list(scored.trained) != sorted({index for index in scored.trained if 0 <= index < num}):
        raise LedgerError(given, f"the trained completions {scored.trained} are not sorted indices below {num}", "give each trained completion once, in order")


def _group_values(scored: Sequence[ScoredGroup]) -> dict[str, Sequence[Any]]:
    groups = [item.voted.group for item in scored]
    votes = [item.voted.vote for item in scored]
    labels = [item.label for item in scored]
    return {
        "step": [group.step for group in groups],
        "group_index": [group.index for group in groups],
        "prompt_id": [group.prompt.id for group in groups],
        "message_roles": [[message.role for message in group.prompt.messages] for group in groups],
        "message_contents": [[message.content for message in group.prompt.messages] for group in groups],
        "prompt_token_ids": [group.prompt_ids for group in groups],
        "policy_version": [_shared_version(group) for group in groups],
        "num_votes": [vote.num_votes for vote in votes],
        "num_read": [vote.num_read for vote in votes],
        "vote_keys": [[key for key, _ in vote.counts] for vote in votes],
        "vote_counts": [[count for _, count in vote.counts] for vote in votes],
        "label_outcome": [label.outcome.value for label in labels],
        "label_key": [label.key for label in labels],
        "label_targets": [_targets(item) for item in scored],
        "label_source": [label.source for label in labels],
        "label_decided_by": [label.decided_by for label in labels],
        "label_uses_truth": [label.uses_truth for label in labels],
        "admission": [item.admission.value for item in scored],
    }


def _shared_version(group: Group) -> str | None:
    versions = {completion.version for completion in group.completions}
    return str(versions.pop()) if len(versions) == 1 else None


def _targets(scored: ScoredGroup) -> tuple[AnswerKey | None, ...] | None:
    shared = (scored.label.key,) * len(scored.voted.group.completions)
    return None if scored.label.targets == shared else scored.label.targets


def _completion_values(scored: Sequence[ScoredGroup]) -> dict[str, Sequence[Any]]:
    completions = [completion for item in scored for completion in item.voted.group.completions]
    sizes = [len(item.voted.group.completions) for item in scored]

    def each(values: Sequence[Any]) -> list[Any]:
        return [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]

    def joined(values: Sequence[Sequence[Any]]) -> list[Any]:
        """Empty where a group has none: null for each of its completions."""
        return [entry for part, size in zip(values, sizes, strict=True) for entry in (part or (None,) * size)]

    return {
        "step": each([item.voted.group.step for item in scored]),
        "group_index": each([item.voted.group.index for item in scored]),
        "completion_index": [index for size in sizes for index in range(size)],
        "text": [completion.text for completion in completions],
        "token_ids": [completion.token_ids for completion in completions],
        "logprobs": [completion.logprobs for completion in completions],
        "entropies": [completion.entropies for completion in completions],
        "token_ends": [completion.token_ends for completion in completions],
        "finish": [completion.finish.value for completion in completions],
        "policy_version": [str(completion.version) for completion in completions],
        "answer_text": joined([item.voted.answers.texts for item in scored]),
        "answer_key": joined([item.voted.answers.keys for item in scored]),
        "reward": joined([item.rewards.values for item in scored]),
        "reward_reason": joined([item.rewards.reasons for item in scored]),
        "kl_penalty_nats": joined([item.kl_penalties for item in scored]),
        "shaped_reward": joined([item.shaped_rewards for item in scored]),
        "advantage": joined([item.advantages for item in scored]),
        "trained": [index in trained for item, size in zip(scored, sizes, strict=True) for trained in (set(item.trained),) for index in range(size)],
    }


def from_tables(groups: pa.Table, completions: pa.Table) -> list[ScoredGroup]:
    """The groups behind the rows, equal to those that were written (log-probabilities and entropies rounded to 32 bits).

    Raises LedgerError when the completions are not those of the groups.
    """
    group_rows, rows = from_table(GROUPS, groups), from_table(COMPLETIONS, completions)
    owners = list(zip(rows["step"], rows["group_index"], strict=True))
    scored, start = [], 0
    for at in range(groups.num_rows):
        owner, end = (group_rows["step"][at], group_rows["group_index"][at]), start
        while end < len(owners) and owners[end] == owner and rows["completion_index"][end] == end - start:
            end += 1
        scored.append(_scored({name: values[at] for name, values in group_rows.items()}, {name: values[start:end] for name, values in rows.items()}))
        start = end
    if start != len(owners):
        raise LedgerError(f"the completion in row {start} of a segment", "its group is not in the segment", "run `selftrain verify`")
    return scored


def _scored(row: dict[str, Any], rows: dict[str, list[Any]]) -> ScoredGroup:
    messages = tuple(Message(role, content) for role, content in zip(row["message_roles"], row["message_contents"], strict=True))
    completions = _completions(rows)
    group = Group(row["step"], row["group_index"], Prompt(row["prompt_id"], messages), row["prompt_token_ids"], completions)
    counts = tuple((AnswerKey(key), count) for key, count in zip(row["vote_keys"], row["vote_counts"], strict=True))
    answers = Answers(tuple(rows["answer_text"]), tuple(rows["answer_key"]))
    targets = row["label_targets"] if row["label_targets"] is not None else (row["label_key"],) * len(completions)
    return ScoredGroup(
        voted=VotedGroup(group, answers, Vote(row["num_votes"], row["num_read"], counts)),
        label=Label(Outcome(row["label_outcome"]), targets, row["label_source"], row["label_decided_by"], row["label_uses_truth"]),
        rewards=Rewards(_values(rows["reward"]), _values(rows["reward_reason"])),
        kl_penalties=_values(rows["kl_penalty_nats"]),
        shaped_rewards=_values(rows["shaped_reward"]),
        advantages=_values(rows["advantage"]),
        admission=Admission(row["admission"]),
        trained=tuple(index for index, trained in enumerate(rows["trained"]) if trained),
    )


def _completions(rows: dict[str, list[Any]]) -> tuple[Completion, ...]:
    versions = {text: PolicyVersion.parse(text) for text in set(rows["policy_version"])}
    fields = zip(rows["text"], rows["token_ids"], rows["logprobs"], rows["token_ends"], rows["entropies"], rows["finish"], rows["policy_version"], strict=True)
    return tuple(
        Completion(text, token_ids, logprobs, token_ends, entropies, Finish(finish), versions[version])
        for text, token_ids, logprobs, token_ends, entropies, finish, version in fields
    )


def _values(column: list[Any]) -> tuple[Any, ...]:
    return () if all(value is None for value in column) else tuple(column)


def verdict_body(verdict: Verdict) -> dict[str, Any]:
    """The body of a verdict's record."""
    findings = [
        {"rule": finding.rule, "value": finding.value, "limit": finding.limit, "window_steps": finding.window_steps, "words": finding.words}
        for finding in verdict.findings
    ]
    return {"step": verdict.step, "action": verdict.action.value, "findings": findings}


def verdict_from(body: Mapping[str, Any]) -> Verdict:
    """The verdict in a body."""
    return Verdict(body["step"], Action(body["action"]), tuple(Finding(**finding) for finding in body["findings"]))


def step_body(metrics: StepMetrics, updates: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a step's record."""
    return {"step": metrics.step, "policy_version": str(metrics.version), "metrics": dict(metrics.values), "updates": dict(updates)}


def step_from(body: Mapping[str, Any], head: str) -> StepRecord:
    """The step in a body."""
    metrics = StepMetrics(body["step"], PolicyVersion.parse(body["policy_version"]), body["metrics"])
    return StepRecord(metrics, body["updates"], head)
