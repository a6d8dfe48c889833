"""Where the time of a training step goes: the share of each stage, tokens a second, memory, and the distance to the arithmetic floor.

The steps are those of a run with the same options, without evaluations; a checkpoint is written at every step, and a probe and a glance made in turn, and all
are counted at the config's distances.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import fmean
from typing import Any

from selftrain.config import RunConfig
from selftrain.guard.doubts import is_probed
from selftrain.ledger.objects import Place
from selftrain.policies.base import Policy
from selftrain.probes.probing import glance_every
from selftrain.run import start
from selftrain.train import StepReport, train
from selftrain.types import Action, ScoredGroup

STAGES = ("sample", "vote", "verify", "label", "reference", "score", "probe", "ledger", "metrics", "guard", "update", "checkpoint", "display")
LEARNING = ("sample", "reference", "update")
"""stages that do what the step is for; all others together are its overhead"""
OPERATIONS_SAMPLED, OPERATIONS_TRAINED = 2, 6
"""per weight and token: a product and a sum forward; twice as many again backward"""


@dataclass(frozen=True, slots=True)
class Floor:
    """The least seconds of a step: its operations at the machine's matrix rate. weights: that take part in products. rate: operations a second."""

    weights: int
    rate: float
    sample_s: float
    update_s: float

    @property
    def step_s(self) -> float:
        return self.sample_s + self.update_s


@dataclass(frozen=True, slots=True)
class Profile:
    """Means over the measured steps. seconds: by stage. parts: seconds inside `sample`, where the sampler tells them, and of decoding the text once more,
    which the sampler does beside the decode steps.

    prompt_tokens: of distinct prompts. gap_nats: mean distance between the learner's and the sampler's log-probabilities, None without an update.
    memory: bytes by kind. floor: None for a policy without matrices. folder: the run folder where it was kept.
    """

    num_steps: int
    seconds: Mapping[str, float]
    parts: Mapping[str, float]
    prompt_tokens: float
    sampled_tokens: float
    trained_tokens: float
    gap_nats: float | None
    memory: Mapping[str, int]
    floor: Floor | None
    folder: Place | None

    @property
    def step_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def overhead_frac(self) -> float:
        """Share of everything beside sampling, scoring and updating."""
        return 1 - sum(self.seconds.get(stage, 0.0) for stage in LEARNING) / self.step_s

    def to_json(self) -> dict[str, Any]:
        floor = self.floor
        update_s = self.seconds["update"]
        return {
            "num_steps": self.num_steps,
            "step_s": self.step_s,
            "stages_s": dict(self.seconds),
            "shares_frac": {stage: seconds / self.step_s for stage, seconds in self.seconds.items()},
            "sample_parts_s": dict(self.parts),
            "overhead_frac": self.overhead_frac,
            "tokens": {"prompt": self.prompt_tokens, "sampled": self.sampled_tokens, "trained": self.trained_tokens},
            "sampled_tokens_per_s": self.sampled_tokens / self.seconds["sample"],
            "trained_tokens_per_s": self.trained_tokens / update_s if self.trained_tokens else 0.0,
            "logprob_gap_nats": self.gap_nats,
            "memory": dict(self.memory),
            "floor": None
            if floor is None
            else {
                "weights": floor.weights,
                "operations_per_s": floor.rate,
                "sample_s": floor.sample_s,
                "update_s": floor.update_s,
                "step_s": floor.step_s,
                "step_over_floor_ratio": self.step_s / floor.step_s,
            },
            "folder": None if self.folder is None else str(self.folder),
        }


def profile(config: RunConfig, num_steps: int, num_warmup: int, show: Callable[[StepReport], None], keep: bool = False) -> Profile:
    """Run `num_warmup` steps and then measure `num_steps`. show: the display whose time is counted. Without `keep` the run folder is removed.

    A guard that halts ends the measurement early. Raises what `start` raises.
    """
    distance = config.run.checkpoint_every_steps
    parent = config.run.folder if keep else tempfile.mkdtemp(prefix="selftrain-profile-")
    run_section = {"folder": parent, "num_steps": num_warmup + num_steps, "checkpoint_every_steps": 1}
    try:
        probes = config.probes.model_copy(update={"every_steps": min(4, num_steps, config.probes.every_steps)})
        update = config.update.model_copy(update={"schedule": "constant"})  # so few steps would not see it fall
        run = start(config.model_copy(update={"run": config.run.model_copy(update=run_section), "probes": probes, "update": update}))
        measured, displays, decodes = [], [], []
        for report in train(run.parts(), 0):
            run.ledger.record_timing({"step": report.metrics.step, "seconds": dict(report.seconds)})
            begun = time.perf_counter()
            show(report)
            displays.append(time.perf_counter() - begun)
            decodes.append(text_seconds(run.policy, report.scored))
            measured.append((report, sampler_parts(run.policy)))
            if report.verdict.action is Action.HALT:
                break
        run.ledger.close()
        skipped = min(num_warmup, len(measured) - 1)
        return summary(config, run.policy, measured[skipped:], (displays[skipped:], decodes[skipped:], distance), run.folder if keep else None)
    finally:
        if not keep:
            shutil.rmtree(parent, ignore_errors=True)


class Look(Enum):
    """What a step asks or looks at for the guard."""

    PROBE = "probe"
    SUPPORT = "support"
    OTHER = "a glance, or nothing"


def look_of(report: StepReport) -> Look:
    values = report.metrics.values
    if "cost/probe_tokens" not in values:
        return Look.OTHER
    return Look.PROBE if is_probed(values) else Look.SUPPORT


def is_beside(report: StepReport) -> bool:
    """Whether what is asked was drawn in the call of the votes: not where a glance called for it, nor where votes carry certainties."""
    certain = "policy/certainty_mean_nats" in report.metrics.values
    return look_of(report) is not Look.OTHER and "glance/fallen_frac" not in report.metrics.values and not certain


def sampling_seconds(reports: Sequence[StepReport]) -> float:
    """A step's sampling where nothing is drawn beside the votes; of all steps where that never happens."""
    apart = [report.seconds.get("sample", 0.0) for report in reports if not is_beside(report)]
    return fmean(apart or [report.seconds.get("sample", 0.0) for report in reports])


def look_seconds(reports: Sequence[StepReport], look: Look) -> float:
    """One such step's: of the stage itself, and what sampling takes longer where it is drawn in the call of the votes. 0 where there is none."""
    own = [report for report in reports if look_of(report) is look]
    plain = sampling_seconds(reports)
    longer = [report.seconds.get("sample", 0.0) - plain for report in own if is_beside(report)]
    return max(0.0, fmean(report.seconds.get("probe", 0.0) for report in own) + (fmean(longer) if longer else 0.0)) if own else 0.0


def probe_seconds(reports: Sequence[StepReport], config: RunConfig) -> float:
    """A step, at the config's distances of probes and glances, and with two questions for the support a run; what a glance calls for is not among it."""
    every = config.probes.every_steps
    share = (-(-every // glance_every(every)) - 1) / every
    costs = {look: look_seconds(reports, look) for look in Look}
    return costs[Look.PROBE] / every + costs[Look.OTHER] * share + costs[Look.SUPPORT] * 2 / config.run.num_steps


def summary(
    config: RunConfig,
    policy: Policy,
    measured: Sequence[tuple[StepReport, Mapping[str, float]]],
    around: tuple[Sequence[float], Sequence[float], int],
    folder: Place | None,
) -> Profile:
    """The means of the measured steps. around: seconds of the display, seconds of decoding text, distance of checkpoints."""
    displays, decodes, distance = around
    reports = [report for report, _ in measured]
    seconds = {stage: fmean([report.seconds.get(stage, 0.0) for report in reports]) for stage in STAGES}
    seconds["checkpoint"] /= distance
    seconds["sample"], seconds["probe"] = sampling_seconds(reports), probe_seconds(reports, config)
    seconds["display"] = fmean(displays)
    names = dict.fromkeys(name for _, parts in measured for name in parts)
    parts = {name: fmean([parts.get(name, 0.0) for _, parts in measured]) for name in names}
    parts.setdefault("text", fmean(decodes))
    gaps = [gap for report in reports if (gap := report.metrics.values.get("update/logprob_gap_nats")) is not None]
    counts = [token_counts(report.scored) for report in reports]
    prompt, sampled, trained, trained_prompt = (fmean([count[at] for count in counts]) for at in range(4))
    passes = config.update.num_epochs
    memory, floor = machine(policy, config.policy.compute_dtype, prompt + sampled, passes * (trained + trained_prompt))
    return Profile(len(reports), seconds, parts, prompt, sampled, passes * trained, fmean(gaps) if gaps else None, memory, floor, folder)


def token_counts(scored: Sequence[ScoredGroup]) -> tuple[int, int, int, int]:
    """Tokens of distinct prompts, of completions (extras included), of trained completions, and of the prompts of trained groups (once a group)."""
    groups = [group for one in scored for group in (one.voted.group, *(extra.group for extra in one.voted.group.extras))]
    prompts = {group.prompt_ids for group in groups}
    sampled = sum(len(done.token_ids) for group in groups for done in group.completions)
    learned = [one for voting in scored for one in (voting, *voting.corrections) if one.trained]
    trained = sum(len(one.voted.group.completions[at].token_ids) for one in learned for at in one.trained)
    return sum(map(len, prompts)), sampled, trained, sum(len(one.voted.group.prompt_ids) for one in learned)


def sampler_parts(policy: Any) -> dict[str, float]:
    """Seconds of the parts of the last sampling (prefill, decode, draw, text), where the sampler keeps them as `seconds`."""
    return dict(getattr(getattr(policy, "sampler", None), "seconds", {}))


def text_seconds(policy: Any, scored: Sequence[ScoredGroup]) -> float:
    """Seconds to decode the step's completions once more; 0 for a policy without tokenizer."""
    if getattr(policy, "tokenizer", None) is None:
        return 0.0
    text = policy.sampler.text
    begun = time.perf_counter()
    for one in scored:
        for done in one.voted.group.completions:
            text.decode_with_ends(done.token_ids)
    return time.perf_counter() - begun


def machine(policy: Any, dtype: str, sampled_tokens: float, trained_tokens: float) -> tuple[dict[str, int], Floor | None]:
    """Peak memory and the floor. sampled_tokens and trained_tokens with their prompts, counted once."""
    learner = getattr(policy, "learner", policy)
    forward = getattr(policy, "forward", getattr(learner, "forward", None))
    if forward is None:
        return {}, None
    from selftrain.policies.torch.hardware import matrix_rate, multiplied_weights, peak_memory

    memory = peak_memory(forward.device)
    weights, rate = multiplied_weights(forward.model), matrix_rate(forward.device, dtype)
    return memory, Floor(weights, rate, OPERATIONS_SAMPLED * weights * sampled_tokens / rate, OPERATIONS_TRAINED * weights * trained_tokens / rate)
