"""Everything between the label and the update: KL shaping, advantages, admission, and the samples the learner sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selftrain.admission import admit, trained_subset
from selftrain.advantage import AdvantageRule, weighted
from selftrain.correction import correction_label
from selftrain.masking import answer_mask
from selftrain.objective import KLEstimator, kl_penalty
from selftrain.reward import RewardRule, match, rewards_of
from selftrain.seeds import Stream
from selftrain.types import Admission, Group, Label, Role, ScoredGroup, TrainingSample, VotedGroup

RefLogprobs = Mapping[int, Sequence[tuple[float, ...]]]
"""By group index: [N][T] log-probabilities in nats under the reference policy; empty where no KL is asked for."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """The rules by which groups are scored. kl_coef: weight of the KL in the reward, 0 to measure it only, None for none. group_size: G."""

    reward: RewardRule
    advantage: AdvantageRule
    group_size: int
    kl_coef: float | None
    kl_estimator: KLEstimator

    def score(self, voted: Sequence[VotedGroup], labels: Sequence[Label], reference: RefLogprobs, seeds: Stream) -> list[ScoredGroup]:
        """P scored groups. `seeds` is addressed by group (prompt id), so that the trained subset does not depend on the others."""
        return [self._score_one(one, label, reference, seeds) for one, label in zip(voted, labels, strict=True)]

    def rule_of(self, group: Group) -> RewardRule:
        """The reward rule; corrections are rewarded by whether they match, whatever it is."""
        return match if group.role is Role.CORRECTION else self.reward

    def _score_one(self, one: VotedGroup, label: Label, reference: RefLogprobs, seeds: Stream) -> ScoredGroup:
        corrections = tuple(
            self._score_one(extra, correction_label(one.group, label, extra.group), reference, seeds) for extra in one.group.extras_of(Role.CORRECTION)
        )
        rewards = rewards_of(one, label, self.rule_of(one.group))
        penalties: tuple[float, ...] = ()
        shaped = rewards.values
        if self.kl_coef is not None and label.is_decided:
            pairs = zip(one.group.completions, reference[one.group.index], strict=True)
            penalties = tuple(kl_penalty(np, self.kl_estimator, completion.logprobs, ref) for completion, ref in pairs)
            shaped = tuple(reward - self.kl_coef * penalty for reward, penalty in zip(rewards.values, penalties, strict=True))
        admission = admit(label, shaped)
        advantages = self.advantages(label, shaped)
        trained: tuple[int, ...] = ()
        if admission is Admission.ADMITTED:
            trained = trained_subset(one.vote.num_votes, self.group_size, seeds.at(step=one.group.step, prompt_id=one.group.prompt.id))
        return ScoredGroup(one, label, rewards, penalties, shaped, advantages, admission, trained, corrections)

    def advantages(self, label: Label, shaped: Sequence[float]) -> tuple[float, ...]:
        """N advantages, with the label's weight and offset; none for an undecided group."""
        return weighted(self.advantage(shaped), label.weight, label.offset) if label.is_decided else ()


def minibatches(scored: Sequence[ScoredGroup], num: int) -> list[list[ScoredGroup]]:
    """The admitted groups, those of corrections too, in at most `num` parts of whole groups, sizes differing by at most one; no empty part."""
    admitted = [one for voting in scored for one in (voting, *voting.corrections) if one.admission is Admission.ADMITTED]
    num = min(num, len(admitted))
    return [admitted[len(admitted) * i // num : len(admitted) * (i + 1) // num] for i in range(num)]


def compile_samples(
    part: Sequence[ScoredGroup], reference: RefLogprobs, length_norm: str, max_new_tokens: int, mask_answer: bool = False
) -> list[TrainingSample]:
    """The trained completions of a minibatch as tokens, masks and numbers; their scales make the loss a plain sum.

    length_norm: `tokens` 1 / all tokens of the part; `sequence` 1 / (completions x own tokens); `max_tokens` 1 / (completions x max_new_tokens). Of
    corrections mostly a few groups train: normalised apart they would weigh as much as all votes, and what the votes teach would drown in their noise.
    reference: by group index when KL is in the loss, else empty. mask_answer: the tokens of the answer give no gradient and are not counted; a completion
    that is nothing else is left out.
    """
    drawn = [(one, index, one.voted.group.completions[index]) for one in part for index in one.trained]
    masked = [(one, index, answer_mask(done) if mask_answer else (True,) * len(done.token_ids)) for one, index, done in drawn]
    chosen = [entry for entry in masked if any(entry[2])]
    total, count = sum(sum(mask) for *_, mask in chosen), len(chosen)
    samples = []
    for one, index, mask in chosen:
        group, completion = one.voted.group, one.voted.group.completions[index]
        length = sum(mask)
        scale = {"tokens": 1 / total, "sequence": 1 / (count * length), "max_tokens": 1 / (count * max_new_tokens)}[length_norm]
        samples.append(
            TrainingSample(
                prompt_ids=group.prompt_ids,
                token_ids=completion.token_ids,
                advantages=(one.advantages[index],) * len(mask),
                mask=mask,
                logprobs=completion.logprobs,
                ref_logprobs=reference[group.index][index] if reference else (),
                scale=scale,
                group_index=group.index,
                version=completion.version,
            )
        )
    return samples
