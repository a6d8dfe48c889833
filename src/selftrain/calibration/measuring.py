"""A config -> how trustworthy its proxy is on its start and its prompts: evidence without labels, a forecast, and beside them the truth where it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from selftrain.calibration.evidence import Evidence, evidence_of
from selftrain.calibration.forecast import Forecast, forecast
from selftrain.calibration.sampling import Probe, Told, sample, trial_config
from selftrain.compose import Problems, Verify, check_lengths, check_parts, load_policy, load_sets, make_verification
from selftrain.compose_labels import truth_channels
from selftrain.config import RunConfig
from selftrain.evals.bootstrap import Interval, mean_interval
from selftrain.evals.proxy import JudgedVote, ProxyQuality, judged_by_answer, judged_by_checks, proxy_quality
from selftrain.prompts import prompt_set_hash
from selftrain.run_folder import resolved
from selftrain.types import PromptSet

ANSWERS, VERIFIER = "true answers", "the verifier"


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known beside the evidence. judge: who knows it. label_accuracy: of the source's labels on prompts that would train, None without any."""

    judge: str
    quality: ProxyQuality
    label_accuracy: Interval | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """subject: what was measured. shares: vote share and whether the single winner is right (None: not known, or no single winner), by prompt.

    truth: None where there is none or it was not asked for; no_truth says which.
    """

    subject: Mapping[str, Any]
    evidence: Evidence
    forecast: Forecast
    shares: tuple[tuple[float, bool | None], ...]
    truth: Truth | None
    no_truth: str

    @property
    def has_forecast(self) -> bool:
        """Whether anything would train: a run of which nothing does can neither gain nor lose."""
        return self.evidence["trains_frac"] != 0

    def to_json(self) -> dict[str, Any]:
        known = {"verdict": self.forecast.verdict, **asdict(self.forecast)}
        return {
            "subject": dict(self.subject),
            "evidence": dict(self.evidence),
            "forecast": known if self.has_forecast else {**known, "verdict": "none", "gain_chance": None, "parts": []},
            "truth": None if self.truth is None else asdict(self.truth),
            "no_truth": self.no_truth,
        }


def calibrate(config: RunConfig, count: int, with_truth: bool, told: Told) -> Calibration:
    """count: of the training prompts that are looked at, at most. with_truth: use true answers or a verifier for the part that says so, if there are any.

    Raises what the start of a run raises: ConfigError, PromptError, ModelError.
    """
    config = resolved(config)
    problems = load_sets(config)
    check_parts(config, problems)
    verify = verifier_of(config, problems.train) if with_truth else None
    policy = load_policy(trial_config(config))
    check_lengths(config, policy, Problems(problems.train, None))
    model_hash = policy.weights_hash()
    sampled = sample(config, problems.train, policy, count, told)
    judged, judge, no_truth = truth_of(verify, problems.train, sampled.probes) if with_truth else ({}, "", "true answers were not asked for")
    evidence = evidence_of(config, sampled)
    return Calibration(
        subject=subject_of(config, problems.train, model_hash, len(sampled.probes)),
        evidence=evidence,
        forecast=forecast(evidence),
        shares=tuple((one.vote.share_frac, judged[at].winner_is_right if at in judged else None) for at, one in enumerate(sampled.probes)),
        truth=Truth(judge, proxy_quality([*judged.values()]), label_accuracy(sampled.probes, judged)) if judged else None,
        no_truth=no_truth,
    )


def subject_of(config: RunConfig, prompts: PromptSet, model_hash: str, num_probes: int) -> dict[str, Any]:
    rollout = config.rollout
    return {
        "model": config.policy.model,
        "model_hash": model_hash,
        "prompts": {"origin": prompts.origin, "count": len(prompts), "hash": prompt_set_hash(prompts)},
        "num_prompts": num_probes,
        "num_votes": rollout.num_votes,
        "temperature": rollout.temperature,
        "label_source": config.labels.source,
        "truth_channels": truth_channels(config),
        "learning_rate": config.update.learning_rate,
        "num_steps": config.run.num_steps,
        "prompts_per_step": rollout.prompts_per_step,
        "step_share": {name: value for name, value in config.step_share if value is not None},
        "seed": config.run.seed,
    }


def verifier_of(config: RunConfig, prompts: PromptSet) -> Verify | None:
    """Asks the verifier about all prompts, whatever labels; None where there is none. Raises ConfigError when it cannot start."""
    if config.verifier.function is None and not (config.prompts.task or "").startswith("gym:"):
        return None
    section = config.verifier.model_copy(update={"frac": 1.0})
    return make_verification(config.model_copy(update={"verifier": section, "labels": config.labels.model_copy(update={"source": "verifier"})}), prompts)


def truth_of(verify: Verify | None, prompts: PromptSet, probes: tuple[Probe, ...]) -> tuple[dict[int, JudgedVote], str, str]:
    """(votes beside the truth by place, who knows it, why nobody does). A verifier is asked where there is one: it may accept several answers."""
    if verify is not None:
        numbered = [replace(one.scored.voted, group=replace(one.scored.voted.group, index=at)) for at, one in enumerate(probes)]
        found = {at: judged for at, one in enumerate(verify(numbered)) if (judged := judged_by_checks(one)) is not None}
        return found, VERIFIER, "" if found else "the verifier gave no score to any completion"
    found = {at: judged for at, one in enumerate(probes) if (judged := judged_by_answer(one.scored.voted, prompts.sheet)) is not None}
    return found, ANSWERS, "" if found else "these prompts have no true answers, and there is no verifier for them"


def label_accuracy(probes: tuple[Probe, ...], judged: Mapping[int, JudgedVote]) -> Interval | None:
    right = [float(key in judged[at].right_keys) for at, one in enumerate(probes) if at in judged and one.trains and (key := one.scored.label.key) is not None]
    return mean_interval(right) if right else None
