"""What is kept of the frozen start's answers: later probes are compared with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selftrain.probes.probe_set import Kind
from selftrain.types import AnswerKey, Completion, Finish, Group, PolicyVersion, Prompt, Role, Vote


@dataclass(frozen=True, slots=True)
class Base:
    """What the frozen start said. votes: by held-aside prompt, in the order in which they were asked. off_domain: its completions of off-domain texts, with
    their log-probabilities.
    agreed: by easy prompt, its completions that have its winner; none in a run that was begun before they were kept.

    Example of its state: `{"votes": {"add-4/5f": [16, 15, [["132", 15]]]}, "off_domain": [{"prompt_ids": [7], "token_ids": [3], "logprobs": [-0.1]}]}`.
    """

    votes: Mapping[str, Vote]
    off_domain: tuple[Group, ...]
    agreed: Mapping[str, Group] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """As JSON, for a checkpoint: what later probes need."""
        votes = {of: [vote.num_votes, vote.num_read, [list(count) for count in vote.counts]] for of, vote in self.votes.items()}
        return {
            "order": list(votes),
            "votes": votes,
            "off_domain": [
                {"prompt_ids": list(group.prompt_ids), "token_ids": list(done.token_ids), "logprobs": list(done.logprobs)}
                for group in self.off_domain
                for done in group.completions
            ],
            "agreed": {
                of: {
                    "prompt_ids": list(group.prompt_ids),
                    "token_ids": [list(done.token_ids) for done in group.completions],
                    "logprobs": [list(done.logprobs) for done in group.completions],
                }
                for of, group in self.agreed.items()
            },
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Base:
        order = state.get("order", state["votes"])  # a checkpoint sorts its keys
        votes = {of: vote_of(*state["votes"][of]) for of in order}
        texts = (
            recalled(f"{Kind.OFF_DOMAIN.value}:{number:02d}", one["prompt_ids"], [(one["token_ids"], one["logprobs"])])
            for number, one in enumerate(state["off_domain"])
        )
        agreed = {
            of: recalled(f"{Kind.BASE.value}:{of}", one["prompt_ids"], list(zip(one["token_ids"], one["logprobs"], strict=True)))
            for of, one in state.get("agreed", {}).items()
        }
        return cls(votes, tuple(texts), agreed)


def vote_of(num_votes: int, num_read: int, counts: Sequence[tuple[str, int]]) -> Vote:
    return Vote(num_votes, num_read, tuple((AnswerKey(found), count) for found, count in counts))


def recalled(prompt_id: str, prompt_ids: Sequence[int], completions: Sequence[tuple[Sequence[int], Sequence[float]]]) -> Group:
    """A group of (token ids, log-probabilities): nothing else of it is needed."""
    done = (Completion("", tuple(ids), tuple(logprobs), (0,) * len(ids), (), Finish.STOP, PolicyVersion(0, 0)) for ids, logprobs in completions)
    return Group(0, 0, Prompt(prompt_id, ()), tuple(prompt_ids), tuple(done), Role.PROBE)
