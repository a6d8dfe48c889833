"""Where prompts come from: files, datasets and procedural tasks; how they are told apart; in which order they are trained on.

held_out = load_problems(config.evals, config.prompts, seed=0)
train = load_prompts(config.prompts, seed=0, exclude=ids_of_forms(held_out))
check_disjoint(train, held_out)
draw([Stratum(train.prompts, per_step=16)], step=0, seeds=Stream(0))
"""

from __future__ import annotations

from selftrain.prompts.identity import check_disjoint, prompt_set_hash
from selftrain.prompts.loading import load_problems, load_prompts, load_validation
from selftrain.prompts.order import Stratum, draw
from selftrain.prompts.tasks import ids_of_forms

__all__ = ["Stratum", "check_disjoint", "draw", "ids_of_forms", "load_problems", "load_prompts", "load_validation", "prompt_set_hash"]
