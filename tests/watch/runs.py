"""Runs to look at: one with markup in its completions, a large one, an empty one, one that collapsed."""

from __future__ import annotations

import platform
from pathlib import Path

from benchmarks.watch import write as write_large

from selftrain import control
from selftrain.config import PromptsSection, RunConfig
from selftrain.config_load import load_config
from selftrain.labels import LABEL_SOURCES, Bounds
from selftrain.ledger import LedgerWriter
from selftrain.metrics import measure
from selftrain.reward import REWARD_RULES, rewards_of
from selftrain.rollout import read_and_count
from selftrain.run import Run, start, train_to_end
from selftrain.train import StepReport
from selftrain.types import Action, Admission, Completion, Finish, Group, Message, PolicyVersion, Prompt, ScoredGroup, Verdict

HOSTILE = (
    "<script>window.hacked = 1</script> so \\boxed{12}",
    "<img src=x onerror='window.hacked = 2'> \\boxed{12}",
    '"><svg onload=window.hacked=3> \ud800 half a character, \U0001f600 and \\boxed{<b>12</b>}',
    "javascript:window.hacked=4 </pre></article><a href='javascript:window.hacked=5'>here</a>",
)
HOSTILE_PROMPT = "<script>window.hacked = 6</script> What is 5+7? <iframe srcdoc='<script>parent.hacked=7</script>'></iframe>"


def write_hostile(folder: Path) -> None:
    """One step, one group whose prompt, completions and ids hold markup."""
    config = RunConfig(prompts=PromptsSection(file="made.jsonl")).model_dump(mode="json")
    header = {"config": config, "class": "exact", "label_free": True, "model_hash": "0" * 64}
    header |= {"truth_channels": [], "held_out": None, "selftrain_version": "made"}
    header |= {"prompts": {"origin": "<script>window.hacked=8</script>", "count": 1, "hash": "0" * 64}}
    version = PolicyVersion(0, 0)
    made = [Completion(text, (1, 2), (-0.5, -0.5), (1, len(text)), (0.3, 0.3), Finish.STOP, version) for text in HOSTILE]
    voted = read_and_count(Group(0, 0, Prompt("<i>p/0</i>", (Message("user", HOSTILE_PROMPT),)), (1,), tuple(made)))
    label = LABEL_SOURCES["majority"]([voted], Bounds(0.0, 0.0))[0]
    rewards = rewards_of(voted, label, REWARD_RULES["match"])
    scored = ScoredGroup(voted, label, rewards, (), rewards.values, (0.5, 0.5, -0.5, -0.5), Admission.ADMITTED, (0, 1, 2, 3))
    with LedgerWriter.create(folder, header, {"host": platform.node()}) as writer:
        writer.append_groups(0, [scored])
        writer.append_verdict(Verdict(0, Action.CONTINUE, ()))
        writer.append_step(measure(0, version, [scored]), {})


def write_empty(folder: Path) -> None:
    """A run that was begun and has no step."""
    start(toy(folder)).ledger.close()


def write_collapsed(folder: Path) -> None:
    """A run that the guard halted."""
    options = {
        "policy.model": "toy:weak",
        "labels.source": "majority",
        "update.learning_rate": 1.5,
        "run.num_steps": 60,
        "run.checkpoint_every_steps": 2,
        "probes.num_prompts": 0,
        "guard.action": "halt",
    }
    outcome = train_to_end(toy(folder, **options))
    assert outcome.reason == "halted"


def toy(folder: Path, **more: object) -> RunConfig:
    quick = {"policy.model": "toy", "labels.source": "majority", "update.learning_rate": 0.1, "run.num_steps": 12, "run.checkpoint_every_steps": 3}
    quick |= {"update.warmup_steps": 0, "evals.num_problems": 16, "evals.num_samples": 4, "run.folder": str(folder.parent), "run.name": folder.name}
    return load_config(overrides={**quick, **more})


__all__ = ["HOSTILE", "HOSTILE_PROMPT", "toy", "write_collapsed", "write_empty", "write_hostile", "write_large"]


def sent_back(run: Run, after: int, checkpoint: str) -> None:
    """Somebody sends the run back after a step; it is left at the first step of the new branch."""
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == after:
            control.ask(run.folder, control.ROLL_BACK, "Ada", "a test", checkpoint)
        if isinstance(event, StepReport) and event.metrics.version.branch:
            break
    run.ledger.close()
