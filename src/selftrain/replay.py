"""Recorded completions -> every decision again: keys, votes, labels, rewards, advantages, admission, verdicts, compared with the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selftrain import remedies
from selftrain.admission import admit
from selftrain.compose import VERIFIER, check_answers, code_key, load_sets, make_labelling, make_reading, make_scorer, outside_functions, role_readers
from selftrain.compose_correction import make_correction
from selftrain.compose_labels import uses_reference
from selftrain.compose_stored import check_recorded
from selftrain.config import RunConfig
from selftrain.control import OVERRULE
from selftrain.correction import Correction, correction_label
from selftrain.extension import source_hash
from selftrain.guard import Guard, winners_of
from selftrain.guard.examples import TOLD
from selftrain.labels import Labelling
from selftrain.ledger import Ledger, ReplayReport, verify_replay
from selftrain.ledger.records import request_from, step_from, verdict_from
from selftrain.metrics import measure
from selftrain.reading import Reading
from selftrain.replay_probes import probe_values, probes_that_differ
from selftrain.reward import rewards_of
from selftrain.run_folder import relocated
from selftrain.types import AnswerSheet, Label, PromptSet, ScoredGroup, Verdict
from selftrain.vote import count


@dataclass(frozen=True, slots=True)
class Replay:
    """groups: what was recomputed of the groups. verdicts, probes: steps whose recorded verdict or probe does not follow from the recorded groups."""

    groups: ReplayReport
    num_verdicts: int
    verdicts: tuple[int, ...]
    num_probes: int
    probes: tuple[int, ...]

    @property
    def agrees(self) -> bool:
        return not self.groups.num_mismatches and not self.verdicts and not self.probes


def replay(ledger: Ledger, config: RunConfig) -> Replay:
    """Recompute what follows from the completions. Prompts are loaded again only where true answers or stored labels decided."""
    found = verify_replay(ledger, recomputations(ledger, config))
    judged = [(verdict, again) for verdict, again in judgements(ledger, config)]
    num_probes, probes = probes_that_differ(ledger, config)
    return Replay(found, len(judged), tuple(verdict.step for verdict, again in judged if replayed(again) != replayed(verdict)), num_probes, probes)


def replayed(verdict: Verdict) -> Verdict:
    """A verdict but for what an example of a probe's finding is, which does not follow from what is replayed here."""
    return replace(verdict, findings=tuple(replace(one, examples=()) if one.rule in TOLD else one for one in verdict.findings))


def changed_functions(ledger: Ledger, config: RunConfig) -> list[str]:
    """The functions of the user's that have another source than in the run, `option = package.module:function`.

    A verifier is not asked again: what it said is in the record.
    """
    recorded, found = ledger.header["outside_code"], []
    for option, name in outside_functions(config):
        key = code_key(option, name)
        if option != VERIFIER and key in recorded and source_hash(name, {}) != recorded[key]:
            found.append(f"{option} = {name}" if key == option else key)
    return found


def judgements(ledger: Ledger, config: RunConfig) -> Iterator[tuple[Verdict, Verdict]]:
    """(recorded, recomputed) for each verdict, in order. After a rollback the guard goes on with what it knew at that place, overruled if it was."""
    places = {(one.parent, one.step) for one in ledger.branches}
    guard, probed = Guard(config.guard, config.rollback), probe_values(ledger)
    known = {place: deepcopy(guard.state()) for place in places if place[1] == 0}
    for entry in ledger.entries:
        if entry.kind == "branch":
            record = ledger.branches[entry.branch - 1]
            guard = Guard(config.guard, config.rollback, remedies.by_guard(ledger.branches[: record.branch]))
            guard.load(deepcopy(known[record.parent, record.step]))
            if remedies.changes_signals(ledger.branches, record):
                guard.start_over()
            if (record.branch, record.step) in places:
                known[record.branch, record.step] = deepcopy(guard.state())
        if entry.kind == "request":
            request = request_from(ledger.line(entry).body)
            if request.action == OVERRULE and not request.refused:
                guard.overrule()
                if (entry.branch, request.step) in places:
                    known[entry.branch, request.step] = deepcopy(guard.state())
        if entry.kind == "verdict":
            verdict = verdict_from(ledger.line(entry).body)
            scored = ledger.groups(verdict.step, entry.branch)
            signals = measure(verdict.step, scored[0].voted.group.completions[0].version, scored, probed.get((entry.branch, verdict.step)))
            yield verdict, guard.judge(guard.compared(signals, winners_of(scored)), scored)
        if entry.kind == "step":
            guard.learned(step_from(ledger.line(entry).body, entry.hash).metrics)
            if (entry.branch, int(entry.step or 0) + 1) in places:
                known[entry.branch, int(entry.step or 0) + 1] = deepcopy(guard.state())


class StepLabels:
    """The labels of a recorded step, made as in training: from all its groups at once, by index.

    Steps are asked for in the order in which they were recorded: a source may remember, and after a rollback it goes on with what it knew at that place.
    labelling_of: the name of the label source of a branch, and it.
    """

    def __init__(self, ledger: Ledger, reading: Reading, labelling_of: Callable[[int], tuple[str, Labelling]], correction: Correction) -> None:
        self._ledger, self._reading, self._labelling_of, self._correction = ledger, reading, labelling_of, correction
        self._source, self._labelling = labelling_of(0)
        self._place: tuple[int, int] | None = None
        self._returns = {(one.parent, one.step) for one in ledger.branches}
        self._known = {(0, 0): (self._source, self._labelling.state())}
        self._labels: dict[int, Label | None] = {}
        self._missing: Counter[int] = Counter()

    def label(self, scored: ScoredGroup) -> Label | None:
        """The label of a recorded group; None in a step whose record misses samples that the source asks for."""
        self._load(scored)
        return self._labels[scored.voted.group.index]

    def num_missing(self, scored: ScoredGroup) -> int:
        """How many samples the reading, the label source or the second turn asks for that are not in the record."""
        self._load(scored)
        return self._missing[scored.voted.group.index]

    def _load(self, scored: ScoredGroup) -> None:
        group = scored.voted.group
        place = (group.completions[0].version.branch, group.step)
        if place == self._place:
            return
        if place[0] != (self._place or (0, 0))[0]:
            self._begin(place[0])
        voted = [one.voted for one in self._ledger.groups(group.step, place[0])]
        asked = self._labelling.requests(voted)
        made = [] if asked else self._labelling(voted)
        labels: Sequence[Label | None] = made or [None] * len(voted)
        asked += self._correction.requests(made, voted) if made else []
        self._labels = {one.group.index: label for one, label in zip(voted, labels, strict=True)}
        self._missing = Counter(one.serves for one in [*self._reading.requests([one.group for one in voted]), *asked])
        self._place = place
        if (place[0], place[1] + 1) in self._returns:
            self._known[place[0], place[1] + 1] = (self._source, self._labelling.state())

    def _begin(self, branch: int) -> None:
        """The label source of a branch; one that a remedy has put in another's place has nothing to remember."""
        source, state = self._known_at(branch)
        self._source, self._labelling = self._labelling_of(branch)
        if source == self._source:
            self._labelling.load(state)

    def _known_at(self, branch: int) -> tuple[str, Mapping[str, Any]]:
        """What the source knew where a branch begins; the branch it comes from may have no step of its own."""
        record = self._ledger.branches[branch - 1]
        place = (record.parent, record.step)
        return self._known[place] if place in self._known else self._known_at(record.parent)


def recomputations(ledger: Ledger, config: RunConfig) -> Mapping[str, Callable[[ScoredGroup], Any]]:
    """What each recorded value should be, from the recorded ones before it."""
    home = Path(ledger.environment["cwd"])
    config = relocated(config, home)
    needs_prompts = uses_reference(config) or config.uses_stored
    prompts = load_sets(config).train if needs_prompts else PromptSet((), AnswerSheet({}), "the record")
    if uses_reference(config):
        check_answers(prompts, ledger.header)
    check_recorded(config, prompts, ledger.header)
    reading, scorer = make_reading(config, {}), make_scorer(config)

    def labelling_of(branch: int) -> tuple[str, Labelling]:
        own = remedies.branch_config(config, ledger.branches[:branch])
        return own.labels.source, make_labelling(own, prompts)

    readers, labels = role_readers(reading), StepLabels(ledger, reading, labelling_of, make_correction(config))

    def shaped(scored: ScoredGroup) -> tuple[float, ...]:
        if scorer.kl_coef is None or not scored.kl_penalties:
            return scored.rewards.values
        return tuple(reward - scorer.kl_coef * penalty for reward, penalty in zip(scored.rewards.values, scored.kl_penalties, strict=True))

    def again(one: ScoredGroup, label: Label) -> ScoredGroup:
        """A correction with everything that follows from its answers and the label of the group that it serves."""
        decided = replace(one, label=label, rewards=rewards_of(one.voted, label, scorer.rule_of(one.voted.group)))
        decided = replace(decided, shaped_rewards=shaped(decided))
        return replace(decided, advantages=scorer.advantages(label, decided.shaped_rewards), admission=admit(label, decided.shaped_rewards))

    return {
        "extras": lambda scored: tuple(readers[extra.group.role](extra.group) for extra in scored.voted.group.extras),
        "missing_extras": labels.num_missing,
        "answers": lambda scored: reading(scored.voted.group).answers,
        "vote": lambda scored: count(scored.voted.answers.keys),
        "label": labels.label,
        "rewards": lambda scored: rewards_of(scored.voted, scored.label, scorer.reward),
        "shaped_rewards": shaped,
        "advantages": lambda scored: scorer.advantages(scored.label, scored.shaped_rewards),
        "admission": lambda scored: admit(scored.label, scored.shaped_rewards),
        "corrections": lambda scored: tuple(again(one, correction_label(scored.voted.group, scored.label, one.voted.group)) for one in scored.corrections),
    }
