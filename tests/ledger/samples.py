"""Groups, steps and whole runs for the ledger's tests: small, fixed by their step number, with every kind of value in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selftrain.ledger import LedgerWriter
from selftrain.types import (
    Action,
    Admission,
    AnswerKey,
    Answers,
    Check,
    Completion,
    Finding,
    Finish,
    Group,
    Label,
    Message,
    Outcome,
    PolicyVersion,
    Prompt,
    Rewards,
    Role,
    ScoredGroup,
    StepMetrics,
    Verdict,
    Vote,
    VotedGroup,
)

HEADER = {"config": {"update": {"learning_rate": 1e-6}, "names": ("a", "b")}, "prompts_sha256": "00"}
KEYS = (AnswerKey("12"), AnswerKey("12"), None, AnswerKey("7"))


def completion(step: int, index: int, length: int = 5) -> Completion:
    return Completion(
        text=f"step {step}: 5 + 7 = {index} \\boxed{{12}}",
        token_ids=tuple((step * 7 + index + at) % 97 for at in range(length)),
        logprobs=tuple(-(at + index) / 8 for at in range(length)),
        token_ends=tuple(range(1, length + 1)),
        entropies=tuple(at / 4 for at in range(length)),
        finish=Finish.LENGTH if index == 2 else Finish.STOP,
        version=PolicyVersion(0, step),
    )


def decided(step: int, index: int = 0) -> ScoredGroup:
    """Four completions, three read, two agree; with KL in the reward."""
    group = Group(
        step,
        index,
        Prompt(f"add/{index}", (Message("system", "Be brief."), Message("user", "5+7"))),
        (1, 2, 3),
        tuple(completion(step, at) for at in range(4)),
    )
    penalties = (0.1, 0.2, 0.3, 1 / 3)
    rewards = Rewards((1.0, 1.0, 0.0, 0.0), ("match", "match", "truncated", "mismatch"))
    return ScoredGroup(
        voted=VotedGroup(group, Answers(("12", "12.0", None, "7"), KEYS), Vote(4, 3, ((KEYS[0], 2), (KEYS[3], 1)))),
        label=Label(Outcome.DECIDED, (KEYS[0],) * 4, "majority", f"vote 0:{step}"),
        rewards=rewards,
        kl_penalties=penalties,
        shaped_rewards=tuple(reward - penalty for reward, penalty in zip(rewards.values, penalties, strict=True)),
        advantages=(0.5, 0.5, -0.5, -0.5 / 3),
        admission=Admission.ADMITTED,
        trained=(0, 1, 3),
    )


def extra(step: int, index: int, verdict: str | None) -> VotedGroup:
    """A judge's reply to a prompt of its own; without a completion where the verdict is None."""
    done = () if verdict is None else (completion(step, index),)
    keys = () if verdict is None else (AnswerKey(verdict),)
    prompt = Prompt(f"add/0 judge {index}", (Message("user", "the same?"),))
    group = Group(step, index, prompt, (9,) * len(done), done, Role.JUDGE)
    return VotedGroup(group, Answers(keys, keys), Vote(len(keys), len(keys), tuple((key, 1) for key in keys)))


def with_extras(scored: ScoredGroup, *extras: VotedGroup) -> ScoredGroup:
    return replace(scored, voted=replace(scored.voted, group=replace(scored.voted.group, extras=extras)))


def judged(step: int, index: int = 2) -> ScoredGroup:
    """The label source gave the rewards itself, with a weight and an offset."""
    scored = decided(step, index)
    values, notes = (0.25, -1.0, 0.0, 1 / 3), ("match", "match", "truncated", "a longer reason, with é")
    label = replace(scored.label, weight=0.5, offset=-1 / 3, values=values, notes=notes)
    checks = (Check(0.25, "partly_verified"), Check(0.0, "refuted"), Check(0.0, "truncated"), Check(None, "timed_out"))
    scored = replace(scored, voted=replace(scored.voted, checks=checks))
    return replace(scored, label=label, rewards=Rewards(values, notes), kl_penalties=(), shaped_rewards=values)


def undecided(step: int, index: int = 1) -> ScoredGroup:
    """A tie: no label, no rewards."""
    group = Group(step, index, Prompt("logic/1", (Message("user", "who lies?"),)), (), (completion(step, 0), completion(step, 1, length=0)))
    return ScoredGroup(
        voted=VotedGroup(group, Answers(("A", "B"), (AnswerKey("a"), AnswerKey("b"))), Vote(2, 2, ((AnswerKey("a"), 1), (AnswerKey("b"), 1)))),
        label=Label(Outcome.TIE, (None, None), "majority", f"vote 0:{step}"),
        rewards=Rewards((), ()),
        kl_penalties=(),
        shaped_rewards=(),
        advantages=(),
        admission=Admission.UNDECIDED,
        trained=(),
    )


def groups(step: int) -> list[ScoredGroup]:
    """The extra samples of the two groups are numbered across them."""
    return [with_extras(decided(step), extra(step, 2, "yes"), extra(step, 4, None)), with_extras(undecided(step), extra(step, 3, "no"))]


def verdict(step: int) -> Verdict:
    return Verdict(step, Action.WARN, (Finding("entropy", 0.1 * step, 0.2, 3, "entropy falls"),))


def metrics(step: int) -> StepMetrics:
    return StepMetrics(step, PolicyVersion(0, step), {"vote/share_mean_frac": 0.5 + step / 100, "policy/entropy_mean_nats": 1 / 3})


def write_step(writer: LedgerWriter, step: int) -> str:
    writer.append_groups(step, groups(step))
    writer.append_verdict(verdict(step))
    head = writer.append_step(metrics(step), {"0": {"loss": -step / 7}})
    writer.record_timing({"step": step, "total_s": 1.5})
    return head


def write_run(folder: Path, num_steps: int = 4, checkpoint_every: int = 2) -> str:
    """A finished run with an evaluation; returns its head."""
    with LedgerWriter.create(folder, HEADER, {"machine": "laptop"}) as writer:
        writer.record_eval({"step": 0, "name": "held-out", "avg_at_16_frac": 0.5})
        for step in range(1, num_steps + 1):
            write_step(writer, step)
            if step % checkpoint_every == 0:
                writer.append_checkpoint(step, f"step-{step:06d}", "ab" * 32)
        head = writer.append_end("finished", "start")
        writer.record_eval({"step": num_steps, "name": "held-out", "avg_at_16_frac": 0.75})
    return head
