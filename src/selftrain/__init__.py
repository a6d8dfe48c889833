"""selftrain: self-rewarded training of reasoning models, with a guard and a full record.

import selftrain

config = selftrain.load_config(overrides={"policy.model": "toy", "update.learning_rate": 0.1, "run.num_steps": 30})
outcome = selftrain.train_to_end(config)
print(outcome.before.avg, outcome.after.avg, outcome.path)

Names are imported when they are first used, so that `import selftrain` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftrain.answers import equal, extract, key
    from selftrain.config import RunConfig
    from selftrain.config_load import load_config
    from selftrain.evals import Evaluation
    from selftrain.evaluate_model import evaluate
    from selftrain.exporting import export
    from selftrain.report import write_report
    from selftrain.run import Evaluated, Outcome, Run, resume, start, train_to_end
    from selftrain.train import StepReport

_HOMES = {
    "Evaluated": "selftrain.run",
    "Evaluation": "selftrain.evals",
    "Outcome": "selftrain.run",
    "Run": "selftrain.run",
    "RunConfig": "selftrain.config",
    "StepReport": "selftrain.train",
    "equal": "selftrain.answers",
    "evaluate": "selftrain.evaluate_model",
    "export": "selftrain.exporting",
    "extract": "selftrain.answers",
    "key": "selftrain.answers",
    "load_config": "selftrain.config_load",
    "resume": "selftrain.run",
    "start": "selftrain.run",
    "train_to_end": "selftrain.run",
    "write_report": "selftrain.report",
}

__all__ = [
    "Evaluated",
    "Evaluation",
    "Outcome",
    "Run",
    "RunConfig",
    "StepReport",
    "equal",
    "evaluate",
    "export",
    "extract",
    "key",
    "load_config",
    "resume",
    "start",
    "train_to_end",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module selftrain has no attribute {name}")
    return getattr(importlib.import_module(_HOMES[name]), name)
