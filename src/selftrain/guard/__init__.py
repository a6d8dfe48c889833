"""The guard: recent step metrics -> a verdict with findings and a health score. It judges; the loop obeys."""

from selftrain.guard.guard import Guard, harm_since, is_blocked, is_harm, sound_step, winners_of
from selftrain.guard.rules import PROBE_RULES, RULES, STEP_RULES, Kind, Rule

__all__ = ["PROBE_RULES", "RULES", "STEP_RULES", "Guard", "Kind", "Rule", "harm_since", "is_blocked", "is_harm", "sound_step", "winners_of"]
