"""A run's record as a DuckDB database in memory: tables are filled and segments are handed over, then everything but reading is locked."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from selftrain.errors import ConfigError, FailureError, LedgerError, SelftrainError
from selftrain.evals import Evaluation
from selftrain.ledger import Ledger, read, unescape
from selftrain.ledger.objects import Place
from selftrain.query.named import NAMED
from selftrain.query.views import VIEWS, metric_column

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY_LIMIT = "2GB"
MAX_THREADS = 4
ROWS_A_BATCH = 10_000
LIST = "`selftrain query --list` shows every view and column."


@dataclass(frozen=True, slots=True)
class Result:
    """All rows of a query as Python values. columns: their names."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Database:
    """The views of one run. `close` it, or use it as a context manager. It shows the record as it was when it was read."""

    def __init__(self, ledger: Ledger) -> None:
        import duckdb

        self._ledger = ledger
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": MEMORY_LIMIT,
                "threads": min(MAX_THREADS, os.cpu_count() or 1),
                "temp_directory": "",
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "python_enable_replacements": False,
            },
        )
        for table in ("groups", "completions"):
            self._connection.register(f"stored_{table}", ledger.dataset(table))
        for name, view in VIEWS.items():
            if view.source:
                self._connection.execute(view.sql)
            else:
                self._fill(name, FILL[name](ledger))
        for setting in ("enable_external_access = false", "lock_configuration = true"):
            self._connection.execute(f"set {setting}")

    def _fill(self, name: str, rows: list[tuple[Any, ...]]) -> None:
        import pyarrow as pa

        columns = VIEWS[name].columns
        types = {"BIGINT": pa.int64(), "DOUBLE": pa.float64(), "VARCHAR": pa.string(), "VARCHAR[]": pa.list_(pa.string())}
        arrays = [pa.array([row[at] for row in rows], types[column.type]) for at, column in enumerate(columns)]
        self._connection.register("filling", pa.table(arrays, [column.name for column in columns]))
        self._connection.execute(f'create table "{name}" as select * from filling')
        self._connection.unregister("filling")

    def reader(self, sql: str) -> pa.RecordBatchReader:
        """The rows in batches, texts as the ledger stores them (a lone surrogate escaped). Raises ConfigError for SQL that cannot work, FailureError."""
        import duckdb

        self._check_one_select(sql)
        with telling(sql, self._ledger):
            relation = self._connection.sql(sql)
        if relation is None:  # a statement that reads nothing, as `explain` of nothing
            raise ConfigError("the query", "it gives no rows", f"Give one SELECT. {LIST}")
        assert isinstance(relation, duckdb.DuckDBPyRelation)
        with telling(sql, self._ledger):
            return relation.to_arrow_reader(ROWS_A_BATCH)  # type: ignore[no-any-return, unused-ignore]

    def batches(self, sql: str) -> tuple[tuple[str, ...], Iterator[list[tuple[Any, ...]]]]:
        """The names of the columns, and the rows in batches of Python values with the original texts. Raises as `reader`, also on the way."""
        reader = self.reader(sql)

        def rows() -> Iterator[list[tuple[Any, ...]]]:
            with telling(sql, self._ledger):
                for batch in reader:
                    columns = [[restored(value) for value in column.to_pylist()] for column in batch.columns]
                    yield list(zip(*columns, strict=True))

        return tuple(reader.schema.names), rows()

    def query(self, sql: str) -> Result:
        """All rows of one SELECT. Raises ConfigError for SQL that cannot work, FailureError when it needs too much memory."""
        columns, batches = self.batches(sql)
        return Result(columns, tuple(row for batch in batches for row in batch))

    def _check_one_select(self, sql: str) -> None:
        import duckdb

        if any("\ud800" <= character <= "\udfff" for character in sql):
            raise ConfigError("the query", "it is no UTF-8 text", f"Write it in UTF-8. {LIST}")
        with telling(sql, self._ledger):
            statements = duckdb.extract_statements(sql)
        if len(statements) != 1 or statements[0].type is not duckdb.StatementType.SELECT:
            given = f"{len(statements)} statements" if len(statements) != 1 else f"a statement of type {statements[0].type.name}"
            raise ConfigError(f"the query: {given}", "a record is only read, by one SELECT at a time", f"Give one SELECT. {LIST}")

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_run(folder: Place) -> Database:
    """The database of the run in a folder, finished or being written. Raises RunFolderError, LedgerError, StorageError."""
    return Database(read(folder))


def named_sql(name: str) -> str:
    """The SQL of a named query. Raises ConfigError."""
    if name in NAMED:
        return NAMED[name].sql
    near = difflib.get_close_matches(name, NAMED, n=1, cutoff=0.0)[0]
    raise ConfigError(f"--named {name}", "there is no such query", f"The nearest one is {near}. `selftrain query --list` shows all.")


def restored(value: Any) -> Any:
    """A value of Arrow's as Python holds it: original texts, whole numbers as int."""
    if isinstance(value, str):
        return unescape(value)
    if isinstance(value, list):
        return [restored(item) for item in value]
    if isinstance(value, dict):
        return {name: restored(item) for name, item in value.items()}
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


class telling:
    """Turns DuckDB's errors into ours: SQL that cannot work is the user's, everything else a failure."""

    def __init__(self, sql: str, ledger: Ledger) -> None:
        self._sql, self._ledger = sql, ledger

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        import duckdb

        if error is None or isinstance(error, SelftrainError):
            return
        if isinstance(error, duckdb.Error):
            raise explained(error, self._sql, self._ledger) from error
        if isinstance(error, OSError | ValueError):  # from Arrow, while it reads the segments
            raise stopped(str(error).splitlines()[0], self._ledger) from error


def stopped(words: str, ledger: Ledger) -> SelftrainError:
    """Why the segments could not be read: the one that is damaged, where there is one."""
    try:
        ledger.check_segments()
    except LedgerError as damaged:
        return damaged
    return FailureError("the query", f"it stopped ({words})", "Ask again; if it stays so, `selftrain verify` says what is damaged.")


def explained(error: Exception, sql: str, ledger: Ledger) -> SelftrainError:
    """What is wrong with the SQL, in our three parts, with the nearest view or column."""
    import duckdb

    text = str(error)
    words = text.splitlines()[0].partition("Error: ")[2] or text.splitlines()[0]
    if isinstance(error, duckdb.OutOfMemoryException):
        return FailureError("the query", f"it needs more memory than {MEMORY_LIMIT}", "Ask for fewer columns or rows, or aggregate in steps.")
    if isinstance(error, duckdb.PermissionException):
        return ConfigError("the query", "SQL over a record reaches no files and no network", f"Use the views. {LIST}")
    if isinstance(error, duckdb.IOException | duckdb.InternalException | duckdb.FatalException) or "registered as 'stored_" in words:
        return stopped(words, ledger)
    table = re.search(r"Table with name (.+?) does not exist", text)
    if table:
        return ConfigError(f"the query: {table[1]}", "there is no such view", f"{nearest(table[1], list(VIEWS))}{LIST}")
    column = re.search(r'(?:Referenced column|does not have a column named) "(.+?)"', text)
    if column:
        used = [view for view in VIEWS.values() if re.search(rf"\b{view.name}\b", sql)]
        names = [one.name for view in used or VIEWS.values() for one in view.columns]
        return ConfigError(f"the query: {column[1]}", "there is no such column", f"{nearest(column[1], names)}{LIST}")
    return ConfigError("the query", words.rstrip(".!"), f"It is DuckDB's SQL. {LIST}")


def nearest(name: str, known: list[str]) -> str:
    """A sentence with the name that comes nearest, empty where none comes near."""
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f"The nearest one is {near[0]}. " if near else ""


def _steps(ledger: Ledger) -> list[tuple[Any, ...]]:
    found = []
    for one in ledger.steps():
        values: dict[str, Any] = {metric_column(key): value for key, value in one.metrics.values.items()}
        values |= {"step": one.metrics.step, "policy_version": str(one.metrics.version)}
        found.append(tuple(values.get(column.name) for column in VIEWS["steps"].columns))
    return found


def _updates(ledger: Ledger) -> list[tuple[Any, ...]]:
    names = [column.name for column in VIEWS["updates"].columns[2:]]
    return [
        (one.metrics.step, int(index), *(stats.get(name) for name in names))
        for one in ledger.steps()
        for index, stats in sorted(one.updates.items(), key=lambda item: int(item[0]))
    ]


def _verdicts(ledger: Ledger) -> list[tuple[Any, ...]]:
    return [
        (one.step, one.action.value, [finding.rule for finding in one.findings], *((health.value, health.low, health.high) if health else (None,) * 3))
        for one in ledger.verdicts()
        for health in [one.health]
    ]


def _findings(ledger: Ledger) -> list[tuple[Any, ...]]:
    return [
        (verdict.step, verdict.action.value, one.rule, one.value, one.limit, one.window_steps, one.words)
        for verdict in ledger.verdicts()
        for one in verdict.findings
    ]


def _evaluations(ledger: Ledger) -> list[tuple[Any, ...]]:
    rows = []
    for record, one in evaluated(ledger):
        intervals = (one.avg, one.maj, one.any_right, one.pseudo_label_accuracy)
        values = [value for found in intervals for value in ((found.value, found.low, found.high) if found else (None, None, None))]
        rows.append((record["name"], record["step"], record["head"], len(one.results), one.num_samples, one.temperature, *values))
    return rows


def _problems(ledger: Ledger) -> list[tuple[Any, ...]]:
    return [(record["name"], record["step"], *asdict(result).values()) for record, one in evaluated(ledger) for result in one.results]


def evaluated(ledger: Ledger) -> list[tuple[Mapping[str, Any], Evaluation]]:
    return [(record, Evaluation.from_json(record["evaluation"])) for record in ledger.evals() if "evaluation" in record]


def _timings(ledger: Ledger) -> list[tuple[Any, ...]]:
    return [
        (record["step"], record["name"], stage, float(seconds))
        for record in ledger.timings()
        for stage, seconds in record.get("seconds", {}).items()
        if math.isfinite(float(seconds))
    ]


def _config(ledger: Ledger) -> list[tuple[Any, ...]]:
    sections = {section: values for section, values in ledger.header.get("config", {}).items() if isinstance(values, Mapping)}
    return [(f"{section}.{name}", json.dumps(value)) for section, values in sections.items() for name, value in values.items()]


FILL: Mapping[str, Callable[[Ledger], list[tuple[Any, ...]]]] = {
    "steps": _steps,
    "updates": _updates,
    "verdicts": _verdicts,
    "findings": _findings,
    "evaluations": _evaluations,
    "problems": _problems,
    "checkpoints": lambda ledger: [(one.step, one.name, one.weights_hash, one.head) for one in ledger.checkpoints()],
    "timings": _timings,
    "records": lambda ledger: [(one.seq, one.kind, one.step, one.branch, one.prev, one.hash) for one in ledger.entries],
    "config": _config,
}
"""How each table that is no view of the segments is filled."""
