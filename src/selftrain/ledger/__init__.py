"""The record of a run: written as things happen, hash-chained, verified, read back. The format is in docs/ledger.md."""

from selftrain.ledger.reader import Ledger, read
from selftrain.ledger.records import CheckpointRecord, ForkRecord, StepRecord
from selftrain.ledger.verification import Fault, ReplayReport, Status, VerifyReport, verify, verify_replay
from selftrain.ledger.writer import LedgerWriter

__all__ = [
    "CheckpointRecord",
    "Fault",
    "ForkRecord",
    "Ledger",
    "LedgerWriter",
    "ReplayReport",
    "Status",
    "StepRecord",
    "VerifyReport",
    "read",
    "verify",
    "verify_replay",
]
