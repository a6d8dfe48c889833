"""The second turn: the policy sees a completion of its own, looks for the error and answers again; rewarded by the label of the first turn.

    messages of a second turn = the prompt's messages, assistant: a completion that voted, user: the request to check
    r_j = 1[a_j = y*]   for each correction j, y* the label of the completion that it corrects

The corrections of one completion are a group of their own with the role `correction`: they share their context, so the baseline is over them alone and no
difference between contexts enters an advantage. Half of the completions that are chosen agree with the label and half do not, where there are as many: all
corrections of a right completion are mostly right and teach nothing, and a second turn that only ever sees errors learns to change every answer.
The label is made before the second turn and no correction votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from selftrain.policies.base import ExtraRequest
from selftrain.types import AnswerKey, Answers, Finish, Group, Label, Message, Outcome, Prompt, Role, ScoredGroup, VotedGroup

ANSWERS = "{answers}"
"""in the text of the second turn: replaced by the different answers of the group"""


@dataclass(frozen=True, slots=True)
class Correction:
    """How second turns are asked for. text: what the user says. num_completions: of a group that get one; 0: none. num_corrections: of each."""

    text: str = ""
    num_completions: int = 0
    num_corrections: int = 0

    def requests(self, labels: Sequence[Label], voted: Sequence[VotedGroup]) -> list[ExtraRequest]:
        """The second turns of a step that are not there yet. labels: of these groups."""
        return [request for one, label in zip(voted, labels, strict=True) for request in self._requests_of(one, label)]

    def _requests_of(self, one: VotedGroup, label: Label) -> list[ExtraRequest]:
        there = {extra.group.prompt.id for extra in one.group.extras_of(Role.CORRECTION)}
        prompts = [self.prompt(one, index) for index in chosen(one, label, self.num_completions)]
        return [ExtraRequest(one.group.index, Role.CORRECTION, prompt, self.num_corrections) for prompt in prompts if prompt.id not in there]

    def prompt(self, one: VotedGroup, index: int) -> Prompt:
        """The second turn after completion `index` of a group; answers are listed by their keys, so that nothing tells which has most votes."""
        group = one.group
        text = self.text.replace(ANSWERS, ", ".join(different(one.answers))) if ANSWERS in self.text else self.text
        messages = (*group.prompt.messages, Message("assistant", group.completions[index].text), Message("user", text))
        return Prompt(name(group, index), messages)


def name(group: Group, index: int) -> str:
    """The id of the second turn after completion `index`. Example: `add/3 correction 5`."""
    return f"{group.prompt.id} correction {index}"


def corrects(served: Group, correction: Group) -> int:
    """The index of the completion that a correction group of `served` looks at."""
    return int(correction.prompt.id.removeprefix(name(served, 0)[:-1]))


def different(answers: Answers) -> list[str]:
    """One spelling of each answer of a group, in the order of the keys."""
    spelled: dict[AnswerKey, str] = {}
    for text, key in zip(answers.texts, answers.keys, strict=True):
        if text is not None and key is not None:
            spelled[key] = min(text, spelled.get(key, text))
    return [spelled[key] for key in sorted(spelled)]


def target_of(label: Label, index: int) -> AnswerKey | None:
    """The key that a correction of completion `index` should have; None where the label has none or takes its group for spurious (an offset below 0)."""
    return label.targets[index] if label.is_decided and label.weight > 0 and label.offset >= 0 else None


def correctable(one: VotedGroup) -> list[int]:
    """The completions that can be looked at again: those that were not cut off."""
    return [index for index, completion in enumerate(one.group.completions) if completion.finish is Finish.STOP]


def chosen(one: VotedGroup, label: Label, num: int) -> list[int]:
    """At most `num` completions with a target, sorted: the first that differ from it and the first that agree, in turn, one kind filling up for the other."""
    able = [index for index in correctable(one) if target_of(label, index) is not None]
    differing = [index for index in able if one.answers.keys[index] != label.targets[index]]
    agreeing = [index for index in able if one.answers.keys[index] == label.targets[index]]
    in_turn = [index for index in chain.from_iterable(zip_longest(differing, agreeing)) if index is not None]
    return sorted(in_turn[:num])


def correction_label(served: Group, label: Label, correction: Group) -> Label:
    """What is rewarded in the corrections of one completion: its own target, with the weight and provenance of the label of the group."""
    num = len(correction.completions)
    key = target_of(label, corrects(served, correction))
    outcome = (Outcome.DECIDED if num else Outcome.NO_ROOM) if key is not None else label.outcome
    return Label(outcome, (key,) * num, label.source, label.decided_by, label.uses_truth, label.weight)


def agreement(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """The correction metrics of a step (`metrics.METRICS` has the formulas); none where nothing was corrected."""
    corrected = [one for one in scored if any(two.label.is_decided for two in one.corrections)]
    pairs = [pair for one in corrected for pair in turns(one)]
    rooms = [two.label.outcome is Outcome.NO_ROOM for one in scored for two in one.corrections]
    values = {"correction/no_room_frac": sum(rooms) / len(rooms)} if rooms else {}
    if not pairs:
        return values
    shares = [before_and_after(one) for one in corrected]
    values["correction/agree_turn1_frac"] = sum(before for before, _ in shares) / len(shares)
    values["correction/agree_turn2_frac"] = sum(after for _, after in shares) / len(shares)
    for key, kind in (("correction/mended_frac", False), ("correction/broken_frac", True)):
        seconds = [second for first, second in pairs if first is kind]
        if seconds:
            values[key] = sum(second is not kind for second in seconds) / len(seconds)
    values["correction/admitted_frac"] = sum(bool(two.trained) for one in corrected for two in one.corrections) / sum(len(one.corrections) for one in corrected)
    return values


def turns(one: ScoredGroup) -> list[tuple[bool, bool]]:
    """(whether the completion agrees with its target, whether the correction does) for each correction of a group."""
    group, keys = one.voted.group, one.voted.answers.keys
    found = []
    for two in one.corrections:
        first = keys[corrects(group, two.voted.group)]
        found += [(first == target, second == target) for second, target in zip(two.voted.answers.keys, two.label.targets, strict=True)]
    return found


def before_and_after(one: ScoredGroup) -> tuple[float, float]:
    """The share of a group's completions that agree with their targets, and that share if each were corrected once.

    The chosen completions are no fair sample, so corrections of those that agree and of the others are weighed by how many there are of each kind; a kind of
    which none was corrected stays as it was.
    """
    keys, targets, pairs = one.voted.answers.keys, one.label.targets, turns(one)
    share = sum(key is not None and key == target for key, target in zip(keys, targets, strict=True)) / len(keys)
    after = 0.0
    for kind, part in ((True, share), (False, 1 - share)):
        seconds = [second for first, second in pairs if first is kind]
        after += part * (sum(seconds) / len(seconds) if seconds else float(kind))
    return share, after
