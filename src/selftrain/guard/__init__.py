"""The guard: recent step metrics -> a verdict with findings and a health score. It judges; the loop obeys."""

from selftrain.guard.doubts import Doubts, is_harm
from selftrain.guard.guard import Guard, winners_of
from selftrain.guard.rules import PROBE_RULES, RULES, STEP_RULES, Kind, Rule

__all__ = ["PROBE_RULES", "RULES", "STEP_RULES", "Doubts", "Guard", "Kind", "Rule", "is_harm", "winners_of"]
