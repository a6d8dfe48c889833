"""The named values of the carriers: what a group is for, how it ended, what was decided about it. An undecided thing is a value (design law 4)."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What the completions of a group are for. Only those of `vote` and `correction` groups are rewarded and trained on."""

    VOTE = "vote"
    """to be voted on, labelled and rewarded"""
    JUDGE = "judge"
    """to say whether two free-form answers say the same, or whether a completion is right"""
    TEACHER = "teacher"
    """to give the label by the vote of another policy"""
    VIEW = "view"
    """to be voted on as the answers to another wording of the prompt"""
    PARAPHRASE = "paraphrase"
    """to be a second wording of the prompt"""
    CORRECTION = "correction"
    """to answer again after a look at a completion that voted"""
    PROBE = "probe"
    """to show how the policy changed, on prompts that are never trained on"""


class Finish(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """the policy sampled an end token or a stop string"""
    LENGTH = "length"
    """the limit of new tokens was reached: the completion is truncated"""


class Outcome(StrEnum):
    """What a label source decided about a group; everything but `DECIDED` gives no rewards at all."""

    DECIDED = "decided"
    TIE = "tie"
    NO_ANSWER = "no_answer"
    BELOW_QUORUM = "below_quorum"
    BELOW_MIN_SHARE = "below_min_share"
    GATE_CLOSED = "gate_closed"
    """a condition under which the vote is trusted does not hold; the label's `decided_by` names it"""
    NO_REFERENCE = "no_reference"
    NO_VERIFIER = "no_verifier"
    """no verifier looks at this prompt"""
    NO_VERDICT = "no_verdict"
    """the verifier, or whoever judges, gave no verdict on any completion"""
    NO_SECOND_VIEW = "no_second_view"
    """the prompt has no second wording"""
    VIEWS_DIFFER = "views_differ"
    """no answer has votes under all wordings of the prompt, or the label wins under too few of them"""
    NO_ROOM = "no_room"
    """the second turn leaves no room for a correction"""
    NOT_STORED = "not_stored"
    """the file of stored labels has no vote on the prompt"""


class Admission(StrEnum):
    """Whether a group may train, with the reason."""

    ADMITTED = "admitted"
    UNDECIDED = "undecided"
    """the label source gave no label"""
    NO_SIGNAL = "no_signal"
    """every advantage is zero: all rewards are equal and the label has no offset, or its weight is 0"""


class Action(StrEnum):
    """What the guard tells the loop to do."""

    CONTINUE = "continue"
    WARN = "warn"
    ROLL_BACK = "roll_back"
    HALT = "halt"
