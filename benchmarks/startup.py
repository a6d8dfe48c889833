"""Seconds from the call of `selftrain train` to the first sampled token, and of `selftrain --help`: median of fresh processes.

    python benchmarks/startup.py [--runs 5]

The embedded model, default run, one step without held-out problems. A process is fresh; the files it reads are in the page cache after the first one, which
is measured and shown but not counted. The first token is seen by a tracer of the first call of the model's decode step or, where the sampler has none, of
the first forward pass after the run folder was made.
"""

from __future__ import annotations
