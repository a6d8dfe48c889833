"""The carriers: frozen values that the stages hand to each other.

Shape letters: `P` prompts of a step, `N` votes of a group, `G` trained completions of a group, `T` tokens of a completion.
A worked example runs through this file: one prompt, four completions, three of which answer 12.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NewType

from selftrain.kinds import Action as Action
from selftrain.kinds import Admission as Admission
from selftrain.kinds import Finish as Finish
from selftrain.kinds import Outcome as Outcome
from selftrain.kinds import Role as Role

AnswerKey = NewType("AnswerKey", str)
"""The canonical, printable form of an answer; two answers are equal if and only if their keys are. Example: the key of `0.5` is the key of `1/2`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is given to the policy; it has no room for a true answer.

    `id` is unique within its set. Example: `Prompt("add/0", (Message("user", "5+7"),))`.
    """

    id: str
    messages: tuple[Message, ...]

    @property
    def text(self) -> str:
        """The last user turn: what a person would call the question."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class AnswerSheet:
    """True answers by prompt id, kept apart from the prompts.

    Only `evals`, `labels/reference` and the composition root may call `answer_of` (an AST test enforces it).
    """

    _answers: Mapping[str, str] = field(repr=False)

    def __contains__(self, prompt_id: str) -> bool:
        return prompt_id in self._answers

    def __len__(self) -> int:
        return len(self._answers)

    def answer_of(self, prompt_id: str) -> str | None:
        """The true answer of a prompt, or None where nobody gave one."""
        return self._answers.get(prompt_id)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts in a fixed order, and the answers somebody may have written beside them. `origin` names the file or task.

    questions: by prompt id, the messages before the template; a prompt that is missing there has no template around it.
    gym_entries: by prompt id, what reasoning-gym's verifier needs of a problem, its true answer among it; empty for all other prompts.
    """

    prompts: tuple[Prompt, ...]
    sheet: AnswerSheet
    origin: str
    questions: Mapping[str, tuple[Message, ...]] = field(default_factory=dict, repr=False)
    gym_entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)


def question_of(prompt: Prompt, questions: Mapping[str, tuple[Message, ...]]) -> str:
    """The question without the template around it. questions: of the prompt's set (`PromptSet.questions`)."""
    return questions.get(prompt.id, prompt.messages)[-1].content


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """Which weights: `branch` counts rollbacks, `updates` the optimizer steps applied. Prints as `0:17`."""

    branch: int
    updates: int

    def __str__(self) -> str:
        return f"{self.branch}:{self.updates}"

    @classmethod
    def parse(cls, text: str) -> PolicyVersion:
        branch, updates = text.split(":")
        return cls(int(branch), int(updates))


@dataclass(frozen=True, slots=True)
class Completion:
    """A text that the policy generated, with the tokens as they were sampled (never re-tokenised).

    token_ids: T ids, the end token included when it was sampled.
    logprobs: T log-probabilities in nats, of the distribution sampled from (temperature included).
    token_ends: T character offsets into `text`, where each token's characters end; end tokens add none.
    entropies: T entropies in nats of the distributions sampled from; empty where the sampler does not give them.
    certainties: T divergences KL(uniform || p) in nats of the same distributions, >= 0; empty where nobody asked for them.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    token_ends: tuple[int, ...]
    entropies: tuple[float, ...]
    finish: Finish
    version: PolicyVersion
    certainties: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """All N completions of one prompt in one step, sampled together.

    index: position of the group in its step: 0 <= index < P for those that vote, from P on for the others. prompt_ids: the tokens the policy was given.
    extras: the groups of other roles that were sampled for this one, read and counted, in the order of their indexes; only a vote group has any.
    """

    step: int
    index: int
    prompt: Prompt
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    role: Role = Role.VOTE
    extras: tuple[VotedGroup, ...] = ()

    def extras_of(self, role: Role) -> list[VotedGroup]:
        """The extra groups of one role."""
        return [extra for extra in self.extras if extra.group.role is role]


@dataclass(frozen=True, slots=True)
class Answers:
    """What was read in the N completions of a group. `keys[i]` and `texts[i]` are None where completion i has no readable answer."""

    texts: tuple[str | None, ...]
    keys: tuple[AnswerKey | None, ...]


@dataclass(frozen=True, slots=True)
class Vote:
    """The count of a group's keys; it does not depend on their order.

    winners: the keys with the most votes, sorted; several in a tie, none when nothing was read.
    counts: votes of each key, most first, then by key. Example: keys (12, 12, None, 12) give winners (12,), share_frac 0.75, read_share_frac 1.0.
    """

    num_votes: int
    num_read: int
    counts: tuple[tuple[AnswerKey, int], ...]

    @property
    def winners(self) -> tuple[AnswerKey, ...]:
        return tuple(key for key, count in self.counts if count == self.counts[0][1])

    @property
    def winner(self) -> AnswerKey | None:
        """The key with the most votes; None in a tie, and when nothing was read."""
        return self.winners[0] if len(self.winners) == 1 else None

    @property
    def is_tie(self) -> bool:
        return len(self.winners) > 1

    @property
    def share_frac(self) -> float:
        """Share of the winner among all votes, unread ones included; 0 when nothing was read."""
        return self.counts[0][1] / self.num_votes if self.counts else 0.0

    @property
    def read_share_frac(self) -> float | None:
        """Share of the winner among the answers that were read; None when nothing was read."""
        return self.counts[0][1] / self.num_read if self.counts else None

    @property
    def margin_frac(self) -> float:
        """Winner minus runner-up, as a share of all votes; 0 in a tie."""
        if not self.counts:
            return 0.0
        runner_up = self.counts[1][1] if len(self.counts) > 1 else 0
        return (self.counts[0][1] - runner_up) / self.num_votes

    def count_of(self, key: AnswerKey | None) -> int:
        return dict(self.counts).get(key, 0) if key is not None else 0


@dataclass(frozen=True, slots=True)
class Submission:
    """What a verifier is given of a completion. prompt: the question without its template. answer: the final answer as it was read, None where none was."""

    prompt_id: str
    prompt: str
    completion: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """What a verifier said of a completion.

    score: in [0, 1], 1 is right; None where it gave none or was not asked. note: `verified`, `partly_verified`, `refuted`, or why there is no score.
    """

    score: float | None
    note: str


@dataclass(frozen=True, slots=True)
class VotedGroup:
    """A group, what was read in it, and the count: all that a label source sees of the completions.

    What is read depends on the group's role: the final answers of votes, teachers and views, the verdicts `yes` and `no` of judges, the second wordings that
    paraphrases offer.
    checks: one per completion, or none where no verifier looked.
    """

    group: Group
    answers: Answers
    vote: Vote
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Label:
    """The pseudo-label of a group and who decided it.

    targets: for each of the N completions the key that is rewarded in it. One key N times for most sources; `split_vote` has two halves.
      None where that completion has no label.
    source: name of the label source. decided_by: `vote 0:17` (a policy version), `views 0:17`, `teacher 0:0`, `judge 0:17`, `stored 3fa9c1d2e4b5` (a model's
      hash) or `reference`.
    uses_truth: whether a true answer touched this label (design law 1).
    weight, offset: each advantage a of the group becomes weight * (a + offset); weight >= 0.
    values, notes: the N rewards and why, where the source gives them itself; both empty where the reward rule makes them from the targets.
    """

    outcome: Outcome
    targets: tuple[AnswerKey | None, ...]
    source: str
    decided_by: str
    uses_truth: bool = False
    weight: float = 1.0
    offset: float = 0.0
    values: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_decided(self) -> bool:
        return self.outcome is Outcome.DECIDED

    @property
    def key(self) -> AnswerKey | None:
        """The pseudo-label when all completions share one, else None."""
        distinct = set(self.targets)
        return next(iter(distinct)) if len(distinct) == 1 else None


@dataclass(frozen=True, slots=True)
class Rewards:
    """One reward per completion, with its reason (`match`, `mismatch`, `unread`, `truncated`, or what the label source says); empty for an undecided group."""

    values: tuple[float, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A group with everything that was decided about it.

    kl_penalties: N sums over tokens of the estimated KL to the reference policy, in nats, already subtracted (times its weight) in
      `shaped_rewards`; empty without KL in the reward.
    shaped_rewards: N rewards the advantages are made of. advantages: N values, one per completion; empty unless decided.
    trained: indices of the G completions that are trained on, sorted; empty unless admitted.
    corrections: the correction groups among the extras, in their order, with what was decided about them; only a vote group has any.
    """

    voted: VotedGroup
    label: Label
    rewards: Rewards
    kl_penalties: tuple[float, ...]
    shaped_rewards: tuple[float, ...]
    advantages: tuple[float, ...]
    admission: Admission
    trained: tuple[int, ...]
    corrections: tuple[ScoredGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """All that a learner sees of one completion: tokens, masks, numbers; no text, no answer.

    prompt_ids: the tokens before the completion. token_ids: T tokens to learn.
    advantages: T values, one per token. mask: T flags, False where a token gives no gradient.
    logprobs: T sampling log-probabilities in nats. ref_logprobs: T of the reference policy, or empty where KL is not in the loss.
    scale: factor of every token's loss, so that the step's loss is the plain sum over its samples (length normalisation lives here).
    group_index: samples of one group share it.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    advantages: tuple[float, ...]
    mask: tuple[bool, ...]
    logprobs: tuple[float, ...]
    ref_logprobs: tuple[float, ...]
    scale: float
    group_index: int
    version: PolicyVersion


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """The label-free numbers of one step, by metric key (`stage/quantity_unit`, see metrics.py)."""

    step: int
    version: PolicyVersion
    values: Mapping[str, float]


Places = tuple[tuple[int, int], ...]
"""(group index, completion index) of each"""


@dataclass(frozen=True, slots=True)
class Finding:
    """A guard rule's hit: which rule, the value it saw, the limit, over how many steps, in words.

    examples: completions of the judged step that show it.
    """

    rule: str
    value: float
    limit: float
    window_steps: int
    words: str
    examples: Places = ()


@dataclass(frozen=True, slots=True)
class Health:
    """How well a run is, in [0, 1]: 1 where no sign of harm is seen, one half where one rule is at its limit.

    low, high: 90 % interval. parts: bits that each rule takes, those above 0, largest first; value is 2 to the minus their sum.
    """

    value: float
    low: float
    high: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard decided after a step and why. It is in the ledger before it is obeyed. health: None while there is nothing to compare yet."""

    step: int
    action: Action
    findings: tuple[Finding, ...]
    health: Health | None = None
