"""The record of a run: written as things happen, hash-chained, verified, read back. The format is in docs/ledger.md."""

from selftrain.ledger.reader import Ledger, read
from selftrain.ledger.records import CheckpointRecord, ForkRecord, StepRecord
from selftrain.ledger.writer import LedgerWriter

__all__ = ["CheckpointRecord", "ForkRecord", "Ledger", "LedgerWriter", "StepRecord", "read"]
