"""Samples of the start -> numbers that need no true answer: how the votes look, what the config's labels would teach, and how far a run would move.

Every number has its name, unit and meaning in EVIDENCE; None means that it cannot be had here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from selftrain.calibration.sampling import Probe, Sampled
from selftrain.config import RunConfig
from selftrain.types import AnswerKey, ScoredGroup
from selftrain.vote import count

BAND = (0.3, 0.8)
"""vote shares from which there is something to learn: R-Zero's (arXiv 2508.05004)"""
FEW = 4
"""votes of a small vote, whose winner is compared with that of all"""
NO_GREEDY, NO_VIEW = "clusters of two groups are not compared", "these prompts have no second wording"
FOLLOWS: Mapping[str, float] = {"frozen": 0.0, "stored": 0.0, "reference": 0.0, "verifier": 0.0, "format_only": 0.0, "random": 0.0, "ema": 0.25}
"""How much of a source's label moves with the policy: 0 where it is fixed or comes from outside, 1 (all others) where the policy of the step decides, and
between them the moving average, which follows late."""
WHO: Mapping[str, float] = {"current": 1.0, "ema": 0.25, "base": 0.0}
"""The same by the policy that votes or judges."""


@dataclass(frozen=True, slots=True)
class Measure:
    unit: str
    meaning: str


EVIDENCE: Mapping[str, Measure] = {
    "share_mean_frac": Measure("fraction", "mean vote share of the winner"),
    "share_sd_frac": Measure("fraction", "standard deviation of it over prompts"),
    "margin_mean_frac": Measure("fraction", "mean distance to the runner-up"),
    "read_frac": Measure("fraction", "completions with a readable answer"),
    "band_frac": Measure("fraction", f"prompts with a share from {BAND[0]} to {BAND[1]}, the learnable band"),
    "halves_frac": Measure("fraction", "prompts on which the even and the odd votes have the same single winner"),
    "few_frac": Measure("fraction", f"chance that {FEW} of the votes have the winner of all; near 1, more votes change nothing"),
    "greedy_frac": Measure("fraction", "prompts with a winner whose greedy answer is that winner"),
    "view_frac": Measure("fraction", "prompts with a winner that wins under the second wording as well"),
    "answers_nats": Measure("nats", "mean entropy of a prompt's answers"),
    "entropy_nats": Measure("nats", "mean entropy of a token where the sampler tells it, else minus its mean log-probability"),
    "length_tokens": Measure("tokens", "mean length of a completion"),
    "collision_frac": Measure("fraction", "prompts whose winner is the most common winner, of those with one"),
    "short_corr": Measure(
        "correlation", "length and agreement with the winner, within prompts; below 0 shorter completions win: the hack of docs/labels.md begins so"
    ),
    "trains_frac": Measure("fraction", "prompts whose label is decided by the config's source and whose rewards differ"),
    "label_share_frac": Measure("fraction", "on these, mean share of the votes for the label"),
    "truth_frac": Measure("fraction", "part of these labels that the truth touched: 0 in a label-free run"),
    "keyless_frac": Measure("fraction", "part of these labels that name no answer and give the rewards themselves"),
    "vote_corr": Measure("correlation", "on those, advantage and agreement with the winner: 1 rewards the vote, below 0 what differs from it"),
    "push_corr": Measure("correlation", "on these, length and advantage: what the first update does to the length"),
    "follows_frac": Measure("fraction", "part of these labels that moves with the policy: 0 fixed or from outside, 0.25 averaged teacher, 1 the policy's own"),
    "drift_nats": Measure("nats", "mean |change of a token's log-probability| by one update at the config's rate, tried out and thrown away"),
    "travel_nats": Measure("nats", "drift times the run's updates: how far it would go if all pulled one way"),
}

Evidence = Mapping[str, float | None]


def evidence_of(config: RunConfig, sampled: Sampled) -> Evidence:
    """The values of EVIDENCE, all keys there. Needs at least one prompt."""
    probes = sampled.probes
    found = {**vote_evidence(probes), **completion_evidence(probes), **label_evidence(config, probes)}
    updates = config.run.num_steps * config.update.num_epochs * config.update.num_minibatches
    found["drift_nats"] = sampled.drift_nats
    found["travel_nats"] = None if sampled.drift_nats is None else sampled.drift_nats * updates
    assert list(found) == list(EVIDENCE)
    return found


def vote_evidence(probes: Sequence[Probe]) -> dict[str, float | None]:
    shares = [one.vote.share_frac for one in probes]
    return {
        "share_mean_frac": fmean(shares),
        "share_sd_frac": pstdev(shares),
        "margin_mean_frac": fmean(one.vote.margin_frac for one in probes),
        "read_frac": sum(one.vote.num_read for one in probes) / sum(one.vote.num_votes for one in probes),
        "band_frac": fmean(BAND[0] <= share <= BAND[1] for share in shares),
        "halves_frac": fmean(halves_agree(one.keys) for one in probes),
        "few_frac": few_frac(probes),
        "greedy_frac": agreement([(one, one.greedy.winners) for one in probes if one.greedy is not None]),
        "view_frac": agreement([(one, one.view.winners) for one in probes if one.view is not None]),
        "answers_nats": fmean(entropy([votes for _, votes in one.vote.counts]) for one in probes),
    }


def completion_evidence(probes: Sequence[Probe]) -> dict[str, float | None]:
    completions = [done for one in probes for done in one.scored.voted.group.completions]
    entropies = [value for done in completions for value in done.entropies]
    logprobs = [value for done in completions for value in done.logprobs]
    winners = Counter(one.winner for one in probes if one.winner is not None)
    return {
        "entropy_nats": fmean(entropies) if entropies else -fmean(logprobs) if logprobs else None,
        "length_tokens": fmean(len(done.token_ids) for done in completions),
        "collision_frac": max(winners.values()) / winners.total() if winners else None,
        "short_corr": within([(lengths(one.scored), agreeing(one)) for one in probes if one.winner is not None]),
    }


def label_evidence(config: RunConfig, probes: Sequence[Probe]) -> dict[str, float | None]:
    """What the config's label source would train on."""
    training = [one for one in probes if one.trains]
    keyless = [one for one in training if not any(one.scored.label.targets)]
    labelled = [(one, key) for one in training if (key := one.scored.label.key) is not None]
    return {
        "trains_frac": len(training) / len(probes),
        "label_share_frac": fmean(one.vote.count_of(key) / one.vote.num_votes for one, key in labelled) if labelled else None,
        "truth_frac": fmean(one.scored.label.uses_truth for one in training) if training else None,
        "keyless_frac": len(keyless) / len(training) if training else None,
        "vote_corr": within([(one.scored.advantages, agreeing(one)) for one in keyless if one.winner is not None]),
        "push_corr": within([(lengths(one.scored), one.scored.advantages) for one in training]),
        "follows_frac": fmean(follows(one.scored.label.decided_by, one.scored.label.source, config) for one in training) if training else None,
    }


def follows(decided_by: str, source: str, config: RunConfig) -> float:
    """How much the label moves with the policy. decided_by: of a mixture those it names count, by their weights, as in the reward."""
    known = {**FOLLOWS, "views": WHO[config.views.voter], "self_judge": WHO[config.self_judge.policy]}
    if source != "mixture":
        return known.get(source, 1.0)
    names = decided_by.removeprefix("mixture of ").split(", ")
    weights = [config.mixture.weights[name] for name in names]
    return fmean([known.get(name, 1.0) for name in names], weights)


def halves_agree(keys: Sequence[AnswerKey | None]) -> bool:
    """Whether the even and the odd votes have the same single winner."""
    even, odd = (count(keys[start::2]).winners for start in (0, 1))
    return len(even) == 1 and even == odd


def few_frac(probes: Sequence[Probe]) -> float | None:
    """The votes are cut into parts of FEW: the share of the parts of prompts with a winner whose single winner is that one."""
    parts = [(one.winner, one.keys[at : at + FEW]) for one in probes if one.winner is not None for at in range(0, len(one.keys) - FEW + 1, FEW)]
    return fmean(count(keys).winners == (winner,) for winner, keys in parts) if parts else None


def agreement(pairs: Sequence[tuple[Probe, tuple[AnswerKey, ...]]]) -> float | None:
    """Share of the prompts with a winner on which the others say the same."""
    found = [winners == (one.winner,) for one, winners in pairs if one.winner is not None]
    return fmean(found) if found else None


def entropy(votes: Sequence[int]) -> float:
    """Of the shares of these counts, in nats; 0 without any."""
    total = sum(votes)
    return -sum(one / total * math.log(one / total) for one in votes) if total else 0.0


def agreeing(one: Probe) -> list[float]:
    """1 for each completion with the winner's answer, 0 for the others."""
    return [float(key == one.winner) for key in one.keys]


def lengths(one: ScoredGroup) -> list[float]:
    return [float(len(done.token_ids)) for done in one.voted.group.completions]


def within(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """Correlation of two columns after each group's own means are taken away; None where one of them never varies."""
    centred: Callable[[Sequence[float]], list[float]] = lambda values: [value - fmean(values) for value in values]  # noqa: E731
    pairs = [pair for first, second in groups for pair in zip(centred(first), centred(second), strict=True)]
    top = math.fsum(x * y for x, y in pairs)
    below = math.fsum(x * x for x, _ in pairs) * math.fsum(y * y for _, y in pairs)
    return top / math.sqrt(below) if below > 0 else None
