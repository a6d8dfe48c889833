"""What became of the labels of a run: shares of outcomes, admissions and reward reasons, who decided, and which labels changed most."""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.query import NAMED, Database
from selftrain.types import AnswerKey

NUM_CHANGED = 8
KEYS_SHOWN = 12

Shares = tuple[tuple[str, float], ...]
"""(name, share), most first."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who decided a share of the groups' labels, and whether a true answer touched them."""

    source: str
    decided_by: str
    uses_truth: bool
    share: float


@dataclass(frozen=True, slots=True)
class Changed:
    """A prompt whose pseudo-label changed between drawings. keys: its labels in order of steps, the last KEYS_SHOWN of them."""

    prompt_id: str
    prompt: str
    num_changes: int
    num_labels: int
    keys: tuple[AnswerKey, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """Over all recorded groups."""

    num_groups: int
    num_steps: int
    outcomes: Shares
    admissions: Shares
    rewards: Shares
    checks: Shares
    provenance: tuple[Provenance, ...]
    changed: tuple[Changed, ...]
    num_changed: int


def labels_of(database: Database) -> Labels:
    groups, steps = database.query("select count(*), count(distinct step) from groups where role = 'vote'").rows[0]
    provenance = database.query(
        "select label_source, split_part(label_decided_by, ' ', 1), label_uses_truth, count(*) / sum(count(*)) over () "
        "from groups where role = 'vote' and label_outcome = 'decided' group by 1, 2, 3 order by 4 desc, 1, 2"
    )
    changed = database.query(NAMED["most-changed-labels"].sql)
    at = {name: index for index, name in enumerate(changed.columns)}
    num_changed = database.query(
        "select count(*) from "
        "(select prompt_id from groups where role = 'vote' and label_key is not null group by prompt_id having count(distinct label_key) > 1)"
    )
    return Labels(
        num_groups=int(groups),
        num_steps=int(steps),
        outcomes=shares(database, "label_outcome", "groups"),
        admissions=shares(database, "admission", "groups"),
        rewards=shares(database, "reward_reason", "completions"),
        checks=shares(database, "check_note", "completions"),
        provenance=tuple(Provenance(*row) for row in provenance.rows),
        changed=tuple(
            Changed(
                row[at["prompt_id"]],
                row[at["prompt"]],
                row[at["num_changes"]],
                row[at["num_labels"]],
                tuple(map(AnswerKey, row[at["labels"]][-KEYS_SHOWN:])),
            )
            for row in changed.rows[:NUM_CHANGED]
        ),
        num_changed=int(num_changed.rows[0][0]),
    )


def shares(database: Database, column: str, view: str) -> Shares:
    """Shares of a column's values, null left out."""
    sql = f"select {column}, count(*) / sum(count(*)) over () from {view} where role = 'vote' and {column} is not null group by 1 order by 2 desc, 1"
    return tuple((str(name), float(share)) for name, share in database.query(sql).rows)
