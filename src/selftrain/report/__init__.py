"""Run folder -> report: one HTML page that opens from disk, and Markdown. It reads the folder and nothing else.

report = write_report(Path("runs/train-0001"))
report.html, report.markdown
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selftrain.ledger.storage import publish
from selftrain.report.record import RunRecord, read_record
from selftrain.report.render import html, markdown
from selftrain.report.view import view_of

__all__ = ["Report", "RunRecord", "read_record", "write_report"]


@dataclass(frozen=True, slots=True)
class Report:
    """Where the two files of a report are."""

    html: Path
    markdown: Path


def write_report(folder: Path) -> Report:
    """Write report.html and report.md into the run folder, whether the run is finished, halted, in progress or empty.

    Raises RunFolderError when there is no run, LedgerError when its record is damaged, StorageError when the files cannot be written.
    """
    view = view_of(read_record(folder))
    report = Report(folder / "report.html", folder / "report.md")
    publish(report.html, html(view).encode("utf-8", "replace"))
    publish(report.markdown, markdown(view).encode("utf-8", "replace"))
    return report
