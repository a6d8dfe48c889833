"""Views: several wordings of a prompt vote together, so that agreement must survive rewording (Self-Harmony, arXiv 2511.01191, for more than two wordings).

    y* = argmax_a of the harmonic or arithmetic mean over the K wordings of p_k(a)      `means.py`

Who answers is a choice of its own. The policy: its completions are the votes under the first wording, N more for each of the others. The moving average of its
weights or the frozen start: N votes under each wording, the prompt's own too, and the policy's completions are only rewarded. The first cost is
`cost/view_tokens`, the second `cost/teacher_tokens`. Only completions of the prompt itself are trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from selftrain.labels.means import Mean, by_mean
from selftrain.labels.rules import Bounds
from selftrain.labels.second_view import Wording
from selftrain.policies.base import ExtraRequest
from selftrain.types import Label, Outcome, Prompt, Role, VotedGroup

Voter = Literal["current", "base", "ema"]
VOTES_OF: Mapping[Voter, str] = {"current": "views", "base": "teacher", "ema": "average"}
"""what a label's `decided_by` calls them: the word of the sources with one such vote"""


class Views:
    """A label source with two phases. wordings: where each wording but the prompt's own comes from; nobody is asked for one.

    min_agreeing: under how many wordings, the prompt's own among them, the label must be the single winner. voter: who answers.
    """

    def __init__(self, wordings: Sequence[Wording], mean: Mean, min_agreeing: int, voter: Voter) -> None:
        self._wordings, self._mean, self._min_agreeing, self._voter = wordings, mean, min_agreeing, voter
        self._role = Role.VIEW if voter == "current" else Role.TEACHER
        self._asked = range(1 if voter == "current" else 0, 1 + len(wordings))

    def requests(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[ExtraRequest]:  # noqa: ARG002
        """For each group as many votes as it has under each wording, those that it does not have yet."""
        return [request for one in voted for request in self._requests_of(one)]

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
        """One label per group: the answer with the highest mean for all N completions, or the reason why there is none."""
        return [self._label(one, bounds) for one in voted]

    def _label(self, one: VotedGroup, bounds: Bounds) -> Label:
        known = self._known(one)
        seen = [one] if self._voter == "current" else []
        seen += [known[at] for at in self._asked if at in known]
        is_whole = len(seen) == 1 + len(self._wordings)
        votes = [view.vote for view in seen]
        outcome, key = by_mean(votes, self._mean, bounds, self._min_agreeing) if is_whole else (Outcome.NO_SECOND_VIEW, None)
        done = next((view.group.completions[0] for view in seen if view.group.completions), one.group.completions[0])
        return Label(outcome, (key,) * one.vote.num_votes, "views", f"{VOTES_OF[self._voter]} {done.version}")

    def _requests_of(self, one: VotedGroup) -> list[ExtraRequest]:
        prompt, known = one.group.prompt, self._known(one)
        texts = {at: self._wordings[at - 1].second(prompt, None) if at else prompt.messages for at in self._asked if at not in known}
        prompts = [Prompt(name(prompt, at), messages) for at, messages in texts.items() if messages is not None]
        return [ExtraRequest(one.group.index, self._role, worded, one.vote.num_votes, self._voter) for worded in prompts]

    def _known(self, one: VotedGroup) -> dict[int, VotedGroup]:
        """The samples of a group by wording; those of another source have other prompt ids."""
        samples = {extra.group.prompt.id: extra for extra in one.group.extras_of(self._role)}
        return {at: samples[name(one.group.prompt, at)] for at in self._asked if name(one.group.prompt, at) in samples}


def name(prompt: Prompt, at: int) -> str:
    """The prompt id of the samples under a wording, 0 for the prompt's own: `add/3 wording 1`. It gives them streams of their own."""
    return f"{prompt.id} wording {at}"
