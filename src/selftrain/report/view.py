"""What both forms of a report show, worked out once: sentences, tables, charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selftrain.evals import Evaluation, Example, GainedAndLost, gained_and_lost
from selftrain.metrics import METRICS
from selftrain.report import words
from selftrain.report.charts import Chart, Series, Span
from selftrain.report.comparison import Row, measures, rows
from selftrain.report.contested import Outcomes, ShownGroup, contested, outcomes
from selftrain.report.limits import limits_of
from selftrain.report.record import RunRecord
from selftrain.report.repeat import command_line
from selftrain.types import Action

CURVES = (
    ("vote/share_mean_frac", "Vote share"),
    ("reward/mean_frac", "Reward"),
    ("policy/entropy_mean_nats", "Token entropy"),
    ("completion/length_mean_tokens", "Completion length"),
    ("admission/admitted_frac", "Groups admitted"),
    ("vote/collision_frac", "Prompts with the most common answer"),
)
MAX_LISTED = 12


@dataclass(frozen=True, slots=True)
class Pair:
    """A problem's completions before and after. change: gained, lost or empty."""

    example: Example
    after: Example
    change: str


@dataclass(frozen=True, slots=True)
class Event:
    """Consecutive verdicts with the same action and rules, in words."""

    first: int
    last: int
    action: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """Everything a report shows, in the order of the page."""

    record: RunRecord
    title: str
    status: str
    verdict: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    decides: str
    held_out: str
    outcome: tuple[Row, ...]
    problems: GainedAndLost | None
    pairs: tuple[Pair, ...]
    charts: tuple[Chart, ...]
    last_step: int
    events: tuple[Event, ...]
    contested: tuple[ShownGroup, ...]
    outcomes: Outcomes
    stages: tuple[tuple[str, float, float], ...]
    seconds: float
    limits: tuple[str, ...]
    repeat: str

    @property
    def mood(self) -> str:
        """How the verdict is coloured: halt, warn, open (no end yet) or good."""
        actions = {event.action for event in self.events}
        return next((action for action in ("halt", "warn") if action in actions), "good" if self.record.end_reason else "open")


def view_of(record: RunRecord) -> View:
    before, after = record.evaluation("before"), record.evaluation("after")
    events, found = guard_events(record), outcomes(record.ledger)
    stages = stage_seconds(record)
    same = before is not None and after is not None and before.prompts_sha256 == after.prompts_sha256
    return View(
        record=record,
        title=record.name,
        status=words.status_words(record),
        verdict=tuple(words.verdict_sentences(record)),
        facts=facts(record),
        decides=words.who_decides(record.header),
        held_out=words.what_is_held_out(record.header),
        outcome=rows(before, after) if before else (),
        problems=gained_and_lost(before, after) if same and before and after else None,
        pairs=pairs(before, after) if same and before and after else (),
        charts=charts(record, events),
        last_step=max(len(record.steps), 1),
        events=events,
        contested=contested(record.ledger),
        outcomes=found,
        stages=stages,
        seconds=sum(seconds for _, seconds, _ in stages),
        limits=limits_of(record),
        repeat=command_line(record.config),
    )


def facts(record: RunRecord) -> tuple[tuple[str, str], ...]:
    """What was trained on what, how, where: name and value."""
    config, header, environment = record.config, record.header, record.environment
    rollout = config.rollout
    group_size = rollout.group_size or rollout.num_votes
    kl = "none" if config.objective.kl_in == "none" else f"{config.objective.kl_estimator} in the {config.objective.kl_in}, weight {config.objective.kl_coef:g}"
    packages = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items())
    return (
        ("Model", f"{config.policy.model} (weights {header['model_hash'][:12]})"),
        ("Prompts", f"{header['prompts']['count']:,} of {header['prompts']['origin']} (hash {header['prompts']['hash'][:12]})"),
        ("Label source", config.labels.source),
        ("Reward, advantage", f"{config.reward.rule}, {config.advantage.rule}"),
        ("Objective", f"{config.objective.name}, length norm {config.objective.length_norm}, KL to the start: {kl}"),
        ("A step", f"{rollout.prompts_per_step} prompts x {rollout.num_votes} completions that vote, {group_size} trained on"),
        ("Sampling", f"temperature {rollout.temperature:g}, at most {rollout.max_new_tokens} new tokens"),
        ("Optimizer", f"AdamW, learning rate {config.update.learning_rate:g} ({config.update.schedule}, {config.update.warmup_steps} warm-up steps)"),
        ("Guard", f"{config.guard.action}, window {config.guard.window_steps} steps, baseline {config.guard.baseline_steps} steps"),
        ("Seed", str(config.run.seed)),
        ("Repeatable", f"{header['class']} on this kind of machine"),
        ("Started", str(environment.get("started", "unknown"))),
        ("Machine", f"{environment.get('platform', 'unknown')}, {environment.get('cores', '?')} cores, device {config.policy.device}"),
        ("Software", f"Python {environment.get('python', '?')}, {packages}"),
        ("Record", f"head {record.ledger.head}"),
    )


def guard_events(record: RunRecord) -> tuple[Event, ...]:
    """The verdicts with findings; consecutive ones of the same kind are one event with the last one's words."""
    events: list[Event] = []
    rules: list[str] = []
    for verdict in record.verdicts:
        if not verdict.findings and verdict.action is Action.CONTINUE:
            continue
        names = [finding.rule for finding in verdict.findings]
        told = tuple(words.finding_words(finding) for finding in verdict.findings)
        if events and events[-1].last == verdict.step - 1 and events[-1].action == verdict.action.value and rules == names:
            events[-1] = Event(events[-1].first, verdict.step, verdict.action.value, told)
        else:
            events.append(Event(verdict.step, verdict.step, verdict.action.value, told))
        rules = names
    return tuple(events)


def charts(record: RunRecord, events: Sequence[Event]) -> tuple[Chart, ...]:
    """Accuracy where it was evaluated, then the label-free signals."""
    spans = tuple(Span(event.first, event.last, event.action, f"{event.action}: {'; '.join(event.words)}") for event in events)
    made = [accuracy_chart(record, spans)] if record.evaluations else []
    for key, title in CURVES:
        points = tuple((float(step.step), step.values[key]) for step in record.steps if key in step.values)
        unit = METRICS[key].unit if METRICS[key].unit != "reward" else "mean over decided groups"
        limits = (0.0, 1.0) if key.endswith("_frac") and all(0 <= value <= 1 for _, value in points) else None
        made.append(Chart(title, unit, (Series(title, points),), limits, spans))
    return tuple(made)


def accuracy_chart(record: RunRecord, spans: tuple[Span, ...]) -> Chart:
    """avg, maj and pass@k of every evaluation; `after` stands where its checkpoint was made."""
    evaluations = [(handed_step(record) if one.name == "after" else one.step, one.evaluation) for one in record.evaluations]
    evaluations.sort(key=lambda one: one[0])
    k = evaluations[0][1].num_samples
    series = []
    for name in (f"avg@{k}", f"maj@{k}", f"pass@{k}"):
        found = [(float(step), interval) for step, one in evaluations if (interval := measures(one)[name])]
        series.append(
            Series(name, tuple((step, one.value) for step, one in found), tuple((step, one.low, one.high) for step, one in found)),
        )
    return Chart("Accuracy on held-out problems", "fraction", tuple(series), (0.0, 1.0), spans)


def handed_step(record: RunRecord) -> int:
    """How many steps the model handed over had done."""
    return next((one.step for one in record.ledger.checkpoints() if one.name == record.handed_over), 0)


def pairs(before: Evaluation, after: Evaluation) -> tuple[Pair, ...]:
    """Examples that both evaluations kept, problems that changed first."""
    later = {example.prompt_id: example for example in after.examples}
    changed = gained_and_lost(before, after)
    kinds = {**dict.fromkeys(changed.gained, "gained"), **dict.fromkeys(changed.lost, "lost")}
    found = [Pair(example, later[example.prompt_id], kinds.get(example.prompt_id, "")) for example in before.examples if example.prompt_id in later]
    return tuple(sorted(found, key=lambda pair: pair.change == ""))


def stage_seconds(record: RunRecord) -> tuple[tuple[str, float, float], ...]:
    """(stage, seconds, share of all) over the recorded steps, longest first; stages that took no time are left out."""
    totals: dict[str, float] = {}
    for timing in record.timings:
        for stage, seconds in timing.get("seconds", {}).items():
            totals[stage] = totals.get(stage, 0.0) + float(seconds)
    whole = sum(totals.values()) or 1.0
    return tuple((stage, seconds, seconds / whole) for stage, seconds in sorted(totals.items(), key=lambda item: -item[1]) if seconds / whole >= 0.001)
