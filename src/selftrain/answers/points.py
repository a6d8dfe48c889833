"""The fixed points at which functions of free variables are compared.

Near points: 0.9 <= |x| < 0.98, so that high powers of x and of x - 1, and arcsines, stay in range; positive at point 0, negative at point 1, of mixed signs at
points 2 and 3 (|a + b| is not |a| + |b|). Far points: 6 < x < 7 at point 4, -7 < x < -6 at point 5, so that |x - 3| is not 3 - x and |x + 3| not x + 3; two
variables are in one order at the one and in the other at the other, so that |a - b| is neither a - b nor b - a. Every value has 380 random bits:
a coincidence at all points has a chance below 10**-40.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from selftrain.answers.precision import ONE, Complex

NEAR = (0, 1, 2, 3)
FAR = (4, 5)


@lru_cache(maxsize=4096)
def place(name: str, point: int) -> Complex:
    """The value of a free variable at a point."""
    if point in FAR:
        x = 6 * ONE + _random(name, FAR[0])[0]
        return (x if point == FAR[0] else -x), 0
    size, last = _random(name, point)
    x = ONE * 9 // 10 + size * 2 // 25
    code = ord(name) if len(name) == 1 else last
    negative = point == 1 or (point == 2 and code & 1) or (point == 3 and code & 2)
    return (-x if negative else x), 0


def _random(name: str, point: int) -> tuple[int, int]:
    """(a number in [0, ONE) with 383 random bits, one more random byte) of a name at a point."""
    digest = sha256(f"{name}|{point}".encode("utf-8", "backslashreplace")).digest() + sha256(f"{point}|{name}".encode("utf-8", "backslashreplace")).digest()
    return (int.from_bytes(digest[:48], "big") >> 1) * ONE >> 383, digest[60]
