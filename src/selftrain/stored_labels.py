"""The file of stored labels: a model's votes on a set of prompts, one JSON line each below a header line.

    {"selftrain_labels": 1, "model": ..., "model_hash": ..., "prompts": {...}, "sampling": {...}, "labels": {...}, "key_version": 2, "seed": 0, ...}
    {"prompt_id": "add4/58+7", "outcome": "decided", "key": "65", "answer": "65", "share_frac": 0.75, "num_votes": 16, "num_read": 14, "counts": [...]}

It grows by whole calls of the sampler, as large as a step of training: what a killed process left is cut back to the last whole one, so the file that is
finished later equals one that was never interrupted. No true answer is in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from selftrain.answers import KEY_VERSION
from selftrain.answers.freeform import reader
from selftrain.compose import Problems, check_lengths, load_sets
from selftrain.config import ONE_ANSWER_CLUSTERINGS, RunConfig
from selftrain.errors import ConfigError, RunFolderError
from selftrain.evaluate_model import policy_of
from selftrain.labels import Bounds
from selftrain.labels.rules import outcome_of
from selftrain.ledger.storage import AppendFile, WriterLock, read_bytes
from selftrain.policies.base import Policy, SampleRequest
from selftrain.prompts import prompt_set_hash
from selftrain.rollout import read_and_count
from selftrain.run_folder import resolved
from selftrain.seeds import Stream
from selftrain.stored_file import FORMAT, Row, complete_rows, ids_of, read_stored
from selftrain.train import vote_params
from selftrain.types import Outcome, Prompt, PromptSet, VotedGroup

POLICY_OPTIONS = ("sampler", "device", "dtype", "num_threads", "prompt_format", "plain_template", "system_prompt", "chat_template_args")
ROLLOUT_OPTIONS = ("num_votes", "temperature", "max_new_tokens", "stop", "prompts_per_step", "cache_mib")


@dataclass(frozen=True, slots=True)
class Labelled:
    """Prompts done so far. num_kept: of an earlier call."""

    num_done: int
    num_kept: int
    num_prompts: int


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be labelled, by whom, where to. Everything about prompts, model and file is checked when it is made."""

    config: RunConfig
    prompts: PromptSet
    policy: Policy
    header: Mapping[str, Any]
    file: Path


def prepare(config: RunConfig, file: Path) -> Work:
    """Raises ConfigError, PromptError, ModelError, and RunFolderError where the file is something else or holds other labels."""
    check(config)
    if not file.parent.is_dir():
        raise ConfigError(f"--out {file}", f"there is no folder {file.parent}", "Make the folder, or choose another file.")
    config = resolved(config)
    prompts = load_sets(config).train
    policy = policy_of(config, config.policy.model)
    check_lengths(config, policy, Problems(prompts, None))
    header = header_of(config, prompts, policy)
    check_file(file, header)
    return Work(config, prompts, policy, header, file)


def check(config: RunConfig) -> None:
    """Raises ConfigError for a clustering whose keys mean nothing outside their group."""
    clustering = config.labels.clustering
    if clustering not in ONE_ANSWER_CLUSTERINGS:
        raise ConfigError(
            f"labels.clustering = {clustering}",
            "its keys are names of clusters within one group, so those in a file could not be compared with the policy's in training",
            f"Take one of {', '.join(ONE_ANSWER_CLUSTERINGS)}, whose keys follow from each answer alone.",
        )


def header_of(config: RunConfig, prompts: PromptSet, policy: Policy) -> dict[str, Any]:
    """All that decides the rows, as JSON values."""
    values = config.model_dump(mode="json")
    return {
        FORMAT: 1,
        "model": config.policy.model,
        "model_hash": policy.weights_hash(),
        "prompts": {"origin": prompts.origin, "count": len(prompts), "hash": prompt_set_hash(prompts)},
        "sampling": {**{name: values["rollout"][name] for name in ROLLOUT_OPTIONS}, **{name: values["policy"][name] for name in POLICY_OPTIONS}},
        "labels": {name: values["labels"][name] for name in ("clustering", "min_read_frac", "min_share_frac")},
        "key_version": KEY_VERSION,
        "seed": config.run.seed,
        "selftrain_version": installed_version("selftrain"),
    }


def check_file(file: Path, header: Mapping[str, Any]) -> None:
    """Raises RunFolderError unless the file is not there, empty, or was begun with this header."""
    data = read_bytes(file)
    first, newline, _ = (data or b"").partition(b"\n")
    if not first or line_of(header).startswith(first + newline):
        return
    if not is_stored(first):
        raise RunFolderError(f"--out {file}", "there is another file of that name, and it does not hold stored labels", "Choose another file; it is untouched.")
    there, here = flat(read_stored(file).header), flat(json.loads(line_of(header)))
    if there == here:
        why = "its header is the one it was begun with but for white space (line ends of another system, or an editor's)"
        raise RunFolderError(f"--out {file}", why, "Train on it as it is (--stored.file), or choose another file. It is untouched.")
    other = [f"{name} = {there.get(name)} there, {value} now" for name, value in here.items() if there.get(name) != value]
    why = f"it was begun with other options: {'; '.join(other)}"
    raise RunFolderError(f"--out {file}", why, "Give the options it was begun with, or choose another file.")


def is_stored(first: bytes) -> bool:
    """Whether this is the first line of such a file."""
    try:
        values = json.loads(first)
    except ValueError:
        return False
    return isinstance(values, dict) and FORMAT in values


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"sampling": {"stop": []}} -> {"sampling.stop": []}, one level deep."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= {f"{name}.{inner}": one for inner, one in value.items()} if isinstance(value, Mapping) else {name: value}
    return found


def label(work: Work) -> Iterator[Labelled]:
    """Sample, vote and write what is missing; told at the start and after every call of the sampler. Raises RunFolderError while another process writes it."""
    size, total = work.config.rollout.prompts_per_step, len(work.prompts)
    try:
        lock = WriterLock(work.file)
    except RunFolderError as error:
        raise RunFolderError(f"--out {work.file}", "another process is writing it", "Wait until it ends, or choose another file.") from error
    log = AppendFile(work.file)
    try:
        head = line_of(work.header)
        data = read_bytes(work.file) or b""
        done, end = complete_rows(data[len(head) :], size, total) if data.startswith(head) else (0, 0)
        check_rows(work, ids_of(data[len(head) : len(head) + end]))
        log.cut(len(head) + end if data.startswith(head) else 0)
        if log.size == 0:
            log.append(head)
        kept = done
        yield Labelled(done, kept, total)
        while done < total:
            part = work.prompts.prompts[done : done + size]
            log.append(b"".join(map(line_of, rows_of(work, part, done))))
            done += len(part)
            yield Labelled(done, kept, total)
    finally:
        log.close()
        lock.close()


def check_rows(work: Work, ids: Sequence[object]) -> None:
    """Raises RunFolderError where rows were taken out or moved: what is missing could not be told from what is not done yet."""
    for at, (there, prompt) in enumerate(zip(ids, work.prompts, strict=False)):
        if there != prompt.id:
            why = f"row {at + 1} is of prompt {there}, and that of prompt {prompt.id} is not there: rows were taken out or moved"
            do = "Train on it as it is (--stored.file), or choose another --out to label all prompts. It is untouched."
            raise RunFolderError(f"--out {work.file}", why, do)


def rows_of(work: Work, prompts: Sequence[Prompt], first: int) -> list[Row]:
    """The rows of some prompts. first: number of the first of them in the set. Draws are those of the stream `stored label`, which no run shares."""
    config, read = work.config, reader(work.config.labels.clustering)
    requests = [SampleRequest(prompt, config.rollout.num_votes, 0, first + at) for at, prompt in enumerate(prompts)]
    groups = work.policy.sample(requests, vote_params(config), Stream(config.run.seed).at(stream="stored label"))
    bounds = Bounds(config.labels.min_read_frac, config.labels.min_share_frac)
    return [row_of(read_and_count(group, read), bounds) for group in groups]


def row_of(one: VotedGroup, bounds: Bounds) -> Row:
    """A vote as it is written. key: the winner; answer: as it was most often written; both null unless the vote is decided."""
    vote, outcome = one.vote, outcome_of(one.vote, bounds)
    winner = vote.winners[0] if outcome is Outcome.DECIDED else None
    written = [text for text, key in zip(one.answers.texts, one.answers.keys, strict=True) if winner is not None and key == winner]
    return {
        "prompt_id": one.group.prompt.id,
        "outcome": outcome.value,
        "key": winner,
        "answer": max(written, key=written.count, default=None),
        "share_frac": vote.share_frac,
        "num_votes": vote.num_votes,
        "num_read": vote.num_read,
        "counts": [list(count) for count in vote.counts],
    }


def line_of(values: Mapping[str, Any]) -> bytes:
    """One line in ASCII: what no encoding has, such as half a character, is escaped."""
    return json.dumps(values).encode() + b"\n"
