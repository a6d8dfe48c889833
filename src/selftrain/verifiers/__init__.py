"""Programs that decide whether a completion is right: the one stage between vote and label that calls code of others.

What they said stands in the record (`Check`), so replay calls nothing. A channel of truth: only a run whose config names the label source `verifier` has it.
Nothing is imported here, so that the processes of the pool start quickly.
"""

GYM = "gym"
"""In the place of a function of the user's: the verifiers of reasoning-gym."""
OUT_OF_MEMORY = "out_of_memory"
"""the note of a completion for which the limit of memory was too small"""
