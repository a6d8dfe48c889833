"""Queries by name: the questions that people ask of a run most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A question and the SQL that answers it."""

    name: str
    question: str
    sql: str


def _named(name: str, question: str, sql: str) -> NamedQuery:
    return NamedQuery(name, question, sql.strip())


NAMED: Mapping[str, NamedQuery] = {
    query.name: query
    for query in (
        _named(
            "most-changed-labels",
            "Which prompts changed their pseudo-label most often from one drawing to the next?",
            """
with labels as (
  select prompt_id, prompt, step, label_key, lag(label_key) over (partition by prompt_id order by step, group_index) as previous
  from groups where role = 'vote' and label_outcome = 'decided' and label_key is not null)
select prompt_id, count(*) filter (where label_key <> previous) as num_changes, count(*) as num_labels,
  count(distinct label_key) as num_keys, list(label_key order by step) as labels, any_value(prompt) as prompt
from labels group by prompt_id having num_changes > 0 order by num_changes desc, num_keys desc, prompt_id limit 50
""",
        ),
        _named(
            "most-contested-groups",
            "Where was the vote closest?",
            """
select step, group_index, prompt_id, prompt, vote_margin_frac, vote_share_frac, label_outcome, vote_keys[1:4] as keys, vote_counts[1:4] as votes
from groups where role = 'vote' and len(vote_keys) > 1 order by vote_margin_frac, vote_share_frac, step desc, group_index limit 50
""",
        ),
        _named(
            "hardest-prompts",
            "On which prompts does the model agree with itself least?",
            """
select prompt_id, avg(vote_share_frac) as mean_share_frac, count(*) as num_groups,
  count(*) filter (where label_outcome <> 'decided') as num_undecided, any_value(prompt) as prompt
from groups where role = 'vote' group by prompt_id order by mean_share_frac, prompt_id limit 50
""",
        ),
        _named(
            "most-common-labels",
            "Which answer is the label of most different prompts? (One constant answer is a sign of collapse.)",
            """
select label_key, count(distinct prompt_id) as num_prompts, count(*) as num_groups, min(step) as first_step, max(step) as last_step
from groups where role = 'vote' and label_key is not null group by label_key order by num_prompts desc, num_groups desc, label_key limit 50
""",
        ),
        _named(
            "label-provenance",
            "Who decided the labels, and did a true answer touch any?",
            """
select label_source, split_part(label_decided_by, ' ', 1) as decided_by, label_uses_truth, label_outcome, count(*) as num_groups,
  count(*) / sum(count(*)) over () as share_frac
from groups where role = 'vote' group by all order by num_groups desc, label_source, label_outcome
""",
        ),
        _named(
            "admissions",
            "Which groups trained, and why did the others not?",
            "select admission, label_outcome, count(*) as num_groups, avg(vote_share_frac) as mean_share_frac "
            "from groups where role = 'vote' group by all order by num_groups desc, admission, label_outcome",
        ),
        _named(
            "reward-reasons",
            "How many completions were rewarded, and why not the others?",
            """
select coalesce(reward_reason, 'undecided group') as reason, count(*) as num_completions, count(*) / sum(count(*)) over () as share_frac,
  avg(reward) as mean_reward, avg(num_tokens) as mean_tokens
from completions where role = 'vote' group by all order by num_completions desc, reason
""",
        ),
        _named(
            "unread-completions",
            "What do completions without a readable answer look like?",
            """
select step, group_index, completion_index, prompt_id, role, finish, num_tokens, right(text, 200) as end_of_text
from completions where answer_key is null order by step desc, group_index, completion_index limit 50
""",
        ),
        _named(
            "outvoted-completions",
            "Which confident completions were outvoted? (Most likely first: mean log-probability of a token.)",
            """
select c.step, c.group_index, c.completion_index, g.prompt_id, c.answer_key, g.label_key, list_avg(c.logprobs) as mean_logprob_nats, c.text
from completions c join groups g using (step, group_index)
where c.role = 'vote' and c.reward_reason = 'mismatch' and len(c.logprobs) > 0
order by mean_logprob_nats desc, c.step, c.group_index, c.completion_index limit 50
""",
        ),
        _named(
            "longest-completions",
            "Which completions are longest?",
            """
select step, group_index, completion_index, role, num_tokens, finish, answer_key, reward, right(text, 200) as end_of_text
from completions order by num_tokens desc, step, group_index, completion_index limit 50
""",
        ),
        _named(
            "signals",
            "How did the label-free signals move, step by step?",
            """
select step, vote_share_mean_frac, vote_read_mean_frac, label_decided_frac, reward_mean_frac, admission_admitted_frac,
  policy_entropy_mean_nats, completion_length_mean_tokens, vote_collision_frac, action
from steps left join verdicts using (step) order by step
""",
        ),
        _named(
            "updates",
            "What did each optimizer step see?",
            "select * from updates order by step, update_index",
        ),
        _named(
            "guard-findings",
            "What did the guard find, and when?",
            """
select rule, action, count(*) as num_steps, min(step) as first_step, max(step) as last_step, max_by(value, step) as last_value,
  max_by(limit_value, step) as last_limit, any_value(words) as words
from findings group by rule, action order by first_step, rule
""",
        ),
        _named(
            "accuracy",
            "How often is the model right on held-out problems, with 95 % intervals?",
            "select name, step, num_problems, num_samples, avg_frac, avg_low_frac, avg_high_frac, maj_frac, pass_frac, pseudo_label_frac "
            "from evaluations order by step, name = 'after'",
        ),
        _named(
            "gained-and-lost",
            "Which held-out problems does the vote decide differently after the run?",
            """
select prompt_id, b.vote as before, a.vote as after, b.num_right as right_before, a.num_right as right_after,
  b.share_frac as share_before_frac, a.share_frac as share_after_frac
from problems b join problems a using (prompt_id)
where b.evaluation = 'before' and a.evaluation = 'after' and b.vote <> a.vote order by a.maj_score - b.maj_score, prompt_id
""",
        ),
        _named(
            "time-by-stage",
            "Where did the time go?",
            "select stage, sum(seconds) as seconds, sum(seconds) / sum(sum(seconds)) over () as share_frac, avg(seconds) as mean_seconds "
            "from timings group by stage order by seconds desc",
        ),
    )
}
