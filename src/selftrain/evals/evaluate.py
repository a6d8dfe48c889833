"""A sampler and problems with true answers -> Evaluation. True answers are read here and nowhere else in an evaluation."""

from __future__ import annotations

from collections.abc import Callable

from selftrain.answers import key
from selftrain.errors import PromptError
from selftrain.evals.evaluation import Evaluation, Example, ExampleCompletion, ProblemResult, VoteResult
from selftrain.evals.second_turn import SecondTurnResult, SecondTurns, judge_again, maj_score
from selftrain.policies.base import Sampler, SampleRequest, SamplingParams
from selftrain.prompts import prompt_set_hash
from selftrain.rollout import read_and_count
from selftrain.seeds import Stream
from selftrain.types import AnswerKey, Finish, PromptSet, Vote, VotedGroup

PROBLEMS_PER_CALL = 128
NUM_EXAMPLES = 4
"""Problems whose completions are kept at least; then further ones, in order, while their texts are below MAX_EXAMPLES_CHARACTERS together."""
MAX_EXAMPLES_CHARACTERS = 200_000
EXAMPLE_COMPLETIONS = 2
EXAMPLE_CHARACTERS = 2000
_MAX_NAMED = 3

Progress = Callable[[int, int], None]
"""Is told (problems done, problems in all) after each call of the sampler."""


def evaluate(
    sampler: Sampler,
    problems: PromptSet,
    params: SamplingParams,
    num_samples: int,
    seeds: Stream,
    progress: Progress | None = None,
    again: SecondTurns | None = None,
) -> Evaluation:
    """Draw k = `num_samples` >= 1 completions of every problem and compare their answers with the true ones, by answer keys only.

    Completion i of a problem draws from `seeds.at(stream="eval", step=0, prompt_id=..., index=i)`: evaluations with the same seeds share their random
    numbers, whatever the policy and the step, which makes differences between them sharper. again: each completion is corrected once in a second turn.
    Raises PromptError for problems without an answer.
    """
    references = true_answers(problems)
    results: list[ProblemResult] = []
    examples: list[Example] = []
    second: list[SecondTurnResult] = []
    kept = 0
    for first in range(0, len(problems), PROBLEMS_PER_CALL):
        batch = problems.prompts[first : first + PROBLEMS_PER_CALL]
        requests = [SampleRequest(prompt, num_samples, 0, first + i) for i, prompt in enumerate(batch)]
        read = [read_and_count(group) for group in sampler.sample(requests, params, seeds.at(stream="eval", step=0))]
        if again is not None:
            pairs = zip(read, again(read, params, seeds), strict=True)
            second += [judge_again(voted, found, key(references[voted.group.prompt.id])) for voted, found in pairs]
        for voted in read:
            reference = references[voted.group.prompt.id]
            results.append(judge(voted, key(reference)))
            if len(examples) < NUM_EXAMPLES or kept < MAX_EXAMPLES_CHARACTERS:
                examples.append(_example(voted, reference))
                kept += len(examples[-1].prompt) + sum(len(completion.text) for completion in examples[-1].completions)
        if progress is not None:
            progress(len(results), len(problems))
    return Evaluation(
        version=str(sampler.version),
        origin=problems.origin,
        prompts_sha256=prompt_set_hash(problems),
        num_samples=num_samples,
        temperature=params.temperature,
        top_p=params.top_p,
        max_new_tokens=params.max_new_tokens,
        results=tuple(results),
        examples=tuple(examples),
        again=tuple(second),
    )


def judge(voted: VotedGroup, reference: AnswerKey) -> ProblemResult:
    """What the completions of one problem are worth against its true answer. They are read as in training: a truncated one has no answer."""
    vote, completions = voted.vote, voted.group.completions
    return ProblemResult(
        prompt_id=voted.group.prompt.id,
        num_right=vote.count_of(reference),
        num_read=vote.num_read,
        num_truncated=sum(completion.finish is Finish.LENGTH for completion in completions),
        vote=vote_result(vote, reference),
        maj_score=maj_score(vote, reference),
        share_frac=vote.share_frac,
        tokens_mean=sum(len(completion.token_ids) for completion in completions) / len(completions),
    )


def vote_result(vote: Vote, reference: AnswerKey) -> VoteResult:
    """How a vote compares with the true answer."""
    if not vote.winners:
        return VoteResult.UNREAD
    if vote.is_tie:
        return VoteResult.TIE
    return VoteResult.RIGHT if vote.winners == (reference,) else VoteResult.WRONG


def true_answers(problems: PromptSet) -> dict[str, str]:
    """The true answers by prompt id. PromptError, naming the first without one, unless every problem has one."""
    answers = {prompt.id: problems.sheet.answer_of(prompt.id) for prompt in problems}
    missing = [prompt_id for prompt_id, answer in answers.items() if answer is None or not answer.strip()]
    if missing or not answers:
        more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
        raise PromptError(
            f"problems of {problems.origin}",
            f"{len(missing)} of {len(answers)} have no true answer: {', '.join(missing[:_MAX_NAMED])}{more}" if missing else "there are none",
            "name the column with the answers in prompts.answer_field, or remove these problems",
        )
    return {prompt_id: answer for prompt_id, answer in answers.items() if answer is not None}


def _example(voted: VotedGroup, reference: str) -> Example:
    completions = tuple(
        ExampleCompletion(completion.text[:EXAMPLE_CHARACTERS], text, found == key(reference), completion.finish is Finish.LENGTH)
        for completion, text, found in zip(voted.group.completions, voted.answers.texts, voted.answers.keys, strict=True)
    )
    return Example(voted.group.prompt.id, voted.group.prompt.text, reference, completions[:EXAMPLE_COMPLETIONS])
