"""[stored] -> the votes of its file, checked against the run. Part of the composition root: `compose_labels.py` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrain.answers import KEY_VERSION
from selftrain.config import RunConfig
from selftrain.errors import ConfigError, RunFolderError
from selftrain.labels.stored import StoredVotes
from selftrain.prompts import prompt_set_hash
from selftrain.stored_file import StoredLabels, read_stored
from selftrain.types import PromptSet

HASH_DIGITS = 12
"""of a model's hash in `decided_by`"""
AGAIN = "Write it again by `selftrain label` with the config of this run, or train on the prompts it was written for."


def stored_votes(config: RunConfig, prompts: PromptSet, option: str) -> StoredVotes:
    """The votes in the config's file. option: that asks for them, for messages. Raises ConfigError, PromptError for a file that does not go with the run."""
    found = stored_labels(config, prompts, option)
    return StoredVotes(found.votes, f"stored {found.header['model_hash'][:HASH_DIGITS]}")


def stored_labels(config: RunConfig, prompts: PromptSet, option: str) -> StoredLabels:
    """A file of another prompt set, key version or clustering is refused; another model's is what makes an offline teacher."""
    file = config.stored_file
    if file is None:
        raise ConfigError(
            f"{option} = stored",
            "stored.file is unset, so there are no stored labels",
            "Write some by `selftrain label CONFIG... --out labels.jsonl`, then give --stored.file labels.jsonl",
        )
    found = read_stored(Path(file))
    header, given = found.header, f"stored.file = {file}"
    there = header["prompts"]
    if there["hash"] != prompt_set_hash(prompts):
        why = (
            f"it has labels of {there['count']} prompts of {there['origin']} (hash {there['hash'][:12]}), and the run trains on others: {len(prompts)} of "
            f"{prompts.origin} (hash {prompt_set_hash(prompts)[:12]})"
        )
        seed = " A task makes other prompts for another run.seed." if config.prompts.task is not None and header["seed"] != config.run.seed else ""
        raise ConfigError(given, why + seed.rstrip("."), AGAIN)
    if header["key_version"] != KEY_VERSION:
        raise ConfigError(given, f"its answer keys have version {header['key_version']}, those of this version of selftrain {KEY_VERSION}", AGAIN)
    if header["labels"]["clustering"] != config.labels.clustering:
        why = f"its labels.clustering is {header['labels']['clustering']}, the run's {config.labels.clustering}: their keys cannot be compared"
        raise ConfigError(given, why, "Give the run the clustering of the file, or write it again.")
    strange = sorted(set(found.votes) - {prompt.id for prompt in prompts})
    if strange:
        raise ConfigError(given, f"it has a vote on {strange[0]}, which is none of its prompts", "Undo the edit, or write it again.")
    return found


def stored_header(config: RunConfig, prompts: PromptSet) -> dict[str, Any]:
    """What a run's header says of the stored labels that take part: the file's hash, who voted and on what; nothing without them."""
    if not config.uses_stored:
        return {}
    found = stored_labels(config, prompts, "labels.source")
    return {
        "stored_labels": {
            "sha256": found.sha256,
            "model": found.header["model"],
            "model_hash": found.header["model_hash"],
            "num_votes": found.header["sampling"]["num_votes"],
            "num_prompts": len(found.votes),
        }
    }


def check_recorded(config: RunConfig, prompts: PromptSet, recorded: Mapping[str, Any]) -> None:
    """Raises RunFolderError unless the file is the one whose hash the run's header has."""
    if recorded.get("stored_labels") != stored_header(config, prompts).get("stored_labels"):
        why = "it is not the file the run was started with, so its labels cannot be made again"
        raise RunFolderError(f"stored.file = {config.stored_file}", why, "Restore it.")
