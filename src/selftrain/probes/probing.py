"""Asks a policy the prompts of a probe set and says what came of it, against the frozen start that was asked once.

Every probe of a run draws from the same random numbers, whatever the step: what differs between two probes is due to the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, islice
from typing import Any

from selftrain.metrics import mean
from selftrain.policies.base import Policy, Sampler, SampleRequest, SamplingParams
from selftrain.probes.base import Base
from selftrain.probes.kept import MIN_KEPT, Agreeing, Fallen, agreeing, bounded_ratio, fallen, kept_share, log_ratios, lost
from selftrain.probes.probe_set import Kind, Probe, ProbeSet
from selftrain.probes.signals import MIN_PAIRS, answer_signals, drift_signals, easy, kl_signals, num_easy, of_kind
from selftrain.probes.support import support_signals, supporting, times_asked
from selftrain.probes.telling import telling
from selftrain.rollout import read_and_count
from selftrain.seeds import Stream
from selftrain.types import Group, Places, Role, VotedGroup

BASE_VOTES = 4
"""times as many completions of each held-aside prompt are drawn from the start as from the policy later: they are drawn once, and say what is easy"""
GLANCES, GLANCE_PROMPTS = 4, 48
"""between two probes, and as many steps from the first on have one each; easy prompts that are looked at, of which more tell nothing more (docs/log.md)"""
FIRST_PROMPTS, CLEAR_ERRORS = 24, 0.5
"""of these easy prompts; the others are looked at unless the first ones have become more probable by more than so many standard errors (docs/log.md)"""
CALLING_ERRORS = 1.5
"""standard errors of a glance: a probe is called for where more than so many have fallen"""
CHANGED_PROMPTS = 8
"""of the held-aside prompts, the surest ones, are also asked with something changed"""
OFF_DOMAIN_TOKENS = 64
Logprobs = Sequence[Sequence[float]]
"""[N][T] of a group, in nats"""
CHANGED = (Kind.NUMBER, Kind.REWORD, Kind.SWAP, Kind.CANARY)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How probes are drawn. params: as the training completions. num_votes: completions of a held-aside prompt as it is, >= 2. seeds: of the run.

    read: a group's answers. num_prompts: how many held-aside prompts the start is asked at once: of further ones while less than half as many are easy.
    num_supporting: how many of them tell the support; 0 where true answers label, which know better.
    is_exact: whether what the policy said of a completion when it drew it is what it says when it scores it, but for rounding.
    """

    params: SamplingParams
    num_votes: int
    seeds: Stream
    read: Callable[[Group], VotedGroup] = read_and_count
    num_prompts: int = 96
    num_supporting: int = 96
    is_exact: bool = True

    def count(self, kind: Kind, paired: bool = True) -> int:
        """Completions of a prompt: of the changed ones half as many, since each is compared with all of its partner's; at least 2, so that they can agree.
        paired: a prompt as it is has changed partners; without any, half as many tell what is kept.
        """
        if kind is Kind.OFF_DOMAIN:
            return 1
        if kind in (Kind.OWN, Kind.SUPPORT):
            return self.num_votes if paired and kind is Kind.OWN else max(1, self.num_votes // 2)
        return BASE_VOTES * self.num_votes if kind is Kind.BASE else max(2, self.num_votes // 2)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came of a probe. groups: as they are recorded, with role `probe`. values: the signals, by metric key; those that cannot be known are missing.
    kept: by easy prompt, the share of the policy's answers that are the start's winner. seen: how probable one of the start's completions is, policy / start.
    telling: by rule, completions that show what it would find.
    """

    groups: tuple[VotedGroup, ...]
    values: Mapping[str, float]
    kept: Mapping[str, float] = field(default_factory=dict)
    seen: Mapping[str, float] = field(default_factory=dict)
    telling: Mapping[str, Places] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the groups of a probe stand in the record; nothing else depends on it."""

    step: int = 0
    first_index: int = 0


def ask_base(start: Sampler, probe_set: ProbeSet, how: Drawing, place: Place = Place()) -> tuple[VotedGroup, ...]:
    """The start's answers to the held-aside prompts, as many of them as it takes, and how it goes on after the off-domain texts: the groups that `base_of` is
    made of.
    """
    aside = list(probe_set.of_kind(Kind.BASE))
    votes: tuple[VotedGroup, ...] = ()
    while len(votes) < len(aside) and (not votes or 2 * num_easy(one.vote for one in votes) < how.num_prompts):
        votes += _asked(start, aside[len(votes) :][: how.num_prompts], how, behind(place, votes))
    params = replace(how.params, max_new_tokens=min(OFF_DOMAIN_TOKENS, how.params.max_new_tokens))
    texts = _asked(start, list(probe_set.of_kind(Kind.OFF_DOMAIN)), replace(how, params=params), behind(place, votes))
    return (*votes, *texts)


def base_of(groups: Sequence[VotedGroup]) -> Base:
    """What is kept of the start's answers."""
    asked = of_kind(groups, Kind.BASE)
    votes = {of: one.vote for of, one in asked.items()}
    agreed = {of: agreeing(asked[of], winner) for of, winner in sorted(easy(votes).items())}
    return Base(votes, tuple(one.group for one in of_kind(groups, Kind.OFF_DOMAIN).values()), agreed)


def probe(
    policy: Policy,
    base: Base,
    probe_set: ProbeSet,
    how: Drawing,
    best: Mapping[str, float] | None = None,
    place: Place = Place(),
    drawn: Sequence[Group] = (),
) -> ProbeResult:
    """Ask the policy as it is. best: what was kept at the best probe so far; None at the first one. drawn: what came of `requests_of` what is asked, where
    that is drawn already.

    Of the held-aside prompts those are asked on which the start mostly agreed: there a vote that is lost means most. Others too, for the
    support, once it has been updated.
    The start's log-probabilities come from `policy.reference_logprobs`, which for a torch policy without LoRA keeps a second copy of the weights.
    """
    due, temperature = asked_of(base, probe_set, how.num_supporting if policy.version.updates else 0), how.params.temperature
    groups = placed(drawn, how, place) if drawn else _asked(policy, due, how, place, base)
    asked = of_kind(groups, Kind.OWN)
    own = [one.group for one in asked.values()]
    reference = scored(own, base.agreed.values(), lambda unknown: policy.reference_logprobs(unknown, temperature))
    mine = own if how.is_exact else ()  # a glance scores, and what it sees is compared with this
    now, drifted = (scored(fixed, mine, lambda unknown: policy.logprobs(unknown, temperature)) for fixed in (list(base.agreed.values()), base.off_domain))
    values = answer_signals(groups, base.votes, probe_set.canaries) | support_signals(groups, base.votes, how.num_supporting)
    values |= kl_signals(own, reference) | drift_signals(base.off_domain, drifted)
    by_policy = dict(zip(base.agreed, now, strict=True))
    kept = kept_shares(base, asked, by_policy, dict(zip(asked, reference, strict=True)))
    if kept:
        values["probe/base_kept_frac"] = mean(list(kept.values()))
    if (loss := lost(best or kept, kept)) is not None:
        values |= {"probe/base_lost_frac": loss.value, "probe/base_lost_low_frac": loss.low}
    return ProbeResult(groups, values, kept, ratios(base, by_policy), telling(groups, base.votes, probe_set.canaries))


def glance(policy: Policy, base: Base, temperature: float, first: int = 0, end: int = GLANCE_PROMPTS) -> dict[str, float]:
    """By easy prompt, how probable the first of the start's completions with its winner is now, relative to then: one forward pass, nothing is sampled.

    first, end: which of the easy prompts.
    """
    firsts = {of: replace(group, completions=group.completions[:1]) for of, group in islice(base.agreed.items(), first, end)}
    return ratios(base, dict(zip(firsts, policy.logprobs(list(firsts.values()), temperature), strict=True))) if firsts else {}


def scored(groups: Sequence[Group], drawn: Iterable[Group], score: Callable[[Sequence[Group]], Sequence[Logprobs]]) -> list[Logprobs]:
    """Log-probabilities of the completions under a sampler, [P][N][T]: as it said when it drew the same tokens itself, else, each once, as `score` says.

    drawn: what that sampler drew. A sure policy and its start mostly write the same.
    """
    known = {(group.prompt_ids, done.token_ids): done.logprobs for group in drawn for done in group.completions}
    unknown = []
    for group in groups:
        new = {done.token_ids: done for done in group.completions if (group.prompt_ids, done.token_ids) not in known}
        if new:
            unknown.append(replace(group, completions=tuple(new.values())))
    for group, values in zip(unknown, score(unknown) if unknown else (), strict=True):
        known.update({(group.prompt_ids, done.token_ids): tuple(one) for done, one in zip(group.completions, values, strict=True)})
    return [[known[group.prompt_ids, done.token_ids] for done in group.completions] for group in groups]


def ratios(base: Base, by_policy: Mapping[str, Logprobs]) -> dict[str, float]:
    """Of the first completion of each of these easy prompts: policy / start."""
    return {of: bounded_ratio(log_ratios(now[:1], [base.agreed[of].completions[0].logprobs])[0]) for of, now in by_policy.items()}


def kept_shares(base: Base, asked: Mapping[str, VotedGroup], by_policy: Mapping[str, Logprobs], by_start: Mapping[str, Logprobs]) -> dict[str, float]:
    """By easy prompt that was asked, the share that is kept. by_policy: log-probabilities of `base.agreed`, by_start: those of all that was asked, [N][T]."""
    kept = {}
    for of, group in base.agreed.items():
        if of in asked:
            vote, theirs = base.votes[of], log_ratios(by_policy[of], [done.logprobs for done in group.completions])
            then = Agreeing(theirs, vote.num_votes * len(theirs) / vote.count_of(vote.winners[0]))
            drawn = [done.logprobs for done in asked[of].group.completions]
            agree = [key == base.votes[of].winners[0] for key in asked[of].answers.keys]
            own = Agreeing(list(compress(log_ratios(drawn, by_start[of]), agree)), len(agree))
            kept[of] = kept_share(then, own)
    return kept


def asked_of(base: Base, probe_set: ProbeSet, num_supporting: int = 0) -> list[Probe]:
    """What is asked at every probe: the easy prompts, the surest of them with something changed, and canaries. All where too few are easy to tell anything.
    num_supporting: how many prompts tell the support; those that are not easy come last.
    """
    surest = list(easy(base.votes))
    if len(surest) < MIN_PAIRS:
        return [one for one in probe_set.of_kind(Kind.OWN, *CHANGED) if one.kind is Kind.CANARY or one.of in base.votes]
    changed = set(surest[:CHANGED_PROMPTS])
    chosen = {Kind.OWN: set(surest), Kind.NUMBER: changed, Kind.REWORD: changed, Kind.SWAP: changed}
    asked = [one for one in probe_set.of_kind(Kind.OWN, *CHANGED) if one.kind is Kind.CANARY or one.of in chosen[one.kind]]
    return [*asked, *(one for one in supporting(base, probe_set, num_supporting) if one.kind is Kind.SUPPORT)]


NOTHING = ProbeResult((), {})


class Prober:
    """The stage of the loop: asks the start before the first step and the policy at every `every_steps`-th step, the first one among them.

    After each of the first steps and in between it glances at the start's completions; where those have become less probable by more than chance it asks.
    Half-way to the first of these probes and before the last update it asks only what tells the support, so that a peak and an end are known. num_steps: of the
    run. It remembers what the start said, over rollbacks too, and what was kept at the best probe.
    """

    def __init__(self, probe_set: ProbeSet, how: Drawing, every_steps: int, num_steps: int) -> None:
        self._probe_set, self._how, self._every_steps, self._num_steps = probe_set, how, every_steps, num_steps
        self._base: Base | None = None
        self._best: Mapping[str, float] = {}
        self._seen: Mapping[str, float] = {}

    def requests(self, step: int, params: SamplingParams) -> list[SampleRequest]:
        """What a probe at this step asks the policy, to be drawn in one call with the step's votes, whose decode steps then serve both; nothing where none is
        due, the start has not been asked, or votes are drawn another way.
        """
        if self._base is None or params != self._how.params:
            return []
        return requests_of(self._due(step, self._base), self._how, self._base)

    def __call__(self, policy: Policy, step: int, first_index: int, drawn: Sequence[Group] = ()) -> ProbeResult:
        """What is recorded of this step; nothing when nothing is due. first_index: the first group index of the step that is free. drawn: what came of its
        `requests`.
        """
        if not self._probe_set.probes:
            return NOTHING
        if step % self._every_steps == 0:
            return self._probe(policy, Place(step, first_index), drawn)
        if self._base is not None and (due := self._due(step, self._base)):
            place = Place(step, first_index)
            groups = placed(drawn, self._how, place) if drawn else _asked(policy, due, self._how, place, self._base)
            known = support_signals(groups, self._base.votes, self._how.num_supporting)
            return ProbeResult(groups, {**known, "cost/probe_tokens": probe_tokens(groups)})
        if not is_glance(step, self._every_steps) or self._base is None or len(self._seen) < MIN_KEPT:
            return NOTHING
        now = self._glance(policy, self._base)
        if now is None:
            return NOTHING
        values = {"glance/fallen_frac": now.value, "glance/error_frac": now.error}
        if now.value <= CALLING_ERRORS * now.error:
            return ProbeResult((), values)
        found = self._probe(policy, Place(step, first_index))
        return replace(found, values={**found.values, **values})

    def _glance(self, policy: Policy, base: Base) -> Fallen | None:
        """What has fallen since the last probe: of the first prompts, and of all of them unless these say clearly that nothing has."""
        seen = glance(policy, base, self._how.params.temperature, end=FIRST_PROMPTS)
        now = fallen(self._seen, seen)
        if now is not None and now.value < -CLEAR_ERRORS * now.error:
            return now
        return fallen(self._seen, seen | glance(policy, base, self._how.params.temperature, FIRST_PROMPTS))

    def _due(self, step: int, base: Base) -> list[Probe]:
        """What is asked of the policy at this step, whatever a glance says."""
        if step % self._every_steps == 0:
            return asked_of(base, self._probe_set, self._how.num_supporting if step else 0)
        return supporting(base, self._probe_set, self._how.num_supporting) if step in (self._every_steps // 2, self._num_steps - 1) else []

    def _probe(self, policy: Policy, place: Place, drawn: Sequence[Group] = ()) -> ProbeResult:
        asked: tuple[VotedGroup, ...] = ()
        if self._base is None:
            asked = ask_base(policy if not policy.version.updates else policy.base(), self._probe_set, self._how, place)
            self._base = base_of(asked)
        found = probe(policy, self._base, self._probe_set, self._how, self._best, behind(place, asked), drawn)
        self._best, self._seen = better(self._best, found.kept), found.seen
        groups = (*asked, *found.groups)
        return ProbeResult(groups, {**found.values, "cost/probe_tokens": probe_tokens(groups)}, telling=found.telling)

    def state(self) -> dict[str, Any]:
        """For a checkpoint; empty before the first probe."""
        return {} if self._base is None else {**self._base.state(), "best": dict(self._best), "seen": dict(self._seen)}

    def load(self, state: Mapping[str, Any]) -> None:
        """What the start said, which no checkpoint changes, and the best probe until then. Empty: from before the first one."""
        self._best, self._seen = dict(state.get("best", {})), dict(state.get("seen", {}))
        if state:
            self._base = Base.from_state(state)


def glance_every(every_steps: int) -> int:
    """Distance of glances where probes have this one. Example: 4 of 20."""
    return max(1, every_steps // (GLANCES + 1))


def is_glance(step: int, every_steps: int) -> bool:
    """Of a step without a probe, whether the start's completions are looked at: after each of a run's first steps, where a rate that is far too high shows,
    and then between probes.
    """
    return 0 < step <= GLANCES or step % every_steps % glance_every(every_steps) == 0


def better(best: Mapping[str, float], kept: Mapping[str, float]) -> Mapping[str, float]:
    """What later probes are compared with: the one that kept more, on average."""
    return kept if kept and (not best or mean(list(kept.values())) > mean(list(best.values()))) else best


def probe_tokens(groups: Sequence[VotedGroup]) -> float:
    """Tokens sampled for a probe."""
    return float(sum(len(done.token_ids) for one in groups for done in one.group.completions))


def requests_of(probes: Sequence[Probe], how: Drawing, base: Base | None = None) -> list[SampleRequest]:
    """How they are asked: at step 0 of the stream `probe`, whatever the step. base: what the start said, where a policy is asked."""
    times = 1 if base is None else times_asked(base, how.num_supporting)
    paired, seeds = {one.of for one in probes if one.kind in CHANGED}, how.seeds.at(branch=0, stream="probe")
    counts = (how.count(one.kind, one.of in paired) * (times if one.kind is Kind.SUPPORT else 1) for one in probes)
    return [SampleRequest(one.prompt, count, 0, number, seeds) for number, (one, count) in enumerate(zip(probes, counts, strict=True))]


def behind(place: Place, groups: Sequence[VotedGroup]) -> Place:
    """Of what comes after these groups."""
    return Place(place.step, place.first_index + len(groups))


def placed(groups: Sequence[Group], how: Drawing, place: Place) -> tuple[VotedGroup, ...]:
    """What came of these requests, read and put in its place."""
    return tuple(how.read(replace(group, step=place.step, index=place.first_index + group.index, role=Role.PROBE)) for group in groups)


def _asked(sampler: Sampler, probes: Sequence[Probe], how: Drawing, place: Place, base: Base | None = None) -> tuple[VotedGroup, ...]:
    """All in one call. base: as for `requests_of`."""
    requests = requests_of(probes, how, base)
    return placed(sampler.sample(requests, how.params, how.seeds) if requests else [], how, place)
