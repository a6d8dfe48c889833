"""Run folder -> report: one HTML page that opens from disk, and Markdown. It reads the folder and nothing else.

report = write_report(Path("runs/train-0001"))
report.html, report.markdown
write_comparison([Path("runs/control"), Path("runs/train-0001")], Path("runs"))
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from selftrain.ledger.objects import Place, place
from selftrain.ledger.storage import advice, make_folder, publish
from selftrain.report.record import RunRecord, read_record
from selftrain.report.render import comparison_html, comparison_markdown, html, markdown
from selftrain.report.side_by_side import compare
from selftrain.report.view import view_of

__all__ = ["Report", "RunRecord", "read_record", "write_comparison", "write_report"]


@dataclass(frozen=True, slots=True)
class Report:
    """Where the two files of a report are."""

    html: Place
    markdown: Place


def write_report(folder: str | Place) -> Report:
    """Write report.html and report.md into the run folder, whether the run is finished, halted, in progress or empty.

    Raises RunFolderError when there is no run, LedgerError when its record is damaged, StorageError when the files cannot be written.
    """
    folder = place(folder)
    view = view_of(read_record(folder))
    report = Report(folder / "report.html", folder / "report.md")
    do = f"Let there be room in it that you may write to, then `selftrain report {shlex.quote(str(folder))}`; a copy of the folder can be reported as well."
    with advice(do):
        publish(report.html, html(view).encode("utf-8", "replace"))
        publish(report.markdown, markdown(view).encode("utf-8", "replace"))
    return report


def write_comparison(runs: Sequence[Place], folder: Place) -> Report:
    """Write comparison.html and comparison.md of two runs or more into a folder; the first run is what the others are compared with.

    Raises RunFolderError when there is no run, LedgerError when a record is damaged, StorageError.
    """
    view = compare([read_record(run) for run in runs])
    report = Report(folder / "comparison.html", folder / "comparison.md")
    with advice("Name another folder with --output, or let there be room in this one that you may write to."):
        make_folder(folder)
        publish(report.html, comparison_html(view).encode("utf-8", "replace"))
        publish(report.markdown, comparison_markdown(view).encode("utf-8", "replace"))
    return report
