"""Groups as a report shows them: the most contested ones of the last steps."""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.ledger import Ledger
from selftrain.types import AnswerKey, ScoredGroup

LAST_STEPS = 5
NUM_CONTESTED = 6
COMPLETIONS_EACH = 4
MAX_CHARACTERS = 600
NUM_COLOURS = 6


@dataclass(frozen=True, slots=True)
class ShownCompletion:
    """A completion (its end, when it is long) with what was decided about it. reward: None in an undecided group."""

    text: str
    key: AnswerKey | None
    reward: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """A group whose vote was close. votes: (key, count, share of all votes); unread: votes without an answer."""

    step: int
    prompt_id: str
    prompt: str
    outcome: str
    label: AnswerKey | None
    decided_by: str
    admission: str
    votes: tuple[tuple[AnswerKey, int, float], ...]
    unread: int
    completions: tuple[ShownCompletion, ...]

    @property
    def bar(self) -> list[tuple[float, float, str]]:
        """(start, width, colour) of each key in percent of all votes; what is left over is unread or beyond the keys shown."""
        found, start = [], 0.0
        for index, (_, _, share) in enumerate(self.votes):
            found.append((round(start, 2), round(100 * share, 2), str(index) if index < NUM_COLOURS else "rest"))
            start += 100 * share
        return [*found, (round(start, 2), round(100 - start, 2), "rest")] if start < 99.9 else found


def contested(ledger: Ledger) -> tuple[ShownGroup, ...]:
    """Of the last steps, the groups with the smallest margin between winner and runner-up; unanimous and unread ones are left out."""
    groups = [group for step in ledger.group_steps()[-LAST_STEPS:] for group in ledger.groups(step)]
    split = [group for group in groups if len(group.voted.vote.counts) > 1]
    split.sort(key=lambda group: (group.voted.vote.margin_frac, group.voted.vote.share_frac, -group.voted.group.step, group.voted.group.index))
    chosen: dict[str, ScoredGroup] = {}
    for group in split:
        chosen.setdefault(group.voted.group.prompt.id, group)
    return tuple(shown(group) for group in list(chosen.values())[:NUM_CONTESTED])


def shown(scored: ScoredGroup) -> ShownGroup:
    group, vote, label = scored.voted.group, scored.voted.vote, scored.label
    return ShownGroup(
        step=group.step,
        prompt_id=group.prompt.id,
        prompt=clipped(group.prompt.text),
        outcome=label.outcome.value,
        label=label.key,
        decided_by=label.decided_by,
        admission=scored.admission.value,
        votes=tuple((key, count, count / vote.num_votes) for key, count in vote.counts[:8]),
        unread=vote.num_votes - vote.num_read,
        completions=tuple(shown_completion(scored, index) for index in representatives(scored)),
    )


def shown_completion(scored: ScoredGroup, index: int) -> ShownCompletion:
    rewards = scored.rewards
    return ShownCompletion(
        text=clipped(scored.voted.group.completions[index].text),
        key=scored.voted.answers.keys[index],
        reward=rewards.values[index] if rewards.values else None,
        reason=rewards.reasons[index] if rewards.reasons else scored.label.outcome.value,
    )


def representatives(scored: ScoredGroup) -> list[int]:
    """Indices of a few completions that together show the group: one of each key, most votes first, then one without an answer, then second ones."""
    keys = scored.voted.answers.keys
    order = [key for key, _ in scored.voted.vote.counts]
    by_key = [[i for i, key in enumerate(keys) if key == wanted] for wanted in [*order, None]]
    rounds = [indices[depth] for depth in range(max(map(len, by_key), default=0)) for indices in by_key if depth < len(indices)]
    return rounds[:COMPLETIONS_EACH]


def clipped(text: str) -> str:
    """The text, or the end of a long one, where its answer stands."""
    return text if len(text) <= MAX_CHARACTERS else f"[{len(text) - MAX_CHARACTERS} characters left out] {text[-MAX_CHARACTERS:]}"
