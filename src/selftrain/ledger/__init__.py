"""The record of a run: written as things happen, hash-chained, verified, read back. The format is in docs/ledger.md."""

from selftrain.ledger.chain import unescape
from selftrain.ledger.reader import Entry, Ledger, open_record, read
from selftrain.ledger.records import BranchRecord, CheckpointRecord, ForkRecord, RequestRecord, StepRecord, lineage
from selftrain.ledger.verification import Fault, ReplayReport, Status, VerifyReport, verify, verify_replay
from selftrain.ledger.writer import LedgerWriter

__all__ = [
    "BranchRecord",
    "CheckpointRecord",
    "Entry",
    "Fault",
    "ForkRecord",
    "Ledger",
    "LedgerWriter",
    "ReplayReport",
    "RequestRecord",
    "Status",
    "StepRecord",
    "VerifyReport",
    "lineage",
    "open_record",
    "read",
    "unescape",
    "verify",
    "verify_replay",
]
