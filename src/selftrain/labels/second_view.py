"""Second view: the label is an answer that survives another wording of the prompt (Self-Harmony, arXiv 2511.01191; Co-rewarding-I, arXiv 2508.00410).

With p0(a) and p1(a) the shares of the votes for answer a under the prompt and under its second wording, unread votes in the denominators:

    harmonic   y* = argmax_a 2 p0(a) p1(a) / (p0(a) + p1(a))      the harmonic mean is small where either share is
    crossed    y* = argmax_a p1(a)                                the winner of the second wording labels the completions of the first

A wrong answer that comes from how the prompt is put wins under one wording only. It costs as many samples again as vote (`cost/view_tokens`), and with
paraphrases the few in which the policy rewrites the prompt (`cost/paraphrase_tokens`). Only completions of the prompt itself are trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from selftrain.labels.means import by_mean, harmonic_means
from selftrain.labels.rules import Bounds, below_quorum, outcome_of
from selftrain.policies.base import ExtraRequest
from selftrain.types import AnswerKey, Label, Message, Outcome, Prompt, Role, Vote, VotedGroup


class Wording(Protocol):
    """Where second wordings come from. asked: what the policy is told to rewrite a prompt, None where nobody is asked. second: the prompt in its second
    wording, of which `paraphrase` is what the policy wrote; None where there is none.
    """

    @property
    def num_paraphrases(self) -> int: ...

    def asked(self, prompt: Prompt) -> tuple[Message, ...] | None: ...

    def second(self, prompt: Prompt, paraphrase: str | None) -> tuple[Message, ...] | None: ...


SUFFIX = " view"
"""of the prompt ids of the votes under the second wording, which are told from another source's by it"""
Rule = Callable[[Vote, Vote, Bounds], tuple[Outcome, AnswerKey | None]]
"""(votes of the prompt, votes of its second wording, bounds) -> the outcome and, where it is decided, the pseudo-label."""


def harmonic(first: Vote, second: Vote, bounds: Bounds) -> tuple[Outcome, AnswerKey | None]:
    """The answer with the highest harmonic mean; the quorum holds for each view, the least share for the mean."""
    return by_mean((first, second), harmonic_means, bounds)


def crossed(first: Vote, second: Vote, bounds: Bounds) -> tuple[Outcome, AnswerKey | None]:
    """The winner under the second wording, to whose vote the bounds apply, the quorum to the first one's too; undecided too when no answer has votes in both
    views.
    """
    outcome = outcome_of(second, bounds)
    if outcome is Outcome.DECIDED and first.counts and below_quorum(first, bounds):
        outcome = Outcome.BELOW_QUORUM
    if outcome is Outcome.DECIDED and not harmonic_means((first, second)):
        outcome = Outcome.VIEWS_DIFFER if first.counts else Outcome.NO_ANSWER
    return outcome, second.winners[0] if outcome is Outcome.DECIDED else None


RULES: Mapping[str, Rule] = {"harmonic": harmonic, "crossed": crossed}


class SecondView:
    """A label source with two phases; with paraphrases the first has two rounds: the wordings, then the votes under them."""

    def __init__(self, wording: Wording, rule: Rule) -> None:
        self._wording, self._rule = wording, rule

    def requests(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[ExtraRequest]:  # noqa: ARG002
        """What each group still needs: paraphrases of its prompt, then as many votes as it has under the second wording."""
        return [request for one in voted if view_of(one) is None for request in self._requests_of(one)]

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
        """One label per group: the rule's answer for all N completions, or the reason why there is none."""
        labels = []
        for one in voted:
            view = view_of(one)
            outcome, key = (Outcome.NO_SECOND_VIEW, None) if view is None else self._rule(one.vote, view.vote, bounds)
            labels.append(Label(outcome, (key,) * one.vote.num_votes, "second_view", f"views {one.group.completions[0].version}"))
        return labels

    def _requests_of(self, one: VotedGroup) -> list[ExtraRequest]:
        group, paraphrases = one.group, one.group.extras_of(Role.PARAPHRASE)
        asked = self._wording.asked(group.prompt)
        if asked is not None and not paraphrases:
            prompt = Prompt(f"{group.prompt.id} paraphrase", asked)
            return [ExtraRequest(group.index, Role.PARAPHRASE, prompt, self._wording.num_paraphrases)]
        offered = [text for extra in paraphrases for text in extra.answers.texts if text is not None]
        second = self._wording.second(group.prompt, offered[0] if offered else None)
        if second is None:
            return []
        return [ExtraRequest(group.index, Role.VIEW, Prompt(group.prompt.id + SUFFIX, second), one.vote.num_votes)]


def view_of(one: VotedGroup) -> VotedGroup | None:
    """The votes of a group under its second wording; None where there are none."""
    return next((extra for extra in one.group.extras_of(Role.VIEW) if extra.group.prompt.id == one.group.prompt.id + SUFFIX), None)
