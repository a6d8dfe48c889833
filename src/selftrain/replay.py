"""Recorded completions -> every decision again: keys, votes, labels, rewards, advantages, admission, verdicts, compared with the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.admission import admit
from selftrain.answers.freeform import reader
from selftrain.compose import label_source, load_sets, make_scorer
from selftrain.config import RunConfig
from selftrain.guard import Guard
from selftrain.ledger import Ledger, ReplayReport, verify_replay
from selftrain.metrics import measure
from selftrain.reward import rewards_of
from selftrain.rollout import read_and_count
from selftrain.run import relocated
from selftrain.types import AnswerSheet, Label, ScoredGroup, VotedGroup
from selftrain.vote import count


@dataclass(frozen=True, slots=True)
class Replay:
    """groups: what was recomputed of the groups. verdicts: steps whose recorded verdict does not follow from the recorded groups."""

    groups: ReplayReport
    num_verdicts: int
    verdicts: tuple[int, ...]

    @property
    def agrees(self) -> bool:
        return not self.groups.num_mismatches and not self.verdicts


def replay(ledger: Ledger, config: RunConfig) -> Replay:
    """Recompute what follows from the completions. Prompts are loaded again only where true answers decided the labels."""
    found = verify_replay(ledger, recomputations(ledger, config))
    guard, wrong, judged = Guard(config.guard), [], 0
    for verdict in ledger.verdicts():
        scored = ledger.groups(verdict.step)
        again = guard.judge(measure(verdict.step, scored[0].voted.group.completions[0].version, scored))
        judged += 1
        if again != verdict:
            wrong.append(verdict.step)
    return Replay(found, judged, tuple(wrong))


class StepLabels:
    """The labels of a recorded step, made as in training: from all its groups at once, by index."""

    def __init__(self, ledger: Ledger, label: Callable[[Sequence[VotedGroup]], list[Label]]) -> None:
        self._ledger, self._label = ledger, label
        self._step: int | None = None
        self._labels: dict[int, Label] = {}

    def __call__(self, scored: ScoredGroup) -> Label:
        group = scored.voted.group
        if group.step != self._step:
            voted = [one.voted for one in self._ledger.groups(group.step)]
            self._labels = {one.group.index: label for one, label in zip(voted, self._label(voted), strict=True)}
            self._step = group.step
        return self._labels[group.index]


def recomputations(ledger: Ledger, config: RunConfig) -> Mapping[str, Callable[[ScoredGroup], Any]]:
    """What each recorded value should be, from the recorded ones before it."""
    home = Path(ledger.environment["cwd"])
    sheet = load_sets(relocated(config, home)).train.sheet if config.labels.source == "reference" else AnswerSheet({})
    label, scorer, read = label_source(config, sheet), make_scorer(config), reader(config.labels.clustering)

    def shaped(scored: ScoredGroup) -> tuple[float, ...]:
        if not scored.kl_penalties:
            return scored.rewards.values
        return tuple(reward - scorer.kl_coef * penalty for reward, penalty in zip(scored.rewards.values, scored.kl_penalties, strict=True))

    return {
        "answers": lambda scored: read_and_count(scored.voted.group, read).answers,
        "vote": lambda scored: count(scored.voted.answers.keys),
        "label": StepLabels(ledger, label),
        "rewards": lambda scored: rewards_of(scored.voted, scored.label, scorer.reward),
        "shaped_rewards": shaped,
        "advantages": lambda scored: scorer.advantage(scored.shaped_rewards) if scored.label.is_decided else (),
        "admission": lambda scored: admit(scored.label, scored.shaped_rewards),
    }
