"""The loop, in the order in which things happen.

prompts -> rollout -> answers -> vote -> labels -> reward -> advantage -> admission -> guard -> update -> ledger
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from selftrain.config import RunConfig
from selftrain.correction import Correction
from selftrain.extras import Extras, next_index
from selftrain.guard import Guard, winners_of
from selftrain.labels import Labelling
from selftrain.labels.confidence import NEEDS_CERTAINTIES
from selftrain.ledger import LedgerWriter
from selftrain.metrics import measure, with_update
from selftrain.objective import Objective
from selftrain.policies.base import Policy, SamplingParams, UpdateStats
from selftrain.probes import Prober
from selftrain.prompts import Stratum, draw
from selftrain.reading import Reading
from selftrain.rollout import rollout
from selftrain.schedule import learning_rate
from selftrain.scoring import RefLogprobs, Scorer, compile_samples, minibatches
from selftrain.seeds import Stream
from selftrain.types import Action, Group, Role, ScoredGroup, StepMetrics, Verdict, VotedGroup


@dataclass(frozen=True, slots=True)
class Parts:
    """All that the loop works with.

    strata: what the prompts of a step are drawn from.
    read: completions to answers and votes. label: the label source with its bounds. Both may ask for samples beyond the votes; `extras` draws them.
    verify: the groups with what a verifier says of their completions. correction: the second turns that the labels call for; none where it is off.
    probe: what the policy says on prompts that are held aside, from time to time.
    checkpoint: called with the number of steps done after each step that the guard let pass.
    """

    config: RunConfig
    policy: Policy
    strata: Sequence[Stratum]
    read: Reading
    verify: Callable[[Sequence[VotedGroup]], list[VotedGroup]]
    label: Labelling
    correction: Correction
    extras: Extras
    probe: Prober
    scorer: Scorer
    guard: Guard
    ledger: LedgerWriter
    checkpoint: Callable[[int], None]
    seeds: Stream


@dataclass(frozen=True, slots=True)
class StepReport:
    """What happened in a step. scored: its groups. seconds: wall time of each stage. head: the ledger's head after the step."""

    metrics: StepMetrics
    verdict: Verdict
    scored: tuple[ScoredGroup, ...]
    seconds: Mapping[str, float]
    head: str


class StageClock:
    """Wall seconds by stage; `lap(name)` books the time since the last lap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def train(parts: Parts, first_step: int) -> Iterator[StepReport]:
    """Steps first_step .. num_steps - 1, one report each; ends early when the guard halts or rolls back. The caller closes the ledger.

    What is decided is in the ledger before it is done: groups before the verdict, the verdict before the update.
    """
    config, policy, ledger = parts.config, parts.policy, parts.ledger
    params = vote_params(config)
    for step in range(first_step, config.run.num_steps):
        clock = StageClock()
        prompts = draw(parts.strata, step, parts.seeds)
        groups, probing = rollout(policy, prompts, step, config.rollout.num_votes, (params, parts.seeds), parts.probe.requests(step, params))
        groups = parts.extras.sampled(groups, parts.read.requests)
        clock.lap("sample")
        voted = [parts.read(group) for group in groups]
        clock.lap("vote")
        voted = parts.extras.sampled(voted, parts.label.requests)
        clock.lap("sample")
        voted = parts.verify(voted)
        clock.lap("verify")
        labels = parts.label(voted)
        clock.lap("label")
        voted = parts.extras.sampled(voted, partial(parts.correction.requests, labels))
        clock.lap("sample")
        reference = reference_logprobs(parts, all_groups(voted)) if parts.config.objective.kl_in == "reward" else {}
        clock.lap("reference")
        scored = parts.scorer.score(voted, labels, reference, parts.seeds)
        clock.lap("score")
        probed = parts.probe(policy, step, next_index(voted), probing)
        clock.lap("probe")
        ledger.append_groups(step, scored, probed.groups)
        ledger.append_probe(step, probed.values)
        clock.lap("ledger")
        signals = parts.guard.compared(measure(step, policy.version, scored, probed.values), winners_of(scored))
        clock.lap("metrics")
        verdict = parts.guard.judge(signals, scored, probed.telling)
        ledger.append_verdict(verdict)
        clock.lap("guard")
        stops = verdict.action in (Action.HALT, Action.ROLL_BACK)
        in_loss = reference_logprobs(parts, trained_parts(scored)) if parts.config.objective.kl_in == "loss" and not stops else {}
        clock.lap("reference")
        updates = [] if stops else update(parts, scored, in_loss, step)
        clock.lap("update")
        metrics = with_update(signals, policy.version, updates)
        parts.guard.learned(metrics)
        clock.lap("metrics")
        ledger.append_step(metrics, {str(index): asdict(one) for index, one in enumerate(updates)})
        clock.lap("ledger")
        if not stops:
            parts.checkpoint(step + 1)
        clock.lap("checkpoint")
        yield StepReport(metrics, verdict, tuple(scored), clock.seconds, ledger.head)
        if stops:
            return


def vote_params(config: RunConfig) -> SamplingParams:
    """How the completions that vote are drawn, and which statistics of their tokens the label source needs."""
    certainties = any(name in NEEDS_CERTAINTIES for _, name in config.label_sources)
    return SamplingParams(config.rollout.max_new_tokens, config.rollout.temperature, stop=config.rollout.stop, certainties=certainties)


def all_groups(voted: Sequence[VotedGroup]) -> list[tuple[Group, Sequence[int]]]:
    """All that may be trained on: a KL in the reward says what will be."""
    groups = (group for one in voted for group in (one.group, *(extra.group for extra in one.group.extras_of(Role.CORRECTION))))
    return [(group, range(len(group.completions))) for group in groups]


def trained_parts(scored: Sequence[ScoredGroup]) -> list[tuple[Group, Sequence[int]]]:
    """What is trained on, corrections too: groups with the places of their trained completions."""
    return [(one.voted.group, one.trained) for voting in scored for one in (voting, *voting.corrections) if one.trained]


def reference_logprobs(parts: Parts, chosen: Sequence[tuple[Group, Sequence[int]]]) -> RefLogprobs:
    """Log-probabilities of the chosen completions of each group under the frozen start, by group index; () in the places of the others."""
    asked = [replace(group, completions=tuple(group.completions[at] for at in places)) for group, places in chosen]
    values = parts.policy.reference_logprobs(asked, parts.config.rollout.temperature) if asked else []
    found: dict[int, list[tuple[float, ...]]] = {}
    for (group, places), of_group in zip(chosen, values, strict=True):
        found[group.index] = [()] * len(group.completions)
        for at, value in zip(places, of_group, strict=True):
            found[group.index][at] = value
    return found


def update(parts: Parts, scored: Sequence[ScoredGroup], in_loss: RefLogprobs, step: int) -> list[UpdateStats]:
    """The optimizer steps of one step: `num_epochs` passes over `num_minibatches` parts of the admitted groups; none when nothing was admitted,
    or when all of its tokens are masked. in_loss: of what is trained, where KL is in the loss, else empty.
    """
    config = parts.config
    rate = learning_rate(config.update, step, config.run.num_steps)
    objective = objective_of(config)
    stats = []
    for _ in range(config.update.num_epochs):
        for part in minibatches(scored, config.update.num_minibatches):
            section = config.objective
            samples = compile_samples(part, in_loss, section.length_norm, config.rollout.max_new_tokens, section.mask_answer)
            if samples:
                stats.append(parts.policy.update(samples, objective, rate))
    return stats


def objective_of(config: RunConfig) -> Objective:
    section = config.objective
    return Objective(
        name=section.name,
        clip_low=section.clip_low_frac,
        clip_high=section.clip_high_frac,
        kl_coef=section.kl_coef if section.kl_in == "loss" else 0.0,
        kl_estimator=section.kl_estimator,
        temperature=config.rollout.temperature,
        weight_max=config.vllm.weight_max if config.policy.sampler == "vllm" else math.inf,
    )
