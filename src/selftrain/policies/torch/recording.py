"""A recorder of steps that needs no GPU: torch's operations are written down and done again on the same memory, as a CUDA graph does.

Nothing of the Python code is run again: a number that the host has put into a step stays what it was. What a CUDA graph cannot hold is refused: a look at
a value, a copy from the host, a shape that depends on values; and a recording after all that were recorded before have been dropped.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

REFUSED = frozenset({"_local_scalar_dense", "is_nonzero", "equal", "item", "nonzero", "masked_select", "_unique2", "unique_dim", "lift_fresh", "lift"})


class OperationRecorder:
    """Implements `graphs.Recorder`. recorded: number of operations of each step; replayed: replays so far."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.replayed = 0
        self._given: list[weakref.ref[Callable[[], None]]] = []

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Runs `step` once. Raises RuntimeError where it could not be a CUDA graph."""
        if self._given and not any(given() for given in self._given):
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED: the pool of these graphs has ended with the last of them")
        with Log() as log:
            step()
        self.recorded.append(len(log.operations))

        def replay() -> None:
            self.replayed += 1
            for operation in log.operations:
                operation()

        self._given.append(weakref.ref(replay))
        return replay


class Log(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations done inside, each ready to be done again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Callable[[], None]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, function._schema.name.removeprefix("aten::")
        if name in REFUSED or (name.startswith("index") and any(is_mask(one) for one in tree_leaves(args[1:2]))):
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        made = function(*args, **kwargs)
        if any(given.alias_info is not None and given.alias_info.is_write for given in function._schema.arguments):
            self.operations.append(lambda: function(*args, **kwargs))
        elif not addresses(made) <= addresses((args, kwargs)):  # a view needs nothing: it shows the memory it was made of; `reshape` is one or not
            self.operations.append(lambda: again(function, args, kwargs, made))
        return made


def again(function: Any, args: Any, kwargs: Any, made: Any) -> None:
    """The operation once more, its results where they were."""
    for before, now in zip(tree_leaves(made), tree_leaves(function(*args, **kwargs)), strict=True):
        if isinstance(before, torch.Tensor):
            before.copy_(now)


def addresses(values: Any) -> set[int]:
    return {one.untyped_storage().data_ptr() for one in tree_leaves(values) if isinstance(one, torch.Tensor)}


def is_mask(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is torch.bool
