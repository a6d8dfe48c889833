"""SQL over a run's record: read-only, over typed views, without files or network. Works while the run goes on.

with query.open_run(Path("runs/train-0001")) as database:
    result = database.query("select step, avg(reward) from completions group by step order by step")
    result.rows
"""

from selftrain.query.database import Database, Result, open_run
from selftrain.query.named import NAMED, NamedQuery
from selftrain.query.views import VIEWS, View

__all__ = ["NAMED", "VIEWS", "Database", "NamedQuery", "Result", "View", "open_run"]
