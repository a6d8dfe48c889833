"""The error tree. Each class names the boundary that failed.

    SelftrainError
    |- UserError            exit status 2: what was given cannot work
    |  |- ConfigError       an option, a value, a combination
    |  |- PromptError       a prompt file, a row, a task, a prompt set
    |  |- ModelError        a model folder, tokenizer, template
    |  |- RunFolderError    a run folder that exists, is missing or belongs to something else
    |  `- MissingExtraError an optional dependency is not installed
    `- FailureError         exit status 1: something broke on the way
       |- LedgerError       the record is damaged or does not match
       |- CheckpointError   a checkpoint is damaged or missing
       |- StorageError      a disk is full or not writable
       |- SamplerError      a sampling engine broke, or holds other weights than the learner's
       `- UpdateError       a non-finite or off-policy update, refused before a weight moved

A message says what was given, why it cannot work and what to do.
"""

from __future__ import annotations


class SelftrainError(Exception):
    """Base of all errors of this package.

    given: what the user or the machine handed over. why: why that cannot work. do: what to do instead.
    """

    exit_status = 1

    def __init__(self, given: str, why: str, do: str) -> None:
        super().__init__(given, why, do)
        self.given, self.why, self.do = given, why, do

    def __str__(self) -> str:
        return f"{self.given}: {self.why}\n  {self.do}"


class UserError(SelftrainError):
    """What was given cannot work."""

    exit_status = 2


class ConfigError(UserError):
    """An option, a value or a combination of them is wrong."""


class PromptError(UserError):
    """A prompt file, row, task or set is wrong."""


class ModelError(UserError):
    """A model folder, tokenizer or chat template is wrong."""


class RunFolderError(UserError):
    """A run folder exists, is missing or belongs to something else."""


class MissingExtraError(UserError):
    """An optional dependency is not installed."""


class FailureError(SelftrainError):
    """Something broke on the way; nothing that was written is lost."""


class LedgerError(FailureError):
    """The record is damaged, or what was replayed differs from it."""


class CheckpointError(FailureError):
    """A checkpoint is damaged or missing."""


class StorageError(FailureError):
    """A disk is full or not writable."""


class SamplerError(FailureError):
    """A sampling engine broke, or holds other weights than the learner's."""


class UpdateError(FailureError):
    """An update was refused before a weight moved."""
