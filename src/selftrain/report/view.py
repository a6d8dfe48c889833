"""What both forms of a report show, worked out once: sentences, tables, charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from selftrain.config import RunConfig
from selftrain.evals import Evaluation, Example, GainedAndLost, ProblemResult, gained_and_lost
from selftrain.metrics import METRICS
from selftrain.query import Database
from selftrain.report import words
from selftrain.report.charts import Chart, Series, Span, Timeline
from selftrain.report.comparison import Row, measures, rows, turn2_name
from selftrain.report.contested import ShownGroup, contested
from selftrain.report.cost import Cost, cost_of
from selftrain.report.labels import Labels, labels_of
from selftrain.report.limits import limits_of
from selftrain.report.record import RunRecord
from selftrain.report.repeat import command_line
from selftrain.types import Action, Verdict

CURVES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Vote", (("vote/share_mean_frac", "share"), ("vote/margin_mean_frac", "margin"))),
    ("Reward", (("reward/mean_frac", "reward"),)),
    ("Token entropy", (("policy/entropy_mean_nats", "entropy"),)),
    ("KL to the start", (("reward/kl_penalty_mean_nats", "in the reward, per completion"), ("update/kl_loss_nats", "in the loss, per token"))),
    ("Drift at probes", (("probe/kl_base_nats", "from the start"), ("probe/kl_answer_nats", "in answers"), ("probe/drift_nats", "off-domain"))),
    ("Agreement at probes", (("probe/base_agree_frac", "with the start"), ("probe/reword_agree_frac", "of two wordings"))),
    ("Answers at probes", (("probe/number_unchanged_frac", "same with another number"), ("probe/swap_changed_frac", "other with other people"))),
    ("Canaries at probes", (("probe/canary_right_frac", "right"),)),
    ("Completion length", (("completion/length_mean_tokens", "length"),)),
    (
        "Second turn: agreement with the label",
        (
            ("correction/agree_turn1_frac", "before"),
            ("correction/agree_turn2_frac", "after"),
            ("correction/mended_frac", "mended"),
            ("correction/broken_frac", "broken"),
        ),
    ),
    ("Health", (("vote/read_mean_frac", "read"), ("label/decided_frac", "decided"), ("completion/truncated_frac", "cut off"))),
    ("Groups admitted", (("admission/admitted_frac", "admitted"),)),
    ("Prompts with the most common answer", (("vote/collision_frac", "collision"),)),
)
"""Charts of label-free signals: title, then (metric, name of the line). A line without any value is left out, a chart without lines too."""
PAIRS_EACH = 4
EXAMPLE_CHARACTERS = 120
MAX_EVENTS = 24
"""Of more events of the guard, the first and the last half of so many are told."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A problem's completions before and after, with how all of its k were judged. change: gained, lost or empty."""

    example: Example
    after: Example
    change: str
    judged: tuple[ProblemResult, ProblemResult]
    num_samples: int

    @property
    def words(self) -> str:
        """Before: 3 of 16 right, vote wrong (40 % of the votes). After: ..."""
        told = [
            f"{when}: {one.num_right} of {self.num_samples} right, vote {one.vote} ({100 * one.share_frac:.0f} % of the votes)"
            for when, one in zip(("Before", "After"), self.judged, strict=True)
        ]
        return f"{'. '.join(told)}."


@dataclass(frozen=True, slots=True)
class Event:
    """Consecutive verdicts with the same action and rules, in words. examples: (prompt, completion), of the first event and of a halt.

    is_overruled: whether a person overruled the guard after them.
    """

    first: int
    last: int
    action: str
    words: tuple[str, ...]
    examples: tuple[tuple[str, str], ...] = ()
    is_overruled: bool = False

    @property
    def title(self) -> str:
        """roll back; warn, overruled"""
        return f"{self.action.replace('_', ' ')}{', overruled' if self.is_overruled else ''}"


@dataclass(frozen=True, slots=True)
class View:
    """Everything a report shows, in the order of the page."""

    record: RunRecord
    title: str
    status: str
    verdict: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    decides: str
    runs: str
    held_out: str
    outcome: tuple[Row, ...]
    problems: GainedAndLost | None
    pairs: tuple[Pair, ...]
    charts: tuple[Chart, ...]
    last_step: int
    events: tuple[Event, ...]
    contested: tuple[ShownGroup, ...]
    labels: Labels
    timeline: Timeline
    kl_words: str
    cost: Cost
    limits: tuple[str, ...]
    repeat: str
    repetition: str

    @property
    def told_events(self) -> tuple[Event | None, ...]:
        """The events that are told one by one; None stands for those between the first and the last ones of many."""
        half = MAX_EVENTS // 2
        return self.events if len(self.events) <= MAX_EVENTS else (*self.events[:half], None, *self.events[-half:])

    @property
    def num_untold(self) -> int:
        return max(0, len(self.events) - MAX_EVENTS)

    @property
    def guard_words(self) -> str:
        return words.guard_sentence(self.record)

    @property
    def mood(self) -> str:
        """How the verdict is coloured: halt, warn (a finding, a rollback, or avg@k or maj@k lost beyond chance), open (no end yet) or good."""
        if any(event.action == "halt" for event in self.events):
            return "halt"
        lost = any(row.difference is not None and row.difference.high < 0 for row in self.outcome if row.name.startswith(("avg@", "maj@")))
        if self.events or self.record.ledger.branches or lost:
            return "warn"
        return "good" if self.record.end_reason else "open"


def view_of(record: RunRecord) -> View:
    before, after = record.evaluation("before"), record.evaluation("after")
    events = guard_events(record)
    with Database(record.ledger) as database:
        labels, cost = labels_of(database), cost_of(record, database)
    same = before is not None and after is not None and before.prompts_sha256 == after.prompts_sha256
    return View(
        record=record,
        title=record.name,
        status=words.status_words(record),
        verdict=tuple(words.verdict_sentences(record)),
        facts=facts(record),
        decides=words.who_decides(record.header),
        runs=words.what_runs(record.header),
        held_out=words.what_is_held_out(record.header),
        outcome=rows(before, after) if before else (),
        problems=gained_and_lost(before, after) if same and before and after else None,
        pairs=pairs(before, after) if same and before and after else (),
        charts=charts(record, events),
        last_step=max(len(record.steps), 1),
        events=events,
        contested=contested(record.ledger),
        labels=labels,
        timeline=timeline(record, events),
        kl_words=kl_words(record),
        cost=cost,
        limits=limits_of(record),
        repeat=command_line(record.config),
        repetition=words.repetition_words(record),
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
        ("Second turn", second_turn_words(config)),
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


def second_turn_words(config: RunConfig) -> str:
    section = config.correction
    if section.mode == "off":
        return "none"
    seen = {"own": "its own completion", "group": "its own completion and the group's different answers"}[section.mode]
    return f"the policy sees {seen}: {section.num_completions} completions of a group, {section.num_corrections} corrections of each"


def guard_events(record: RunRecord) -> tuple[Event, ...]:
    """The verdicts with findings; consecutive ones of the same kind are one event with the last one's words."""
    events: list[Event] = []
    rules: list[str] = []
    for verdict in record.verdicts:
        if not verdict.findings and verdict.action is Action.CONTINUE:
            continue
        names = [finding.rule for finding in verdict.findings]
        told = tuple(words.finding_words(finding) for finding in verdict.findings)
        shown = examples_of(record, verdict) if not events or verdict.action is Action.HALT else ()
        event = Event(verdict.step, verdict.step, verdict.action.value, told, shown, verdict.step < record.overruled_until)
        if events and events[-1].last == verdict.step - 1 and events[-1].title == event.title and rules == names:
            events[-1] = replace(event, first=events[-1].first, examples=events[-1].examples)
        else:
            events.append(event)
        rules = names
    return tuple(events)


def examples_of(record: RunRecord, verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """(prompt, completion) of the first example of each finding, each once and cut to a line."""
    places = dict.fromkeys(finding.examples[0] for finding in verdict.findings if finding.examples)
    voted = [*(one.voted for one in record.ledger.groups(verdict.step)), *record.ledger.probed(verdict.step)] if places else []
    groups = {one.group.index: one.group for one in voted}
    texts = [(groups[group].prompt.text, groups[group].completions[at].text) for group, at in places]
    return tuple((" ".join(prompt.split())[:EXAMPLE_CHARACTERS], " ".join(text.split())[:EXAMPLE_CHARACTERS]) for prompt, text in texts)


def charts(record: RunRecord, events: Sequence[Event]) -> tuple[Chart, ...]:
    """Accuracy where it was evaluated, then the label-free signals."""
    spans = spans_of(events)
    made = [accuracy_chart(record, spans)] if record.evaluations else []
    for title, lines in CURVES:
        series = tuple(Series(name, curve(record, key)) for key, name in lines if measured(record, key))
        if not series:
            continue
        unit = METRICS[next(key for key, _ in lines if measured(record, key))].unit
        fits = all(0 <= value <= 1 for one in series for _, value in one.points) and all(key.endswith("_frac") for key, _ in lines)
        made.append(Chart(title, "mean over decided groups" if unit == "reward" else unit, series, (0.0, 1.0) if fits else None, spans))
    scores = tuple((float(one.step), one.health.value) for one in record.verdicts if one.health is not None)
    if scores:
        made.append(Chart("Health score of the guard", "1 is well, 0.5 one rule at its limit", (Series("health", scores),), (0.0, 1.0), spans))
    return tuple(made)


def curve(record: RunRecord, key: str) -> tuple[tuple[float, float], ...]:
    return tuple((float(step.step), step.values[key]) for step in record.steps if key in step.values)


def measured(record: RunRecord, key: str) -> bool:
    """Whether a run has values of a metric; KL is measured only where the config puts it into the reward or the loss."""
    wanted = {"reward/kl_penalty_mean_nats": "reward", "update/kl_loss_nats": "loss"}
    return wanted.get(key, record.config.objective.kl_in) == record.config.objective.kl_in and any(key in step.values for step in record.steps)


def kl_words(record: RunRecord) -> str:
    if record.config.objective.kl_in != "none":
        return ""
    how = "--objective.kl-in reward --objective.kl-coef 0 measures it and changes no reward, for a second model in memory"
    said = "measured at probes alone, not at every step" if measured(record, "probe/kl_base_nats") else "not measured"
    return f"The distance to the start (KL) was {said}: objective.kl_in = none ({how})."


def spans_of(events: Sequence[Event]) -> tuple[Span, ...]:
    return tuple(Span(event.first, event.last, event.action, f"{event.title}: {'; '.join(event.words)}") for event in events)


def timeline(record: RunRecord, events: Sequence[Event]) -> Timeline:
    """What the guard said over the steps, with the checkpoints. A checkpoint after step n stands at n + 1."""
    marks = tuple((one.step, f"checkpoint {one.name}" + (", handed over" if one.name == record.handed_over else "")) for one in record.ledger.checkpoints())
    handed = handed_step(record) if record.end_reason is not None else None
    return Timeline(tuple(verdict.step for verdict in record.verdicts), spans_of(events), marks, handed)


def accuracy_chart(record: RunRecord, spans: tuple[Span, ...]) -> Chart:
    """avg, maj and pass@k of every evaluation; `after` stands where its checkpoint was made."""
    evaluations = [(handed_step(record) if one.name == "after" else one.step, one.evaluation) for one in record.evaluations]
    evaluations.sort(key=lambda one: one[0])
    k = evaluations[0][1].num_samples
    series = []
    names = [f"avg@{k}", f"maj@{k}", f"pass@{k}", *([turn2_name(k)] if all(one.again for _, one in evaluations) else [])]
    for name in names:
        found = [(float(step), interval) for step, one in evaluations if (interval := measures(one)[name])]
        series.append(
            Series(name, tuple((step, one.value) for step, one in found), tuple((step, one.low, one.high) for step, one in found)),
        )
    return Chart("Accuracy on held-out problems", "fraction", tuple(series), (0.0, 1.0), spans)


def handed_step(record: RunRecord) -> int:
    """How many steps the model handed over had done."""
    return next((one.step for one in record.ledger.checkpoints() if one.name == record.handed_over), 0)


def pairs(before: Evaluation, after: Evaluation) -> tuple[Pair, ...]:
    """Problems whose completions both evaluations kept: of those that were lost and that were gained the clearest; others where hardly any changed."""
    later = {example.prompt_id: example for example in after.examples}
    changed = gained_and_lost(before, after)
    kinds = {**dict.fromkeys(changed.gained, "gained"), **dict.fromkeys(changed.lost, "lost")}
    judged = {old.prompt_id: (old, new) for old, new in zip(before.results, after.results, strict=True)}
    found = [
        Pair(one, later[one.prompt_id], kinds.get(one.prompt_id, ""), judged[one.prompt_id], before.num_samples)
        for one in before.examples
        if one.prompt_id in later
    ]
    found.sort(key=lambda pair: -abs(pair.judged[1].num_right - pair.judged[0].num_right))
    chosen = [pair for kind in ("lost", "gained") for pair in [pair for pair in found if pair.change == kind][:PAIRS_EACH]]
    return tuple(chosen + [pair for pair in found if not pair.change][: max(0, PAIRS_EACH - len(chosen))])
