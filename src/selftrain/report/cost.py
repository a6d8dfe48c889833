"""What a run cost: time, tokens, and an energy estimate that says what it assumes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from selftrain.evals import Evaluation
from selftrain.query import Database
from selftrain.report.record import RunRecord
from selftrain.types import StepMetrics

WATTS_A_THREAD = 10.0
WATTS_AN_ACCELERATOR = 400.0
WATTS_OF_ITS_HOST = 100.0


@dataclass(frozen=True, slots=True)
class Cost:
    """seconds: wall time of the steps, by stage (name, seconds, share), longest first. Tokens are counts; energy_wh is an estimate at `watts`.

    left_tokens: sampled in steps that rollbacks left behind, beside sampled_tokens. completions and prompt_tokens are of the steps that count, all others of
    both; some of probe_tokens were sampled in the time of the votes.
    """

    stages: tuple[tuple[str, float, float], ...]
    seconds: float
    completions: int
    sampled_tokens: int
    left_tokens: int
    probe_tokens: int
    prompt_tokens: int
    learned_tokens: int
    evaluated_tokens: int
    watts: float
    assumption: str

    @property
    def energy_wh(self) -> float:
        return self.seconds * self.watts / 3600

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens sampled to train over the time of the sampling stage, in which most probes are drawn as well; None without timings."""
        sampling = next((seconds for stage, seconds, _ in self.stages if stage == "sample"), 0.0)
        return (self.sampled_tokens + self.left_tokens - self.probe_tokens) / sampling if sampling else None


def cost_of(record: RunRecord, database: Database) -> Cost:
    completions, sampled = database.query("select count(*), coalesce(sum(num_tokens), 0) from completions").rows[0]
    prompts = database.query("select coalesce(sum(len(prompt_token_ids)), 0) from groups").rows[0][0]
    stages = stage_seconds(record)
    evaluations = all_evaluations(record)
    evaluated = sum(one.tokens_mean * one.num_samples * len(one.results) for one in evaluations)
    evaluated += sum(again.tokens for one in evaluations for again in one.again)
    watts, assumption = power(record)
    every = all_steps(record)
    return Cost(
        stages=stages,
        seconds=sum(seconds for _, seconds, _ in stages),
        completions=int(completions),
        sampled_tokens=int(sampled),
        left_tokens=round(tokens_in(every) - tokens_in(record.steps)),
        probe_tokens=int(sum(step.values.get("cost/probe_tokens", 0.0) for step in every)),
        prompt_tokens=int(prompts),
        learned_tokens=int(sum(step.values.get("update/num_tokens", 0.0) for step in every)),
        evaluated_tokens=round(evaluated),
        watts=watts,
        assumption=assumption,
    )


def all_steps(record: RunRecord) -> Sequence[StepMetrics]:
    """The metrics of every recorded step, those that rollbacks left behind among them."""
    if not record.ledger.branches:
        return record.steps
    return [step.metrics for step in record.ledger.steps(rolled_back=True)]


def all_evaluations(record: RunRecord) -> list[Evaluation]:
    """Those that rollbacks left behind and those on validation problems among them."""
    if not record.ledger.branches:
        return [one.evaluation for one in (*record.evaluations, *record.validated)]
    return [Evaluation.from_json(one["evaluation"]) for one in record.ledger.evals(rolled_back=True)]


def tokens_in(steps: Iterable[StepMetrics]) -> float:
    """Tokens sampled in these steps, by whatever asked for them."""
    return sum(value for step in steps for key, value in step.values.items() if key.startswith("cost/") and key.endswith("_tokens"))


def power(record: RunRecord) -> tuple[float, str]:
    """Watts that are assumed, and why, in words."""
    if record.config.policy.device == "cuda":
        words = f"{WATTS_AN_ACCELERATOR:g} W for one accelerator and {WATTS_OF_ITS_HOST:g} W for its host"
        return WATTS_AN_ACCELERATOR + WATTS_OF_ITS_HOST, words
    threads = record.config.policy.num_threads or 1
    return WATTS_A_THREAD * threads, f"{WATTS_A_THREAD:g} W for each of {threads} CPU threads"


def stage_seconds(record: RunRecord) -> tuple[tuple[str, float, float], ...]:
    """(stage, seconds, share of all) over the recorded steps, longest first; stages under a thousandth are left out."""
    totals: dict[str, float] = {}
    for timing in record.timings:
        for stage, seconds in timing.get("seconds", {}).items():
            totals[stage] = totals.get(stage, 0.0) + float(seconds)
    whole = sum(totals.values()) or 1.0
    return tuple((stage, seconds, seconds / whole) for stage, seconds in sorted(totals.items(), key=lambda item: -item[1]) if seconds / whole >= 0.001)
