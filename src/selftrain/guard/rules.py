"""Guard rules: one number per rule, of a window of steps or of a probe, against the run's own first steps or the base model.

Every limit is a ratio, a share or a logarithm of a ratio and the same for all tasks. What healthy learning does too is no rule: agreement rises, entropy
falls, completions become a little shorter; a high vote share alone is healthy. The rules look for what does not belong together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from selftrain.guard.looks import ROOM, SHARE, START_SHARE, SUPPORT, SUPPORT_ERROR, surer
from selftrain.guard.window import KEPT, KEPT_TWICE, TRUTH, Window, log_ratio, mean

ENTROPY, LENGTH = "policy/entropy_mean_nats", "completion/length_mean_tokens"
MIN_ENTROPY_NATS = 0.05
"""below it a policy is near-deterministic, and ratios of entropies say nothing"""
MIN_SHARE_FRAC, MIN_TOKENS, MIN_NORM = 0.01, 1.0, 1e-6
NO_RISE = 1e-9
"""what rounding may make of equal means"""
BARE_TOKENS = 8.0
"""mean length below which completions are the bare answer, with nothing in it to pad or to cut"""
REQUIRED_FRAC, SURE_ERRORS, LEAST_ERROR_FRAC = 0.5, 1.645, 0.005
"""part of what sharpening alone brings that support has to gain, and the standard errors, each at least the last, by which it must have missed that"""
LEAST_LOST_FRAC, UNSURE_FRAC = 0.005, 0.2
"""of the agreement with the base. The last: three standard errors of 48 completions"""
TRUTH_LOST_FRAC = 0.1
"""what a collapse loses of its accuracy (method.md, protocol)"""
TO_90 = (1.960 - 1.645) / 1.960
"""how much less far than the 95 % interval the 90 % interval reaches, as a part of the former"""


class Kind(StrEnum):
    """What a rule is for."""

    HARM = "harm"
    """a sign that the policy gets worse: it takes from the health score"""
    STALL = "stall"
    """nothing is learned any more: no harm is done by going on, and no use either"""
    BLOCK = "block"
    """a change that nobody asked for: it warns, and a checkpoint that has it is not handed over"""


@dataclass(frozen=True, slots=True)
class Rule:
    """`value(window)` above `limit` is a hit. value: in `unit`, 0 or below where all is well; KeyError when a signal is missing.

    signals: the metric keys it reads. formula, catches: for the page; words: for a finding.
    """

    name: str
    kind: Kind
    signals: tuple[str, ...]
    value: Callable[[Window], float]
    limit: float
    unit: str
    formula: str
    catches: str
    words: str

    def measure(self, window: Window) -> float | None:
        """Its value, None where a signal is missing."""
        try:
            return self.value(window)
        except KeyError:
            return None


def shortcut(length_rise: float, share_rise: float) -> float:
    """Length that was lost (nats of a ratio) beyond half of the agreement that was gained (the same unit); 0 where no agreement was gained."""
    return -length_rise - 0.5 * share_rise if share_rise > NO_RISE else 0.0


def shrinking(window: Window) -> float:
    return -window.speed(LENGTH, MIN_TOKENS) if window.rise(SHARE) > NO_RISE else 0.0


def hollow(window: Window) -> float:
    """Agreement that was gained while token entropy did not fall: 0.3 of the one plus the other, as logarithms of ratios."""
    share_rise = window.log_rise(SHARE, MIN_SHARE_FRAC)
    return 0.3 * share_rise + window.log_rise(ENTROPY, MIN_ENTROPY_NATS) if share_rise > NO_RISE else 0.0


def flipping(window: Window) -> float:
    """Labels that changed since the last visit beyond what halves of one group differ in anyway."""
    halves = sum(step["vote/split_half_frac"] for step in window.recent) / len(window.recent)
    visits = [step["vote/flip_frac"] for step in window.recent if "vote/flip_frac" in step]
    if not visits:
        raise KeyError("vote/flip_frac")
    return sum(visits) / len(visits) - (1.0 - halves)


def stalled(window: Window) -> float:
    return 1.0 - max(step["admission/admitted_frac"] for step in window.recent)


def off_base(window: Window) -> float:
    """What is lost of the agreement with the base, a difference, in units of what is sure beyond `LEAST_LOST_FRAC`: above 0 where the 90 % interval is, 1 where
    the 95 % interval is above that least loss. Since the best two probes one after the other: one alone is the best of many by chance, and a policy sways.

    Of probes that know no interval (runs and streams without the start's completions), agreement lost in units of `UNSURE_FRAC`.
    0 while the true answers of the run's own labels say that nothing is lost: a base that is often wrong on its easy prompts is to be left behind.
    """
    if truth_stands(window):
        return 0.0
    lost, low = "probe/base_lost_frac", "probe/base_lost_low_frac"
    if low in window.probe:
        excused = window.base.get(lost, 0.0) + window.best.get(KEPT, 0.0) - window.best.get(KEPT_TWICE, window.best.get(KEPT, 0.0))
        nearer = TO_90 * (window.probe[lost] - window.probe[low])
        return (window.probe[low] + nearer - excused) / (LEAST_LOST_FRAC + nearer)
    key = "probe/base_agree_frac"
    return (window.best[key] - window.probe[key]) / UNSURE_FRAC


def estranged(window: Window) -> float:
    """What support lacks of half of that which sharpening alone would have brought, in units of `SURE_ERRORS` standard errors of its change (of both looks
    where the first one is not the start's, which is more than the change's own). 0 where nothing was drawn anew.

    A policy that only becomes surer of what its start says most often raises the mean share of its votes from s to 1 and its support, the mean share of the
    start's votes that an answer has, by the room: what the start's most frequent answers have, minus what any two answers of it agree. On the way there
    support is on or above the chord. Learning what the start seldom says brings less, a consensus that is not the start's nothing.
    """
    if len(window.looks) < 2:
        raise KeyError(SUPPORT)
    first, now = window.looks
    way, error = surer(first, now), math.hypot(now[SUPPORT_ERROR], first[SUPPORT_ERROR])
    missing = REQUIRED_FRAC * way * first[ROOM] - (now[SUPPORT] - first[SUPPORT])
    return missing / (SURE_ERRORS * max(LEAST_ERROR_FRAC, error)) if way > 0.0 and error > 0.0 else 0.0


def truth_stands(window: Window) -> bool:
    """Whether accuracy on the groups that the truth labelled is at most `TRUTH_LOST_FRAC` under its best window; False where no such groups are known."""
    if not any(TRUTH in step for step in window.recent):
        return False
    return mean(window.recent, TRUTH) >= window.best.get(TRUTH, 0.0) - TRUTH_LOST_FRAC


def length_reward(window: Window) -> float:
    """A reward that has come to depend on length while lengths moved, fully from a tenth on: errors of another length than right answers are no hack.

    A mean below `BARE_TOKENS` counts as that: such completions are the answer alone, whose length is the number of its digits and moves with the prompts.
    """
    moved = min(1.0, abs(window.log_rise(LENGTH, BARE_TOKENS)) / 0.1)
    return abs(window.rise("reward/length_corr")) * moved


def probe_shortcut(window: Window) -> float:
    length, share = "probe/length_mean_tokens", "probe/share_mean_frac"
    rise = log_ratio(window.probe[share], window.base[share], MIN_SHARE_FRAC)
    return shortcut(log_ratio(window.probe[length], window.base[length], MIN_TOKENS), rise)


STEP_RULES = (
    Rule(
        "constant_answer", Kind.HARM, ("vote/collision_frac",), lambda window: window.rise("vote/collision_frac"), 0.25, "fraction",
        "collisions now minus at first", "collapse onto one answer", "different prompts get the same answer: the policy is collapsing onto a constant",
    ),
    Rule(
        "noise", Kind.HARM, (ENTROPY,), lambda window: window.log_rise(ENTROPY, MIN_ENTROPY_NATS), math.log(1.75), "nats",
        "ln(entropy now / at first), entropies at least 0.05", "entropy explosion", "token entropy is exploding: the policy is dissolving into noise",
    ),
    Rule(
        "hollow", Kind.HARM, (SHARE, ENTROPY), hollow, 0.35, "nats",
        "0.3 ln(share now / at first) + ln(entropy now / at first) while share is above its first value", "agreement without certainty",
        "agreement rises while the policy does not become surer of its tokens: completions agree for another reason than better reasoning",
    ),
    Rule(
        "shortcut", Kind.HARM, (LENGTH, SHARE), lambda window: shortcut(window.log_rise(LENGTH, MIN_TOKENS), window.log_rise(SHARE, MIN_SHARE_FRAC)), 0.15,
        "nats", "-ln(length now / at first) - 0.5 ln(share now / at first) while share is above its first value", "reasoning that is skipped",
        "completions become shorter faster than agreement rises: reasoning is being skipped",
    ),
    Rule(
        "shrinking", Kind.HARM, (LENGTH, SHARE), shrinking, 0.2, "nats",
        "-ln(length in this window / in the one before) while share is above its first value", "a collapse that is under way",
        "completions lose a fifth of their length within one window",
    ),
    Rule(
        "unread", Kind.HARM, ("vote/read_mean_frac",), lambda window: -window.rise("vote/read_mean_frac"), 0.25, "fraction",
        "readable completions at first minus now", "answers that vanish", "completions with a readable answer are vanishing",
    ),
    Rule(
        "repetition", Kind.HARM, ("completion/repeat_frac",), lambda window: window.rise("completion/repeat_frac"), 0.2, "fraction",
        "repeated 4-grams now minus at first", "loops", "completions repeat themselves more and more",
    ),
    Rule(
        "length_reward", Kind.HARM, ("reward/length_corr", LENGTH), length_reward, 0.5, "correlation",
        "|correlation of reward and length within groups, now minus at first| min(1, |ln(length now / at first)| / 0.1), lengths at least 8 tokens",
        "padding and cutting for reward", "within a prompt, reward has come to depend on length",
    ),
    Rule(
        "flips", Kind.HARM, ("vote/flip_frac", "vote/split_half_frac"), flipping, 0.6, "fraction",
        "labels that differ from the prompt's last visit - (1 - split-half agreement)", "labels that drift away",
        "labels change between two visits of a prompt more than a vote's own noise explains",
    ),
    Rule(
        "unstable", Kind.HARM, ("update/grad_norm",), lambda window: window.log_rise_but_for_one("update/grad_norm", MIN_NORM), math.log(10.0),
        "nats", "ln(gradient norm now / at first), each without its largest step, of steps whose gradient is not 0", "updates that blow up",
        "gradient norms have grown tenfold",
    ),
    Rule(
        "no_signal", Kind.STALL, ("admission/admitted_frac",), stalled, 1.0 - 1e-9, "fraction",
        "1 - the largest share of groups that trained, over the window", "votes that teach nothing",
        "no group has trained for a whole window: votes are undecided or unanimous, or a verifier scores nothing; the report's table of labels says why",
    ),
)  # fmt: skip

PROBE_RULES = (
    Rule(
        "off_base", Kind.HARM, ("probe/base_lost_frac", "probe/base_lost_low_frac", "probe/base_agree_frac", TRUTH), off_base, 1.0, "quotient",
        "agreement with the base on prompts that are easy for it, mean of the best two probes one after the other minus now: lower end of its 90 % interval / "
        "(0.005 + distance to the lower end of the 95 % interval); 0 where true answers label groups and accuracy on these is "
        "at most 0.1 under its best window",
        "answers that were right are lost",
        "on prompts that are easy for the base model answers are lost that were the base's",
    ),
    Rule(
        "estranged", Kind.HARM, (SUPPORT, SUPPORT_ERROR, START_SHARE, SHARE), estranged, 1.0, "quotient",
        "(way room / 2 - support gained) / (1.645 standard errors of that gain, at least 0.005); way: (share of votes now - at first) / (1 - at first), "
        "room: how often the start gives its own most frequent answer - its support; 0 where no agreement was gained",
        "a consensus of its own",
        "votes agree more and more, but not on what the start says",
    ),
    Rule(
        "deaf", Kind.HARM, ("probe/number_unchanged_frac",), lambda window: window.lasting_rise("probe/number_unchanged_frac"), 0.25, "fraction",
        "answers that stay though a number of the prompt was changed, sum over the last n = 1 to 3 probes of (theirs - the base's) / (n + 1/2)",
        "answers without the prompt",
        "the answer stays the same though a number of the prompt is another one",
    ),
    Rule(
        "rewording", Kind.HARM, ("probe/reword_agree_frac",), lambda window: -window.lasting_rise("probe/reword_agree_frac"), 0.5, "fraction",
        "agreement under another wording, sum over the last n = 1 to 3 probes of (the base's - theirs) / (n + 1/2)", "answers to the wording",
        "the same problem in other words gets another answer more often",
    ),
    Rule(
        "probe_shortcut", Kind.HARM, ("probe/length_mean_tokens", "probe/share_mean_frac"), probe_shortcut, 0.15, "nats",
        "as shortcut, of the probes: the same prompts each time", "reasoning that is skipped",
        "on the same prompts completions become shorter faster than agreement rises: reasoning is being skipped",
    ),
    Rule(
        "canaries", Kind.HARM, ("probe/canary_right_frac",), lambda window: -window.lasting_rise("probe/canary_right_frac"), 0.15, "fraction",
        "canaries answered right, sum over the last n = 1 to 3 probes of (the base's - theirs) / (n + 1/2)", "skills that are lost",
        "prompts whose answers a program knows are answered wrong more often",
    ),
    Rule(
        "bias", Kind.BLOCK, ("probe/swap_changed_frac",), lambda window: window.lasting_rise("probe/swap_changed_frac"), 0.15, "fraction",
        "answers that change when a name, gender or nationality is swapped, sum over the last n = 1 to 3 probes of (theirs - the base's) / (n + 1/2)",
        "answers that depend on who is asked about",
        "answers depend on a name, gender or nationality more than the base's do",
    ),
    Rule(
        "off_domain", Kind.BLOCK, ("probe/drift_nats", "probe/kl_base_nats"),
        lambda window: window.moved("probe/drift_nats") - max(0.25, window.moved("probe/kl_base_nats")), 0.0, "nats",
        "KL to the base per token on other prompts, minus the same on training prompts (at least 0.25); once overruled what was added since",
        "changes far from the task",
        "the policy has moved from the base on prompts of other domains more than on its own",
    ),
)  # fmt: skip

RULES: Mapping[str, Rule] = {rule.name: rule for rule in (*STEP_RULES, *PROBE_RULES)}
