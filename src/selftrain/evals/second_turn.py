"""What a second turn is worth on problems with true answers: each completion is corrected once, and the answers after it are compared with those before it.

With k completions of a problem, c of them right before and c' after the second turn (a completion that cannot be corrected keeps its answer):

    turn 2 avg@k   c' / k
    gain           (c' - c) / k: against sampling again at equal tokens, since a fresh completion is right as often as the first ones, avg@k
    mended         wrong before and right after, of those that were wrong
    broken         right before and wrong after, of those that were right
    maj            the vote of the first k/2 completions and their corrections, against the vote of all k completions: as many answers each

Intervals are over problems, paired where two things are compared. How long both turns are stands beside them: they need not be equally long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.correction import Correction, correctable, corrects
from selftrain.evals.bootstrap import Interval, mean_interval, ratio_interval
from selftrain.policies.base import Policy, SampleRequest, SamplingParams
from selftrain.rollout import read_and_count
from selftrain.seeds import Stream
from selftrain.types import AnswerKey, Role, Vote, VotedGroup
from selftrain.vote import count


@dataclass(frozen=True, slots=True)
class Again:
    """The second turns of one problem. keys: the k answers after them. num_corrected: completions that had one. tokens: of all corrections."""

    keys: tuple[AnswerKey | None, ...]
    num_corrected: int
    tokens: int


@dataclass(frozen=True, slots=True)
class SecondTurns:
    """How second turns are drawn in an evaluation: one correction of each completion, by the policy that wrote it."""

    policy: Policy
    correction: Correction

    def __call__(self, voted: Sequence[VotedGroup], params: SamplingParams, seeds: Stream) -> list[Again]:
        """For each group its answers after the second turn. Completions that were cut off or whose second turn has no room keep theirs.

        A correction draws from `seeds.at(stream="eval correction", step=0, prompt_id=..., index=0)`, its prompt's id being that of its second turn.
        """
        asked = [(at, self.correction.prompt(one, index)) for at, one in enumerate(voted) for index in correctable(one)]
        too_long = {prompt_id for prompt_id, _ in self.policy.too_long([prompt for _, prompt in asked])}
        fits = [(at, prompt) for at, prompt in asked if prompt.id not in too_long]
        requests = [SampleRequest(prompt, 1, 0, place) for place, (_, prompt) in enumerate(fits)]
        drawn = self.policy.sample(requests, params, seeds.at(stream=f"eval {Role.CORRECTION.value}", step=0)) if requests else []
        keys = [list(one.answers.keys) for one in voted]
        tokens, numbers = [0] * len(voted), [0] * len(voted)
        for (at, _), group in zip(fits, drawn, strict=True):
            keys[at][corrects(voted[at].group, group)] = read_and_count(group).answers.keys[0]
            numbers[at] += 1
            tokens[at] += len(group.completions[0].token_ids)
        return [Again(tuple(after), number, size) for after, number, size in zip(keys, numbers, tokens, strict=True)]


@dataclass(frozen=True, slots=True)
class SecondTurnResult:
    """What happened on one problem.

    num_right: of the k answers after the second turn. num_mended, num_broken: completions that turned right, or wrong. num_corrected: that had a second turn.
    maj_pairs, maj_again: maj scores in [0, 1] of the first k // 2 completions with their corrections, and of the first 2 (k // 2) completions.
    tokens: sampled in the second turns, summed.
    """

    num_right: int
    num_mended: int
    num_broken: int
    num_corrected: int
    maj_pairs: float
    maj_again: float
    tokens: int


def judge_again(voted: VotedGroup, again: Again, reference: AnswerKey) -> SecondTurnResult:
    """The second turns of one problem against its true answer."""
    first = voted.answers.keys
    half = len(first) // 2
    return SecondTurnResult(
        num_right=sum(key == reference for key in again.keys),
        num_mended=sum(old != reference and new == reference for old, new in zip(first, again.keys, strict=True)),
        num_broken=sum(old == reference and new != reference for old, new in zip(first, again.keys, strict=True)),
        num_corrected=again.num_corrected,
        maj_pairs=maj_score(count((*first[:half], *again.keys[:half])), reference),
        maj_again=maj_score(count(first[: 2 * half]), reference),
        tokens=again.tokens,
    )


def maj_score(vote: Vote, reference: AnswerKey) -> float:
    """1 if the winner is right; a tie counts as the share of right keys among its winners; nothing read counts 0."""
    return float(reference in vote.winners) / len(vote.winners) if vote.winners else 0.0


@dataclass(frozen=True, slots=True)
class SecondTurnSummary:
    """The second turns of an evaluation. turn2, gain, maj_pairs, maj_gain: in [0, 1] and [-1, 1], see above. mended, broken: None where nothing was wrong, or
    right. corrected_frac: completions that had a second turn. tokens_mean: of a correction.
    """

    turn2: Interval
    gain: Interval
    mended: Interval | None
    broken: Interval | None
    maj_pairs: Interval
    maj_gain: Interval
    corrected_frac: float
    tokens_mean: float


def summary_of(results: Sequence[SecondTurnResult], num_right: Sequence[int], num_samples: int) -> SecondTurnSummary:
    """num_right: of the k = `num_samples` completions before the second turn, one number per problem. ValueError without problems."""
    before, after = [right / num_samples for right in num_right], [one.num_right / num_samples for one in results]
    wrong = [float(num_samples - right) for right in num_right]
    corrected = sum(one.num_corrected for one in results)
    return SecondTurnSummary(
        turn2=mean_interval(after),
        gain=mean_interval([new - old for new, old in zip(after, before, strict=True)]),
        mended=ratio_interval([float(one.num_mended) for one in results], wrong) if any(wrong) else None,
        broken=ratio_interval([float(one.num_broken) for one in results], [float(right) for right in num_right]) if any(num_right) else None,
        maj_pairs=mean_interval([one.maj_pairs for one in results]),
        maj_gain=mean_interval([one.maj_pairs - one.maj_again for one in results]),
        corrected_frac=corrected / (num_samples * len(results)),
        tokens_mean=sum(one.tokens for one in results) / corrected if corrected else 0.0,
    )


def results_from(records: Sequence[Mapping[str, Any]]) -> tuple[SecondTurnResult, ...]:
    """The results in an evaluation's JSON."""
    return tuple(SecondTurnResult(**record) for record in records)
