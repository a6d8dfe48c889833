"""Recorded probes again: answers, votes and the signals that follow from them; what needs the models (KL) is a recorded input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selftrain.compose_probes import drawing, make_canaries
from selftrain.config import RunConfig
from selftrain.extras import RoleReader
from selftrain.guard.doubts import is_probed
from selftrain.guard.looks import START_SHARE, SUPPORT
from selftrain.ledger import Ledger
from selftrain.probes import base_of
from selftrain.probes.probing import probe_tokens
from selftrain.probes.signals import FROM_LOGPROBS, answer_signals
from selftrain.probes.support import support_signals
from selftrain.types import VotedGroup


def probe_values(ledger: Ledger) -> dict[tuple[int, int], Mapping[str, float]]:
    """By (branch, step), what the probes said: recorded before the verdict that rests on it."""
    lines = ((entry, ledger.line(entry)) for entry in ledger.entries if entry.kind == "probe")
    return {(entry.branch, int(entry.step or 0)): values for entry, line in lines if isinstance(values := line.body["values"], dict)}


def probes_that_differ(ledger: Ledger, config: RunConfig) -> tuple[int, tuple[int, ...]]:
    """(number of recorded probes, the steps of those whose signals do not follow from the recorded completions). The start was asked at the first one."""
    known = {prompt.id: right for prompt, right in make_canaries(config).items()} if config.probes.canaries else {}
    how, base, differing = drawing(config), None, []
    recorded = {place: without_glance(values) for place, values in probe_values(ledger).items()}
    recorded = {place: values for place, values in recorded.items() if values}
    for (branch, step), values in recorded.items():
        groups = ledger.probed(step, branch)
        base = base_of(groups) if base is None else base
        again = {"cost/probe_tokens": probe_tokens(groups)}
        if SUPPORT in values:
            known_then = support_signals(groups, base.votes, how.num_supporting)
            again |= {name: value for name, value in known_then.items() if name in values or name != START_SHARE}  # older records lack it
        if is_probed(values):
            again |= answer_signals(groups, base.votes, known)
        if not reads_again(groups, how.read) or again != {name: value for name, value in values.items() if name not in FROM_LOGPROBS}:
            differing.append(step)
    return len(recorded), tuple(differing)


def without_glance(values: Mapping[str, float]) -> Mapping[str, float]:
    """What the models were needed for is no signal of a recorded completion."""
    return {name: value for name, value in values.items() if not name.startswith("glance/")}


def reads_again(groups: Sequence[VotedGroup], read: RoleReader) -> bool:
    """Whether the recorded answers and votes are those of the recorded texts."""
    return all(read(one.group) == one for one in groups)
