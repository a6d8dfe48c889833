"""Every number that is logged about a step: name, unit, formula. Only `label/truth_right_frac` needs true answers: those that a run's labels use anyway."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import correlation

from selftrain.correction import agreement
from selftrain.policies.base import UpdateStats
from selftrain.types import Admission, AnswerKey, Completion, Finish, PolicyVersion, Role, ScoredGroup, StepMetrics, Vote


@dataclass(frozen=True, slots=True)
class Metric:
    """unit as in the key's suffix; formula in words or signs, over the P groups of a step with N completions each."""

    unit: str
    formula: str


METRICS: Mapping[str, Metric] = {
    "vote/share_mean_frac": Metric("fraction", "mean over groups of winner's votes / N, unread included"),
    "vote/margin_mean_frac": Metric("fraction", "mean over groups of (winner's - runner-up's votes) / N"),
    "vote/read_mean_frac": Metric("fraction", "completions with a readable answer / all completions"),
    "vote/tie_frac": Metric("fraction", "groups whose vote is a tie / P"),
    "vote/collision_frac": Metric("fraction", "groups whose winner is the step's most common winner / groups with a winner"),
    "vote/split_half_frac": Metric("fraction", "groups whose even and odd halves have the same single winner / P"),
    "vote/flip_frac": Metric("fraction", "prompts whose winner is not that of their last visit / prompts with a winner now and then; not there without any"),
    "vote/share_speed_frac": Metric("fraction", "mean share over the last window minus that over the window before / its steps; not there before two windows"),
    "vote/margin_speed_frac": Metric("fraction", "the same of the margin"),
    "label/decided_frac": Metric("fraction", "groups with a decided label / P"),
    "label/truth_right_frac": Metric(
        "fraction", "mean reward of the groups that `reference` or `verifier` labelled; not there with fewer than 4 of them, so never in a label-free run"
    ),
    "reward/mean_frac": Metric("reward", "mean reward over completions of decided groups"),
    "reward/length_corr": Metric("correlation", "mean over groups of the correlation of reward and tokens, where both vary; not there without any"),
    "reward/kl_penalty_mean_nats": Metric("nats", "mean over completions of the summed KL estimate in the reward"),
    "admission/admitted_frac": Metric("fraction", "groups that train / P"),
    "admission/no_signal_frac": Metric("fraction", "decided groups whose advantages are all 0 / P"),
    "completion/length_mean_tokens": Metric("tokens", "mean tokens of a completion, end token included"),
    "completion/truncated_frac": Metric("fraction", "completions that reached the limit / all"),
    "completion/compress_ratio": Metric("ratio", "zlib size / size of the step's completions, texts joined by newlines; low means repetition"),
    "completion/repeat_frac": Metric("fraction", "mean over completions of (1 - different 4-grams of tokens / all of them); 0 below 4 tokens"),
    "policy/entropy_mean_nats": Metric(
        "nats",
        "mean over sampled tokens of the entropy they were drawn with; where the sampler gives none, of minus their log-probability, its unbiased estimate",
    ),
    "policy/certainty_mean_nats": Metric(
        "nats", "mean over sampled tokens of KL(uniform || p), p what they were drawn with; only where the label source asks for it (self_certainty)"
    ),
    "policy/logprob_mean_nats": Metric("nats", "mean log-probability of the sampled tokens"),
    "cost/vote_tokens": Metric("tokens", "tokens sampled for the completions that vote"),
    "cost/judge_tokens": Metric("tokens", "tokens sampled for judgements, of two answers or of one completion; not there in a step without any"),
    "cost/teacher_tokens": Metric("tokens", "tokens sampled for the votes of a teacher; not there in a step without any"),
    "cost/view_tokens": Metric("tokens", "tokens sampled under other wordings of the prompts; not there in a step without any"),
    "cost/paraphrase_tokens": Metric("tokens", "tokens sampled for second wordings of the prompts; not there in a step without any"),
    "cost/correction_tokens": Metric("tokens", "tokens sampled in second turns; not there in a step without any"),
    "correction/agree_turn1_frac": Metric("fraction", "completions that agree with the label / N, mean over the groups with corrections"),
    "correction/agree_turn2_frac": Metric(
        "fraction",
        "the same if each completion were corrected once: s (share of the corrections of agreeing completions that agree) + (1 - s) (share of those of the "
        "others that agree), s the group's share before; a kind of which none was corrected stays as it was",
    ),
    "correction/mended_frac": Metric("fraction", "corrections that agree with the label / corrections of completions that did not"),
    "correction/broken_frac": Metric("fraction", "corrections that do not agree with the label / corrections of completions that did"),
    "correction/admitted_frac": Metric("fraction", "corrected completions whose corrections train / all of them"),
    "correction/no_room_frac": Metric("fraction", "second turns that left no room for a completion / all of them"),
    "cost/probe_tokens": Metric("tokens", "tokens sampled for a probe; not there in a step without one"),
    "probe/share_mean_frac": Metric(
        "fraction", "probe: mean of winner's votes / N over the held-aside prompts that were asked more than once, the surest ones"
    ),
    "probe/read_mean_frac": Metric("fraction", "probe: readable completions of held-aside prompts / all"),
    "probe/collision_frac": Metric("fraction", "probe: held-aside prompts whose winner is the most common one / those with a winner"),
    "probe/length_mean_tokens": Metric("tokens", "probe: mean tokens of a completion of a held-aside prompt"),
    "probe/base_agree_frac": Metric("fraction", "probe: mean over easy prompts (the start's winner had half of its votes) of the share with that winner"),
    "probe/base_kept_frac": Metric("fraction", "probe: the same share from the completions of start and policy together, weighed (docs/probes.md)"),
    "probe/base_lost_frac": Metric("fraction", "probe: that share at the best probe so far minus now, over the same prompts"),
    "probe/base_lost_low_frac": Metric("fraction", "probe: lower end of the 95 % interval of what is lost, paired over prompts"),
    "probe/number_unchanged_frac": Metric("fraction", "probe: mean share of read answers that stay the winner although a number changed; where digits are"),
    "probe/reword_agree_frac": Metric("fraction", "probe: 1 - (agreement within one wording - agreement between two), at most 1 (docs/probes.md)"),
    "probe/swap_changed_frac": Metric("fraction", "probe: 1 - the same agreement with other people in the prompt; where people are"),
    "probe/kl_base_nats": Metric("nats", "probe: KL(policy || start) per token of the policy's completions, k3"),
    "probe/reward_per_nat": Metric(
        "reward per nat", "(mean reward over the last window - that over the first steps) / probe/kl_base_nats, where that is at least 0.01; with a probe"
    ),
    "probe/kl_answer_nats": Metric("nats", "probe: the same per token of the final answers"),
    "probe/kl_reasoning_nats": Metric("nats", "probe: the same per token of everything else"),
    "probe/drift_nats": Metric("nats", "probe: KL(start || policy) per token of the start's completions of off-domain texts, k3"),
    "support/base_share_frac": Metric("fraction", "mean over held-aside prompts of the share of the start's votes that an answer of the policy has"),
    "support/error_frac": Metric("fraction", "standard error of its difference to the start's own, paired over prompts; 0 at step 0"),
    "support/start_share_frac": Metric("fraction", "mean over these prompts of how often the start gives its most frequent answer; before the first update"),
    "glance/fallen_frac": Metric(
        "fraction", "policy / start, at most 3, of one of the start's completions to each easy prompt: mean at the last probe minus now; between probes"
    ),
    "glance/error_frac": Metric("fraction", "its standard error; where more than 1.5 times as much has fallen, a probe is made in the same step"),
    "probe/canary_right_frac": Metric("fraction", "probe: mean share of right completions of canaries; where the config names them"),
    "update/loss": Metric("loss", "value of the objective, mean over the step's updates"),
    "update/grad_norm": Metric("norm", "gradient norm before clipping, mean over the step's updates"),
    "update/learning_rate": Metric("1/update", "rate that was applied"),
    "update/ratio_mean": Metric("ratio", "importance ratio against the sampling log-probabilities: mean over the step's updates of their means per token"),
    "update/ratio_max": Metric("ratio", "largest importance ratio of the step"),
    "update/clip_frac": Metric("fraction", "tokens whose gradient was clipped away / all: mean over the step's updates"),
    "update/logprob_gap_nats": Metric("nats", "mean |learner's - sampler's log-probability| in the step's first update"),
    "update/kl_loss_nats": Metric("nats", "mean per token of the KL estimate in the loss: mean over the step's updates"),
    "update/num_tokens": Metric("tokens", "tokens that gave gradient, summed over the step's updates"),
    "update/num_updates": Metric("updates", "optimizer steps"),
}


TRUTH_SOURCES, MIN_TRUTH_GROUPS = ("reference", "verifier"), 4
"""whose rewards say how much is right; of fewer groups they say little"""


def measure(step: int, version: PolicyVersion, scored: Sequence[ScoredGroup], probed: Mapping[str, float] | None = None) -> StepMetrics:
    """The metrics of a step before its update: what the guard judges. Only `correction/` and `cost/` look at other groups than those that vote.

    probed: what its probe said, where it had one.
    """
    of_votes = {**vote_values(scored), **completion_values(scored), **agreement(scored)}
    return StepMetrics(step, version, {**of_votes, **cost_values(scored), **(probed or {})})


def with_update(before: StepMetrics, version: PolicyVersion, updates: Sequence[UpdateStats]) -> StepMetrics:
    """The metrics of the whole step: those from before the update and, where there was one, those of it. version: after it."""
    values = {**before.values, **(update_values(updates) if updates else {"update/num_updates": 0.0})}
    unknown = set(values) - set(METRICS)
    assert not unknown, unknown
    return StepMetrics(before.step, version, values)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def vote_values(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    votes = [one.voted.vote for one in scored]
    rewards = [value for one in scored for value in one.rewards.values]
    penalties = [value for one in scored for value in one.kl_penalties]
    values = {
        "vote/share_mean_frac": mean([vote.share_frac for vote in votes]),
        "vote/margin_mean_frac": mean([vote.margin_frac for vote in votes]),
        "vote/read_mean_frac": sum(vote.num_read for vote in votes) / sum(vote.num_votes for vote in votes),
        "vote/tie_frac": share_of(scored, lambda one: one.voted.vote.is_tie),
        "vote/collision_frac": collision_frac(votes),
        "vote/split_half_frac": share_of(scored, lambda one: halves_agree(one.voted.answers.keys)),
        "label/decided_frac": share_of(scored, lambda one: one.label.is_decided),
        "reward/mean_frac": mean(rewards),
        "admission/admitted_frac": share_of(scored, lambda one: one.admission is Admission.ADMITTED),
        "admission/no_signal_frac": share_of(scored, lambda one: one.admission is Admission.NO_SIGNAL),
    }
    by_truth = [mean(one.rewards.values) for one in scored if one.label.is_decided and one.label.source in TRUTH_SOURCES]
    if len(by_truth) >= MIN_TRUTH_GROUPS:
        values["label/truth_right_frac"] = mean(by_truth)
    correlations = [value for one in scored if (value := length_correlation(one)) is not None]
    if correlations:
        values["reward/length_corr"] = mean(correlations)
    if penalties:
        values["reward/kl_penalty_mean_nats"] = mean(penalties)
    return values


def share_of(scored: Sequence[ScoredGroup], holds: Callable[[ScoredGroup], bool]) -> float:
    return sum(holds(one) for one in scored) / len(scored)


def collision_frac(votes: Sequence[Vote]) -> float:
    """Near 1 / P for prompts with different answers; near 1 when the policy writes one constant answer."""
    winners = Counter(vote.winner for vote in votes if vote.winner is not None)
    return max(winners.values()) / winners.total() if winners else 0.0


def halves_agree(keys: Sequence[AnswerKey | None]) -> bool:
    halves = [Counter(key for key in keys[start::2] if key is not None).most_common(2) for start in (0, 1)]
    if not all(halves) or any(len(half) > 1 and half[0][1] == half[1][1] for half in halves):
        return False
    return halves[0][0][0] == halves[1][0][0]


def length_correlation(one: ScoredGroup) -> float | None:
    """Correlation of reward and tokens over the completions of a group; None where one of them does not vary."""
    lengths = [len(completion.token_ids) for completion in one.voted.group.completions]
    rewards = one.rewards.values
    if not rewards or min(rewards) == max(rewards) or min(lengths) == max(lengths):
        return None
    return correlation(rewards, lengths)


def repeat_frac(tokens: Sequence[Hashable]) -> float:
    """Share of the 4-grams of tokens (or words) that were there before; 0 below 4 tokens."""
    num_grams = len(tokens) - 3
    return 1.0 - len(set(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))) / num_grams if num_grams > 0 else 0.0


def compress_ratio(texts: Iterable[str]) -> float:
    text = "\n".join(texts).encode("utf-8", "replace")
    return len(zlib.compress(text, 1)) / max(1, len(text))


def completion_values(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    completions: list[Completion] = [completion for one in scored for completion in one.voted.group.completions]
    entropies = list(chain.from_iterable([completion.entropies for completion in completions]))
    logprobs = list(chain.from_iterable([completion.logprobs for completion in completions]))
    certainties = list(chain.from_iterable([completion.certainties for completion in completions]))
    return {
        "completion/length_mean_tokens": mean([len(completion.token_ids) for completion in completions]),
        "completion/truncated_frac": mean([completion.finish is Finish.LENGTH for completion in completions]),
        "completion/compress_ratio": compress_ratio(completion.text for completion in completions),
        "completion/repeat_frac": mean([repeat_frac(completion.token_ids) for completion in completions]),
        "policy/entropy_mean_nats": mean(entropies) if entropies else -mean(logprobs),
        "policy/logprob_mean_nats": mean(logprobs),
        **({"policy/certainty_mean_nats": mean(certainties)} if certainties else {}),
    }


def cost_values(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """Tokens sampled in a step, by the role of the groups."""
    tokens: Counter[Role] = Counter()
    for one in scored:
        for group in (one.voted.group, *(extra.group for extra in one.voted.group.extras)):
            tokens[group.role] += sum(len(completion.token_ids) for completion in group.completions)
    return {f"cost/{role.value}_tokens": float(number) for role, number in tokens.items()}


def update_values(updates: Sequence[UpdateStats]) -> dict[str, float]:
    return {
        "update/loss": mean([one.loss for one in updates]),
        "update/grad_norm": mean([one.grad_norm for one in updates]),
        "update/learning_rate": updates[0].learning_rate,
        "update/ratio_mean": mean([one.ratio_mean for one in updates]),
        "update/ratio_max": max(one.ratio_max for one in updates),
        "update/clip_frac": mean([one.clip_frac for one in updates]),
        "update/logprob_gap_nats": updates[0].logprob_gap_nats,
        "update/kl_loss_nats": mean([one.kl_loss_nats for one in updates]),
        "update/num_tokens": float(sum(one.num_tokens for one in updates)),
        "update/num_updates": float(len(updates)),
    }
