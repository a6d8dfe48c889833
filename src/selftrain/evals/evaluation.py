"""What an evaluation found: one result per problem, and the estimates made of them.

With k samples of a problem, c of them right:

    avg@k   c / k, then the mean over problems
    maj@k   1 if the vote's winner is right; a tie counts as the share of right keys among its winners; nothing read counts 0
    pass@k  1 if c >= 1; for k' < k the unbiased estimate 1 - C(k - c, k') / C(k, k')   (Chen et al. 2021, arXiv 2107.03374)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from selftrain.evals.bootstrap import Interval, mean_interval, ratio_interval
from selftrain.evals.second_turn import SecondTurnResult, SecondTurnSummary, results_from, summary_of

CONFIDENT_SHARE_FRAC = 0.9
"""From this vote share on a wrong winner counts as confidently wrong."""


class VoteResult(StrEnum):
    """How a problem's vote compares with the true answer."""

    RIGHT = "right"
    WRONG = "wrong"
    TIE = "tie"
    """several winners, right or not"""
    UNREAD = "unread"
    """no completion had a readable answer"""


@dataclass(frozen=True, slots=True)
class ProblemResult:
    """What happened on one problem.

    num_right, num_read, num_truncated: of the k completions. maj_score in [0, 1]: see maj@k. share_frac: the winner's among all k.
    tokens_mean: mean length of the completions in tokens.
    """

    prompt_id: str
    num_right: int
    num_read: int
    num_truncated: int
    vote: VoteResult
    maj_score: float
    share_frac: float
    tokens_mean: float


@dataclass(frozen=True, slots=True)
class ExampleCompletion:
    """A completion as the policy wrote it (cut after 2,000 characters), what was read in it, and whether that is right."""

    text: str
    answer: str | None
    is_right: bool
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A problem with its true answer and a few completions, for people to read."""

    prompt_id: str
    prompt: str
    reference: str
    completions: tuple[ExampleCompletion, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """k samples of each of some problems with true answers, by one policy version.

    version: of the policy, `0:17`. origin: where the problems come from. prompts_sha256: their hash without answers.
    num_samples: k >= 1. temperature, top_p, max_new_tokens: how the completions were drawn.
    again: the second turn of each problem, in the order of the results; empty without a second turn.
    """

    version: str
    origin: str
    prompts_sha256: str
    num_samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    results: tuple[ProblemResult, ...]
    examples: tuple[Example, ...] = ()
    again: tuple[SecondTurnResult, ...] = ()

    @property
    def avg(self) -> Interval:
        """avg@k, in [0, 1]."""
        return self._mean(lambda result: result.num_right / self.num_samples)

    @property
    def maj(self) -> Interval:
        """maj@k, in [0, 1]."""
        return self._mean(lambda result: result.maj_score)

    @property
    def any_right(self) -> Interval:
        """pass@k, in [0, 1]."""
        return self.pass_at(self.num_samples)

    def pass_at(self, num_draws: int) -> Interval:
        """pass@k' for 1 <= k' <= k, in [0, 1]: whether any of k' of the k completions is right, averaged over all choices. ValueError outside."""
        return self._mean(lambda result: pass_estimate(self.num_samples, result.num_right, num_draws))

    @property
    def pseudo_label_accuracy(self) -> Interval | None:
        """Share of the votes with one winner whose winner is right; None when no vote has one."""
        decided = [float(result.vote in (VoteResult.RIGHT, VoteResult.WRONG)) for result in self.results]
        right = [float(result.vote is VoteResult.RIGHT) for result in self.results]
        return ratio_interval(right, decided) if any(decided) else None

    @property
    def confident_wrong_frac(self) -> Interval:
        """Share of problems whose vote is wrong with a share of at least 0.9."""
        return self._mean(lambda result: float(result.vote is VoteResult.WRONG and result.share_frac >= CONFIDENT_SHARE_FRAC))

    @property
    def tie_frac(self) -> Interval:
        """Share of problems whose vote is a tie."""
        return self._mean(lambda result: float(result.vote is VoteResult.TIE))

    @property
    def share_frac(self) -> Interval:
        """Mean vote share of the winner, unread completions included in the whole."""
        return self._mean(lambda result: result.share_frac)

    @property
    def unread_frac(self) -> Interval:
        """Share of completions without a readable answer."""
        return self._mean(lambda result: 1 - result.num_read / self.num_samples)

    @property
    def truncated_frac(self) -> Interval:
        """Share of completions that reached the token limit."""
        return self._mean(lambda result: result.num_truncated / self.num_samples)

    @property
    def second_turn(self) -> SecondTurnSummary | None:
        """What the second turn is worth; None without one."""
        return summary_of(self.again, [result.num_right for result in self.results], self.num_samples) if self.again else None

    @property
    def tokens_mean(self) -> float:
        """Mean length of completions, in tokens."""
        return sum(result.tokens_mean for result in self.results) / len(self.results)

    def _mean(self, value: Callable[[ProblemResult], float]) -> Interval:
        return mean_interval([value(result) for result in self.results])

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; `from_json` takes it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `to_json` wrote. KeyError or TypeError for anything else."""
        results = tuple(ProblemResult(**{**result, "vote": VoteResult(result["vote"])}) for result in record["results"])
        examples = tuple(
            Example(**{**example, "completions": tuple(ExampleCompletion(**completion) for completion in example["completions"])})
            for example in record["examples"]
        )
        return cls(**{**record, "results": results, "examples": examples, "again": results_from(record.get("again", ()))})


def pass_estimate(num_samples: int, num_right: int, num_draws: int) -> float:
    """1 - C(n - c, k) / C(n, k): the chance that k of n completions, c of them right, hold a right one. ValueError unless 1 <= k <= n."""
    if not 1 <= num_draws <= num_samples:
        raise ValueError(f"pass@{num_draws} needs 1 to {num_samples} draws of {num_samples} completions")
    return 1 - math.comb(num_samples - num_right, num_draws) / math.comb(num_samples, num_draws)
