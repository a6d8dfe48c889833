"""Votes on free-form completions from files and pipes, a model being asked which answers say the same; many groups' pairs at once, in flat memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from selftrain.answers.freeform import freeform_answer
from selftrain.answers.judge import Pair, by_verdicts, judge_prompt, open_pairs, pairs, ranked, read_verdict
from selftrain.policies.base import Policy, SampleRequest, SamplingParams
from selftrain.seeds import Stream
from selftrain.types import Answers, Message, Prompt
from selftrain.vote import count
from selftrain.vote_stream import GroupVote, RawGroup

PAIRS_AT_ONCE = 512
GROUPS_AT_ONCE = 256


@dataclass(slots=True)
class Judge:
    """A model that judges pairs. max_pairs: of a group. The numbers say what became of the pairs so far.

    num_pairs: pairs of different answers. num_beyond: of these, not judged because of `max_pairs`. num_too_long: prompts without room for a reply.
    num_unread: replies without a yes or no.
    """

    policy: Policy
    params: SamplingParams
    max_pairs: int
    num_pairs: int = 0
    num_beyond: int = 0
    num_too_long: int = 0
    num_unread: int = 0
    _asked: int = field(default=0, init=False)

    def votes(self, groups: Iterable[RawGroup]) -> Iterator[GroupVote]:
        """One vote per group, in order; at most `PAIRS_AT_ONCE` pairs (or one group's) and `GROUPS_AT_ONCE` groups are held at a time."""
        held: list[tuple[RawGroup, list[str | None]]] = []
        waiting = 0
        for group in groups:
            answers = [freeform_answer(text) for text in group.texts]
            num_asked = len(pairs(answers, self.max_pairs))
            if held and (waiting + num_asked > PAIRS_AT_ONCE or len(held) == GROUPS_AT_ONCE):
                yield from self._judged(held)
                held, waiting = [], 0
            held.append((group, answers))
            waiting += num_asked
            different = len(ranked(answers))
            self.num_pairs += different * (different - 1) // 2
            self.num_beyond += different * (different - 1) // 2 - num_asked
        yield from self._judged(held)

    def _judged(self, held: Sequence[tuple[RawGroup, list[str | None]]]) -> Iterator[GroupVote]:
        verdicts: list[dict[Pair, bool | None]] = [{} for _ in held]
        while asked := [(i, pair) for i, (_, answers) in enumerate(held) for pair in open_pairs(answers, verdicts[i], self.max_pairs)]:
            replies = self._replies([judge_prompt(held[i][0].question, *pair) for i, pair in asked])
            for (i, pair), verdict in zip(asked, replies, strict=True):
                verdicts[i][pair] = verdict
        for (group, answers), found in zip(held, verdicts, strict=True):
            keys = by_verdicts(answers, found)
            yield GroupVote(group.prompt, Answers(tuple(answers), keys), count(keys))

    def _replies(self, texts: Sequence[str]) -> list[bool | None]:
        """The verdict on each question; None where the reply has none or the prompt leaves no room for one."""
        prompts = [Prompt(f"judge {self._asked + i}", (Message("user", text),)) for i, text in enumerate(texts)]
        self._asked += len(prompts)
        too_long = {prompt_id for prompt_id, _ in self.policy.too_long(prompts)}
        requests = [SampleRequest(prompt, 1, 0, index) for index, prompt in enumerate(prompts) if prompt.id not in too_long]
        drawn = self.policy.sample(requests, self.params, Stream(0, stream="judge")) if requests else []
        verdicts = {group.prompt.id: read_verdict(group.completions[0].text) for group in drawn}
        self.num_too_long += len(too_long)
        self.num_unread += sum(verdict is None for verdict in verdicts.values())
        return [verdicts.get(prompt.id) for prompt in prompts]
