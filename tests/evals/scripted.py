"""A sampler that says what a script tells it, and values made with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selftrain.evals import Evaluation, ProblemResult, VoteResult, evaluate
from selftrain.policies.base import SampleRequest, SamplingParams
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, Completion, Finish, Group, Message, PolicyVersion, Prompt, PromptSet

CUT = "..."
"""A completion that ends in this was truncated."""


class ScriptedSampler:
    """Completion i of a prompt is line i of its script. Implements Sampler; `calls` keeps what it was asked for."""

    def __init__(self, script: Mapping[str, Sequence[str]]) -> None:
        self.script = script
        self.calls: list[tuple[Sequence[SampleRequest], SamplingParams, Stream]] = []

    @property
    def version(self) -> PolicyVersion:
        return PolicyVersion(0, 17)

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream) -> list[Group]:
        self.calls.append((requests, params, seeds))
        return [
            Group(one.step, one.index, one.prompt, (1,), tuple(self._completion(text) for text in self.script[one.prompt.id][: one.count])) for one in requests
        ]

    def _completion(self, text: str) -> Completion:
        length = len(text)
        finish = Finish.LENGTH if text.endswith(CUT) else Finish.STOP
        return Completion(text, tuple(range(length)), (0.0,) * length, tuple(range(1, length + 1)), (0.0,) * length, finish, self.version)


def problems(answers: Mapping[str, str]) -> PromptSet:
    """Problems by id; the prompt is the id."""
    return PromptSet(tuple(Prompt(one, (Message("user", one),)) for one in answers), AnswerSheet(answers), "the script")


def evaluated(script: Mapping[str, Sequence[str]], answers: Mapping[str, str]) -> Evaluation:
    num_samples = len(next(iter(script.values())))
    return evaluate(ScriptedSampler(script), problems(answers), SamplingParams(64), num_samples, Stream(0))


def of_results(*results: ProblemResult, num_samples: int = 4) -> Evaluation:
    return Evaluation("0:0", "here", "hash", num_samples, 1.0, 1.0, 64, results)


def result(prompt_id: str, num_right: int, vote: VoteResult = VoteResult.WRONG, maj_score: float = 0.0, share_frac: float = 0.5) -> ProblemResult:
    return ProblemResult(prompt_id, num_right, 4, 0, vote, maj_score, share_frac, 10.0)
