"""Write the pages of docs/ that follow from the code: configuration.md, metrics.md, commands.md, query.md, and the table of rules in guard.md.

    python scripts/make_docs.py

tests/test_docs.py fails while a page differs from what this makes.
"""

from __future__ import annotations

import typing
from importlib import resources
from pathlib import Path
from typing import Any

import click

from selftrain.cli.app import COMMANDS, app
from selftrain.cli.options import default_text, plain_type
from selftrain.config import RunConfig
from selftrain.config_load import fields_of
from selftrain.guard import PROBE_RULES, STEP_RULES, Kind, Rule
from selftrain.guard.signals import SIGNS
from selftrain.metrics import METRICS
from selftrain.query import NAMED, VIEWS

DOCS = Path(__file__).parent.parent / "docs"
MADE = "<!-- made by scripts/make_docs.py: edit the code, then run it -->\n"
HELP_WIDTH = 110
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def pages() -> dict[str, str]:
    """The text of each page, by file name."""
    return {"configuration.md": configuration(), "metrics.md": metrics(), "commands.md": commands(), "query.md": query(), "guard.md": guard()}


def configuration() -> str:
    count = sum(len(fields_of(info.annotation)) for info in RunConfig.model_fields.values())
    parts = [
        MADE,
        "# Configuration\n",
        CONFIGURATION_INTRO.format(count=count, recipe=resources.files("selftrain.recipes").joinpath("embedded.toml").read_text("utf-8").strip()),
    ]
    for section, info in RunConfig.model_fields.items():
        annotation: Any = info.annotation
        parts.append(f"## [{section}]\n\n{annotation.__doc__.strip()}\n\n| option | unit | default | allowed | meaning |\n|---|---|---|---|---|")
        for name, field in fields_of(annotation).items():
            unit = field.json_schema_extra["unit"]
            parts.append(f"| `{section}.{name}` | {unit} | {cell(default_text(field.default))} | {allowed(field)} | {plain(field.description)} |")
        parts.append("")
    return "\n".join(parts)


CONFIGURATION_INTRO = """\
A run is decided by {count} options. They come from TOML files and the command line; the last one wins:

    defaults < files from left to right < command line

```sh
selftrain train base.toml mine.toml --update.learning-rate 1e-6
```

In a file an option stands in the table of its section, on the command line it is `--section.option-name`. An unknown option is an error that names the
nearest one. The resolved config is in the run's `run.json`. *unset* means that the option has no value; its meaning says what then happens.

Where no file and no option names `policy.model`, this recipe of the embedded model lies under them (`recipes/embedded.toml`):

```toml
{recipe}
```

Label sources, reward rules and advantage rules may also be functions of your own: [extending.md](extending.md).
"""


def allowed(field: Any) -> str:
    """The values that a field takes, in words."""
    kind = plain_type(field.annotation)
    choices = typing.get_args(kind)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    bounds = [f"{words} {getattr(limit, name):g}" for limit in field.metadata for name, words in BOUNDS.items() if getattr(limit, name, None) is not None]
    return ", ".join(bounds) or {bool: "yes, no", str: "text", dict: "table", tuple: "list of texts"}.get(kind, "any number")


def metrics() -> str:
    parts = [MADE, "# Metrics\n", METRICS_INTRO, "| metric | unit | formula | harm | failure it catches |\n|---|---|---|---|---|"]
    parts += [f"| `{name}` | {metric.unit} | {plain(metric.formula)} | {' | '.join(SIGNS.get(name, ('', '')))} |" for name, metric in METRICS.items()]
    return "\n".join(parts) + "\n"


def guard() -> str:
    """The page as it is, with the tables of its rules made anew."""
    page = (DOCS / "guard.md").read_text("utf-8")
    for name, rules in (("step", STEP_RULES), ("probe", PROBE_RULES)):
        begin, end = f"<!-- {name} rules, made by scripts/make_docs.py -->\n", f"<!-- end of {name} rules -->"
        before, _, rest = page.partition(begin)
        lines = ["| rule | signals | value | limit | unit | on a hit | catches |", "|---|---|---|---|---|---|---|", *map(rule_row, rules)]
        page = before + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2]
    return page


def rule_row(rule: Rule) -> str:
    signals = ", ".join(f"`{signal}`" for signal in rule.signals)
    return f"| `{rule.name}` | {signals} | {plain(rule.formula)} | {rule.limit:.3g} | {rule.unit} | {ON_A_HIT[rule.kind]} | {rule.catches} |"


ON_A_HIT = {Kind.HARM: "health", Kind.STALL: "halts", Kind.BLOCK: "warns"}
METRICS_INTRO = """\
Every number that is logged about a step, in the ledger's step records and in `selftrain train --log json`. Only `label/truth_right_frac` (true answers that the
labels of a run use anyway) and `probe/canary_right_frac` (where the config names canaries) need true answers. P is the number of prompts of a step, N the
number of completions of a prompt that vote. Accuracies are not here: they are known only where problems with true answers are evaluated, see
[evaluation.md](evaluation.md). Signals that the guard looks at, or that are there for a person to look at, say which way they go where something is wrong
(harm), and which failure that is. What is made of them: [guard.md](guard.md).
"""


def commands() -> str:
    context = click.Context(app, info_name="selftrain", color=False, **{**app.context_settings, "terminal_width": HELP_WIDTH, "max_content_width": HELP_WIDTH})
    parts = [MADE, "# Commands\n", f"```text\n{app.get_help(context)}\n```\n"]
    for name in COMMANDS:
        command = app.get_command(context, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=context, color=False, terminal_width=HELP_WIDTH, max_content_width=HELP_WIDTH) as child:
            parts.append(f"## selftrain {name}\n\n```text\n{command.get_help(child)}\n```\n")
    return "\n".join(parts)


def query() -> str:
    parts = [MADE, "# Asking a run\n", QUERY_INTRO, "## Named questions\n"]
    for one in NAMED.values():
        parts.append(f"### {one.name}\n\n{one.question}\n\n```sql\n{one.sql}\n```\n")
    parts.append("## Views\n")
    for view in VIEWS.values():
        keys = ", ".join(f"`{name}`" for name in view.key)
        parts.append(f"### {view.name}\n\n{view.meaning[0].upper()}{view.meaning[1:]}. One row for each {keys}.\n\n| column | type | meaning |\n|---|---|---|")
        parts += [f"| `{column.name}` | `{column.type.lower()}` | {plain(column.meaning)} |" for column in view.columns]
        parts.append("")
    return "\n".join(parts)


QUERY_INTRO = """\
`selftrain query` asks the record of a run, finished, halted, empty or still being written, with DuckDB's SQL over typed views:

```sh
selftrain query runs/train-0001 "select step, avg(reward) as reward from completions group by step order by step"
selftrain query runs/train-0001 --named most-changed-labels
selftrain query runs/train-0001 "select * from completions" --output completions.parquet
selftrain query --list
```

Rows come as a table (the first 40), CSV, JSON or Parquet: `--format`, `--output`, `--max-rows`. In Python:

```python
from pathlib import Path

from selftrain import query

with query.open_run(Path("runs/train-0001")) as database:
    print(database.query("select count(*) from groups where label_outcome = 'tie'").rows)
```

**What it sees.** The segments that the chain names when the run is opened, and no other file: a segment that is just being written is not seen. The query
does not check the record; `selftrain verify` does. Log-probabilities and entropies are 32-bit, rewards and advantages 64-bit, as in the [ledger](ledger.md).

**What it may.** One SELECT at a time. SQL opens no file and reaches no network, also not by functions such as `read_csv`,
loads no extension and changes no setting.
DuckDB's memory is limited to 2 GB (a function that makes one huge list may overstep that) and its threads to 4.

**Text.** Results hold the text that was generated. Inside SQL a lone surrogate and the character U+FDD0, which UTF-8 or the ledger cannot hold, are U+FDD0 and
four hexadecimal digits, as stored; so they are in Parquet. Python and JSON give back the original; tables and CSV show half a pair as `\\ud800`.
"""


def plain(text: str) -> str:
    """Text in a table cell: bars and signs that Markdown or HTML would read are escaped."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def cell(text: str) -> str:
    return text if text in ("unset", "none") else f"`{text.replace('|', chr(92) + '|')}`"


def main() -> None:
    for name, text in pages().items():
        (DOCS / name).write_text(text, "utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
