"""What every error message must have."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from selftrain.errors import UserError


def refused(act: Callable[[], object], kind: type[UserError], *words: str) -> UserError:
    """The error of this kind that `act` raises: exit status 2, what was given, why, what to do, and each of `words` somewhere in it."""
    with pytest.raises(kind) as caught:
        act()
    error = caught.value
    assert error.exit_status == 2
    assert error.given.strip()
    assert error.why.strip()
    assert error.do.strip()
    for word in words:
        assert word in str(error), f"{word!r} is not in {error}"
    return error
