"""Label sources x starts x seeds on the same prompts and budget -> one table and one figure.

plan.py       what is compared: each cell is the config of an ordinary run
controls.py   what the controls have instead of options that they cannot have
cells.py      a cell's run: new, taken up, or kept
measuring.py  what is found out after a run and only for the table: accuracy of its rewards, its last weights, the start greedy
table.py      run folders -> values by source
pages.py      values -> comparison.md, comparison.csv, comparison.json, comparison.html

plan = make_plan((), {}, Choice(sources=("ema", "majority", "reference"), seeds=(0, 1, 2)), Path("runs/compare-0001"))
for cell in plan.cells:
    ...
"""

from __future__ import annotations

from selftrain.comparing.cells import Opened, check_shared, open_cell
from selftrain.comparing.measuring import measure
from selftrain.comparing.pages import Pages, write_pages
from selftrain.comparing.plan import Cell, Choice, Plan, known_cells, make_plan, remember

__all__ = [
    "Cell",
    "Choice",
    "Opened",
    "Pages",
    "Plan",
    "check_shared",
    "known_cells",
    "make_plan",
    "measure",
    "open_cell",
    "remember",
    "write_pages",
]
