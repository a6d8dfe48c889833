"""The guard: recent step metrics -> a verdict with findings. It judges; the loop obeys."""

from selftrain.guard.guard import Guard, harm_since
from selftrain.guard.rules import RULES, Rule

__all__ = ["RULES", "Guard", "Rule", "harm_since"]
