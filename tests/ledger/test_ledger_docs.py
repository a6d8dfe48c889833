"""The column tables in docs/ledger.md are those of the code. `python tests/ledger/test_ledger_docs.py` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from selftrain.ledger.chain import FORMAT, KINDS
from selftrain.ledger.columns import TABLES

PAGE = Path(__file__).parents[2] / "docs" / "ledger.md"
SECTION = re.compile(r"(<!-- columns: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def column_table(name: str) -> str:
    """The Markdown table of the columns of a table."""
    rows = [f"| `{column.name}` | `{column.type}` | {'yes' if column.nullable else ''} | {column.meaning} |" for column in TABLES[name]]
    return "\n".join(["| column | type | may be null | meaning |", "|---|---|---|---|", *rows]) + "\n"


def with_tables(page: str) -> str:
    return SECTION.sub(lambda match: match[1] + column_table(match[2]) + match[3], page)


def test_the_columns_on_the_page_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert SECTION.findall(page)
    assert {match[1] for match in SECTION.findall(page)} == set(TABLES)
    assert page == with_tables(page)


def test_the_page_describes_every_kind_of_record_of_this_format() -> None:
    page = PAGE.read_text()
    assert f"Format {FORMAT}." in page
    section = page.split("## Records")[1].split("## Segments")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == KINDS


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
