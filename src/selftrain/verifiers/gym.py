"""reasoning-gym's own verifiers, in the process of a pool: the task scores the answer."""

from __future__ import annotations

import base64
import pickle
from functools import cache
from typing import Any

from selftrain.prompts.gym_child import make_dataset
from selftrain.types import Submission


def score(submission: Submission, entry: Any) -> float:
    """In [0, 1], 1 is right. entry: as made with the prompt, by our own process."""
    found = float(task(entry["task"], entry["level"]).score_answer(submission.answer, pickle.loads(base64.b64decode(entry["entry"]))))
    return min(1.0, max(0.0, found))


@cache
def task(name: str, level: int | None) -> Any:
    return make_dataset(name, level, seed=0, size=1)
