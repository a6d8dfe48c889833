"""The views that SQL sees: name, columns with type and meaning. docs/query.md is made of them and a test compares them with the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selftrain.ledger.columns import COMPLETIONS, GROUPS, Column
from selftrain.metrics import METRICS

_TYPES = {"i32": "INTEGER", "i64": "BIGINT", "f32": "FLOAT", "f64": "DOUBLE", "bool": "BOOLEAN", "str": "VARCHAR"}
_INTERVAL = "bootstrap interval over problems, 95 %"


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """A column of a view. sql: how it follows from what is stored; empty where it is stored under its name."""

    name: str
    type: str
    meaning: str
    sql: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """A view. source: the SQL after `from`; empty for a table that is filled from the record. key: what makes a row unique."""

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[ViewColumn, ...]
    source: str = ""

    @property
    def sql(self) -> str:
        """The statement that makes the view."""
        wanted = ", ".join(f'{column.sql or quoted(column.name)} as "{column.name}"' for column in self.columns)
        return f'create view "{self.name}" as select {wanted} from {self.source}'


def quoted(name: str) -> str:
    return f'stored."{name}"'


def sql_type(name: str) -> str:
    """The type in SQL of a column type of the ledger."""
    return f"{_TYPES[name[5:-1]]}[]" if name.startswith("list<") else _TYPES[name]


def stored(columns: tuple[Column, ...]) -> tuple[ViewColumn, ...]:
    return tuple(ViewColumn(column.name, sql_type(column.type), column.meaning) for column in columns)


def metric_column(key: str) -> str:
    """The column of a metric: `vote/share_mean_frac` is vote_share_mean_frac."""
    return key.replace("/", "_")


_GROUP_SHARE = 'coalesce(stored."vote_counts"[1], 0) / stored."num_votes"'
_MARGIN = f'{_GROUP_SHARE} - coalesce(stored."vote_counts"[2], 0) / stored."num_votes"'

VIEWS: Mapping[str, View] = {
    view.name: view
    for view in (
        View(
            "prompts",
            "every prompt that was drawn, without those of extra samples",
            ("prompt_id",),
            (
                ViewColumn("prompt_id", "VARCHAR", "id of the prompt in its set"),
                ViewColumn("prompt", "VARCHAR", "text of its last turn", 'any_value(stored."message_contents"[-1])'),
                ViewColumn("num_turns", "BIGINT", "turns of the prompt", 'any_value(len(stored."message_contents"))'),
                ViewColumn("num_tokens", "BIGINT", "tokens the policy was given", 'any_value(len(stored."prompt_token_ids"))'),
                ViewColumn("num_groups", "BIGINT", "how often it was drawn", "count(*)"),
                ViewColumn("first_step", "BIGINT", "when it was first drawn", 'min(stored."step")'),
                ViewColumn("last_step", "BIGINT", "when it was last drawn", 'max(stored."step")'),
            ),
            "stored_groups as stored where stored.\"role\" = 'vote' group by prompt_id",
        ),
        View(
            "groups",
            "every group: a prompt in a step, its vote, its label, its admission",
            ("step", "group_index"),
            (
                *stored(GROUPS),
                ViewColumn("prompt", "VARCHAR", "text of the prompt's last turn", 'stored."message_contents"[-1]'),
                ViewColumn(
                    "vote_winner", "VARCHAR", "the key with the most votes; null in a tie and without any", f'if({_MARGIN} > 0, stored."vote_keys"[1], null)'
                ),
                ViewColumn("vote_share_frac", "DOUBLE", "share of the winner among all votes, unread ones included; 0 without any", _GROUP_SHARE),
                ViewColumn("vote_margin_frac", "DOUBLE", "winner minus runner-up, as a share of all votes", _MARGIN),
            ),
            "stored_groups as stored",
        ),
        View(
            "completions",
            "every completion: its text, what was read in it, its reward and advantage",
            ("step", "group_index", "completion_index"),
            (
                *stored(COMPLETIONS),
                ViewColumn("num_tokens", "BIGINT", "tokens of the completion, the end token included", 'len(stored."token_ids")'),
                ViewColumn("prompt_id", "VARCHAR", "prompt of its group", 'asked."prompt_id"'),
                ViewColumn("role", "VARCHAR", "what it is for: `vote`, an extra sample, or `probe`: see `groups`", 'asked."role"'),
            ),
            'stored_completions as stored join stored_groups as asked on stored."step" = asked."step" and stored."group_index" = asked."group_index"',
        ),
        View(
            "steps",
            "every finished step: one column a metric (docs/metrics.md), null where the step has no such number",
            ("step",),
            (
                ViewColumn("step", "BIGINT", "number of the step, from 0"),
                ViewColumn("policy_version", "VARCHAR", "`branch:updates` of the policy after its update"),
                *(ViewColumn(metric_column(key), "DOUBLE", f"{metric.formula} [{metric.unit}]") for key, metric in METRICS.items()),
            ),
        ),
        View(
            "updates",
            "every optimizer step",
            ("step", "update_index"),
            (
                ViewColumn("step", "BIGINT", "the step it belongs to"),
                ViewColumn("update_index", "BIGINT", "position in its step, from 0"),
                ViewColumn("loss", "DOUBLE", "value of the objective"),
                ViewColumn("grad_norm", "DOUBLE", "norm of the gradient before clipping"),
                ViewColumn("learning_rate", "DOUBLE", "the one applied"),
                ViewColumn("ratio_mean", "DOUBLE", "mean importance ratio against the sampling log-probabilities"),
                ViewColumn("ratio_max", "DOUBLE", "largest importance ratio"),
                ViewColumn("clip_frac", "DOUBLE", "share of tokens without gradient because of clipping"),
                ViewColumn("logprob_gap_nats", "DOUBLE", "mean absolute difference between the learner's log-probabilities and the sampler's"),
                ViewColumn("kl_loss_nats", "DOUBLE", "mean per token of the KL estimate in the loss"),
                ViewColumn("num_tokens", "BIGINT", "tokens that gave gradient"),
            ),
        ),
        View(
            "verdicts",
            "what the guard decided in each step",
            ("step",),
            (
                ViewColumn("step", "BIGINT", "the step it judged"),
                ViewColumn("action", "VARCHAR", "what the guard told the loop to do: continue, warn, roll_back, halt"),
                ViewColumn("rules", "VARCHAR[]", "the rules that were hit"),
                ViewColumn("health", "DOUBLE", "the guard's health score, 1 is well; null while there is nothing to compare"),
                ViewColumn("health_low", "DOUBLE", "lower end of its 90 % interval"),
                ViewColumn("health_high", "DOUBLE", "upper end of its 90 % interval"),
            ),
        ),
        View(
            "findings",
            "every hit of a guard rule",
            ("step", "rule"),
            (
                ViewColumn("step", "BIGINT", "the step that was judged"),
                ViewColumn("action", "VARCHAR", "what was decided in that step"),
                ViewColumn("rule", "VARCHAR", "name of the rule"),
                ViewColumn("value", "DOUBLE", "what it saw"),
                ViewColumn("limit_value", "DOUBLE", "its limit"),
                ViewColumn("window_steps", "BIGINT", "over how many steps"),
                ViewColumn("words", "VARCHAR", "what it means"),
            ),
        ),
        View(
            "evaluations",
            "every evaluation on held-out problems, the last of each name",
            ("name",),
            (
                ViewColumn("name", "VARCHAR", "before, step-N or after"),
                ViewColumn("step", "BIGINT", "steps that had been done"),
                ViewColumn("head", "VARCHAR", "hash of the record it judged"),
                ViewColumn("num_problems", "BIGINT", "held-out problems"),
                ViewColumn("num_samples", "BIGINT", "k, completions of each"),
                ViewColumn("temperature", "DOUBLE", "sampling temperature"),
                *(
                    column
                    for name, words in (
                        ("avg", "avg@k"),
                        ("maj", "maj@k"),
                        ("pass", "pass@k"),
                        ("pseudo_label", "accuracy of the decided votes; null without any"),
                    )
                    for column in (
                        ViewColumn(f"{name}_frac", "DOUBLE", words),
                        ViewColumn(f"{name}_low_frac", "DOUBLE", f"lower end of its {_INTERVAL}"),
                        ViewColumn(f"{name}_high_frac", "DOUBLE", f"upper end of its {_INTERVAL}"),
                    )
                ),
            ),
        ),
        View(
            "problems",
            "every held-out problem in every evaluation",
            ("evaluation", "prompt_id"),
            (
                ViewColumn("evaluation", "VARCHAR", "name of the evaluation"),
                ViewColumn("step", "BIGINT", "steps that had been done"),
                ViewColumn("prompt_id", "VARCHAR", "the problem"),
                ViewColumn("num_right", "BIGINT", "right completions among its k"),
                ViewColumn("num_read", "BIGINT", "completions with a readable answer"),
                ViewColumn("num_truncated", "BIGINT", "completions that were cut off"),
                ViewColumn("vote", "VARCHAR", "right, wrong, tie or unread"),
                ViewColumn("maj_score", "DOUBLE", "its part in maj@k; a tie counts by the share of right keys in it"),
                ViewColumn("share_frac", "DOUBLE", "vote share of the winner"),
                ViewColumn("tokens_mean", "DOUBLE", "mean length of its completions"),
            ),
        ),
        View(
            "checkpoints",
            "every checkpoint that was recorded; some may be pruned since",
            ("name",),
            (
                ViewColumn("step", "BIGINT", "steps that had been done"),
                ViewColumn("name", "VARCHAR", "its folder in checkpoints/"),
                ViewColumn("weights_hash", "VARCHAR", "SHA-256 of the weights"),
                ViewColumn("head", "VARCHAR", "hash of its record"),
            ),
        ),
        View(
            "timings",
            "wall time of every stage of every step",
            ("step", "name", "stage"),
            (
                ViewColumn("step", "BIGINT", "the step"),
                ViewColumn("name", "VARCHAR", "step, or branch-NN for a step after a rollback"),
                ViewColumn("stage", "VARCHAR", "sample, vote, update, ..."),
                ViewColumn("seconds", "DOUBLE", "wall time"),
            ),
        ),
        View(
            "records",
            "the hash chain: one row a record, of all branches",
            ("seq",),
            (
                ViewColumn("seq", "BIGINT", "number of the record, from 0"),
                ViewColumn("kind", "VARCHAR", "header, segment, probe, verdict, step, checkpoint, fork, end, ..."),
                ViewColumn("step", "BIGINT", "its step; null where it belongs to none"),
                ViewColumn("branch", "BIGINT", "how many rollbacks stand before it"),
                ViewColumn("prev", "VARCHAR", "hash of the record before it"),
                ViewColumn("hash", "VARCHAR", "its hash"),
            ),
        ),
        View(
            "config",
            "every option of the run",
            ("option",),
            (
                ViewColumn("option", "VARCHAR", "section.name"),
                ViewColumn("value", "VARCHAR", "its value as JSON"),
            ),
        ),
    )
}
