"""Named random streams: every draw of the product has its own.

A seed is a stable hash of (run seed, branch, step, stream, prompt id, index), so a draw does not depend on what was drawn before it,
on the batch it is in, or on the number of workers. The global generators are never used.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, slots=True)
class Stream:
    """The address of a stream of random numbers.

    Example: `Stream(7).at(step=3, stream="sample", prompt_id="add/0", index=5).generator().random(4)`.
    """

    run_seed: int
    branch: int = 0
    step: int = 0
    stream: str = ""
    prompt_id: str = ""
    index: int = 0

    def at(self, **address: int | str) -> Stream:
        """The same run at another branch, step, stream, prompt_id or index."""
        return replace(self, **address)  # type: ignore[arg-type]

    def seed(self) -> int:
        """A seed in [0, 2**128), the same in every process and version."""
        address = "\x1f".join(str(part) for part in (self.run_seed, self.branch, self.step, self.stream, self.prompt_id, self.index))
        return int.from_bytes(hashlib.blake2b(address.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "big")

    def fraction(self) -> float:
        """A number in [0, 1), even over addresses: what is below 0.2 is a fifth of them."""
        return (self.seed() >> 75) / 2**53

    def generator(self) -> np.random.Generator:
        """A fresh counter-based generator (Philox) at the start of this stream."""
        return np.random.Generator(np.random.Philox(key=self.seed()))
