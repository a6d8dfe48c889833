"""What `selftrain guard` says of the verdicts: lines as they come, and the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from selftrain.config import GuardSection
from selftrain.report.words import finding_words, health_words, steps_words

if TYPE_CHECKING:
    from selftrain.trainer_log import Seen
    from selftrain.types import Verdict

WARNED, HARMED = 3, 4


@dataclass(slots=True)
class Found:
    """What the verdicts so far say. first: (branch, verdict) of the first finding and of the first verdict of each action, in the order they came in."""

    num_steps: int = 0
    num_found: int = 0
    first: dict[str, tuple[int, Verdict]] = field(default_factory=dict)

    def add(self, branch: int, verdict: Verdict) -> None:
        self.num_steps += 1
        self.num_found += bool(verdict.findings)
        self.first.setdefault(verdict.action.value, (branch, verdict))
        if verdict.findings:
            self.first.setdefault("found", (branch, verdict))

    @property
    def status(self) -> int:
        return HARMED if "halt" in self.first else WARNED if "warn" in self.first else 0


def place(verdict: Verdict, branch: int) -> str:
    return f"step {verdict.step}{f' of branch {branch}' if branch else ''}"


def as_row(verdict: Verdict, branch: int) -> dict[str, Any]:
    """A verdict as it is written, in the words of the ledger; the first branch is not named."""
    from selftrain.ledger.records import verdict_body

    return verdict_body(verdict) | ({"branch": branch} if branch else {})


def told(verdict: Verdict, branch: int) -> Iterator[str]:
    """A line for a step with findings, and one for each of them; nothing for others."""
    if verdict.findings:
        yield f"{place(verdict, branch)}: {verdict.action.value}, {health_words(verdict.health)}"
        yield from (f"  {finding_words(finding)}" for finding in verdict.findings)


def summary(found: Found, num_judged: int, notes: Sequence[str], error: str) -> dict[str, Any]:
    """The last line as JSON. notes, error: there only where there is something to say."""
    made: dict[str, Any] = {"steps": found.num_steps, "judged": num_judged, "with_findings": found.num_found}
    for name, action in (("first_warning", "warn"), ("first_harm", "halt")):
        branch, verdict = found.first.get(action, (0, None))
        made[name] = None if verdict is None else verdict.step
        if branch:
            made[f"{name}_branch"] = branch
    return made | ({"notes": list(notes)} if notes else {}) | ({"error": error} if error else {})


def concluded(found: Found) -> str:
    """The last line."""
    if "found" not in found.first:
        return f"{found.num_steps} steps judged: no evidence of harm."
    begun, harmed = (None if key not in found.first else place(found.first[key][1], found.first[key][0]) for key in ("found", "halt"))
    harm = "no harm that would have halted it" if harmed is None else f"harm, or a standstill, at {harmed}"
    return f"{found.num_steps} steps judged: findings in {found.num_found} of them, first at {begun}; {harm}."


def unjudged(found: Found, seen: Seen, section: GuardSection) -> tuple[str, str]:
    """Why no step could be judged, and what to do; nothing where one was, or something was found."""
    needed = max(section.baseline_steps + 1, section.window_steps)
    if found.status or (seen.judged and not seen.is_unread and (not seen.single or seen.single < seen.groups)):
        return "", ""
    if found.num_steps < needed:
        return (
            f"no step could be judged: {steps_words(found.num_steps)}, the first verdict needs {needed}",
            "Give more steps, or smaller --baseline-steps and --window-steps.",
        )
    if seen.single and seen.single == seen.groups:
        do = "Let the completions of a prompt follow each other, or give rows with a list of completions."
        return "no step could be judged: every group has one completion or none, which agrees with itself", do
    if seen.is_unread:
        do = "`selftrain vote FILE --explain PROMPT` shows what is read in a completion; docs/answers.md says how answers are marked."
        return f"no step could be judged: no completion of {seen.groups - seen.left} groups has an answer that could be read, so nothing votes", do
    names = ", ".join(sorted(seen.signals)) or "none"
    why = f"no step could be judged: no rule has all of its signals, in the first steps and later; there are {names}"
    return why, "docs/guard.md has the signals of each rule; --map FIELD=SIGNAL says which field is which."
